"""Words as they are to be read: a list of respellings, for names and abbreviations that the model reads wrongly.

The rule: an entry is found where neither a letter, a digit nor an underscore stands beside it; of several the longest;
each place once, so a respelling is never respelled. An entry with a capital letter is found as it is written; one
without in any case ("straße" is "Straße" too, not "STRASSE"). Letters composed (NFC) and decomposed (NFD) are the same,
and so are the apostrophes ' and ’. An apostrophe does not belong to a word: "eau" is found in "L'eau" unless "L'eau" is
an entry, "Anna" in "Anna's".
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from ..arguments import require_text
from ..errors import RequestError, RequestTypeError
from ..shown import shortened

LONGEST = 100  # characters of an entry, and of a respelling
_BEGINS = re.compile(r"(?<!\w)\S")  # where an entry may begin; whether a mark stands before it is seen there
_APOSTROPHES = str.maketrans("’ʼ＇", "'''")


class Lexicon:
    """Respellings by word."""

    def __init__(self, entries: Mapping[str, str]) -> None:
        """RequestError for an entry that could not be found or spoken, and for two that are the same."""
        self._exact: dict[str, str] = {}
        self._any_case: dict[str, str] = {}
        for word, respelling in entries.items():
            self._add(word, respelling)
        lengths: dict[str, set[int]] = {}
        for word in (*self._exact, *self._any_case):
            lengths.setdefault(word[0].lower(), set()).add(len(word))
        self._lengths = {first: sorted(found, reverse=True) for first, found in lengths.items()}

    def respelled(self, text: str) -> str:
        """``text`` with the words of the lexicon respelled; all else stays as it is, to the character."""
        ends, composed = _clusters(text)
        key = composed.translate(_APOSTROPHES)
        result: list[str] = []
        done = copied = 0  # in ``key``; in ``text``
        for place in _BEGINS.finditer(key):
            start = place.start()
            length, respelling = self._at(key, start) if start >= done else (0, "")
            if length:
                result += (text[copied : ends[start]], respelling)
                done, copied = start + length, ends[start + length]
        return "".join(result) + text[copied:]

    def _at(self, key: str, start: int) -> tuple[int, str]:
        """(length, respelling) of the longest entry at ``start``; (0, "") where there is none."""
        if start and _is_of_word(key[start - 1]):
            return 0, ""
        for length in self._lengths.get(key[start].lower(), ()):
            found = key[start : start + length]
            respelling = self._exact.get(found) or self._any_case.get(found.lower())
            if respelling is not None and not _is_of_word(key[start + length : start + length + 1]):
                return length, respelling
        return 0, ""

    def _add(self, word: Any, respelling: Any) -> None:
        require_text(word, "an entry of the lexicon")
        if not isinstance(respelling, str):
            raise RequestTypeError(f"{shortened(word)}: {shortened(respelling)} is no respelling; give a string")
        require_text(respelling, "a respelling")
        for text in (word, respelling):
            if not any(c.isalnum() for c in text) or len(text) > LONGEST or text != " ".join(text.split()):
                raise RequestError(
                    f"{shortened(word)}: {shortened(respelling)} is no entry: both have 1 to {LONGEST} characters, "
                    "letters or digits among them, and single spaces inside only"
                )
        key = unicodedata.normalize("NFC", word).translate(_APOSTROPHES)
        table = self._any_case if key == key.lower() else self._exact
        if key in table:
            raise RequestError(f"{shortened(word)} is there twice, in two forms of the same letters")
        table[key] = respelling


def _clusters(text: str) -> tuple[list[int], str]:
    """(where each character of the composed text begins in ``text``, and its end; the composed text).

    A letter with the marks behind it is composed alone, so the two texts can be laid side by side.
    """
    if unicodedata.is_normalized("NFC", text):
        return list(range(len(text) + 1)), text
    starts = [i for i, c in enumerate(text) if not i or not _combines(c)]
    ends: list[int] = []
    composed: list[str] = []
    for start, end in pairwise([*starts, len(text)]):
        letters = unicodedata.normalize("NFC", text[start:end])
        composed.append(letters)
        ends += [start] * len(letters)
    return [*ends, len(text)], "".join(composed)


def _combines(c: str) -> bool:
    """Whether a character is composed with the one before it: marks, vowels and finals of a Korean syllable."""
    return unicodedata.combining(c) > 0 or "\u1160" <= c <= "\u11ff"


def _is_of_word(c: str) -> bool:
    """Whether ``c`` continues a word; "" does not."""
    return c.isalnum() or c == "_" or (bool(c) and unicodedata.category(c)[0] == "M")
