"""Convolutions of 7 or 2 taps with a fraction of the multiplications: minimal filtering, compiled twin of conv.py.

Six results of a filter of seven taps are 42 products, yet 12 products of transformed inputs and weights suffice
(Toom, 1963; Cook, 1966; for filters Winograd, 1980). For one channel

    results = A [(G weights) * (B inputs)]        weights [7], inputs [12], results [6]

with fixed matrices A [6, 12], G [12, 7], B [12, 12] of small fractions: inputs and weights are treated as polynomials,
evaluated at 12 points (one of them infinity), multiplied there, and the results interpolated. With channels, each of
the 12 products is a matrix product over the channels. The weights are transformed when they are packed. Likewise five
results of two taps, 10 products, need 6.

The price is rounding: the matrices add numbers of different magnitude. Against float64 the error of seven taps is
-103 dB; summing tap by tap has -135 dB.

For a dilated filter the rows form ``dilation`` interleaved signals. The rounding of a result depends on its tile, so
tiles must be aligned the same way however a signal is cut into blocks: they restart at every frame; inputs beyond the
end of a frame that serve dropped results only are taken as zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from .activation_jit import NOTHING, Activation, activate_row, activation_ref
from .arrays import F32, F64, I64, Array
from .conv import conv1d_ref
from .conv_jit import TILE_VECTORS, check_signals, multiply_channels, signal_slices, width
from .cpu import CPU, compiled, inner, kernel
from .simd.llvm import LANES, TILE, Builder, Value, f32x16, number, operation
from .simd.ops import load, store, zeros
from .simd.tiles import load_tile, store_tile
from .threads_jit import Member, barrier, share
from .together_jit import ALONE, Runner


@dataclass(frozen=True)
class Scheme:
    """A minimal filter: a number of results of a number of taps, as one tile."""

    results: int
    taps: int
    pairs: tuple[Fraction, ...]
    """The points are 0, each of these with both signs, and infinity."""

    @property
    def products(self) -> int:
        return self.results + self.taps - 1

    @cached_property
    def matrices(self) -> tuple[F64, F64, F64]:
        """A [results, products], G [products, taps], B [products, products].

        A product may be scaled in G and inversely in B: by powers of two, until both have the same magnitude.
        """
        points = (Fraction(0), *(sign * p for p in self.pairs for sign in (1, -1)))
        a, g, b = (np.zeros((self.products, n)) for n in (self.results, self.taps, self.products))
        for i, point in enumerate(points):
            others = [p for p in points if p != point]
            a[i] = [float(point**k) for k in range(self.results)]
            g[i] = [float(point**k / math.prod(point - p for p in others)) for k in range(self.taps)]
            b[i, :-1] = _expand(others)
        a[-1, -1] = g[-1, -1] = 1
        b[-1] = _expand(list(points))
        scale = 2.0 ** np.round(np.log2(np.linalg.norm(b, axis=1) / np.linalg.norm(g, axis=1)) / 2)[:, None]
        return a.T, g * scale, b / scale


def _expand(roots: list[Fraction]) -> list[float]:
    """Coefficients of the polynomial with these roots, lowest power first."""
    zero, polynomial = Fraction(0), [Fraction(1)]
    for root in roots:
        shifted, padded = [zero, *polynomial], [*polynomial, zero]
        polynomial = [high - root * low for high, low in zip(shifted, padded, strict=True)]
    return list(map(float, polynomial))


# Of all small fractions these points lose the least precision.
SEVEN_TAPS = Scheme(6, 7, (Fraction(1), Fraction(2), Fraction(1, 2), Fraction(3, 2), Fraction(3, 4)))
TWO_TAPS = Scheme(5, 2, (Fraction(1), Fraction(2)))
SCHEMES = {scheme.taps: scheme for scheme in (SEVEN_TAPS, TWO_TAPS)}
_PACKED_AT_ONCE = 16  # output channels whose weights are transformed together, so that they stay in the cache
_SCHEME_OF_TILE = {scheme.products: scheme for scheme in SCHEMES.values()}


class MinimalFilter(NamedTuple):
    """Packed weights: one matrix [out, in] per product, in blocks of 16 output channels, lane = channel."""

    weight: F32  # [products, blocks, inputs, 16], flat
    bias: F32  # [blocks * 16]
    taps: int
    inputs: int
    outputs: int


def pack_minimal(weight: Array, bias: Array) -> MinimalFilter:
    """Pack weight [out, in, 7 or 2] and bias [out]."""
    outputs, inputs, taps = weight.shape
    _, g, _ = SCHEMES[taps].matrices
    products = np.zeros((len(g), width(outputs), inputs), np.float32)
    for first in range(0, outputs, _PACKED_AT_ONCE):
        rows = slice(first, min(first + _PACKED_AT_ONCE, outputs))
        products[:, rows] = _transformed(g, weight[rows])
    packed = np.ascontiguousarray(products.reshape(len(g), -1, LANES, inputs).swapaxes(2, 3))
    padded = np.zeros(width(outputs), np.float32)
    padded[:outputs] = bias
    return MinimalFilter(packed.reshape(-1), padded, taps, inputs, outputs)


def _transformed(g: F64, weight: Array) -> F64:
    """G weights: [out, in, taps] -> [products, out, in], float64.

    Summed tap by tap: the summation order of a matrix product, and so the last bit, depends on the CPU.
    """
    taps = np.ascontiguousarray(weight.transpose(2, 0, 1)).astype(np.float64)
    products, term = g[:, 0, None, None] * taps[0], np.empty_like(taps[0])
    for product, row in zip(products, g, strict=True):
        for factor, tap in zip(row[1:], taps[1:], strict=True):
            product += np.multiply(tap, factor, out=term)
    return products


def unpack_minimal(w: MinimalFilter) -> tuple[F32, F32]:
    """The inverse of ``pack_minimal``, up to rounding: weight [out, in, taps] and bias [out]."""
    _, g, _ = SCHEMES[w.taps].matrices
    products = w.weight.reshape(len(g), -1, w.inputs, LANES).swapaxes(2, 3).reshape(len(g), -1, w.inputs)
    weight = np.tensordot(products[:, : w.outputs], np.linalg.pinv(g), (0, 1))
    return weight.astype(np.float32), w.bias[: w.outputs]


def minimal_conv(
    x: F32,
    w: MinimalFilter,
    y: F32,
    *,
    frame: int,
    dilation: int = 1,
    activation: Activation = NOTHING,
    activated: F32 | None = None,
    signals: I64 | None = None,
    run: Runner = ALONE,
) -> None:
    """y = convolution of x, in frames of ``frame`` rows; then SnakeBeta(y), if given, goes to ``activated``, default y.

    Contiguous float32: x [T + (taps - 1) dilation, width(inputs)], y and activated [T, width(outputs)]; T is a multiple
    of ``frame``. ``signals`` and ``run`` as in ``conv_jit.conv``; each signal has complete frames.
    """
    out = y if activated is None else activated
    past = (w.taps - 1) * dilation
    signals = np.array([len(y)], np.int64) if signals is None else signals
    check_signals("minimal_conv", signals, len(y))
    for name, array, rows, columns in (
        ("x", x, len(y) + past * len(signals), width(w.inputs)),
        ("y", y, len(y), len(w.bias)),
        ("activated", out, len(y), len(w.bias)),
    ):
        if array.dtype != np.float32 or array.shape != (rows, columns) or not array.flags.c_contiguous:
            found = f"{array.dtype} {list(array.shape)}"
            raise ValueError(f"minimal_conv: {name} is {found}, expected contiguous float32 [{rows}, {columns}]")
    for rows in signals[signals % frame > 0]:
        raise ValueError(f"minimal_conv: {rows} rows are not a multiple of frame={frame}")
    if compiled():
        starts, counts = tiles(SCHEMES[w.taps].results, frame, dilation)
        frames = np.arange(0, len(y), frame) + np.repeat(np.arange(len(signals)) * past, signals // frame)
        flat = x.reshape(-1), x.shape[1], dilation, *w[:4], y.reshape(-1)
        sizes = SCHEMES[w.taps].products, len(frames) * len(starts), x.shape[1], len(w.bias)
        run(_minimal_conv, *flat, *activation, out.reshape(-1), frame, frames, starts, counts, _room(run, *sizes))
    else:
        y[:] = 0
        for here, there in signal_slices(signals, past):
            y[there, : w.outputs] = conv1d_ref(x[here, : w.inputs].T, *unpack_minimal(w), dilation=dilation).T
        if activation.kind:
            out[:] = activation_ref(y, activation)


def tiles(results: int, frame: int, dilation: int) -> tuple[I64, I64]:
    """The tiles of one frame: the first row of each, and the number of its results within the frame."""
    phases = range(min(dilation, frame))
    starts = np.array([i for phase in phases for i in range(phase, frame, results * dilation)], np.int64)
    return starts, np.minimum(-((starts - frame) // dilation), results)


@operation(lambda tile: tile, TILE)
def _evaluate(b: Builder, rows: list[Value]) -> list[Value]:
    """B rows. For a point and its negative, even powers are equal and odd powers have opposite signs."""
    _, _, matrix = _SCHEME_OF_TILE[len(rows)].matrices

    def powers(product: int, parity: int) -> Value:
        first, *others = (k for k in range(parity, len(rows), 2) if matrix[product, k])
        value = b.fmul(rows[first], number(float(matrix[product, first])))
        for k in others:
            value = CPU.fma(b, rows[k], number(float(matrix[product, k])), value)
        return value

    values = [powers(0, 0)]
    for product in range(1, len(rows) - 1, 2):
        even, odd = powers(product, 0), powers(product, 1)
        values += [b.fadd(even, odd), b.fsub(even, odd)]
    return [*values, powers(len(rows) - 1, 1)]


def _results_of(tile: Any, *_: Any) -> Any:
    return f32x16, _SCHEME_OF_TILE[tile.count].results


@operation(_results_of, TILE, f32x16)
def _read_off(b: Builder, products: list[Value], bias: Value) -> list[Value]:
    """A products + bias. Even powers use the sum of a point's and its negative's products, odd ones the difference."""
    matrix, _, _ = _SCHEME_OF_TILE[len(products)].matrices
    pairs = list(zip(products[1:-1:2], products[2:-1:2], strict=True))
    sums, differences = [b.fadd(*pair) for pair in pairs], [b.fsub(*pair) for pair in pairs]
    results = []
    for power, row in enumerate(matrix):
        value = bias
        for factor, x in zip(row[1:-1:2], differences if power % 2 else sums, strict=True):
            value = CPU.fma(b, x, number(float(factor)), value)
        results.append(value)
    results[0] = b.fadd(results[0], products[0])
    results[-1] = b.fadd(results[-1], products[-1])
    return results


_BAND = 1 << 16  # floats in the products of a band of tiles, which should stay in the second-level cache
_FEWEST = 96  # tiles in a band: the weights are read once per band
_TILES_EACH = 24  # of a thread, for tiles to be shared out: they take longer than reading the weights


def _tile_kernels(scheme: Scheme) -> Any:
    """The kernels applied to one tile before and after the multiplications."""
    count, results, others = scheme.products, scheme.results, scheme.taps - 1

    @inner
    def evaluate(
        x: F32, at: int, columns: int, dilation: int, known: int, patch: F32, values: F32, to: int, stride: int
    ) -> None:
        """B rows for all channels. ``known`` results are in the frame; inputs used by the others only are zeros."""
        step = dilation * columns
        if known < results:
            for row in range(count):
                for i in range(0, columns, LANES):
                    store(patch, row * columns + i, load(x, at + row * step + i) if row < known + others else zeros())
            x, at, step = patch, 0, columns
        for i in range(0, columns, LANES):
            store_tile(values, to + i, stride, _evaluate(load_tile(x, at + i, step, count)))

    @inner
    def read_off(
        products: F32, start: int, stride: int, bias: F32, dilation: int, known: int, patch: F32, y: F32, at: int
    ) -> None:
        """The ``known`` results that are within the frame, for all channels."""
        columns = bias.size
        step = dilation * columns
        for i in range(0, columns, LANES):
            rows = _read_off(load_tile(products, start + i, stride, count), load(bias, i))
            if known == results:
                store_tile(y, at + i, step, rows)
            else:
                store_tile(patch, i, columns, rows)
        if known < results:
            for row in range(known):
                for i in range(0, columns, LANES):
                    store(y, at + row * step + i, load(patch, row * columns + i))

    return evaluate, read_off


_evaluate_7, _read_off_7 = _tile_kernels(SEVEN_TAPS)
_evaluate_2, _read_off_2 = _tile_kernels(TWO_TAPS)
_PRODUCTS_7, _PRODUCTS_2 = SEVEN_TAPS.products, TWO_TAPS.products


class _Room(NamedTuple):
    """Working space for a band of tiles, of each thread [threads, ...] and for all."""

    band: int  # tiles
    values: F32
    products: F32
    patch: F32
    nothing: F32  # a bias


def _room(run: Runner, count: int, all_tiles: int, x_width: int, y_width: int) -> _Room:
    band = min(max(_BAND // (count * max(x_width, y_width)), _FEWEST), all_tiles)
    sizes = count * (band * x_width + LANES), count * (band * y_width + LANES), count * max(x_width, y_width)
    return _Room(band, *(run.empty(run.size, size) for size in sizes), np.zeros(y_width, np.float32))


@kernel
def _minimal_conv(
    me: Member,
    x: F32,
    x_width: int,
    dilation: int,
    weight: F32,
    bias: F32,
    taps: int,
    inputs: int,
    y: F32,
    kind: int,
    frequency: F32,
    gain: F32,
    activated: F32,
    frame: int,
    frames: I64,
    starts: I64,
    counts: I64,
    room: _Room,
) -> None:
    """``frames``: the row of x that the first result of each frame begins with.

    Each thread takes a part of the tiles, if there are many. Otherwise all share every band: its tiles before and after
    the multiplications, the channels of all products between.
    """
    y_width, count = bias.size, _PRODUCTS_7 if taps == 7 else _PRODUCTS_2
    all_tiles, channels = frames.size * starts.size, TILE_VECTORS * LANES
    first_tile, end_tile, crew, own = 0, all_tiles, me, 0
    if all_tiles >= _TILES_EACH * me.count:
        first_tile, end_tile = share(me, all_tiles)
        crew, own = Member(0, 1, me.meeting), me.index
    values, products, patch, nothing = room.values[own], room.products[own], room.patch[me.index], room.nothing
    x_step, y_step = room.band * x_width + LANES, room.band * y_width + LANES  # a cache line more: set conflicts
    zero, one, groups = np.int64(0), np.int64(1), y_width // channels
    for first in range(first_tile, end_tile, room.band):
        here = min(room.band, end_tile - first)
        begin, end = share(crew, here)
        for i in range(begin, end):
            of_frame, tile = divmod(first + i, starts.size)
            at = (frames[of_frame] + starts[tile]) * x_width
            if taps == 7:
                _evaluate_7(x, at, x_width, dilation, counts[tile], patch, values, i * x_width, x_step)
            else:
                _evaluate_2(x, at, x_width, dilation, counts[tile], patch, values, i * x_width, x_step)
        barrier(crew)
        first_part, end_part = share(crew, count * groups)
        for part in range(first_part, end_part):
            product, group = divmod(part, groups)
            channel = group * channels
            v, w, p = product * x_step, (product * y_width + channel) * inputs, product * y_step + channel
            multiply_channels(
                values, v, x_width, zero, weight, nothing, w, nothing, channel, one, inputs, products, p, here, zero
            )
        barrier(crew)
        for i in range(begin, end):
            of_frame, tile = divmod(first + i, starts.size)
            at = (of_frame * frame + starts[tile]) * y_width
            if taps == 7:
                _read_off_7(products, i * y_width, y_step, bias, dilation, counts[tile], patch, y, at)
            else:
                _read_off_2(products, i * y_width, y_step, bias, dilation, counts[tile], patch, y, at)
            if kind:
                for row in range(at, at + counts[tile] * dilation * y_width, dilation * y_width):
                    activate_row(y, row, zero, y_width, kind, frequency, gain, activated)
        barrier(crew)
