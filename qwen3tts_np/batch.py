"""A running batch: requests that are spoken together, and join and leave between two frames.

    with model.open_batch(places=8, positions=1024) as batch:
        place = batch.join(request)
        while not batch.idle:
            step = batch.step()
            for place, codes in zip(step.places, step.codes):
                ...  # the next frame [G] of the request at this place
            for place in step.ended:
                ...  # its last frame came before; the place is free again

Codes of a request are the same bits alone and in any company, whenever it joins and whoever leaves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType

import numpy as np

from .config import ModelConfig
from .errors import RequestError
from .generate import FrameWriter
from .ops import Ints
from .request import Request
from .talker.frame import Frame
from .talker.generator import ItemGenerators

PROMPT_SLICE = 64  # positions of newcomers' prompts that one step reads


@dataclass(frozen=True)
class Step:
    """One frame of all that speak, and who has ended."""

    places: Ints  # [n] that wrote a frame, ascending
    codes: Ints  # [n, G]
    ended: tuple[int, ...] = ()  # places whose speech is over; free again
    failed: Mapping[int, RequestError] = field(default_factory=dict)  # of those, the ones that could not go on, and why


@dataclass
class _Place:
    """A request that is being spoken."""

    request: Request
    frames: Iterator[Frame]
    written: int = 0

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

    def __init__(self, loop: FrameWriter, config: ModelConfig, places: int, positions: int | None) -> None:
        self._loop, self._config, self._positions = loop, config, positions
        self._places: list[_Place | None] = [None] * places

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
        """Positions of a place: those of the prompt, and one for each frame. None where the cache grows instead."""
        return self._positions

    @property
    def nbytes(self) -> int | None:
        """Bytes of keys and values of all places; None where they grow."""
        c = self._config.talker_config
        if self._positions is None:
            return None
        return self.places * self._positions * c.num_hidden_layers * c.num_key_value_heads * c.head_dim * 2 * 4

    @property
    def idle(self) -> bool:
        """Whether a step would do nothing: nobody is here, or everybody waits for text."""
        return all(place is None or place.waits for place in self._places)

    def check(self, request: Request) -> None:
        """RequestError if no place of this batch has room for the request, however long it waits for one."""
        needed = len(request.prompt.prefill) + request.limits.max_new_tokens - 1  # N tokens are N - 1 frames
        if self._positions is not None and needed > self._positions:
            raise RequestError(
                f"the request can take {needed} positions ({len(request.prompt.prefill)} of its prompt, and one for "
                f"each frame up to max_new_tokens) and a place has {self._positions}; shorten its text or lower "
                "max_new_tokens"
            )

    def join(self, request: Request) -> int:
        """Give the request a place, and return its number, from 0. Nothing is computed before the next step.

        RequestError if no place is free, or for a request that :meth:`check` refuses.
        """
        self.check(request)
        if None not in self._places:
            raise RequestError(f"all {self.places} places of this batch are taken")
        place = self._places.index(None)
        frames = self._loop.frames([request], ItemGenerators([request.seed]))
        self._places[place] = _Place(request, frames)
        return place

    def leave(self, place: int) -> None:
        """End the speech at this place; it is free at once. Nothing happens where nobody is."""
        self._places[place] = None

    def step(self) -> Step:
        """Write one frame of everybody who has read its prompt and whose text is there.

        A step may write no frame: while only prompts are being read, and when the batch is :attr:`idle`.
        """
        places, codes, ended = [], [], []
        failed: dict[int, RequestError] = {}
        for number, place in enumerate(self._places):
            if place is None or place.waits:
                continue
            try:
                frame = next(place.frames, None)
            except RequestError as error:
                frame, failed[number] = None, error
            if frame is None:
                ended.append(number)
                self.leave(number)
            else:
                place.written += 1
                places.append(number)
                codes.append(frame.codes[0])
        groups = self._config.talker_config.num_code_groups
        rows = np.array(codes, np.int64).reshape(-1, groups)
        return Step(np.array(places, np.int64), rows, tuple(ended), failed)

    def close(self) -> None:
        """End all speech and give the memory back."""
        self._places = [None] * self.places

    def __enter__(self) -> RunningBatch:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
