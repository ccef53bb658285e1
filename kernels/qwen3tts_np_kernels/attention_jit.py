"""Grouped-query attention over a float32 cache: compiled twin of attention.py.

The values of a head are contiguous and zero-padded to a multiple of ``HEAD_STEP``. Every result is summed in a fixed
order, so it depends neither on the other heads nor on the capacity of the cache.
"""

from __future__ import annotations

import math

import numpy as np

from .arrays import F32, I64
from .attention import attention_ref
from .cpu import CPU, compiled, inner, kernel
from .norm_jit import inverse_rms
from .simd.functions import exp
from .simd.llvm import LANES
from .simd.ops import add, largest, load, maximum, mul, splat, store, sub, total, zeros
from .simd.tiles import (
    add_tiles,
    fma_rows,
    fma_tile,
    load_tile,
    store_items,
    store_totals,
    zeros_tile,
)
from .threads_jit import Member, share
from .together_jit import ALONE, Runner

HEAD_STEP = 2 * LANES
POSITIONS = CPU.tiles.attention_positions
"""Keys multiplied with a query at once. Up to this many positions past the last are read and ignored."""
_HALF = POSITIONS // 2  # keys multiplied with two queries at once
_VECTORS = 2 if POSITIONS == 16 else 1  # of the values of two heads mixed at once, in four partial sums each
_SUMS = 2 * _VECTORS


def attention(q: F32, k: F32, v: F32, window: int | None = None) -> F32:
    """softmax(q kᵀ / √D) v; the T queries are the last T of the S positions and attend to themselves and the past.

    q float32 [T, N, D], k and v float32 [S, K, D] -> [T, N, D]. Raises TypeError or ValueError for anything else.
    ``window`` limits a query to that many positions, its own included.
    """
    for name, array in (("q", q), ("k", k), ("v", v)):
        if array.dtype != np.float32:
            raise TypeError(f"attention: {name}.dtype={array.dtype}, expected float32")
        if array.ndim != 3:
            raise ValueError(f"attention: {name}{list(array.shape)} has {array.ndim} axes, expected 3")
    (t, heads, d), (s, kv_heads, _) = q.shape, k.shape
    if k.shape != v.shape or k.shape[2] != d or t > s or heads % kv_heads:
        shapes = f"q{list(q.shape)}, k{list(k.shape)}, v{list(v.shape)}"
        raise ValueError(f"attention: {shapes} do not fit [T, N, D], [S, K, D], [S, K, D]")
    if window is not None and window < 1:
        raise ValueError(f"attention: window={window} must be at least 1")
    if not compiled():
        return np.asarray(attention_ref(q, k, v, window), dtype=np.float32)
    q, k, v = _whole_steps(q), _by_head(k), _by_head(v)
    y, padded = np.empty_like(q), q.shape[2]
    flat = (array.reshape(-1) for array in (q, k, v, y))
    sizes = t, s, heads, kv_heads, padded, padded, (s + POSITIONS) * padded
    ALONE(_attention, *flat, *sizes, 1 / math.sqrt(d), window or s, np.array([s - t], np.int64), _scores(ALONE, s))
    return y[:, :, :d]


def window_attention(q: F32, kv: F32, y: F32, d: int, window: int, before: I64, run: Runner = ALONE) -> None:
    """:func:`attention` of queries within a window, over a cache that is read where it is.

    Contiguous float32: q and y [T, N, W], kv [S, 2, K, W] keys beside values; W is ``HEAD_STEP`` times n, heads of d
    values zero-padded. Of the positions before the queries only the last have a meaning, ``before`` [1] of them. What
    follows kv in memory must be readable: ``POSITIONS`` positions, if only of the same array.
    """
    (t, heads, width), (s, _, kv_heads, _) = q.shape, kv.shape
    if kv.shape != (s, 2, kv_heads, width) or y.shape != q.shape or t > s or heads % kv_heads or width % HEAD_STEP:
        shapes = f"q{list(q.shape)}, kv{list(kv.shape)}, y{list(y.shape)}"
        raise ValueError(f"window_attention: {shapes} do not fit [T, N, W], [S, 2, K, W], [T, N, W]")
    if not compiled():
        seen = kv[s - t - before[0] :, ..., :d]
        y[:] = 0
        y[..., :d] = attention_ref(q[..., :d], seen[:, 0], seen[:, 1], window)
        return
    flat = q.reshape(-1), kv.reshape(-1), kv.reshape(-1)[kv_heads * width :], y.reshape(-1)
    sizes = t, s, heads, kv_heads, width, 2 * kv_heads * width, width
    run(_attention, *flat, *sizes, 1 / math.sqrt(d), window, before, _scores(run, s))


def _scores(run: Runner, positions: int) -> F32:
    """Working space of each thread: two rows."""
    return run.empty(run.size, 2 * -(-positions // LANES) * LANES)


def _whole_steps(x: F32) -> F32:
    """A contiguous copy with every head zero-padded."""
    return np.ascontiguousarray(np.pad(x, ((0, 0), (0, 0), (0, -x.shape[2] % HEAD_STEP))))


def _by_head(x: F32) -> F32:
    """[S, K, D] -> [K, S + POSITIONS, W], zero-padded: the positions of a head one after another, as they are read."""
    s, heads, d = x.shape
    padded = np.zeros((heads, s + POSITIONS, -(-d // HEAD_STEP) * HEAD_STEP), np.float32)
    padded[:, :s, :d] = x.swapaxes(0, 1)
    return padded


@kernel
def _attention(
    me: Member,
    q: F32,
    k: F32,
    v: F32,
    y: F32,
    t: int,
    s: int,
    heads: int,
    kv_heads: int,
    size: int,
    stride: int,
    head_stride: int,
    scale: float,
    window: int,
    before: I64,
    scores: F32,
) -> None:
    """This thread's key/value heads. Strides of positions and of heads in k and v. scores [threads, 2 S]."""
    group, unknown = heads // kv_heads, s - t - before[0]
    begin, end = share(me, kv_heads)
    for kv_head in range(begin, end):
        for query in range(t):
            own = before[0] + query
            first = max(own + 1 - window, 0)
            at, cache_at = (query * heads + kv_head * group) * size, (unknown + first) * stride + kv_head * head_stride
            attend(q, at, group, size, k, v, cache_at, stride, own + 1 - first, scale, scores[me.index], y, at)


@inner
def attend(
    q: F32,
    q_at: int,
    group: int,
    size: int,
    k: F32,
    v: F32,
    cache_at: int,
    stride: int,
    seen: int,
    scale: float,
    scores: F32,
    y: F32,
    y_at: int,
) -> None:
    """Attention at one position for the ``group`` query heads that share a key/value head.

    The queries [group, size] start at q[q_at] and the results at y[y_at]; the keys and values of the ``seen``
    positions start at ``cache_at``, ``stride`` apart, and the arrays extend ``POSITIONS`` positions further.
    ``scores`` is a working buffer of two rows of ``seen`` floats, each rounded up to a multiple of the vector length.

    Two heads at a time, since they share what is read. That is bound by memory already: prefetches gain nothing.
    """
    row = -(-seen // LANES) * LANES
    for head in range(0, group - 1, 2):
        at = q_at + head * size
        _score_two(q, at, size, k, cache_at, stride, seen, scores, row)
        first, second = _exponentials(scores, 0, seen, scale), _exponentials(scores, row, seen, scale)
        _mix_two(scores, row, seen, v, cache_at, stride, size, first, second, y, y_at + head * size)
    if group % 2:
        last = (group - 1) * size
        _score(q, q_at + last, size, k, cache_at, stride, seen, scores)
        _mix(scores, seen, v, cache_at, stride, size, _exponentials(scores, 0, seen, scale), y, y_at + last)


@inner
def _score(q: F32, q_at: int, size: int, k: F32, k_at: int, stride: int, seen: int, scores: F32) -> None:
    """Write scores[p] = q · key p."""
    for position in range(0, seen, POSITIONS):
        sums, at = zeros_tile(POSITIONS), k_at + position * stride
        for i in range(0, size, LANES):
            sums = fma_rows(sums, load(q, q_at + i), k, at + i, stride)
        store_totals(scores, position, sums)


@inner
def _score_two(q: F32, q_at: int, size: int, k: F32, k_at: int, stride: int, seen: int, scores: F32, row: int) -> None:
    """:func:`_score` of two heads: scores[p] and scores[row + p]."""
    for position in range(0, seen, _HALF):
        one, other, at = zeros_tile(_HALF), zeros_tile(_HALF), k_at + position * stride
        for i in range(0, size, LANES):
            one = fma_rows(one, load(q, q_at + i), k, at + i, stride)
            other = fma_rows(other, load(q, q_at + size + i), k, at + i, stride)
        store_totals(scores, position, one)
        store_totals(scores, row + position, other)


@inner
def _exponentials(scores: F32, at: int, seen: int, scale: float) -> np.float32:
    """Replace the scores from scores[at] by exp(scale * (score - the greatest)); returns 1 / their sum."""
    for position in range(at + seen, at + -(-seen // LANES) * LANES):
        scores[position] = -np.inf
    factor, peaks = splat(scale), splat(-np.inf)
    for position in range(at, at + seen, LANES):
        scaled = mul(load(scores, position), factor)
        store(scores, position, scaled)
        peaks = maximum(peaks, scaled)
    sums, top = zeros(), splat(largest(peaks))
    for position in range(at, at + seen, LANES):
        e = exp(sub(load(scores, position), top))
        store(scores, position, e)
        sums = add(sums, e)
    return np.float32(1.0) / total(sums)


@inner
def _mix(weights: F32, seen: int, v: F32, v_at: int, stride: int, size: int, scale: float, y: F32, y_at: int) -> None:
    """y = scale * the weighted sum of the values, in four interleaved partial sums, so that additions overlap."""
    factor = splat(scale)
    for i in range(0, size, HEAD_STEP):
        at = v_at + i
        a, b, c, d = zeros_tile(2), zeros_tile(2), zeros_tile(2), zeros_tile(2)
        for position in range(0, seen - 3, 4):
            a = fma_tile(a, load_tile(v, at, LANES, 2), weights, position, 0)
            b = fma_tile(b, load_tile(v, at + stride, LANES, 2), weights, position + 1, 0)
            c = fma_tile(c, load_tile(v, at + 2 * stride, LANES, 2), weights, position + 2, 0)
            d = fma_tile(d, load_tile(v, at + 3 * stride, LANES, 2), weights, position + 3, 0)
            at += 4 * stride
        for position in range(seen // 4 * 4, seen):
            a = fma_tile(a, load_tile(v, v_at + position * stride + i, LANES, 2), weights, position, 0)
        store(y, y_at + i, mul(add(add(a[0], b[0]), add(c[0], d[0])), factor))
        store(y, y_at + i + LANES, mul(add(add(a[1], b[1]), add(c[1], d[1])), factor))


@inner
def _mix_two(
    weights: F32, row: int, seen: int, v: F32, v_at: int, stride: int, size: int,
    one: float, other: float, y: F32, y_at: int,
) -> None:  # fmt: skip
    """:func:`_mix` of two heads, with weights[p] and weights[row + p], and the scales ``one`` and ``other``."""
    for i in range(0, size, _VECTORS * LANES):
        at = v_at + i
        a, b, c, d = zeros_tile(_SUMS), zeros_tile(_SUMS), zeros_tile(_SUMS), zeros_tile(_SUMS)
        for position in range(0, seen - 3, 4):
            a = fma_tile(a, load_tile(v, at, LANES, _VECTORS), weights, position, row)
            b = fma_tile(b, load_tile(v, at + stride, LANES, _VECTORS), weights, position + 1, row)
            c = fma_tile(c, load_tile(v, at + 2 * stride, LANES, _VECTORS), weights, position + 2, row)
            d = fma_tile(d, load_tile(v, at + 3 * stride, LANES, _VECTORS), weights, position + 3, row)
            at += 4 * stride
        for position in range(seen // 4 * 4, seen):
            a = fma_tile(a, load_tile(v, v_at + position * stride + i, LANES, _VECTORS), weights, position, row)
        store_items(y, y_at + i, LANES, size, add_tiles(add_tiles(a, b), add_tiles(c, d)), _VECTORS)
    for i in range(y_at, y_at + size, LANES):
        store(y, i, mul(load(y, i), splat(one)))
        store(y, size + i, mul(load(y, size + i), splat(other)))


@inner
def norm_rotate(
    x: F32, at: int, half: int, count: int, weight: F32, eps: float, cos: F32, sin: F32, angle_at: int
) -> None:
    """RMSNorm of one head of a query or key, then its rotary embedding, in place.

    The head is stored as two halves of ``half`` values, each zero-padded to a multiple of the vector length; ``count``
    of its values are not padding. weight [2 * half]; the angles [half] start at cos[angle_at] and sin[angle_at].
    """
    scale = splat(inverse_rms(x, at, 2 * half, count, eps))
    for i in range(0, half, LANES):
        low = mul(mul(load(x, at + i), scale), load(weight, i))
        high = mul(mul(load(x, at + half + i), scale), load(weight, half + i))
        c, s = load(cos, angle_at + i), load(sin, angle_at + i)
        store(x, at + i, sub(mul(low, c), mul(high, s)))
        store(x, at + half + i, add(mul(high, c), mul(low, s)))
