"""Words as they are to be read: a list of respellings, for names and abbreviations that the model reads wrongly.

The rule: an entry is found where neither a letter, a digit nor an underscore is next to it; of several the longest;
each place once, so a respelling is never respelled. An entry with a capital letter is found as it is written; one
without in any case ("straße" is "Straße" too, not "STRASSE"). Letters composed (NFC) and decomposed (NFD) are the same,
and so are the apostrophes ' and ’. An apostrophe does not belong to a word: "eau" is found in "L'eau" unless "L'eau" is
an entry, "Anna" in "Anna's".
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
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
        self._sorted = sorted(self._exact), sorted(self._any_case)
        self._longest = max(map(len, (*self._exact, *self._any_case)), default=0)

    def respelled(self, text: str) -> str:
        """``text`` with the words of the lexicon respelled; all else stays as it is, to the character."""
        return self.settled(text, "", complete=True)[0]

    def settled(self, text: str, before: str, complete: bool) -> tuple[str, int]:
        """(what of ``text`` is settled, respelled; its length in ``text``).

        ``before`` is the character before ``text``, or "". Of a text that is not ``complete`` that is settled which no
        further character can make an entry of the lexicon, or keep from being one.
        """
        places, composed = _clusters(text)
        key, end = composed.translate(_APOSTROPHES), len(text)
        result: list[str] = []
        done = copied = 0  # in ``key``; in ``text``
        for place in _BEGINS.finditer(key):
            start = place.start()
            if start < done or _is_of_word(key[start - 1] if start else before):
                continue
            if not complete and self._may_grow(key[start : start + self._longest + 2]):
                end = places[start]
                break
            length, respelling = self._at(key, start)
            if length:
                result += (text[copied : places[start]], respelling)
                done, copied = start + length, places[start + length]
        return "".join([*result, text[copied:end]]), end

    def _may_grow(self, rest: str) -> bool:
        """Whether more text could make ``rest`` begin with an entry. A mark may yet join its last letter."""
        return any(
            _begins_one(words, beginning)
            for words, beginning in zip(self._sorted, (rest[:-1], rest[:-1].lower()), strict=True)
        )

    def _at(self, key: str, start: int) -> tuple[int, str]:
        """(length, respelling) of the longest entry at ``start``; (0, "") where there is none."""
        for length in self._lengths.get(key[start].lower(), ()):
            found = key[start : start + length]
            respelling = self._exact.get(found) or self._any_case.get(found.lower())
            if (
                respelling is not None
                and len(found) == length
                and not _is_of_word(key[start + length : start + length + 1])
            ):
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


class Respelling:
    """The respelling of a text that arrives in pieces: together what the complete text is respelled as."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon, self._held, self._before = lexicon, "", ""

    def feed(self, text: str) -> str:
        """What is settled by more text; perhaps nothing. RequestError if it is not a proper string."""
        require_text(text, "text")
        return self._take(text, complete=False)

    def finish(self) -> str:
        """The rest."""
        return self._take("", complete=True)

    def _take(self, text: str, complete: bool) -> str:
        held = self._held + text
        ready, end = self._lexicon.settled(held, self._before, complete)
        self._before, self._held = held[:end][-1:] or self._before, held[end:]
        return ready


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


def _begins_one(words: list[str], beginning: str) -> bool:
    """Whether one of the sorted ``words`` has this beginning."""
    i = bisect_left(words, beginning)
    return i < len(words) and words[i].startswith(beginning)


def _combines(c: str) -> bool:
    """Whether a character is composed with the one before it: marks, vowels and finals of a Korean syllable."""
    return unicodedata.combining(c) > 0 or "\u1160" <= c <= "\u11ff"


def _is_of_word(c: str) -> bool:
    """Whether ``c`` continues a word; "" does not."""
    return c.isalnum() or c == "_" or (bool(c) and unicodedata.category(c)[0] == "M")
