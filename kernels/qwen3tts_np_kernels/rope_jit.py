"""Rotation of heads in one pass over memory: compiled twin of rope.py."""

from __future__ import annotations

import numpy as np

from .arrays import F32
from .cpu import compiled, kernel
from .rope import rotate_ref
from .threads_jit import Member, share
from .together_jit import ALONE, Runner


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


def rotate_into(qkv: F32, rope: tuple[F32, F32], d: int, queries: F32, kv: F32, run: Runner = ALONE) -> None:
    """Queries and keys rotated, and values, each to where attention reads it.

    Contiguous float32: qkv [T, at least (N + 2 K) d] -> queries [T, N, W] and kv [T, 2, K, W], zero beyond d values of
    a head; cos and sin [T, d / 2].
    """
    (t, heads, wide), kv_heads = queries.shape, kv.shape[2]
    if kv.shape != (t, 2, kv_heads, wide) or qkv.shape[1] < (heads + 2 * kv_heads) * d or wide < d:
        shapes = f"qkv{list(qkv.shape)}, queries{list(queries.shape)}, kv{list(kv.shape)}"
        raise ValueError(f"rotate_into: {shapes} do not fit [T, (N + 2 K) {d}], [T, N, W], [T, 2, K, W]")
    if compiled():
        sizes = heads, kv_heads, d, wide
        run(_rotate_into, qkv, *rope, *sizes, queries.reshape(t, -1), kv.reshape(t, -1))
        return
    q, k, v = np.split(qkv[:, : (heads + 2 * kv_heads) * d], [heads * d, (heads + kv_heads) * d], axis=1)
    queries[..., d:], kv[..., d:] = 0, 0
    queries[..., :d] = rotate_ref(q.reshape(t, heads, d), *rope)
    kv[:, 0, :, :d] = rotate_ref(k.reshape(t, kv_heads, d), *rope)
    kv[:, 1, :, :d] = v.reshape(t, kv_heads, d)


@kernel
def _rotate_into(
    me: Member, x: F32, cos: F32, sin: F32, heads: int, kv_heads: int, d: int, wide: int, queries: F32, kv: F32
) -> None:
    """``queries`` and ``kv`` with all heads of a position side by side."""
    half = d // 2
    first, end = share(me, heads + 2 * kv_heads)
    for t in range(len(x)):
        for head in range(first, end):
            at, to, y = head * d, head * wide, queries[t]
            if head >= heads:
                to, y = (head - heads) * wide, kv[t]
            if head < heads + kv_heads:
                for j in range(half):
                    low, high, c, s = x[t, at + j], x[t, at + half + j], cos[t, j], sin[t, j]
                    y[to + j] = low * c - high * s
                    y[to + half + j] = high * c + low * s
            else:
                for j in range(d):
                    y[to + j] = x[t, at + j]
            for j in range(d, wide):
                y[to + j] = 0
