"""One piece of a text, spoken: its seeds, the attempts at a piece that does not stop, its recording."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ..audio.files import pcm16
from ..ops import Wave
from ..request import DesignedVoice, Request, Utterance
from .delivery import Delivery
from .edges import trimmed
from .plan import PlannedPiece, seed_of
from .spoken import Spoken, warn_of_runaway
from .store import Recording, hash_of

ATTEMPTS = 3  # the first, and two with other seeds, for a piece that does not stop
KEY_VERSION = 2  # part of every key; other numbers mean pieces that are made in another way

Writing = Callable[[list[str], int], None]  # called after every frame: the texts being spoken, the frames so far


@dataclass(frozen=True)
class Take:
    """One piece to speak."""

    piece: PlannedPiece
    delivery: Delivery
    seed: int  # of the text; ``plan.seed_of`` says which the piece has
    alone: bool  # whether the text is this piece: then nothing is trimmed or faded

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
        return hash_of(KEY_VERSION, self.delivery.fingerprint, request, seeds, self.attempts, self.alone)

    def report(self, frames: int, attempts: int, start: float, end: float) -> Spoken:
        """The report of a piece that is played from ``start`` to ``end``, in seconds; warns of a runaway."""
        cut = self.ran_away(frames)
        seed = self.seed_of(0 if cut else attempts - 1)
        spoken = Spoken(self.piece.text, start, end, frames, seed, attempts, self.is_complete(frames))
        if cut or attempts > 1:
            warn_of_runaway(spoken, cut)
        return spoken

    def edged(self, wave: Wave) -> Wave:
        """``wave`` [samples] as it is joined with its neighbours."""
        return wave if self.alone else trimmed(wave, self.delivery.sample_rate)


def record(takes: Sequence[Take], writing: Writing) -> list[Recording]:
    """The recordings of takes of one delivery, spoken together; those that run away are spoken again, one by one."""
    firsts = _speak(takes, 0, writing) if takes else []
    return [_settled(take, first, writing) for take, first in zip(takes, firsts, strict=True)]


def _settled(take: Take, first: Utterance, writing: Writing) -> Recording:
    """The first attempt that stops. Where none does, the first of all is kept, cut: it is what a stream has spoken."""
    attempts, last = 1, first
    while take.ran_away(len(last.codes)) and attempts < take.attempts:
        (last,) = _speak([take], attempts, writing)
        attempts += 1
    kept = first if take.ran_away(len(last.codes)) else last
    return Recording(pcm16(take.edged(kept.samples)), len(kept.codes), attempts)


def _speak(takes: Sequence[Take], attempt: int, writing: Writing) -> list[Utterance]:
    texts, model = [take.piece.text for take in takes], takes[0].delivery.model
    assert all(take.delivery.model is model for take in takes)
    requests = [take.request(attempt) for take in takes]
    return model.generate(requests, progress=lambda count: writing(texts, count), continuous=True)
