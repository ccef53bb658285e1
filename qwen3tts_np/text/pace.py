"""Duration of a text when spoken, estimated from a table: the usual duration, and an upper bound.

The unit is the character, by script: a Latin letter takes a third of the time of a Chinese character. The figures are
those of calm reading (English 150 words per minute, Chinese 4.5 characters per second, Japanese 7.5 kana), rounded.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from itertools import groupby

LETTER = 80  # ms: alphabets, the spaces between words included
CAPITAL = 150  # some are spelt out: BBC
KANA = 130
HANGUL = 180  # a syllable
HAN = 220
DIGIT = 300  # "7" is a word, "70" two or three
SYMBOL = 300  # so are "%" and "€"
PUNCTUATION = 120  # a pause
SILENT = 0  # spaces, and marks that modify the letter before them

# Three times the usual duration plus two seconds is never reached by correct speech; longer speech failed to stop.
SLOWEST, SPARE = 3, 2000
# ms, the usual duration of a character that is read on its own: "B, B, C", "double u", "dot".
SPELT, SPELT_LONG = 250, 750
LONG_LETTERS = frozenset("wyWY")  # three syllables: "double u", "ypsilon", "i griega"
SPELT_DIGIT = 700  # "777,777" is twenty syllables in English and more in Russian; digits one by one take less
LONGEST_WORD = 40  # letters; anything longer is not a word


def milliseconds(text: str) -> int:
    """The usual duration of ``text`` when spoken, in ms. It is additive over the parts of a text."""
    return sum(map(_milliseconds, text))


def most_milliseconds(text: str) -> int:
    """Upper bound in ms for speech of ``text``, however slow and however much of it is spelt out.

    ``2000 + 3 * (the longest usual reading)``. For ordinary words and for Chinese, Japanese and Korean characters that
    reading is :func:`milliseconds`. What may be read character by character counts so: single letters, capitals, words
    without a vowel, abbreviations, addresses, whatever has digits; signs and emoji count by their Unicode names. In
    frames of 80 ms that is 25 + k per character, with k = 3 for the letters of words, 9.4 for others (w and y: 28), 4.9
    for kana, 6.8 for Hangul, 8.3 for Han, 26 for digits.
    """
    longest = 0
    for kind, characters in groupby(text, _kind):
        run = "".join(characters)
        longest += _longest_reading(run) if kind == "letters" else milliseconds(run)
    return SPARE + SLOWEST * longest


def _kind(c: str) -> str:
    if c.isspace():
        return "blank"
    return "syllables" if is_han(c) or is_kana(c) or is_hangul(c) or "\u3000" < c <= "\u303f" else "letters"


_WORD = re.compile(r"[^\W\d_]+(?:['’‑-][^\W\d_]+)*")
_VOWEL = re.compile(r"[aeiouyæœøıаеёиоуыэюяіїєαεηιουω]", re.IGNORECASE)
_PAUSE_MARKS = frozenset(".,;:!?…'\"()[]{}-–—“”„‘’«»‹›¿¡，！？；：（）．｡､·")
_ABBREVIATION = 4  # letters at most


def _longest_reading(run: str) -> int:
    """The usual duration in ms of the longest reading of ``run``, which has neither blanks nor Chinese characters."""
    found = _WORD.search(run)
    if found is None:
        return sum(map(_at_an_edge, run))
    word, edges = found.group(), run[: found.start()] + run[found.end() :]
    short = 1 < len(word) <= _ABBREVIATION
    if any(c.isalnum() for c in edges) or (short and run[found.end() :].startswith(".")):
        return sum(map(_spelt, run))
    if short and not _has_vowel(word):  # "kg", "Mr", "bzw": abbreviations of a longer word
        return SPELT_LONG * len(word) + sum(map(_at_an_edge, edges))
    if not all(map(_is_ordinary, re.split("[‑-]", word))):
        return sum(map(_spelt, run))
    return milliseconds(word) + sum(map(_at_an_edge, edges))


def _is_ordinary(word: str) -> bool:
    """Whether ``word`` is read as a word, not letter by letter."""
    return _has_vowel(word) and 1 < len(word) <= LONGEST_WORD and word[1:] == word[1:].lower()


def _has_vowel(word: str) -> bool:
    return _VOWEL.search(unicodedata.normalize("NFD", word)) is not None


def _at_an_edge(c: str) -> int:
    """A character before or after a word: a pause, or a sign with a name."""
    return PUNCTUATION if c in _PAUSE_MARKS else _spelt(c)


@cache
def _spelt(c: str) -> int:
    """A character that is read on its own, in ms."""
    usual, category = _milliseconds(c), unicodedata.category(c)
    if usual == SILENT or _kind(c) == "syllables":
        return usual
    if category[0] == "L":
        return SPELT_LONG if c in LONG_LETTERS else SPELT
    return SPELT_DIGIT if category == "Nd" else max(usual, LETTER * len(unicodedata.name(c, "")))


@cache
def _milliseconds(character: str) -> int:
    category = unicodedata.category(character)
    if category[0] in "ZCM":
        return SILENT
    if category[0] == "N":
        return DIGIT
    if category[0] == "S":
        return SYMBOL
    if category[0] == "P":
        return PUNCTUATION
    if is_han(character):
        return HAN
    if is_kana(character):
        return KANA
    if is_hangul(character):
        return HANGUL
    return CAPITAL if category in ("Lu", "Lt") else LETTER


def is_han(c: str) -> bool:
    return "\u3400" <= c <= "\u9fff" or "\uf900" <= c <= "\ufaff" or "\U00020000" <= c <= "\U0003ffff" or c in "々〇〆"


def is_kana(c: str) -> bool:
    return "\u3041" <= c <= "\u30ff" or "\u31f0" <= c <= "\u31ff" or "\uff66" <= c <= "\uff9d"


def is_hangul(c: str) -> bool:
    return "\uac00" <= c <= "\ud7a3" or "\u1100" <= c <= "\u11ff" or "\u3131" <= c <= "\u318e"
