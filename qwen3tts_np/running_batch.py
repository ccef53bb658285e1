"""A running batch: requests that are spoken together, and join and leave between two frames. The one frame loop.

    with model.open_batch(places=8, positions=1024) as batch:
        place = batch.join(request)
        while not batch.idle:
            step = batch.step()
            for place, codes in zip(step.places, step.codes):
                ...  # the next frame [G] of the request at this place
            for place in step.ended:
                ...  # its last frame came before; the place is free again

Codes of a request are the same bits alone and in any company, whenever it joins and whoever leaves. What is computed
for a frame is in ``generate.py``, and in ``compiled/generate.py`` with kernels; here is decided for whom.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

import numpy as np

from .arguments import require_type, whole_number
from .errors import RequestError
from .request import Request
from .shown import shortened
from .talker.frame import Frame, Step
from .talker.generator import Generator, ItemGenerators, TorchGenerator

PROMPT_SLICE = 16  # positions of newcomers' prompts that one step reads: about as long as a frame takes


class Session(Protocol):
    """Talker and code predictor, and the state of the requests at the places of a batch."""

    @property
    def groups(self) -> int:
        """[G] codes of a frame."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes of what is kept for the places."""
        ...

    def begin(self, place: int, request: Request, generator: Generator) -> None:
        """A request at a free place. Places with one generator are a joint draw: each choice draws in their order."""
        ...

    def end(self, place: int) -> None:
        """The place is free."""
        ...

    def recall(self, place: int) -> int:
        """Take over what is kept of a prompt with the same opening; how many positions need not be read any more."""
        ...

    def read_prompts(self, parts: Sequence[tuple[int, range]]) -> None:
        """Read (place, positions of its prompt), each prompt in order."""
        ...

    def add_text(self, place: int, ids: Sequence[int]) -> None:
        """Text of the request that has arrived since."""
        ...

    def write_frame(self, speaking: Sequence[int], drawing: Sequence[int]) -> Step:
        """The next frame of the places that are ``speaking``, or their end; those ``drawing`` have ended before."""
        ...


@dataclass
class _Place:
    """A request that is being spoken."""

    request: Request
    group: tuple[int, ...]  # the places of its joint draw, its own included
    unread: range  # positions of the prompt
    written: int = 0  # frames
    over: bool = False

    @property
    def waits(self) -> bool:
        """Whether the text of its next frame has not arrived."""
        return self.request.waits(self.written)


class RunningBatch:
    """Places in which requests are spoken together. For one thread; open one with ``model.open_batch``.

    Each request has its own limits, sampling parameters, seed, and source of text. A request whose text is still
    arriving (``Request.incoming``) waits where the text of its next frame is not there, and the others go on. With
    ``positions`` the memory of all places is fixed when the batch is opened (:attr:`nbytes`), and a request that could
    need more is refused. A prompt is read in slices, so that nobody who speaks waits for the whole of it.
    """

    def __init__(
        self,
        session: Session,
        places: int,
        positions: int | None,
        prompt_slice: int | None,
        limited: Callable[[], AbstractContextManager[None]],
        check_sizes: Callable[[Request], None],
    ) -> None:
        """``limited``: the context in which the session computes; ``check_sizes``: refuses those of other models."""
        self._session: Session | None = session
        self._positions, self._prompt_slice = positions, prompt_slice
        self._limited, self._check_sizes = limited, check_sizes
        self._places: list[_Place | None] = [None] * places
        self._newcomers: list[int] = []  # whose prompts are not read, in the order in which they came

    @property
    def places(self) -> int:
        """How many requests can be spoken at once."""
        return len(self._places)

    @property
    def free(self) -> int:
        """How many places are free."""
        return sum(place is None for place in self._places)

    @property
    def positions(self) -> int | None:
        """Positions of a place: those of the prompt, and one for each frame. None where memory grows instead."""
        return self._positions

    @property
    def nbytes(self) -> int | None:
        """Bytes that are kept for all places, mostly keys and values; None where they grow."""
        return None if self._positions is None else self._open.nbytes

    @property
    def idle(self) -> bool:
        """Whether a step would do nothing: nobody is here, or everybody waits for text."""
        return not self._newcomers and not self._speaking()

    def check(self, request: Request) -> None:
        """RequestError if no place of this batch has room for the request, or it was prepared for another model."""
        require_type(request, Request, "a request")
        self._check_sizes(request)
        prompt = len(request.prompt.prefill)
        needed = prompt + request.limits.max_new_tokens - 1  # N tokens are N - 1 frames
        if self._positions is not None and needed > self._positions:
            raise RequestError(
                f"the request can take {needed} positions ({prompt} of its prompt, and one for each frame up to "
                f"max_new_tokens) and a place has {self._positions}; shorten its text or lower max_new_tokens"
            )

    def join(self, request: Request) -> int:
        """Give the request a place, and return its number, from 0. Nothing is computed before the next step.

        RequestError if no place is free, or for a request that :meth:`check` refuses.
        """
        require_type(request, Request, "a request")
        return self.join_jointly([request], TorchGenerator(request.seed))[0]

    def join_jointly(self, requests: Sequence[Request], generator: Generator) -> list[int]:
        """Requests that begin together and draw from one generator: officially a batch; their seeds do not count.

        Each choice draws for all of them in their order, also for those that have ended, so their places are free
        again when the last one ends.
        """
        for request in requests:
            self.check(request)
        free = [number for number, place in enumerate(self._places) if place is None][: len(requests)]
        if len(free) < len(requests):
            raise RequestError(f"all {self.places} places of this batch are taken")
        for number, request in zip(free, requests, strict=True):
            self._open.begin(number, request, generator)
            self._places[number] = _Place(request, tuple(free), range(len(request.prompt.prefill)))
        self._newcomers += free
        return free

    def leave(self, place: int) -> None:
        """End the speech at this place; it is free at once. Nothing happens where nobody is."""
        place = whole_number(place, "place", least=0)
        if place >= self.places:
            raise RequestError(f"place={shortened(place)}: the places of this batch are 0 to {self.places - 1}")
        someone = self._places[place]
        if someone is None or self._session is None:
            return
        someone.over = True
        if place in self._newcomers:
            self._newcomers.remove(place)
        if all(self._is_over(number) for number in someone.group):
            for number in someone.group:
                self._session.end(number)
                self._places[number] = None

    def step(self, *, prompts_first: bool = False) -> Step:
        """Read a slice of the newcomers' prompts, or a whole one if nobody speaks; then write a frame of all who can.

        ``prompts_first``: nobody has been heard yet whom a pause would disturb, so that a whole prompt is read, and
        frames wait until all are.

        A step may write no frame: while only prompts are being read, and when the batch is :attr:`idle`. An exception,
        such as an interrupt, ends the batch: what it has cut short cannot go on.
        """
        session, self._session = self._open, None
        with self._limited():
            parts = self._next_slice(session, prompts_first)
            if parts:
                session.read_prompts(parts)
            speaking = [] if prompts_first and self._newcomers else self._speaking()
            for number in speaking:
                self._pass_on_text(session, number)
            step = session.write_frame(speaking, self._drawing()) if speaking else _nothing(session)
        self._session = session
        for number in step.places.tolist():
            self._at(number).written += 1
        for number in step.ended:
            self.leave(number)
        return step

    def close(self) -> None:
        """End all speech and give the memory back."""
        self._session, self._places, self._newcomers = None, [None] * self.places, []

    def __enter__(self) -> RunningBatch:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def _open(self) -> Session:
        if self._session is None:
            raise RequestError("this batch is closed; open another one")
        return self._session

    def _at(self, number: int) -> _Place:
        place = self._places[number]
        assert place is not None
        return place

    def _is_over(self, number: int) -> bool:
        return self._at(number).over

    def _next_slice(self, session: Session, whole: bool) -> list[tuple[int, range]]:
        """(place, positions of its prompt) for this step: who came first is read first.

        Where nobody speaks, the first newcomer's prompt is read ``whole``: nobody waits for it.
        """
        left, parts = self._prompt_slice, []
        if left is not None and self._newcomers and (whole or not self._speaking()):
            group = self._at(self._newcomers[0]).group
            left = max(left, sum(len(self._unread(session, number)) for number in group))
        while self._newcomers and left != 0:
            number = self._newcomers[0]
            unread = self._unread(session, number)
            part = unread if left is None else unread[:left]
            self._at(number).unread = unread[len(part) :]
            parts.append((number, part))
            if left is not None:
                left -= len(part)
            if part.stop == unread.stop:
                self._newcomers.pop(0)
        return parts

    def _unread(self, session: Session, number: int) -> range:
        """The positions of a prompt that are to be read, less those that the session recalls when its turn has come."""
        place = self._at(number)
        if place.unread.start == 0:
            place.unread = place.unread[session.recall(number) :]
        return place.unread

    def _speaking(self) -> list[int]:
        """The places that can write a frame: all of a joint draw, or none."""
        held = {n for number in self._newcomers for n in self._at(number).group}
        return [
            number
            for number, place in enumerate(self._places)
            if place is not None and not place.over and number not in held and not place.waits
        ]

    def _drawing(self) -> list[int]:
        """The places that have ended, and draw until their group ends."""
        return [number for number, place in enumerate(self._places) if place is not None and place.over]

    def _pass_on_text(self, session: Session, number: int) -> None:
        """The text of a request that has arrived since its last frame."""
        source = self._at(number).request.incoming
        if source is not None and (ids := source.more()):
            session.add_text(number, ids)


def spoken(opened: Callable[[], RunningBatch], requests: Sequence[Request], generator: Generator) -> Iterator[Frame]:
    """The codes of requests frame by frame, in a batch of their own, opened when the first frame is asked for.

    ``generator``: one per request, or one from which all of them draw jointly. RequestError for a request that cannot
    go on, or whose text has not arrived.
    """
    with opened() as batch:
        if isinstance(generator, ItemGenerators):
            for request, own in zip(requests, generator.items, strict=True):
                batch.join_jointly([request], own)
        else:
            batch.join_jointly(requests, generator)
        while batch.free < batch.places:
            if batch.idle:
                raise RequestError("the text of the next frame has not arrived, and there is no other request to speak")
            step = batch.step()
            if step.failed:
                raise next(iter(step.failed.values()))
            if len(step.places):
                yield Frame(step.places, step.codes)


def _nothing(session: Session) -> Step:
    """A step without a frame."""
    return Step(np.zeros(0, np.int64), np.zeros((0, session.groups), np.int64))
