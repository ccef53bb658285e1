"""The plan of a text: its pieces, the silence between them, and the seed of each."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from ..errors import RequestError
from ..text.clean import clean
from ..text.sentences import LONGEST, TARGET, Break, split

# Silence between two pieces, in ms. A piece without words ("* * *") adds its own.
PAUSES = {Break.WORD: 50, Break.CLAUSE: 150, Break.SENTENCE: 350, Break.PARAGRAPH: 800}


@dataclass(frozen=True)
class PlannedPiece:
    """A piece with words, as the model reads it."""

    number: int  # from 0, among the pieces with words
    text: str  # one line
    pause: int  # ms of silence before it; 0 before the first


def speakable(text: str) -> str:
    """``text``, cleaned (``text/clean.py``). RequestError if it has no words: the model makes noise of punctuation."""
    cleaned = clean(text)
    if not any(c.isalnum() for c in cleaned):
        raise RequestError("there is nothing to say: the text has neither letters nor digits")
    return cleaned


def plan(
    text: str, language: str | None = None, target: float = TARGET, longest: float = LONGEST
) -> list[PlannedPiece]:
    """The pieces of a :func:`speakable` text, as ``text/sentences.py`` splits it.

    The same text has the same pieces from a file, a pipe or an argument, on one line or wrapped.
    """
    pieces: list[PlannedPiece] = []
    pause = 0
    for piece in split(speakable(text), language if isinstance(language, str) else "auto", target, longest):
        if piece.has_words:
            pieces.append(PlannedPiece(len(pieces), piece.spoken, pause if pieces else 0))
            pause = 0
        pause += PAUSES[piece.ends]
    return pieces


def seed_of(seed: int, number: int, attempt: int = 0) -> int:
    """The seed of an attempt at a piece, both counted from 0, in a text with this seed.

    The first attempt at piece 0 has the seed itself, so a text of one piece is spoken with the seed that was given.
    Any other has the first 32 bits of the SHA-256 of "SEED/NUMBER/ATTEMPT", for instance ``printf 7/1/0 | sha256sum``.
    SEED is its low 32 bits, which are all that count.
    """
    if number == attempt == 0:
        return seed
    return int(hashlib.sha256(f"{seed & 0xFFFFFFFF}/{number}/{attempt}".encode()).hexdigest()[:8], 16)
