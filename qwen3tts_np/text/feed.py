"""Text that arrives piece by piece, as tokens that nothing still to come can change.

Byte-level BPE merges inside the words that the regex cuts, never across. So a word is settled when the regex could not
cut it otherwise whatever follows, and that is so when

- another word follows it, so that the regex has seen what ended it;
- it ends before the blanks at the end of the text, which may belong to the next word or to a line end still to come;
- it ends before the letters at the end, among which the "mistral" regex may still move its cut;
- what follows it is no mark, nor a character unknown here, that NFC could join with its last letter;
- what follows it is not the beginning of an added token, such as ``<|im_``.

Nothing in the regex looks back, so behind a settled word the text may be cut and tokenized on its own.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from .templates import TEXT_TEMPLATE
from .tokenizer import Tokenizer, require_text


class TextFeed:
    """The ids of the text template, piece by piece: all calls together give those of the complete text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._pending, self._tail = TEXT_TEMPLATE.split("{text}")

    def feed(self, text: str) -> list[int]:
        """The ids that ``text`` settles. RequestError if it is not a proper string."""
        require_text(text, "text")
        words = self._tokenizer.words(self._pending + text)
        self._pending += text
        end = settled(self._pending, self._tokenizer.added, [start for start, _ in words])
        self._pending = self._pending[end:]
        return [token for start, ids in words if start < end for token in ids]

    def finish(self) -> list[int]:
        """All other ids, the template's tail included."""
        return self._tokenizer.encode(self._pending + self._tail)


class TextSource:
    """Token ids of a text that is still arriving while it is spoken: a session adds them, the frame loop takes them."""

    def __init__(self) -> None:
        self._waiting: list[int] = []

    def add(self, ids: Sequence[int]) -> None:
        """The text goes on with these."""
        self._waiting += ids

    def more(self) -> list[int]:
        """The ids that have arrived since the last call."""
        waiting, self._waiting = self._waiting, []
        return waiting


def settled(text: str, added: tuple[str, ...], starts: list[int]) -> int:
    """The last of ``starts``, where words of ``text`` begin, before which all is settled; 0 if nothing is."""
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
    """Whether NFC may join it with the character before it. Letters do so too, but no regex cuts between such."""
    category = unicodedata.category(character)
    return category[0] == "M" or category == "Cn"
