"""Rotation of heads in one pass over memory: compiled twin of rope.py."""

from __future__ import annotations

import numpy as np

from .arrays import F32
from .cpu import compiled, kernel
from .rope import rotate_ref


def rotate(x: F32, cos: F32, sin: F32) -> F32:
    """Rotate the pair (j, j + D/2) of every head by its angle. x [T, heads, D], cos and sin [T, D/2]. All float32."""
    if not x.dtype == cos.dtype == sin.dtype == np.float32:
        raise TypeError(f"rotate: x, cos and sin are {x.dtype}, {cos.dtype}, {sin.dtype}, not float32")
    if x.ndim != 3 or cos.shape != sin.shape or cos.shape != (len(x), x.shape[2] // 2) or x.shape[2] % 2:
        shapes = f"x{list(x.shape)}, cos{list(cos.shape)} and sin{list(sin.shape)}"
        raise ValueError(f"rotate: {shapes} do not fit [T, heads, D], [T, D/2] and [T, D/2]")
    if not compiled():
        return np.asarray(rotate_ref(x, cos, sin), np.float32)
    y = np.empty(x.shape, np.float32)
    _rotate(np.ascontiguousarray(x), np.ascontiguousarray(cos), np.ascontiguousarray(sin), y)
    return y


@kernel
def _rotate(x: F32, cos: F32, sin: F32, y: F32) -> None:
    positions, heads, size = x.shape
    half = size // 2
    for t in range(positions):
        for head in range(heads):
            for j in range(half):
                low, high, c, s = x[t, head, j], x[t, head, j + half], cos[t, j], sin[t, j]
                y[t, head, j] = low * c - high * s
                y[t, head, j + half] = high * c + low * s
