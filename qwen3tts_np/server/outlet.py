"""From the thread that speaks to the event loop that answers: samples, and how the speech ended.

The speaking thread never waits for a reader. How much one has not read is counted, so that whoever feeds the outlet can
wait with the next piece of a text.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..ops import Pcm


@dataclass(frozen=True)
class Piece:
    """A piece of a text that has been spoken."""

    text: str
    frames: int
    complete: bool  # False: it did not stop by itself, and was cut


@dataclass(frozen=True)
class End:
    """The end of an answer."""

    pieces: Sequence[Piece] = ()
    error: Exception | None = None  # why there is no more

    @property
    def frames(self) -> int:
        """Of all pieces."""
        return sum(piece.frames for piece in self.pieces)


class Outlet:
    """One answer on its way. Create it in the event loop that reads it."""

    def __init__(self, on_read: Callable[[], None]) -> None:
        """``on_read`` is called when all that was there has been read."""
        self._on_read = on_read
        self._loop = asyncio.get_running_loop()
        self._items: deque[Pcm | End] = deque()
        self._arrived = asyncio.Event()
        self._made = self._read = 0  # samples; each has one writer
        self.left = False  # whether the reader has gone: nothing more need be made

    # --- the thread that speaks ---

    @property
    def unread(self) -> int:
        """Samples that nobody has read yet."""
        return self._made - self._read

    def put(self, item: Pcm | End) -> None:
        """Hand out samples, or the end."""
        if not isinstance(item, End):
            self._made += len(item)
        self._items.append(item)
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._arrived.set)

    # --- the event loop ---

    async def next(self) -> Pcm | End:
        """The next samples, or the end."""
        while not self._items:
            self._arrived.clear()
            if not self._items:  # one may have come before the event was cleared
                await self._arrived.wait()
        item = self._items.popleft()
        if not isinstance(item, End):
            self._read += len(item)
            if not self._items:
                self._on_read()
        return item
