"""One piece of a text, spoken: its seeds, and the attempts at a piece that does not stop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ..audio.tempo import at_tempo
from ..ops import Wave
from ..request import DesignedVoice, Request
from .delivery import Delivery
from .edges import trimmed
from .plan import PlannedPiece, seed_of
from .script import Script
from .spoken import Spoken, warn_of_runaway
from .store import hash_of

ATTEMPTS = 3  # the first, and two with other seeds, for a piece that does not stop
KEY_VERSION = 2  # part of every key; other numbers mean pieces that are made in another way


@dataclass(frozen=True)
class Take:
    """One piece to speak."""

    piece: PlannedPiece
    delivery: Delivery
    seed: int  # of the text; ``plan.seed_of`` says which the piece has
    alone: bool  # whether the text is this piece and no pause: then nothing is trimmed or faded

    def request(self, attempt: int = 0) -> Request:
        """An attempt at the piece, counted from 0."""
        return self.delivery.request(self.piece.text, self.seed_of(attempt))

    def seed_of(self, attempt: int) -> int:
        """The seed of an attempt. A designed voice is drawn with the codes, so all its pieces count as the first."""
        designed = isinstance(self.delivery.voice, DesignedVoice)
        return seed_of(self.seed, 0 if designed else self.piece.number, attempt)

    @property
    def attempts(self) -> int:
        """The number of attempts allowed. Greedy speech has one: another would be the same."""
        return ATTEMPTS if self.delivery.runaway_guard and not self.delivery.greedy else 1

    def ran_away(self, frames: int) -> bool:
        """Whether speech of this many frames did not stop."""
        bound = self.delivery.bound(self.piece.text)
        return bound is not None and frames >= bound

    def is_complete(self, frames: int) -> bool:
        """Whether speech of this many frames stopped by itself, before any limit."""
        return frames < self.request().limits.max_new_tokens - 1  # N tokens are N - 1 frames

    @cached_property
    def key(self) -> str:
        """A hash of everything that determines the piece; without seeds where nothing is drawn."""
        seeds = () if self.delivery.greedy else tuple(map(self.seed_of, range(self.attempts)))
        request = replace(self.request(), seed=0)
        tempo = () if self.delivery.tempo == 1 else (self.delivery.tempo,)
        return hash_of(KEY_VERSION, self.delivery.fingerprint, request, seeds, self.attempts, self.alone, *tempo)

    def report(self, frames: int, attempts: int, start: float, end: float) -> Spoken:
        """The report of a piece that is played from ``start`` to ``end``, in seconds; warns of a runaway."""
        cut = self.ran_away(frames)
        seed = self.seed_of(0 if cut else attempts - 1)
        spoken = Spoken(self.piece.written, start, end, frames, seed, attempts, self.is_complete(frames))
        if cut or attempts > 1:
            warn_of_runaway(spoken, cut)
        return spoken

    def edged(self, wave: Wave) -> Wave:
        """``wave`` [samples] at its tempo, as it is joined with its neighbours."""
        rate, tempo = self.delivery.sample_rate, self.delivery.tempo
        wave = wave if tempo == 1 else at_tempo(wave, tempo, rate)
        return wave if self.alone else trimmed(wave, rate)


def takes_of(script: Script, pieces: Sequence[PlannedPiece], delivery: Delivery, seed: int) -> list[Take]:
    """The pieces of a script, each in its voice. RequestError for a voice that the model does not have.

    Each voice is tried on its first piece, so that what the model cannot do is said before anything is spoken.
    """
    voices: dict[str | None, Delivery] = {None: delivery}
    for piece in pieces:
        if piece.voice is not None and piece.voice not in voices:
            voices[piece.voice] = delivery.in_voice(script.voice(delivery.model, piece.voice, delivery.voice))
            voices[piece.voice].request(piece.text, 0)
    alone = len(pieces) == 1 and not (pieces[0].pause or pieces[0].after)
    takes = [Take(piece, voices[piece.voice], seed, alone) for piece in pieces]
    takes[0].request()
    return takes
