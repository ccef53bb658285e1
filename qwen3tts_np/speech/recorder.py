"""The pieces of a text, spoken several at a time in a running batch: where one ends, the next begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..audio.files import pcm16
from ..ops import Ints
from ..request import Request
from ..running_batch import RunningBatch
from .store import Recording, Store
from .take import Take

LEAD = 4  # a piece is begun up to so many times the batch size before the first unfinished one is written

# Called after every frame: the texts that are spoken and not yet written, and the frames so far of each.
Writing = Callable[[list[tuple[str, int]]], None]


def recordings(
    takes: Sequence[Take], store: Store | None, batch_size: int, writing: Writing
) -> Iterator[tuple[Recording, bool]]:
    """(recording, whether an earlier run has made it) of each take, in order.

    A piece that does not stop is tried again; where no attempt stops the first is kept, cut: it is the speech of a
    stream.
    """
    recorder = _Recorder(takes, store, batch_size, writing)
    try:
        for number in range(len(takes)):
            yield recorder.take(number)
    finally:
        recorder.close()


@dataclass
class _Attempt:
    """An attempt at a piece, counted from 0."""

    number: int  # of the take
    request: Request
    attempt: int = 0
    codes: list[Ints] = field(default_factory=list)
    first: _Attempt | None = None  # the first one, where this is another


class _Recorder:
    def __init__(self, takes: Sequence[Take], store: Store | None, batch_size: int, writing: Writing) -> None:
        self._takes, self._store, self._writing = takes, store, writing
        self._size = min(batch_size, len(takes))
        self._batch: RunningBatch | None = None
        self._next = 0  # the first take that is not begun
        self._spoken: dict[int, _Attempt] = {}  # by place
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
        if self._batch is not None:
            self._batch.close()

    def _begin(self, end: int) -> None:
        """Begin the next takes before ``end`` while there are places; those that an earlier run has made are done."""
        while self._next < end and len(self._spoken) < self._size:
            take = self._takes[self._next]
            found = None if self._store is None else self._store.get(take.key)
            if found is None:
                self._join(_Attempt(self._next, take.request()))
            else:
                self._done[self._next] = found, self._store is not None and take.key not in self._store.made
            self._next += 1

    def _join(self, attempt: _Attempt) -> None:
        model = self._takes[attempt.number].delivery.model
        if self._batch is None:
            self._batch = model.open_batch(places=self._size)
        self._spoken[self._batch.join(attempt.request)] = attempt

    def _step(self) -> None:
        assert self._batch is not None
        step = self._batch.step()
        for error in step.failed.values():
            raise error
        for place, codes in zip(step.places, step.codes, strict=True):
            self._spoken[int(place)].codes.append(codes)
        for place in step.ended:
            self._end(self._spoken.pop(place))
        texts = [(self._takes[one.number].piece.text, len(one.codes)) for one in self._spoken.values()]
        texts += [
            (self._takes[number].piece.text, recording.frames)
            for number, (recording, found) in self._done.items()
            if not found
        ]
        self._writing(texts)

    def _end(self, last: _Attempt) -> None:
        """Keep the attempt, or try again."""
        take, first = self._takes[last.number], last.first or last
        attempts = last.attempt + 1
        if take.ran_away(len(last.codes)) and attempts < take.attempts:
            self._join(_Attempt(last.number, take.request(attempts), attempts, first=first))
            return
        kept = first if take.ran_away(len(last.codes)) else last
        codes = np.array(kept.codes, np.int64).reshape(-1, take.delivery.model.config.talker_config.num_code_groups)
        wave = take.delivery.model.decode(kept.request, codes, continuous=True)
        recording = Recording(pcm16(take.edged(wave)), len(codes), attempts)
        if self._store is not None:
            self._store.put(take.key, recording)
        self._done[last.number] = recording, False
