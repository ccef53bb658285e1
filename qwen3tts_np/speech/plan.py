"""The plan of a text: which pieces it has, the silence between them, and the seed of each.

Every piece is spoken with a seed of its own, derived from the seed of the text and the words of the piece: what else is
in the batch, and what came before it in the text, does not change it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from ..text.sentences import Break, Piece
from .store import hash_of
from .take import ATTEMPTS, Take, Voice

# Silence between two pieces, in ms. A piece without words ("* * *") adds its own.
PAUSES = {Break.WORD: 50, Break.CLAUSE: 150, Break.SENTENCE: 350, Break.PARAGRAPH: 800}


def plan(pieces: Sequence[Piece], voice: Voice, seed: int, one_seed: bool) -> list[Take]:
    """A take for each piece with words. The same words a second time have other seeds, and sound a little different,
    unless ``one_seed`` is to make one voice of all."""
    takes, times = [], Counter[str]()
    for piece in pieces:
        if piece.has_words:
            text = piece.spoken
            words = () if one_seed else (text, times[text])
            times[text] += 1
            takes.append(Take(text, voice, tuple(_derived(seed, attempt, *words) for attempt in range(ATTEMPTS))))
    return takes


def _derived(*origin: Any) -> int:
    return int(hash_of(*origin)[:8], 16)
