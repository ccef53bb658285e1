"""Convolutions over rows [T, channels] with packed weights: compiled twin of conv.py.

One kernel serves all of them. A row holds the channels of one time step, padded to ``width`` values; an output is
summed over taps and input channels, in this order, whatever the number of rows or threads. A register tile of 12 rows
by 32 channels is computed at a time (AVX-512; elsewhere 6 by 16), so that each weight read serves 12 rows and each
input 32 channels. Rows that are left over take lower tiles, few of them, since each reads all weights again. Causality
is up to the caller: row t of the result reads rows ``t * stride`` to ``t * stride + (taps - 1) * dilation`` of x.
Several signals, one after another, go through in one pass over the weights.

Weights are float32, or int16 with a scale per output channel: half the bytes, where reading them is what takes time.
A sum of levels is scaled at its end.

A team (``program_jit.py``) shares out the rows where there are many, and otherwise the channels, so that every weight
is read once.

A transposed convolution uses the same kernel: its result at step t has stride x channels, which are the next stride
rows, and since rows are contiguous, no data moves. A matrix product is a convolution with one tap.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np

from .activation_jit import NOTHING, Activation, activate_row, activation_ref
from .arrays import F32, I16, I64, Array
from .conv import conv1d_ref, depthwise_conv1d_ref
from .cpu import CPU, compiled, inner, kernel
from .pack import TINY
from .simd.llvm import LANES
from .simd.ops import fma, load, store, total, zeros
from .simd.tiles import add_tiles, end_sums, fma_tile, load_grid, load_weights, start_sums, store_grid
from .threads_jit import Member, share
from .together_jit import ALONE, Runner

TILE_ROWS, TILE_VECTORS = CPU.tiles.conv_rows, CPU.tiles.conv_vectors
_CACHED = 1 << 16  # floats of a result that are activated while they are in the second-level cache
_ROWS_EACH = 4 * TILE_ROWS  # of a thread, for rows to be shared out: they take longer than reading the weights
_AHEAD = 2048  # prefetch distance in bytes
_PEAK = np.float32(32767)
WeightFormat = Literal["float32", "int16"]


class Convolution(NamedTuple):
    """Packed weights in blocks of 16 output channels, lane = channel; within a block ordered by tap, input, lane."""

    weight: F32 | I16  # [blocks, taps, inputs, 16], flat
    scale: F32  # [blocks * 16] what a level of int16 stands for; empty for float32
    bias: F32  # [blocks * 16]
    taps: int
    inputs: int
    outputs: int


def width(channels: int) -> int:
    """Padded length of a row with this many channels: a multiple of the register tile."""
    step = TILE_VECTORS * LANES
    return -(-channels // step) * step


def pack_conv(weight: Array, bias: Array | None = None, weights: WeightFormat = "float32") -> Convolution:
    """Pack weight [out, in, taps] or, for a matrix, [out, in], and bias [out]."""
    scale = np.zeros(0, np.float32)
    if weights == "int16":
        weight, scale = _levels(weight)
    outputs, inputs, taps = weight.shape if weight.ndim == 3 else (*weight.shape, 1)
    dtype = np.int16 if weights == "int16" else np.float32
    packed = np.zeros((width(outputs) // LANES, taps, inputs, LANES), dtype)
    whole, rest = divmod(outputs, LANES)
    channels = weight.reshape(outputs, inputs, taps).transpose(2, 1, 0)  # [taps, in, out]
    packed[:whole] = channels[..., : whole * LANES].reshape(taps, inputs, whole, LANES).transpose(2, 0, 1, 3)
    if rest:
        packed[whole, ..., :rest] = channels[..., whole * LANES :]
    return Convolution(packed.reshape(-1), scale, _padded(bias, outputs), taps, inputs, outputs)


def _levels(weight: Array) -> tuple[Array, F32]:
    """Levels -32767 to 32767 of weight [out, ...], and the scale of each output channel, padded."""
    rows = weight.reshape(len(weight), -1).astype(np.float32, copy=False)
    peak = np.abs(rows).max(axis=1, initial=0)
    scale = np.where(peak > TINY, peak / _PEAK, np.float32(1))
    levels = np.rint(rows / scale[:, None])
    return levels.reshape(weight.shape), np.pad(scale, (0, width(len(scale)) - len(scale)), constant_values=1)


def transposed_as_conv(weight: Array, bias: Array, stride: int) -> tuple[F32, F32]:
    """A transposed convolution as a convolution whose rows [stride * width(out)] are ``stride`` rows [width(out)].

    weight [in, out, taps], taps a multiple of stride -> weight [stride * width(out), in, taps / stride] and its bias.
    The first result needs taps / stride - 1 rows before its own; none is computed beyond the end, so none is trimmed.
    """
    inputs, outputs, taps = weight.shape
    if taps % stride:
        raise ValueError(f"transposed_as_conv: {taps} taps are not a multiple of the stride {stride}")
    spread = np.zeros((stride, width(outputs), inputs, taps // stride), np.float32)
    spread[:, :outputs] = weight.reshape(inputs, outputs, -1, stride)[:, :, ::-1].transpose(3, 1, 0, 2)
    return spread.reshape(-1, inputs, taps // stride), np.tile(_padded(bias, outputs), stride)


def unpack_conv(w: Convolution) -> tuple[F32, F32]:
    """What is multiplied by, float32: weight [out, in, taps] and bias [out]."""
    weight = w.weight.reshape(-1, w.taps, w.inputs, LANES).transpose(0, 3, 2, 1).reshape(-1, w.inputs, w.taps)
    if w.scale.size:
        weight = weight * w.scale[:, None, None]
    return weight[: w.outputs], w.bias[: w.outputs]


def _padded(bias: Array | None, outputs: int) -> F32:
    padded = np.zeros(width(outputs), np.float32)
    if bias is not None:
        padded[:outputs] = bias
    return padded


def conv(
    x: F32,
    w: Convolution,
    y: F32,
    *,
    stride: int = 1,
    dilation: int = 1,
    residual: bool = False,
    activation: Activation = NOTHING,
    activated: F32 | None = None,
    signals: I64 | None = None,
    run: Runner = ALONE,
) -> None:
    """y = convolution of x, added to y if ``residual``; then activation(y) is written to ``activated``, by default y.

    Contiguous float32: x [T', at least inputs], y and activated [T, width(outputs)]; T' at least
    (T - 1) stride + (taps - 1) dilation + 1. ``signals``: the rows of several results, which add up to T; x then holds
    the inputs of each, (taps - 1) dilation rows more than results, and the stride is 1. ``run``: who computes it.
    Raises TypeError or ValueError for anything else.
    """
    rows, past = len(y), (w.taps - 1) * dilation
    if signals is None:
        signals = np.array([rows], np.int64)
    else:
        check_signals("conv", signals, rows, stride)
    needed = (rows - 1) * stride + past * len(signals) + 1
    _check("x", x, needed, w.inputs, exact=False)
    out = y if activated is None else activated
    _check("y", y, rows, len(w.bias))
    _check("activated", out, rows, len(w.bias))
    if compiled():
        inside = x.reshape(-1), x.shape[1], stride, dilation
        flat = y.reshape(-1), int(residual)
        run(_conv, *inside, *w[:5], *flat, *activation, out.reshape(-1), signals)
    elif rows:
        for here, there in signal_slices(signals, past):
            _conv_ref(x[here] if len(signals) > 1 else x[:needed], w, y[there], stride, dilation, residual)
        if activation.kind:
            out[:] = activation_ref(y, activation)


def check_signals(function: str, signals: I64, rows: int, stride: int = 1) -> None:
    """ValueError unless the rows of the signals add up to ``rows``; with a stride there can be only one."""
    if signals.dtype != np.int64 or signals.ndim != 1 or signals.sum() != rows or (signals < 0).any():
        raise ValueError(f"{function}: signals={signals.tolist()} ({signals.dtype}) do not add up to {rows} rows")
    if len(signals) > 1 and stride != 1:
        raise ValueError(f"{function}: {len(signals)} signals with stride={stride}; several have a stride of 1")


def signal_slices(signals: I64, past: int) -> list[tuple[slice, slice]]:
    """Where the rows of each signal are: (in the input, ``past`` rows before them included; in the result)."""
    ends = np.cumsum(signals).tolist()
    starts = [0, *ends[:-1]]
    return [
        (slice(start + i * past, end + (i + 1) * past), slice(start, end))
        for i, (start, end) in enumerate(zip(starts, ends, strict=True))
    ]


def _check(name: str, array: F32, rows: int, columns: int, exact: bool = True) -> None:
    if array.dtype != np.float32 or array.ndim != 2 or not array.flags.c_contiguous:
        raise TypeError(f"conv: {name} is {array.dtype} {list(array.shape)}, expected a contiguous float32 matrix")
    fits = array.shape == (rows, columns) if exact else array.shape[0] >= rows and array.shape[1] >= columns
    if not fits:
        raise ValueError(f"conv: {name}{list(array.shape)} should be {'' if exact else 'at least '}[{rows}, {columns}]")


def _conv_ref(x: F32, w: Convolution, y: F32, stride: int, dilation: int, residual: bool) -> None:
    result = conv1d_ref(x[:, : w.inputs].T, *unpack_conv(w), stride, dilation).T
    if residual:
        y[:, : w.outputs] += result
    else:
        y[:] = 0
        y[:, : w.outputs] = result


def _tile_of_height(height: int) -> Any:
    """The innermost loops, for ``height`` rows by TILE_VECTORS vectors of channels.

    Few rows read their weights from memory, and are not slow enough for it: they prefetch.
    """
    ahead = _AHEAD if height < TILE_ROWS else 0

    @inner
    def tile(
        x: F32,
        x_at: int,
        row_step: int,
        tap_step: int,
        weight: F32 | I16,
        scale: F32,
        w_at: int,
        bias: F32,
        channel: int,
        taps: int,
        inputs: int,
        y: F32,
        y_at: int,
        residual: int,
    ) -> None:
        block, y_width = taps * inputs * LANES, bias.size
        sums = start_sums(weight, bias, channel, height, TILE_VECTORS)
        for tap in range(taps):
            at = x_at + tap * tap_step
            for i in range(at, at + inputs):
                weights = load_weights(weight, w_at, block, TILE_VECTORS, ahead)
                sums = fma_tile(sums, weights, x, i, row_step)
                w_at += LANES
        sums = end_sums(sums, weight, scale, bias, channel, TILE_VECTORS)
        if residual:
            sums = add_tiles(sums, load_grid(y, y_at, y_width, height, TILE_VECTORS))
        store_grid(y, y_at, y_width, sums, TILE_VECTORS)

    return tile


_whole, _four, _three, _two, _one = map(_tile_of_height, (TILE_ROWS, 4, 3, 2, 1))
_six = _tile_of_height(6) if TILE_ROWS > 6 else _whole


@kernel
def _conv(
    me: Member,
    x: F32,
    x_width: int,
    stride: int,
    dilation: int,
    weight: F32 | I16,
    scale: F32,
    bias: F32,
    taps: int,
    inputs: int,
    y: F32,
    residual: int,
    kind: int,
    frequency: F32,
    gain: F32,
    activated: F32,
    signals: I64,
) -> None:
    y_width = bias.size
    rows, channels = y.size // y_width, TILE_VECTORS * LANES
    row_step, tap_step = stride * x_width, dilation * x_width
    past = (taps - 1) * tap_step
    first_row, end_row, first_channel, end_channel = 0, rows, 0, y_width
    if rows >= _ROWS_EACH * me.count:
        first_tile, end_tile = share(me, (rows + TILE_ROWS - 1) // TILE_ROWS)
        first_row, end_row = first_tile * TILE_ROWS, min(end_tile * TILE_ROWS, rows)
    else:
        first_tile, end_tile = share(me, y_width // channels)
        first_channel, end_channel = first_tile * channels, end_tile * channels
    band = max(_CACHED // y_width // TILE_ROWS, 1) * TILE_ROWS
    for first in range(first_row, end_row, band):
        end = min(first + band, end_row)
        for channel in range(first_channel, end_channel, channels):
            w_at = channel * taps * inputs
            start, x_at = 0, 0  # of a signal
            for signal in range(signals.size):
                here, stop = max(first, start), min(end, start + signals[signal])
                if here < stop:
                    x_row, y_row = x_at + (here - start) * row_step, here * y_width + channel
                    multiply_channels(
                        x, x_row, row_step, tap_step, weight, scale, w_at, bias, channel, taps, inputs, y, y_row,
                        stop - here, residual,
                    )  # fmt: skip
                start += signals[signal]
                x_at += signals[signal] * row_step + past
        if kind:
            for row in range(first * y_width, end * y_width, y_width):
                activate_row(y, row, first_channel, end_channel, kind, frequency, gain, activated)


@inner
def multiply(
    x: F32,
    x_at: int,
    row_step: int,
    tap_step: int,
    weight: F32,
    bias: F32,
    taps: int,
    inputs: int,
    y: F32,
    y_at: int,
    rows: int,
    residual: int,
) -> None:
    """:func:`multiply_channels` for all channels, with float32 weights."""
    for channel in range(0, bias.size, TILE_VECTORS * LANES):
        multiply_channels(
            x, x_at, row_step, tap_step, weight, bias, channel * taps * inputs, bias, channel, taps, inputs,
            y, y_at + channel, rows, residual,
        )  # fmt: skip


@inner
def multiply_channels(
    x: F32,
    x_at: int,
    row_step: int,
    tap_step: int,
    weight: F32 | I16,
    scale: F32,
    w_at: int,
    bias: F32,
    channel: int,
    taps: int,
    inputs: int,
    y: F32,
    y_at: int,
    rows: int,
    residual: int,
) -> None:
    """``rows`` results for the channels of one tile, from y[y_at]; ``w_at``: where their weights begin.

    Row r, tap j reads x from ``x_at + r * row_step + j * tap_step``.

    Trap: Numba recompiles all of this for a call with literal numbers, so write ``np.int64(0)``.
    """
    width = bias.size
    row = 0
    while row < rows:
        x_row, y_row, left = x_at + row * row_step, y_at + row * width, rows - row
        if left >= TILE_ROWS:
            _whole(x, x_row, row_step, tap_step, weight, scale, w_at, bias, channel, taps, inputs, y, y_row, residual)
            row += TILE_ROWS
        elif left >= 6:
            _six(x, x_row, row_step, tap_step, weight, scale, w_at, bias, channel, taps, inputs, y, y_row, residual)
            row += 6
        elif left >= 4:
            _four(x, x_row, row_step, tap_step, weight, scale, w_at, bias, channel, taps, inputs, y, y_row, residual)
            row += 4
        elif left >= 3:
            _three(x, x_row, row_step, tap_step, weight, scale, w_at, bias, channel, taps, inputs, y, y_row, residual)
            row += 3
        elif left >= 2:
            _two(x, x_row, row_step, tap_step, weight, scale, w_at, bias, channel, taps, inputs, y, y_row, residual)
            row += 2
        else:
            _one(x, x_row, row_step, tap_step, weight, scale, w_at, bias, channel, taps, inputs, y, y_row, residual)
            row += 1


class DepthwiseConvolution(NamedTuple):
    """Packed weights of a depthwise convolution."""

    weight: F32  # [taps, width(channels)]
    bias: F32  # [width(channels)]


def pack_depthwise(weight: Array, bias: Array) -> DepthwiseConvolution:
    """Pack weight [C, 1, taps] and bias [C]."""
    packed = np.zeros((weight.shape[2], width(len(weight))), np.float32)
    packed[:, : len(weight)] = weight[:, 0].T
    return DepthwiseConvolution(packed, _padded(bias, len(bias)))


def depthwise_conv(x: F32, w: DepthwiseConvolution, y: F32, run: Runner = ALONE) -> None:
    """Depthwise convolution. x [T + taps - 1, W] -> y [T, W], contiguous float32."""
    taps, columns = w.weight.shape
    _check("x", x, len(y) + taps - 1, columns)
    _check("y", y, len(y), columns)
    if compiled():
        run(_depthwise, x.reshape(-1), w.weight.reshape(-1), w.bias, y.reshape(-1))
    else:
        y[:] = depthwise_conv1d_ref(x.T, w.weight.T[:, None], w.bias).T


@kernel
def _depthwise(me: Member, x: F32, weight: F32, bias: F32, y: F32) -> None:
    columns = bias.size
    first, end = share(me, columns // LANES)
    for row in range(0, y.size, columns):
        for i in range(first * LANES, end * LANES, LANES):
            at = row + i
            sums = load(bias, i)
            for tap in range(i, weight.size, columns):
                sums = fma(load(weight, tap), load(x, at), sums)
                at += columns
            store(y, row + i, sums)


class MonoConvolution(NamedTuple):
    """A convolution to one channel. The lanes are input channels: as one of 32 output channels it would waste 31."""

    weight: F32  # [taps, width(inputs)]
    bias: float


def pack_mono(weight: Array, bias: Array) -> MonoConvolution:
    """Pack weight [1, in, taps] and bias [1]."""
    packed = np.zeros((weight.shape[2], width(weight.shape[1])), np.float32)
    packed[:, : weight.shape[1]] = weight[0].T
    return MonoConvolution(packed, float(bias[0]))


def mono_conv(x: F32, w: MonoConvolution, y: F32, run: Runner = ALONE) -> None:
    """Convolution to one channel, clipped to -1 to 1. x [T + taps - 1, W] -> y [T], contiguous float32."""
    taps, columns = w.weight.shape
    _check("x", x, len(y) + taps - 1, columns)
    if compiled():
        run(_mono, x.reshape(-1), columns, w.weight.reshape(-1), w.bias, y)
    else:
        y[:] = np.clip(conv1d_ref(x.T, w.weight.T[None], np.float32([w.bias]))[0], -1, 1)


@kernel
def _mono(me: Member, x: F32, columns: int, weight: F32, bias: float, y: F32) -> None:
    first, end = share(me, y.size)
    for row in range(first, end):
        sums = zeros()
        for i in range(0, weight.size, LANES):
            sums = fma(load(weight, i), load(x, row * columns + i), sums)
        sample = total(sums) + np.float32(bias)
        if sample > 1:
            sample = np.float32(1)
        elif sample < -1:
            sample = np.float32(-1)
        y[row] = sample
