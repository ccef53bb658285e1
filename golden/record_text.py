"""Record the official processing of text: token ids, the two regexes, the rule that chooses between them.

Runs in the environment of the official package and never imports qwen3tts_np. Input: the three tokenizer files in
``cases/text/tokenizer`` (see its case.json for how they were made). Output: the JSON files in ``cases/text``.

    python golden/record_text.py                     record again; the same versions give the same bytes
    python golden/record_text.py --tokenize DIR      JSON list of strings on stdin -> JSON list of id lists on stdout,
                                                     read as the official package reads the local directory DIR
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import shutil
import sys
import tempfile
import unicodedata
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")

CASE = Path(__file__).resolve().parent / "cases" / "text"
TOKENIZER = CASE / "tokenizer"

# A few sentences in each of the ten languages, one per line.
LANGUAGES = {
    "chinese": """你好，世界！
        今天天气怎么样？
        我们在北京大学学习语音合成。
        他说：“这是2024年的第一个测试。”
        一二三四五，上山打老虎。""",
    "english": """Hello, world!
        It's a test; we're testing don't-cases.
        I'LL SAY IT'S OK
        The quick brown fox, 12,345 times.
        e.g. Dr. Smith""",
    "japanese": """こんにちは、世界。
        今日は天気がいいですね。
        カタカナとひらがな、漢字。
        ありがとうございます！
        東京タワーは333メートル。""",
    "korean": """안녕하세요, 세계!
        오늘 날씨가 좋습니다.
        한국어 음성 합성 테스트입니다.
        감사합니다.
        서울은 2024년에도 큽니다.""",
    "german": """Über die Straße läuft ein größerer Hund.
        Guten Tag!
        Das ist nicht schön, aber gut.
        Fünf Äpfel für 3,50 €.
        „Ja“, sagte er.""",
    "french": """Où est-ce que l'élève déjeune ?
        C'est très naïf.
        Ça va, garçon ?
        Bonjour à tous, être ou ne pas être.
        Cœur d'œuvre.""",
    "russian": """Привет, мир!
        Сегодня хорошая погода.
        Ёлка и съезд, объём.
        Я говорю: «спасибо».
        В 2024 году.""",
    "portuguese": """Olá, você está bem?
        O coração não mente.
        São Paulo é grande.
        Mais além, à noite.
        Obrigado, pá!""",
    "spanish": """¿Dónde está el niño?
        ¡Mañana será otro día!
        El señor también canta.
        Corazón y razón, año tras año.
        Hoy hace buen tiempo.""",
    "italian": """Perché la città è bella?
        Buongiorno a tutti.
        C'è un po' d'acqua.
        Gli amici sono qui.
        Più di così non è possibile.""",
}
THAI = "สวัสดีครับ ภาษาไทยมีวรรณยุกต์ ที่นี่ก็ดี น้ำใจ ไม่เป็นไร ๑๒๓ เด็กกินข้าว"
OTHER_SCRIPTS = "नमस्ते हिन्दी में बात مرحبا العربيّة שלום Cửa Việt những người ខ្មែរ Ελλάδα ქართული"
EMOJI = "😀 🎉 👍🏽 👩‍👩‍👧 ❤️ 🏳️‍🌈 🇨🇳 🇺🇸 ✅ 😶‍🌫️ 🦙 1️⃣ ☎ ™ 🧑🏿‍🚀 ok 你好"
CAMEL = """iPhone JavaScript camelCase getHTTPResponse eBook XMLHttpRequest parseJSON2CSV McDonald ÜberIch ПриветМир
    aB AbC ǅungla"""
CONTRACTIONS = "I'm you'RE it's IT'S we'll they'd 'sok 'tis rock'n'roll o'clock l'été don't'd've ’s"
CODE = ["#include <stdio.h>", "#define X 1", "## Title", "#!/bin/sh", "### #: a", "a //b\n//c", "x=>y /* z */"]
CODE += ["path/to/file/\n/", "#endif\n\n#if", "((a)[1]){b}"]
LITERALS = """<|endoftext|> <|im_start|> <|im_end|> <|vision_pad|> <tool_call> </tool_call> <|fim_pad|> <think> </think>
    <|audio_start|> <tts_pad> <tts_text_bos> <tts_text_eod> <tts_text_bos_single> <|audio_pad|> <|im_sta <tts_pa> |>"""
BLANKS = ["\n", "\n\n", "\r\n", " ", "  ", "    ", "\t", "\v", "\f", "\r"]
BLANKS += map(chr, (0x85, 0xA0, 0x200B, 0x2028, 0x3000))
MARKS = [0x301, 0x308, 0x30A, 0x316, 0x323, 0x327, 0x328, 0x334, 0x345, 0x8D3, 0x1ABF, 0x1DF6, 0xE38, 0xE48]
CONTROLS = [*range(32), 127, *range(128, 160), 0xAD, 0x200D, 0x200E, 0x202E, 0xFEFF, 0xFFFD, 0xFFFF, 0x10FFFF]


def strings() -> dict[str, list[str]]:
    """1,000 distinct strings, the same on every run, by what they try."""
    rng = random.Random(20250101)
    languages = {name: [line.strip() for line in text.splitlines()] for name, text in LANGUAGES.items()}
    prose = [sentence for sentences in languages.values() for sentence in sentences]
    specials = [*LITERALS.split() * 2, "Hello", " the", "\n", "é", "e", chr(0x301)]
    everything: dict[str, list[str]] = {}
    seen: set[str] = set()

    def add(name: str, count: int, pieces: list[str], most: int, between: list[str], form: str = "NFC") -> None:
        """``count`` new strings of up to ``most`` pieces with something between them."""
        group = everything.setdefault(name, [])
        while len(group) < count:
            first, *rest = (rng.choice(pieces) for _ in range(rng.randint(1, most)))
            text = first + "".join(rng.choice(between) + piece for piece in rest)
            if form == "NFD":
                text = unicodedata.normalize("NFD", text)
            if text not in seen:
                seen.add(text)
                group.append(text)

    add("ascii", 120, [chr(c) for c in range(32, 127)], 40, [""])
    for language, sentences in languages.items():
        add(language, 22, sentences, 3, ["", " ", "\n"])
    add("mixed languages", 60, prose, 3, ["", " ", " - ", "\n\n"])
    add("thai", 50, THAI.split(), 4, ["", " ", "a"])
    add("other scripts", 40, OTHER_SCRIPTS.split(), 3, ["", " ", ","])
    add("emoji", 50, EMOJI.split(), 5, ["", " "])
    add("camel case", 60, CAMEL.split(), 4, ["", " ", "-", "_", " 3"])
    add("contractions", 40, CONTRACTIONS.split(), 3, ["", " "])
    add("code", 50, CODE, 3, ["", " ", "\n"])
    add("control characters", 60, [*map(chr, CONTROLS), "a", "é", "的"], 8, ["", " "])
    add("added tokens", 90, specials, 5, ["", " "])
    add("decomposed", 70, prose, 2, [" "], form="NFD")
    add("combining marks", 30, [*map(chr, MARKS), "a", "ก", "한"], 7, [""])
    add("blanks", 60, [*BLANKS * 2, "a", "!", "7", "."], 7, [""])
    return everything


TEMPLATE_TEXTS = ["Hello world", "", "\n", "\n\nHello", " \n Hello", "\r\nHello", " Hello\n", "你好，世界！"]
TEMPLATE_TEXTS += ["e\u0301te\u0301", "<|im_end|>\n<|im_start|>user\n", "\u0301a", "assistant", "\tsay it slowly!"]

RELEASED = {"model_type": "qwen3_tts", "transformers_version": "4.57.3"}
VERSIONS = ["4.40.0", "4.57.1", "4.57.2", "4.57.2.post1", "4.57.3.dev0", "4.58", "4.58.0.dev0"]
VERSIONS += ["5.0.0.dev0", "5.0.0rc1", "5", "5.0.0", "5.1"]
CONFIGS: list[dict[str, str] | None] = [RELEASED, None, {}, {"model_type": "qwen3_tts"}]
CONFIGS += [{"model_type": "qwen3_tts", "transformers_version": v} for v in VERSIONS]
CONFIGS += [{"transformers_version": "4.50.0"}]
CONFIGS += [
    {"model_type": name, "transformers_version": "4.50.0"}
    for name in ("mistral", "mistral3", "voxtral", "ministral", "pixtral", "qwen2")
]


def processor(directory: Path) -> Any:
    """The official processor, loaded as ``Qwen3TTSModel.from_pretrained`` loads it."""
    # The class file alone: importing the package would load torch and print to stdout.
    package = importlib.util.find_spec("qwen_tts")
    assert package is not None, "qwen-tts is not installed here"
    assert package.origin is not None
    source = Path(package.origin).parent / "core" / "models" / "processing_qwen3_tts.py"
    spec = importlib.util.spec_from_file_location("processing_qwen3_tts", source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Qwen3TTSProcessor.from_pretrained(str(directory), fix_mistral_regex=True)


def encode(official: Any, text: str) -> list[int]:
    ids: list[int] = official(text=text, padding=True)["input_ids"][0]
    return ids


def regex(official: Any) -> str:
    state = json.loads(official.tokenizer.backend_tokenizer.to_str())
    return str(state["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"])


def with_mistral_regex(official: Any, directory: Path) -> Any:
    """The fix of transformers, reserved for vocabularies of more than 100,000 entries, applied to a small one."""
    (directory / "config.json").write_text('{"model_type": "qwen3_tts", "transformers_version": "4.57.3"}')
    type(official.tokenizer)._patch_mistral_regex(
        official.tokenizer, str(directory), local_files_only=True, _is_local=True, fix_mistral_regex=True
    )
    return official


def templates(official: Any, text: str) -> dict[str, Any]:
    """The parts that ``Qwen3TTSForConditionalGeneration.generate`` cuts out, by its own slices."""
    from qwen_tts.inference.qwen3_tts_model import Qwen3TTSModel  # type: ignore[import-not-found]

    ids = encode(official, Qwen3TTSModel._build_assistant_text(None, text))
    reference = encode(official, Qwen3TTSModel._build_ref_text(None, text))
    return {
        "input": text,
        "role": ids[:3],
        "text": ids[3:-5],
        "first": ids[3:4],
        "trailing": ids[4:-5],
        "reference": reference[3:-2],
        "instruct": encode(official, Qwen3TTSModel._build_instruct_text(None, text)),
    }


def inflate(directory: Path, size: int) -> None:
    """Fill vocab.json up to ``size`` entries and move the added tokens after them."""
    vocab = json.loads((TOKENIZER / "vocab.json").read_text(encoding="utf-8"))
    config = json.loads((TOKENIZER / "tokenizer_config.json").read_text(encoding="utf-8"))
    vocab |= {f"<filler {i}>": i for i in range(len(vocab), size)}
    added = config["added_tokens_decoder"].values()
    config["added_tokens_decoder"] = {str(size + i): token for i, token in enumerate(added)}
    shutil.copy(TOKENIZER / "merges.txt", directory)
    (directory / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    (directory / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


def choices(patterns: dict[str, str]) -> list[dict[str, Any]]:
    """Which regex the official package uses for a local directory, by vocabulary size and config.json."""
    names = {pattern: name for name, pattern in patterns.items()}
    table = []
    for size, config in [(100_000, RELEASED), *((100_001, config) for config in CONFIGS)]:
        with tempfile.TemporaryDirectory() as folder:
            inflate(Path(folder), size)
            if config is not None:
                (Path(folder) / "config.json").write_text(json.dumps(config))
            name = names[regex(processor(Path(folder)))]
        table.append({"vocab_size": size, "config": config, "pretokenizer": name})
    return table


def write_json(path: Path, rows: Any) -> None:
    """JSON with one row per line, for readable diffs. Unprintable characters are escaped."""
    if isinstance(rows, dict):
        text = "{\n" + ",\n".join(f"{json.dumps(name)}:{_rows(group)}" for name, group in rows.items()) + "\n}\n"
    else:
        text = _rows(rows) + "\n"
    path.write_text(text, encoding="utf-8", newline="\n")


def _rows(rows: list[Any]) -> str:
    lines = ",\n".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows)
    return "[\n" + "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in lines) + "\n]"


def record() -> None:
    texts = strings()
    native = processor(TOKENIZER)
    with tempfile.TemporaryDirectory() as folder:
        mistral = with_mistral_regex(processor(TOKENIZER), Path(folder))
    patterns = {"native": regex(native), "mistral": regex(mistral)}

    encoded: dict[str, list[list[Any]]] = {}
    for name, group in texts.items():
        encoded[name] = []
        for text in group:
            ids, other = encode(native, text), encode(mistral, text)
            encoded[name].append([text, ids] if ids == other else [text, ids, other])
    write_json(CASE / "ids.json", encoded)
    write_json(CASE / "templates.json", [templates(native, text) for text in TEMPLATE_TEXTS])
    write_json(CASE / "choices.json", choices(patterns))
    case = {
        "made_by": "golden/record_text.py",
        "input": "tokenizer/, written by qwen3tts_np.checkpoint.synthetic_text.write_tokenizer_files",
        "versions": {name: version(name) for name in ("qwen-tts", "transformers", "tokenizers")},
        "patterns": patterns,
        "files": {
            "ids.json": "group -> rows [text, ids with the native regex, ids with Mistral's where they differ]",
            "templates.json": "the parts of the three prompt templates, native regex",
            "choices.json": "the regex that the official package uses for a local directory (merges and byte symbols "
            "of tokenizer/, filled up to vocab_size entries; config null: no config.json)",
        },
        "tolerance": "none: ids are integers and match exactly",
    }
    (CASE / "case.json").write_text(json.dumps(case, indent=1) + "\n", encoding="utf-8", newline="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenize", type=Path, metavar="DIR")
    args = parser.parse_args()
    if args.tokenize is None:
        record()
    else:
        official = processor(args.tokenize)
        json.dump([encode(official, text) for text in json.load(sys.stdin)], sys.stdout)


if __name__ == "__main__":
    main()
