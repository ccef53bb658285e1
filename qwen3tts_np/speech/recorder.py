"""Pieces of texts, spoken several at a time in a running batch: where one ends, the next begins.

A piece that does not stop is tried again; where no attempt stops the first is kept, cut: it is the speech of a stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..audio.files import pcm16
from ..errors import RequestError
from ..model import MOST_PLACES
from ..ops import Ints
from ..request import Request
from ..running_batch import RunningBatch
from .store import Recording, Store
from .take import Take

LEAD = 4  # a piece is begun up to so many times the batch size before the first unfinished one is written

# Called after every frame: the texts that are spoken and not yet written, and the frames so far of each.
Writing = Callable[[list[tuple[str, int]]], None]


Label = tuple[int, int]  # the caller's numbers of a text and of its piece


@dataclass
class _Attempt:
    """An attempt at a piece, counted from 0."""

    label: Label
    take: Take
    request: Request
    number: int = 0
    codes: list[Ints] = field(default_factory=list)
    first: _Attempt | None = None  # the first one, where this is another


class Booth:
    """Takes that are spoken together, whichever texts they belong to."""

    def __init__(self, places: int) -> None:
        """The running batch is opened for the first take, whose model all others have too."""
        self.places: int = min(places, MOST_PLACES)
        self._batch: RunningBatch | None = None
        self._spoken: dict[int, _Attempt] = {}  # by place

    @property
    def free(self) -> int:
        """How many takes can begin."""
        return self.places - len(self._spoken)

    @property
    def spoken(self) -> list[tuple[str, int]]:
        """The texts that are spoken now, and the frames so far of each."""
        return [(one.take.piece.text, len(one.codes)) for one in self._spoken.values()]

    def begin(self, label: Label, take: Take) -> None:
        """Give a take a place. RequestError for what its model cannot speak."""
        self._join(_Attempt(label, take, take.request()))

    def step(self) -> list[tuple[Label, Recording | RequestError]]:
        """Write a frame of everybody -> the takes that are finished with it, or that cannot go on."""
        assert self._batch is not None
        step = self._batch.step()
        for place, codes in zip(step.places, step.codes, strict=True):
            self._spoken[int(place)].codes.append(codes)
        finished: list[tuple[Label, Recording | RequestError]] = []
        ended = [(place, self._spoken.pop(place)) for place in step.ended]  # before another attempt takes a place
        for place, attempt in ended:
            found = step.failed.get(place) or self._ended(attempt)
            if found is not None:
                finished.append((attempt.label, found))
        return finished

    def leave(self, text: int) -> None:
        """End the takes of a text."""
        for place in [place for place, attempt in self._spoken.items() if attempt.label[0] == text]:
            assert self._batch is not None
            self._batch.leave(place)
            del self._spoken[place]

    def close(self) -> None:
        """End all speech."""
        if self._batch is not None:
            self._batch.close()

    def _join(self, attempt: _Attempt) -> None:
        if self._batch is None:
            self._batch = attempt.take.delivery.model.open_batch(places=self.places)
        self._spoken[self._batch.join(attempt.request)] = attempt

    def _ended(self, last: _Attempt) -> Recording | None:
        """The recording of an attempt; None where it did not stop and is tried again."""
        take, first = last.take, last.first or last
        attempts = last.number + 1
        if take.ran_away(len(last.codes)) and attempts < take.attempts:
            self._join(_Attempt(last.label, take, take.request(attempts), attempts, first=first))
            return None
        kept = first if take.ran_away(len(last.codes)) else last
        model = take.delivery.model
        codes = np.array(kept.codes, np.int64).reshape(-1, model.config.talker_config.num_code_groups)
        wave = model.decode(kept.request, codes, continuous=True)
        return Recording(pcm16(take.edged(wave)), len(codes), attempts)


def recordings(
    takes: Sequence[Take], store: Store | None, batch_size: int, writing: Writing
) -> Iterator[tuple[Recording, bool]]:
    """(recording, whether an earlier run has made it) of each take, in order."""
    recorder = _Recorder(takes, store, batch_size, writing)
    try:
        for number in range(len(takes)):
            yield recorder.take(number)
    finally:
        recorder.close()


class _Recorder:
    def __init__(self, takes: Sequence[Take], store: Store | None, batch_size: int, writing: Writing) -> None:
        self._takes, self._store, self._writing = takes, store, writing
        self._size = min(batch_size, len(takes))
        self._booth = Booth(self._size)
        self._next = 0  # the first take that is not begun
        self._done: dict[int, tuple[Recording, bool]] = {}  # by number

    def take(self, number: int) -> tuple[Recording, bool]:
        """The recording of a take, when it is finished."""
        while True:
            self._begin(min(number + LEAD * self._size, len(self._takes)))
            if number in self._done:
                return self._done.pop(number)
            self._step()

    def close(self) -> None:
        """End all speech."""
        self._booth.close()

    def _begin(self, end: int) -> None:
        """Begin the next takes before ``end`` while there are places; those that an earlier run has made are done."""
        while self._next < end and self._booth.free:
            take = self._takes[self._next]
            found = None if self._store is None else self._store.get(take.key)
            if found is None:
                self._booth.begin((0, self._next), take)
            else:
                self._done[self._next] = found, self._store is not None and take.key not in self._store.made
            self._next += 1

    def _step(self) -> None:
        for (_, number), found in self._booth.step():
            if isinstance(found, RequestError):
                raise found
            if self._store is not None:
                self._store.put(self._takes[number].key, found)
            self._done[number] = found, False
        texts = [
            (self._takes[number].piece.text, recording.frames)
            for number, (recording, found) in self._done.items()
            if not found
        ]
        self._writing(self._booth.spoken + texts)
