"""The text that is added to the frames of a batch, one token each: embedded some tokens ahead of its use."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ...ops import Array, Ints

AHEAD = 32  # tokens of an item that are embedded at once: one read of the weights for all of them


class TextRows:
    """The text embeddings of the next frames of each item, in memory that does not grow with the text."""

    def __init__(self, items: int, width: int, project: Callable[[Ints], Array], pad: int) -> None:
        """``project``: text tokens [n] -> [n, width]; ``pad``: the token that follows every text indefinitely."""
        self._project = project
        self._waiting: list[list[int]] = [[] for _ in range(items)]  # tokens that are not embedded yet
        self._next = [(0, 0)] * items  # the row of the next frame, and the end of those embedded
        self._pad = items * AHEAD
        self.rows: Array = np.empty((items * AHEAD + 1, width), np.float32)
        self.rows[self._pad] = project(np.array([pad]))[0]

    def begin(self, item: int, ids: Sequence[int]) -> None:
        """The text of a new item, as far as it is known."""
        self._waiting[item], self._next[item] = list(ids), (item * AHEAD, item * AHEAD)

    def add(self, item: int, ids: Sequence[int]) -> None:
        """Text that has arrived since."""
        self._waiting[item] += ids

    def take(self, item: int) -> int:
        """The row of the next frame."""
        first, end = self._next[item]
        if first == end:
            ids = self._waiting[item][:AHEAD]
            if not ids:
                return self._pad
            self._waiting[item] = self._waiting[item][AHEAD:]
            first, end = item * AHEAD, item * AHEAD + len(ids)
            self.rows[first:end] = self._project(np.array(ids))
        self._next[item] = first + 1, end
        return first
