"""The tokenizer files of a synthetic checkpoint: a small vocabulary in the official layout.

The same three files as a released checkpoint, with about 1,500 tokens instead of 151,676: 256 byte symbols, the merges
of a byte-pair encoding trained on the words below until each of them is one token, and the 33 added tokens with their
ids shifted down. It keeps the difficulties of the real vocabulary: ``assistant``, ``user`` and runs of line ends are
one token each (the prompt templates are cut by position), merges begin with ``#``, and some words are one token under
one pre-tokeniser regex and several under the other.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

# Tokens without a leading space, in the ten languages of the model and a few more.
WORDS = """
assistant user system Hello The This It We speech voice test iPhone JavaScript camelCase getHTTPResponse eBook 's 't
're 've 'm 'll 'd 'sok ## ### #### #include #define #if #endif #! #: // /* */ -- --- ... :// == => () [] {} !! ?! ," ."
Übung größer naïve café Señor Año São Привет Здравствуйте мир речь голос это
你好 世界 今天 天气 我们 中国 声音 语音 合成 测试 是 的 了 在 不 有 这 人 他 说 大 来 上 个
到 一 二 三 ， 。 ！ ？ “ ” （ ） 、 こんにちは ありがとう 日本語 です ます した ない から 「 」 カタカナ テスト 音声
안녕하세요 감사합니다 한국어 입니다 สวัสดี ภาษาไทย ที่ ก็ นี้ ครับ नमस्ते हिन्दी में है مرحبا العربية שלום
😀 🎉 👍 👩‍👩‍👧 ❤️ € £ № ° ½
"""

# Tokens with a space before them.
SPACED_WORDS = """
a an the of and to in is it you that he was for on are with as his they at be this from have or one had by word but not
what all were we when your can said there use each which she do how their if will up other about out many then them
these so some her would make like him into time has look two more write go see number no way could people my than first
water been call who oil its now find long down day did get come made may part hello world speech voice text model test
say please speak slowly happy sad calm whisper after again always around because before between both children country
different does earth even every family father follow great group hand head high home house important keep kind know
large last learn letter life light line list live little man mean men might most mother mountain move much music must
name near need never new night often only open our own page paper picture place plant play point put read right river
run same school sentence set should show side small sometimes song sound spell stop story study such take talk tell
thing think thought three through together too tree try turn under until very walk want watch well went while why wind
without work year young iPhone JavaScript camelCase eBook (" " ( # ## #! = == => - -- & + * // | < >
der die das und ist nicht ein eine mit für auf den von sich dem auch wird noch nach Straße größer schön heute Wetter
le la les un une est dans pour que qui où déjà naïve avec sur pas plus être bonjour voix très garçon
el los las es por con para año mañana señor niño corazón hoy tiempo gracias también
o os não é em com você coração mais como mas foi obrigado
il lo gli che di è perché città sono della anche questo buongiorno
и в не на я что он с как это мир привет голос сегодня погода спасибо говорить
오늘 날씨가 좋습니다 목소리 không của là và những người được
"""

BLANKS = [" " * 2, " " * 3, " " * 4, "\n\n", "\n\n\n", "\r\n", "\t\t", " \n", ".\n", ".\n\n", ",\n", "!\n", "?\n"]

# In the order of their ids; True marks what the official file calls special.
ADDED_TOKENS = [
    ("<|endoftext|>", True),
    ("<|im_start|>", True),
    ("<|im_end|>", True),
    ("<|object_ref_start|>", True),
    ("<|object_ref_end|>", True),
    ("<|box_start|>", True),
    ("<|box_end|>", True),
    ("<|quad_start|>", True),
    ("<|quad_end|>", True),
    ("<|vision_start|>", True),
    ("<|vision_end|>", True),
    ("<|vision_pad|>", True),
    ("<|image_pad|>", True),
    ("<|video_pad|>", True),
    ("<tool_call>", False),
    ("</tool_call>", False),
    ("<|fim_prefix|>", False),
    ("<|fim_middle|>", False),
    ("<|fim_suffix|>", False),
    ("<|fim_pad|>", False),
    ("<|repo_name|>", False),
    ("<|file_sep|>", False),
    ("<tool_response>", False),
    ("</tool_response>", False),
    ("<think>", False),
    ("</think>", False),
    ("<|audio_start|>", True),
    ("<|audio_end|>", True),
    ("<tts_pad>", True),
    ("<tts_text_bos>", True),
    ("<tts_text_eod>", True),
    ("<tts_text_bos_single>", True),
    ("<|audio_pad|>", True),
]


@dataclass(frozen=True)
class TextVocabulary:
    """The entries of ``config.json`` about the tokenizer files beside it, under its own names."""

    assistant_token_id: int
    im_start_token_id: int
    im_end_token_id: int
    tts_pad_token_id: int
    tts_bos_token_id: int
    tts_eos_token_id: int
    text_vocab_size: int  # rows of the text embedding: the tokens, rounded up to a multiple of 32


def write_tokenizer_files(directory: Path) -> TextVocabulary:
    """Write ``vocab.json``, ``merges.txt`` and ``tokenizer_config.json`` into ``directory``, which must exist.

    The bytes are the same on every machine and for every seed.
    """
    merges = _merges()
    symbols = [*_byte_symbols().values(), *(left + right for left, right in merges)]
    ids = {symbol: i for i, symbol in enumerate(symbols)}
    added = {token: len(ids) + i for i, (token, _) in enumerate(ADDED_TOKENS)}
    vocab = json.dumps(ids, ensure_ascii=False, separators=(",", ":"))
    config = json.dumps(_tokenizer_config(added), ensure_ascii=False, indent=2)
    (directory / "vocab.json").write_text(vocab, encoding="utf-8", newline="\n")
    (directory / "merges.txt").write_text("".join(f"{a} {b}\n" for a, b in merges), encoding="utf-8", newline="\n")
    (directory / "tokenizer_config.json").write_text(config, encoding="utf-8", newline="\n")
    return TextVocabulary(
        assistant_token_id=ids["assistant"],
        im_start_token_id=added["<|im_start|>"],
        im_end_token_id=added["<|im_end|>"],
        tts_pad_token_id=added["<tts_pad>"],
        tts_bos_token_id=added["<tts_text_bos>"],
        tts_eos_token_id=added["<tts_text_eod>"],
        text_vocab_size=-(-(len(ids) + len(added)) // 32) * 32,
    )


@cache
def _merges() -> tuple[tuple[str, str], ...]:
    """Byte-pair encoding: join the most frequent pair, of equals the last in code point order, until none is left."""
    words = [_symbols(word) for word in [*WORDS.split(), *(f" {word}" for word in SPACED_WORDS.split()), *BLANKS]]
    merges: list[tuple[str, str]] = []
    while counts := Counter(pair for word in words for pair in pairwise(word)):
        most = max(counts.values())
        best = max(pair for pair, count in counts.items() if count == most)
        merges.append(best)
        words = [joined for word in words if len(joined := _join(word, best)) > 1]
    return tuple(merges)


def _join(word: list[str], pair: tuple[str, str]) -> list[str]:
    if pair[0] not in word:
        return word
    joined: list[str] = []
    for symbol in word:
        if joined and (joined[-1], symbol) == pair:
            joined[-1] += symbol
        else:
            joined.append(symbol)
    return joined


def _symbols(text: str) -> list[str]:
    table = _byte_symbols()
    return [table[byte] for byte in text.encode("utf-8")]


@cache
def _byte_symbols() -> dict[int, str]:
    """Byte -> symbol, in the order of the ids: printable bytes map to themselves, the rest follow from U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(0x100 + i) for i, byte in enumerate(others)}


def _tokenizer_config(added: dict[str, int]) -> dict[str, object]:
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    extra = {
        "image_token": "<|image_pad|>",
        "audio_token": "<|audio_pad|>",
        "video_token": "<|video_pad|>",
        "vision_bos_token": "<|vision_start|>",
        "vision_eos_token": "<|vision_end|>",
        "audio_bos_token": "<|audio_start|>",
        "audio_eos_token": "<|audio_end|>",
    }
    named_elsewhere = ("<|endoftext|>", "<tts_text_eod>")
    return {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(added[token]): {"content": token, **plain, "special": special} for token, special in ADDED_TOKENS
        },
        "additional_special_tokens": [t for t, special in ADDED_TOKENS if special and t not in named_elsewhere],
        "extra_special_tokens": extra,
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 131072,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
        **extra,
    }
