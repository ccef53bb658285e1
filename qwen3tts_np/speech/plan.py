"""The plan of a text: its pieces, the silence between them, and the seed of each."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from ..errors import RequestError
from ..text.clean import clean
from ..text.sentences import LONGEST, TARGET, Break, split
from .script import NO_WORDS, Script, as_script

# Silence between two pieces, in ms. A piece without words ("* * *") adds its own.
PAUSES = {Break.WORD: 50, Break.CLAUSE: 150, Break.SENTENCE: 350, Break.PARAGRAPH: 800}


@dataclass(frozen=True)
class PlannedPiece:
    """A piece with words."""

    number: int  # from 0, among the pieces with words
    text: str  # one line, as the model reads it
    pause: int  # ms of silence before it
    written: str  # ``text`` as it was given, before a lexicon respelled it
    voice: str | None = None  # a name of the script's; None is the voice of the request
    after: int = 0  # ms of silence after it, where markup ends the text with a pause


def plan(
    text: str | Script,
    language: str | None = None,
    target: float = TARGET,
    longest: float = LONGEST,
    tempo: float = 1.0,
) -> list[PlannedPiece]:
    """The pieces of a text or a script, as ``text/sentences.py`` splits each of its spans.

    The same text has the same pieces from a file, a pipe or an argument, on one line or wrapped. Between two pieces is
    the silence that the text itself asks for, shorter at a higher ``tempo``, or in its place that of the marks there,
    to the sample. RequestError where there are no words.
    """
    script = as_script(text)
    language = language if isinstance(language, str) else "auto"
    pieces: list[PlannedPiece] = []
    usual, asked = 0, None  # ms of silence before the next piece
    for i, span in enumerate(script.spans):
        if span.silence is not None:
            asked = (asked or 0) + span.silence
        parts = split(clean(span.text), language, target, longest)
        following = script.spans[i + 1] if i + 1 < len(script.spans) else None
        for piece in parts:
            if piece.has_words:
                pause = asked if asked is not None else round(usual / tempo) if pieces else 0
                spoken = script.respelled(piece.spoken)
                pieces.append(PlannedPiece(len(pieces), spoken, pause, piece.spoken, span.voice))
                usual, asked = 0, None
            last = piece is parts[-1] and following is not None
            usual += PAUSES[following.opens if last and following is not None else piece.ends]
    if not pieces:
        raise RequestError(NO_WORDS)
    pieces[-1] = replace(pieces[-1], after=asked or 0)
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
