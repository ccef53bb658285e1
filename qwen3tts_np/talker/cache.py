"""Key/value cache of the reference."""

from __future__ import annotations

import numpy as np

from ..ops import Array


class LayerCache:
    """Keys and values of one layer. The buffers double when full, so appending is amortised constant time."""

    def __init__(self, positions: int = 0) -> None:
        """``positions``: how many are reserved with the first one."""
        self.length: int = 0
        self._positions = positions
        self._k: Array | None = None
        self._v: Array | None = None

    def append(self, k: Array, v: Array) -> tuple[Array, Array]:
        """Append k and v [T, K, D]; returns all keys and values so far, each [S, K, D]."""
        start, self.length = self.length, self.length + len(k)
        if self._k is None or self._v is None or self.length > len(self._k):
            positions = self._positions if self.length <= self._positions else 2 * self.length
            room = (positions, *k.shape[1:])
            old_k, old_v = self._k, self._v
            self._k, self._v = np.empty(room, k.dtype), np.empty(room, v.dtype)
            if old_k is not None and old_v is not None:
                self._k[:start], self._v[:start] = old_k[:start], old_v[:start]
        self._k[start : self.length], self._v[start : self.length] = k, v
        return self._k[: self.length], self._v[: self.length]
