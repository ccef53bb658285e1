"""How long a text is when it is spoken, by a table: what it usually takes, and what no speech of it could.

The unit is the character, by script: a Latin letter takes a third of the time of a Chinese character. The figures are
those of calm reading (English 150 words a minute, Chinese 4.5 characters a second, Japanese 7.5 kana), rounded.
"""

from __future__ import annotations

import unicodedata
from functools import cache

LETTER = 80  # ms: alphabets, the spaces between words included
CAPITAL = 150  # some are spelt out: BBC
KANA = 130
HANGUL = 180  # a syllable
HAN = 220
DIGIT = 300  # "7" is a word, "70" two or three
SYMBOL = 300  # so are "%" and "€"
PUNCTUATION = 120  # a pause
SILENT = 0  # spaces, and marks that modify the letter before them

# A speech three times slower than usual, with two seconds to spare, has not stopped where it should have.
SLOWEST, SPARE = 3, 2000


def milliseconds(text: str) -> int:
    """The usual length of ``text`` when spoken, in ms. It is additive: that of a whole is the sum of its parts'."""
    return sum(map(_milliseconds, text))


def most_milliseconds(text: str) -> int:
    """A length in ms that no speech of ``text`` reaches, however slow: ``2000 + 3 * milliseconds(text)``.

    In frames of 80 ms that is 25 + k a character, with k = 3 for letters, 5.6 for capitals, 4.9 for kana, 6.8 for
    Hangul, 8.3 for Han, 11.3 for digits and symbols, 4.5 for punctuation.
    """
    return SPARE + SLOWEST * milliseconds(text)


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
