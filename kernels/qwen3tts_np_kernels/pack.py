"""Weight matrices rearranged for the compiled kernels, and the quantiser.

The rows of a matrix [rows, inputs] are grouped in blocks of 16, one lane each, and a block is one stream along the
inputs. Every 64 bytes hold one 32-bit cell of each of the 16 rows: the weights of 1 input in float32, of 2
neighbouring inputs in bfloat16, of 4 in int8, of 8 in int4. (In float16 they are two vectors of 16 weights, since CPUs
widen entire float16 vectors.) Missing rows of the last block and inputs of the last cell or group are zero padding.

int8 and int4 have one float16 scale per 32 inputs of a row: weight = scale * level. A level is stored unsigned, with
an offset of 128 or 8; int4 keeps the levels of inputs 0 to 3 of a cell in the low halves of its bytes, of 4 to 7 in
the high halves. int6 and int5 are int8 with levels of fewer bits.

Matrices are stored consecutively in one array (an arena): ``start`` counts the weights before a matrix, padding
included, in every format.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from .arrays import F16, F32, I8, U16, AnyArray, Array
from .bfloat16 import round_ref, widen_ref

BLOCK = 16
GROUP = 32
TINY = 2.0**-100  # below 2**-121 the inverse of a scale would overflow in float32
_CHUNK = 1 << 18  # weights processed at a time: 1 MB as float32, which stays in the cache
LINE = 64  # bytes of a cache line
_FLOAT16_MAX = float(np.finfo(np.float16).max)
_STEPS = np.linspace(-2, 1.2, 9)
"""Levels beyond -half to which the scale search maps the greatest weight (for 4 bits; further with more)."""

FormatName = Literal["float32", "bfloat16", "float16", "int8", "int6", "int5", "int4"]
Weights = Array | U16


@dataclass(frozen=True)
class Format:
    """Storage of one kind of packed weights."""

    name: FormatName
    dtype: np.dtype[Any]
    """Of ``Packed.values``. Kernels identify the format by it: bfloat16 bits are uint16, float16 bits int16."""
    inputs: int
    """Inputs are padded to a multiple of this."""
    bits: int | None = None
    """Bits of a level; None for floats."""

    def count(self, rows: int, inputs: int) -> int:
        """Weights of a packed matrix, padding included."""
        return -(-rows // BLOCK) * BLOCK * self.padded(inputs)

    def padded(self, inputs: int) -> int:
        """Inputs with padding."""
        return -(-inputs // self.inputs) * self.inputs

    @property
    def per_value(self) -> int:
        """Weights in one element of ``Packed.values``."""
        return 2 if self.bits == 4 else 1


FORMATS: dict[str, Format] = {
    "float32": Format("float32", np.dtype(np.float32), 2),
    "bfloat16": Format("bfloat16", np.dtype(np.uint16), 2),
    "float16": Format("float16", np.dtype(np.int16), 2),
    "int8": Format("int8", np.dtype(np.uint8), GROUP, 8),
    "int6": Format("int6", np.dtype(np.uint8), GROUP, 6),
    "int5": Format("int5", np.dtype(np.uint8), GROUP, 5),
    "int4": Format("int4", np.dtype(np.uint8), GROUP, 4),
}
_NAME_OF_BITS: dict[int, FormatName] = {8: "int8", 6: "int6", 5: "int5", 4: "int4"}


class Packed(NamedTuple):
    """One packed matrix, or an arena of several."""

    format: Format
    values: AnyArray
    """1-D, see ``Format.dtype``."""
    scales: U16
    """1-D, bits of float16; empty for floats."""

    @property
    def weights(self) -> int:
        """How many, padding included."""
        return self.values.size * self.format.per_value

    def part(self, start: int, count: int) -> Packed:
        """The matrix of count weights at offset start, as a view."""
        per_value = self.format.per_value
        values = self.values[start // per_value : (start + count) // per_value]
        return Packed(self.format, values, self.scales[start // GROUP : (start + count) // GROUP])


def empty(name: FormatName, count: int) -> Packed:
    """An uninitialised arena for count weights, padding included: the sum of ``Format.count`` over the matrices."""
    form = FORMATS[name]
    values = aligned(count // form.per_value, form.dtype)
    return Packed(form, values, aligned(count // GROUP if form.bits else 0, np.dtype(np.uint16)))


def aligned(count: int, dtype: np.dtype[Any]) -> AnyArray:
    """An uninitialised array aligned to a cache line, so that no vector of a matrix straddles two."""
    size = count * dtype.itemsize
    room = np.empty(size + LINE, np.uint8)
    start = -room.ctypes.data % LINE
    return room[start : start + size].view(dtype)


def pack(weights: Weights, name: FormatName, out: Packed | None = None) -> Packed:
    """Pack a matrix. weights [rows, inputs]: floats, or bfloat16 as uint16. out: the destination, of exactly its size.

    Needs a few megabytes beside the result, so weights may be a memory-mapped file. bfloat16 weights are kept exactly
    in float32 and bfloat16; float16 rounds those below 2**-14.
    """
    form = FORMATS[name]
    out = out if out is not None else empty(name, form.count(*weights.shape))
    for _, chunk, view in _chunks(weights, out):
        if form.bits is None:
            view.values[:] = _floats(chunk, form)
        else:
            levels, scales = _quantise(_group(_widen(chunk)), form.bits)
            _store(levels, scales, view)
    return out


def pack_levels(levels: I8, scales: F16, name: FormatName) -> Packed:
    """Pack a matrix that is quantised already. levels [rows, inputs], scales [rows, ceil(inputs / 32)]."""
    out = empty(name, FORMATS[name].count(*levels.shape))
    for rows, chunk, view in _chunks(levels, out):
        lanes = np.zeros((chunk.shape[0], scales.shape[1]), np.float16)
        lanes[: len(scales[rows])] = scales[rows]
        _store(_group(chunk), lanes.reshape(-1, BLOCK, scales.shape[1]).transpose(0, 2, 1).ravel(), view)
    return out


def quantise(weights: Weights, bits: int) -> tuple[I8, F16]:
    """Levels [rows, inputs] and scales [rows, ceil(inputs / 32)] as ``pack`` would choose them."""
    return unpack_levels(pack(weights, _NAME_OF_BITS[bits]), *weights.shape)


def unpack(packed: Packed, rows: int, inputs: int) -> F32:
    """The matrix [rows, inputs] that the kernels multiply by, exactly, in float32."""
    if packed.format.bits is not None:
        levels, scales = unpack_levels(packed, rows, inputs)
        return levels * np.repeat(scales.astype(np.float32), GROUP, axis=1)[:, :inputs]
    if packed.format.name == "bfloat16":
        cells = widen_ref(packed.values).reshape(-(-rows // BLOCK), -1, BLOCK, 2).swapaxes(2, 3)
    elif packed.format.name == "float16":
        cells = packed.values.view(np.float16).astype(np.float32)
    else:
        cells = packed.values
    streams = cells.reshape(-(-rows // BLOCK), -1, BLOCK).swapaxes(1, 2)
    return streams.reshape(-1, packed.format.padded(inputs))[:rows, :inputs]


def unpack_levels(packed: Packed, rows: int, inputs: int) -> tuple[I8, F16]:
    """Levels [rows, inputs] and scales [rows, ceil(inputs / 32)] of a packed matrix."""
    blocks = -(-rows // BLOCK)
    if packed.format.bits == 4:
        halves = np.stack([packed.values & 15, packed.values >> 4]).reshape(2, blocks, -1, BLOCK, 4)
        cells, zero = halves.transpose(1, 3, 2, 0, 4), 8  # [blocks, 16, inputs / 8, 2, 4]
    else:
        cells, zero = packed.values.reshape(blocks, -1, BLOCK, 4).transpose(0, 2, 1, 3), 128
    levels = (cells.reshape(BLOCK * blocks, -1)[:rows, :inputs].astype(np.int16) - zero).astype(np.int8)
    scales = packed.scales.view(np.float16).reshape(blocks, -1, BLOCK).swapaxes(1, 2).reshape(BLOCK * blocks, -1)
    return levels, scales[:rows].copy()


def linear_ref(x: Array, packed: Packed, rows: int) -> Array:
    """x wᵀ. x [T, inputs], a packed matrix [rows, inputs] -> [T, rows].

    int8 and int4 multiply integers: x is quantised in groups of 32 first.
    """
    weights = unpack(packed, rows, x.shape[1]).astype(x.dtype)
    if packed.format.bits is not None:
        levels, scales = quantise_groups_ref(x)
        x = (levels * np.repeat(scales, GROUP, axis=1)[:, : x.shape[1]]).astype(x.dtype)
    return x @ weights.T


def quantise_groups_ref(
    x: Array,
) -> tuple[I8, Array]:
    """Levels -127 to 127 [T, inputs] and scales [T, ceil(inputs / 32)] of x [T, inputs]: x ~ scale * level.

    Groups without a value above ``TINY`` have levels 0.
    """
    items, inputs = x.shape
    groups = np.pad(x, ((0, 0), (0, -inputs % GROUP))).reshape(items, -1, GROUP)
    peak = np.abs(groups).max(axis=2)
    inverse = np.divide(127, peak, out=np.zeros_like(peak), where=peak > TINY)
    levels = np.rint(groups * inverse[..., None]).astype(np.int8)
    return levels.reshape(items, -1)[:, :inputs], peak / 127


def _chunks(matrix: AnyArray, out: Packed) -> Iterator[tuple[slice, AnyArray, Packed]]:
    """Iterate over groups of blocks: their indices, their zero-padded rows, and their part of the result."""
    rows, inputs = matrix.shape
    padded = out.format.padded(inputs)
    step = max(BLOCK, _CHUNK // padded // BLOCK * BLOCK)
    for first in range(0, rows, step):
        chunk = matrix[first : first + step]
        missing = -len(chunk) % BLOCK
        if missing or padded != inputs:
            chunk = np.pad(chunk, ((0, missing), (0, padded - inputs)))
        yield slice(first, first + step), chunk, out.part(first * padded, chunk.size)


def _widen(weights: Weights) -> F32:
    return widen_ref(weights) if weights.dtype == np.uint16 else weights.astype(np.float32, copy=False)  # type: ignore[arg-type]


def _floats(chunk: Weights, form: Format) -> AnyArray:
    """Packed values of a float format. chunk [16 n, padded inputs]."""
    if form.name == "bfloat16":
        bits = chunk if chunk.dtype == np.uint16 else round_ref(chunk)  # type: ignore[arg-type]
        return bits.reshape(-1, BLOCK, chunk.shape[1] // 2, 2).swapaxes(1, 2).ravel()
    streams = _widen(chunk).reshape(-1, BLOCK, chunk.shape[1]).swapaxes(1, 2).ravel()
    return streams.astype(np.float16).view(np.int16) if form.name == "float16" else streams


def _group(matrix: AnyArray) -> AnyArray:
    """[16 n, inputs] -> [32, groups]: the groups block by block, 16 rows side by side."""
    groups = matrix.reshape(-1, BLOCK, matrix.shape[1] // GROUP, GROUP)
    return np.ascontiguousarray(groups.transpose(3, 0, 2, 1)).reshape(GROUP, -1)


def _store(levels: AnyArray, scales: F16, out: Packed) -> None:
    """Write levels [32, groups] and scales [groups] at their packed positions."""
    cells: AnyArray
    out.scales[:] = scales.view(np.uint16)
    if out.format.bits == 4:
        halves = (levels + 8).astype(np.uint8).reshape(GROUP // 8, 2, 4, -1)
        cells = halves[:, 0] | halves[:, 1] << 4
    else:
        cells = (levels + 128.0).astype(np.uint8).reshape(GROUP // 4, 4, -1)
    out.values[:] = cells.reshape(len(cells), 4, -1, BLOCK).transpose(2, 0, 3, 1).ravel()


def _quantise(weights: F32, bits: int) -> tuple[F32, F16]:
    """Levels [32, groups] (integers) and scales [groups] of weights [32, groups] with the least squared error.

    Levels range from -half to half - 1. The obvious scale maps the weight of greatest magnitude to -half (so it may be
    negative). A search tries scales around it: for each, levels are rounded, and the best scale for these levels has
    the closed form sum(w q) / sum(q q), which lowers the squared error by sum(w q)**2 / sum(q q). The best of all is
    rounded to float16, and levels are rounded again for it. Compared with the scale max / (half - 1) this reduces the
    squared error of normally distributed weights by a third at 4 bits; it is 0.3 % above an exhaustive search.
    """
    half = 2.0 ** (bits - 1)
    high, low = weights.max(axis=0), weights.min(axis=0)
    extreme = np.where(high > -low, high, low)
    unit = np.divide(-1, extreme, out=np.zeros_like(extreme), where=extreme != 0)
    gain, scale = np.zeros_like(extreme), np.zeros_like(extreme)
    for step in _STEPS:
        levels = _round(weights, unit * np.float32(half + step * math.sqrt(half / 8)), half)
        square = np.einsum("kg,kg->g", levels, levels)  # integers below 2**24: exact in any order
        # Trap: einsum fuses multiply-adds on ARM, not on x86. A separate product and sum give the same bits anywhere.
        product = np.multiply(weights, levels, out=levels).sum(axis=0)
        fit = product / np.maximum(square, 1)
        better = product * fit > gain
        np.copyto(gain, product * fit, where=better)
        np.copyto(scale, fit, where=better)
    scales = np.clip(scale, -_FLOAT16_MAX, _FLOAT16_MAX).astype(np.float16)
    rounded = scales.astype(np.float32)
    inverse = np.divide(1, rounded, out=np.zeros_like(rounded), where=rounded != 0)
    return _round(weights, inverse, half), scales


def _round(weights: F32, inverse: F32, half: float) -> F32:
    """Levels of weights for inverse scales."""
    levels = weights * inverse
    np.rint(levels, out=levels)
    return np.clip(levels, -half, half - 1, out=levels)
