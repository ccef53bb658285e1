"""Texts made comparable before words are counted: what is said the same is written the same.

``language`` is the normaliser of the ten languages, from the package ``whisper-normalizer``: that of OpenAI's Whisper
for English (contractions, spelling, numbers as digits), its relatives for Chinese, French, Spanish and Russian, and
Whisper's basic one for the others, after which ``text2num`` writes German, Italian and Portuguese numbers as digits.
``plain`` keeps the words as they are and removes case and punctuation: for a recogniser of a closed vocabulary, whose
words must not be merged into one number. ``none`` changes nothing.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from functools import cache

from ..extras import imported
from ..text.languages import guess, language_name
from .wheels import INSTALL

Normaliser = Callable[[str], str]

NORMALISERS = ("language", "plain", "none")
PURPOSE = "the normaliser"
OWN = {  # in whisper_normalizer.international
    "chinese": "ChineseTextNormalizer",
    "french": "FrenchTextNormalizer",
    "spanish": "SpanishTextNormalizer",
    "russian": "RussianTextNormalizer",
}
NUMBERS = {"german": "de", "italian": "it", "portuguese": "pt"}  # that text2num reads
BY_CHARACTERS = ("chinese", "japanese", "korean")  # errors are counted in characters, as in the official tables
_APOSTROPHES = str.maketrans("’‘ʼ", "'''")


def normalised(text: str, language: str, how: str = "language") -> str:
    """``text`` as it is compared; ``language`` is one of the ten names, ``how`` one of ``NORMALISERS``."""
    if how == "none":
        return text
    changed = plain(text) if how == "plain" else _normaliser(language)(text)
    if language in BY_CHARACTERS:
        return "".join(changed.split())
    return " ".join(changed.split())


def plain(text: str) -> str:
    """Lower case; letters, digits and apostrophes within words, everything else is a space."""
    text = unicodedata.normalize("NFKC", text).lower().translate(_APOSTROPHES)
    kept = "".join(c if unicodedata.category(c)[0] in "LNM" or c == "'" else " " for c in text)
    return " ".join(stripped for word in kept.split() if (stripped := word.strip("'")))


def language_of(text: str, given: str | None) -> str:
    """One of the ten languages: the one that is given, or the likely one of ``text`` (also for "auto")."""
    name = language_name(given or "auto")
    return guess(text) if name == "auto" else name


@cache
def _normaliser(language: str) -> Normaliser:
    if language == "english":
        return imported("whisper_normalizer.english", PURPOSE, INSTALL).EnglishTextNormalizer()
    if language in OWN:
        return getattr(imported("whisper_normalizer.international", PURPOSE, INSTALL), OWN[language])()
    basic: Normaliser = imported("whisper_normalizer.basic", PURPOSE, INSTALL).BasicTextNormalizer()
    if language not in NUMBERS:
        return basic
    digits = imported("text_to_num", PURPOSE, INSTALL).alpha2digit
    return lambda text: basic(digits(text, NUMBERS[language]))
