"""Text that arrives in pieces gives the tokens of the whole, each as soon as nothing can change it."""

from __future__ import annotations

from itertools import chain, pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3tts_np import RequestError
from qwen3tts_np.synthetic.text import ADDED_TOKENS, write_tokenizer_files
from qwen3tts_np.text.feed import TextFeed, settled
from qwen3tts_np.text.templates import TEXT_TEMPLATE
from qwen3tts_np.text.tokenizer import Pretokenizer, Tokenizer

# What the rules are about: blanks before words and digits, line ends, contractions, upper and lower case with letters
# that have none, marks that NFC joins or reorders, Hangul letters, halves of special tokens.
PARTS = [
    *("\n", " \n", "\r\n", "\t", " ", "  ", "\u3000", "\u2028", "\x85", "\x1c"),
    *"a aB Ab ABC Hello ſ ß ǅ ʰ あ あB 世界 가 ก็ดี की 5 42 ' 'r 're 'll ’s".split(),
    *"! ... / // = ， 。 😀 ❤\ufe0f 👩\u200d💻".split(),
    *(" world", "e\u0301", "\u0301", "\u0338", "\u0335", "\u0323", "\u09be", "\u1100", "\u1161", "\u11a8"),
    *("<", "<|", "<|im_", "|>", "im_end", *(content for content, _ in ADDED_TOKENS[:6])),
]
TEXTS = st.lists(st.sampled_from(PARTS) | st.characters(codec="utf-8"), max_size=14).map("".join)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer_files(folder)
    names: tuple[Pretokenizer, ...] = ("native", "mistral")
    return {name: Tokenizer.from_directory(folder, name) for name in names}


def fed(tokenizer: Tokenizer, pieces: list[str]) -> list[list[int]]:
    feed = TextFeed(tokenizer)
    return [*(feed.feed(piece) for piece in pieces), feed.finish()]


def whole(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(TEXT_TEMPLATE.replace("{text}", text))


TRAPS = ["a  5", "あBc", "\n \n", "\n  \n", "e\u0301 =\u0338", "a\u0335\u0301! b", "x <|im_end|> y <|im", "'re'r"]


@settings(max_examples=200)
@given(TEXTS | st.sampled_from(TRAPS))
def test_a_settled_word_stays_as_it_is(tokenizers: dict[str, Tokenizer], text: str) -> None:
    for tokenizer in tokenizers.values():
        starts = [start for start, _ in tokenizer.words(text)]
        for length in range(len(text) + 1):
            before = [start for start, _ in tokenizer.words(text[:length])]
            end = settled(text[:length], tokenizer.added, before)
            assert end == 0 or end in starts
            assert [i for i in before if i < end] == [i for i in starts if i < end]


@given(TEXTS | st.sampled_from(TRAPS), st.data())
def test_any_split_gives_the_tokens_of_the_whole(
    tokenizers: dict[str, Tokenizer], text: str, data: st.DataObject
) -> None:
    check(list(tokenizers.values()), text, data)


@given(TEXTS | st.sampled_from(TRAPS), st.data())
def test_the_real_vocabulary_in_any_split(reference: Path, text: str, data: st.DataObject) -> None:
    check(_real(reference), text, data)


@pytest.mark.parametrize("text", TRAPS)
def test_the_real_vocabulary_by_single_characters(reference: Path, text: str) -> None:
    for tokenizer in _real(reference):
        assert list(chain(*fed(tokenizer, list(text)))) == whole(tokenizer, text)


def check(tokenizers: list[Tokenizer], text: str, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=6))
    pieces = [text[a:b] for a, b in pairwise(sorted({0, *cuts, len(text)}))]
    for tokenizer in tokenizers:
        for split in (pieces, list(text)):
            assert list(chain(*fed(tokenizer, split))) == whole(tokenizer, text)


REAL: list[Tokenizer] = []


def _real(reference: Path) -> list[Tokenizer]:
    if not REAL:
        names: tuple[Pretokenizer, ...] = ("native", "mistral")
        REAL.extend(Tokenizer.from_directory(reference / "tokenizer", name) for name in names)
    return REAL


def test_words_come_as_soon_as_they_are_settled(tokenizers: dict[str, Tokenizer]) -> None:
    pieces = ["Hel", "lo", " wor", "ld", ", ", "it", "'s", " 5", "  ", "<|im", "agine", "!"]
    for tokenizer in tokenizers.values():
        feed = TextFeed(tokenizer)
        came = [tokenizer.decode(feed.feed(piece)) for piece in pieces]
        # Last letters, digits and signs may go on; blanks wait for their word, "<|im" for "<|im_end|>".
        assert came[:6] == ["<|im_start|>assistant\n", "", "Hello", "", " world,", ""]
        assert came[6:] == [" it", "'s ", "5", " ", " <|", "imagine"]


def test_a_fed_text_is_a_proper_string(tokenizers: dict[str, Tokenizer]) -> None:
    feed = TextFeed(tokenizers["native"])
    first = feed.feed("Good ")
    with pytest.raises(RequestError, match="half a surrogate pair"):
        feed.feed("\ud800")
    with pytest.raises(RequestError, match="must be a string"):
        feed.feed(5)  # type: ignore[arg-type]
    assert first + feed.feed("") + feed.finish() == whole(tokenizers["native"], "Good ")  # as if it had not happened
