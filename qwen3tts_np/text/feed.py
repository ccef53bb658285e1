"""Incremental tokenization: the tokens of a text arriving in pieces that later text cannot change.

Byte-level BPE merges within the words cut by the regex, never across them. So a word is settled when no continuation
of the text could make the regex cut it differently, that is, when

- another word follows it, so the regex has seen what ends it;
- it ends before the trailing spaces, which may belong to the next word or to a line end still to come;
- it ends before the trailing letters, among which the "mistral" regex may still move its cut;
- the next character is not a mark (or a character unknown here) that NFC could combine with its last letter;
- the following text is not the start of an added token, such as ``<|im_``.

The regex has no look-behind, so after a settled word the text can be cut and tokenized separately.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from ..arguments import require_text
from .templates import TEXT_TEMPLATE
from .tokenizer import Tokenizer


class TextFeed:
    """The ids of the text template, piece by piece: concatenated over all calls, those of the complete text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        tokenizer.complete()  # now, and not in the middle of speech
        self._pending, self._tail = TEXT_TEMPLATE.split("{text}")

    def feed(self, text: str) -> list[int]:
        """The ids settled by ``text``. Raises RequestError if it is not a proper string."""
        require_text(text, "text")
        words = self._tokenizer.words(self._pending + text)
        self._pending += text
        end = settled(self._pending, self._tokenizer.added, [start for start, _ in words])
        self._pending = self._pending[end:]
        return [token for start, ids in words if start < end for token in ids]

    def finish(self) -> list[int]:
        """All remaining ids, including the tail of the template."""
        return self._tokenizer.encode(self._pending + self._tail)


class TextSource:
    """Token ids of a text that is still arriving while it is spoken: a session adds them, the frame loop takes them."""

    def __init__(self) -> None:
        self._waiting: list[int] = []
        self.arrived: int = 0  # ids so far
        self.finished: bool = False  # whether no more follow

    def add(self, ids: Sequence[int]) -> None:
        """Append these ids."""
        self._waiting += ids
        self.arrived += len(ids)

    def finish(self) -> None:
        """The text is complete: frames beyond it are padded."""
        self.finished = True

    def more(self) -> list[int]:
        """The ids that have arrived since the last call."""
        waiting, self._waiting = self._waiting, []
        return waiting


def settled(text: str, added: tuple[str, ...], starts: list[int]) -> int:
    """The last of ``starts`` (of words in ``text``) before which everything is settled; 0 if nothing is."""
    blanks = len(text.rstrip())
    letters = len(text)
    while letters and _letter_or_mark(text[letters - 1]):
        letters -= 1
    longest = max(map(len, added), default=0)
    literal = min(
        (i for i in range(max(len(text) - longest, 0), len(text)) if any(a.startswith(text[i:]) for a in added)),
        default=len(text),
    )
    last = min(blanks, letters, literal)
    return max((i for i in starts if i <= last and not _joins(text[i])), default=0)


def _letter_or_mark(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] in "LM" or category == "Cn"  # not assigned here; the tokenizer's tables may be newer


def _joins(character: str) -> bool:
    """Whether NFC may combine it with the preceding character. Some letters combine too, but no regex cuts there."""
    category = unicodedata.category(character)
    return category[0] == "M" or category == "Cn"
