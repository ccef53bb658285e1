"""The nearest codebook entry, and the sum of those that codes select: compiled twin of rvq.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .arrays import F32, I32, I64, Array
from .conv_jit import Convolution, multiply, pack_conv
from .cpu import compiled, inner, kernel
from .rvq import lookup_ref, nearest_ref
from .simd.llvm import LANES
from .simd.ops import (
    add,
    add_int,
    as_float,
    as_int,
    greater,
    lane_numbers,
    load,
    maximum,
    select,
    splat,
    splat_int,
    sqrt,
    store,
    store_int,
    zeros,
)
from .threads_jit import Member, share
from .together_jit import ALONE, Runner

_BAND = 48  # rows whose distances to all entries are computed together


class Codebook(NamedTuple):
    """The entries, and -2 entries and their squared lengths as weights and bias of a matrix product."""

    entries: F32  # [C, E]
    products: Convolution


def pack_codebook(entries: Array) -> Codebook:
    """Pack entries [C, E]. Lanes beyond the last entry are infinitely far away."""
    products = pack_conv(-2 * entries, np.sum(entries * entries, axis=1))
    products.bias[len(entries) :] = np.inf
    return Codebook(entries.astype(np.float32, copy=False), products)


def nearest(x: F32, codebook: Codebook) -> I64:
    """Index of the nearest entry by Euclidean distance; the first of a tie. x float32 [T, E] -> [T].

    As in ``nearest_ref``, |x|² - 2 x·e + |e|² is rounded at every step, and its root decides.
    """
    size = codebook.entries.shape[1]
    if x.dtype != np.float32 or x.ndim != 2 or x.shape[1] != size or not x.flags.c_contiguous:
        raise ValueError(f"nearest: x is {x.dtype} {list(x.shape)}, expected contiguous float32 [T, {size}]")
    if not compiled():
        return nearest_ref(x, codebook.entries)
    codes = np.empty(len(x), np.int64)
    distances = np.empty(_BAND * len(codebook.products.bias), np.float32)
    best, chosen = np.empty(LANES, np.float32), np.empty(LANES, np.int32)
    weight, lengths = codebook.products.weight, codebook.products.bias
    _nearest(x.reshape(-1), weight, lengths, size, codes, distances, best, chosen)
    return codes


@kernel
def _nearest(x: F32, weight: F32, lengths: F32, size: int, codes: I64, distances: F32, best: F32, chosen: I32) -> None:
    """Write the codes; distances [_BAND, C], best and chosen are working buffers."""
    for first in range(0, codes.size, _BAND):
        rows = min(_BAND, codes.size - first)
        zero, one = np.int64(0), np.int64(1)
        multiply(x, first * size, size, zero, weight, lengths, one, size, distances, zero, rows, zero)
        for row in range(rows):
            square = np.float32(0)
            for i in range((first + row) * size, (first + row + 1) * size):
                square += x[i] * x[i]
            codes[first + row] = _smallest(distances, row * lengths.size, lengths.size, square, best, chosen)


@inner
def _smallest(distances: F32, at: int, count: int, square: float, best: F32, chosen: I32) -> int:
    """Index of the smallest sqrt(distance + square), the first of a tie; best and chosen are working buffers."""
    nearest_yet, where = splat(np.float32(np.inf)), splat_int(np.int32(0))
    for i in range(0, count, LANES):
        distance = sqrt(maximum(add(load(distances, at + i), splat(square)), zeros()))
        closer = greater(nearest_yet, distance)
        nearest_yet = select(closer, distance, nearest_yet)
        index = add_int(lane_numbers(), splat_int(np.int32(i)))
        where = as_int(select(closer, as_float(index), as_float(where)))
    store(best, 0, nearest_yet)
    store_int(chosen, 0, where)
    first = 0
    for lane in range(1, LANES):
        if best[lane] < best[first] or (best[lane] == best[first] and chosen[lane] < chosen[first]):
            first = lane
    return chosen[first]


def look_up(codes: I64, first: int, codebooks: tuple[F32, ...], run: Runner = ALONE) -> F32:
    """``lookup_ref`` of some columns of codes [T, G], from ``first`` on. Codebooks of one shape [C, E] -> [T, E].

    Trap: codes are taken as they are; beyond C, other memory is read.
    """
    last = first + len(codebooks)
    if codes.ndim != 2 or codes.dtype != np.int64 or codes.shape[1] < last or not codebooks:
        found = f"codes {codes.dtype} {list(codes.shape)}, {len(codebooks)} codebooks from {first} on"
        raise ValueError(f"look_up: {found} do not fit int64 [T, G]")
    if not compiled():
        return np.asarray(lookup_ref(codes[:, first:last], codebooks), np.float32)
    y = run.empty(len(codes), codebooks[0].shape[1])
    run(_look_up, codes, first, codebooks, y)
    return y


@kernel
def _look_up(me: Member, codes: I64, first: int, codebooks: Sequence[F32], y: F32) -> None:
    """This thread's values of all rows."""
    begin, end = share(me, (y.shape[1] + LANES - 1) // LANES)
    begin, end = begin * LANES, min(end * LANES, y.shape[1])
    for t in range(len(codes)):
        for group in range(len(codebooks)):
            code, entries = codes[t, first + group], codebooks[group]
            for i in range(begin, end):
                y[t, i] = entries[code, i] if group == 0 else y[t, i] + entries[code, i]
