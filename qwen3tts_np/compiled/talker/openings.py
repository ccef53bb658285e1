"""How the last prompts began: their keys and values, so that a voice that has spoken is not read again.

The opening of a prompt is what precedes the text to be spoken: instruction, role, language, speaker, and in context the
transcript of the clip. Its keys and values do not depend on what follows, and are the same bits whatever else is in a
pass (``transformer_jit.py`` of the kernels). So a prompt whose opening has been read is read from there on.

Whole openings are kept, and nothing of a text. Voices and instructions return from call to call, texts hardly do. And
reuse shows in the time, which anyone who shares a server can measure: so it tells nothing about the texts of others,
and about their voices and instructions only whether one is the same as a whole. If common parts were reused as well, an
instruction could be guessed token by token.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ...ops import Array
from ...request import Request
from ...text.prompt import Position

MOST_POSITIONS = 256
"""Of all that is kept, 59 MB with the released sizes: 28 voices, or 10 with an instruction of a sentence."""

KeysAndValues = tuple[Array, Array]  # [layers * K, positions, head] each


class Opening(NamedTuple):
    """All that the keys and values of a prompt's first positions depend on, but for the weights."""

    positions: tuple[Position, ...]
    x_vector: tuple[str, bytes] | None  # type and bytes, where it has a position


def opening_of(request: Request) -> Opening:
    """The opening of a request's prompt: never its last position, whose result gives the first code."""
    prompt = request.prompt
    positions = prompt.prefill[: min(prompt.opening, len(prompt.prefill) - 1, MOST_POSITIONS)]
    vector = request.x_vector if any(position.x_vector for position in positions) else None
    return Opening(positions, None if vector is None else (vector.dtype.str, vector.tobytes()))


class Openings:
    """The openings that were used last, up to ``MOST_POSITIONS``: of one model, for all its batches.

    For any number of threads: what is kept is never changed, but replaced by one assignment. Of two threads that do so
    at the same time one is not kept, which costs time and nothing else.
    """

    def __init__(self) -> None:
        self._kept: dict[Opening, KeysAndValues] = {}  # the last used comes last

    @property
    def positions(self) -> int:
        """How many are kept."""
        return _positions(self._kept)

    def find(self, opening: Opening) -> KeysAndValues | None:
        """Its keys and values, to be read only, if they are kept."""
        found = self._kept.get(opening)
        if found is not None:
            self.keep(opening, found)
        return found

    def keep(self, opening: Opening, values: KeysAndValues) -> None:
        """Keep an opening as the last used, and as many of the others as there is room for."""
        kept = dict(self._kept)
        kept.pop(opening, None)
        while kept and _positions(kept) + len(opening.positions) > MOST_POSITIONS:
            del kept[next(iter(kept))]
        self._kept = {**kept, opening: values}

    def clear(self) -> None:
        """Keep nothing: the next prompts are read as in a model that has just been loaded."""
        self._kept = {}


def _positions(openings: Iterable[Opening]) -> int:
    return sum(len(opening.positions) for opening in openings)
