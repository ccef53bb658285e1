"""Register tiles: tuples of vectors, one register each, and their products with inputs and packed weights.

The operations unroll themselves, so that one kernel source serves every tile size.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from llvmlite import ir

from ..cpu import CPU
from ..pack import GROUP, LINE
from .groups import Weights, sums_of
from .llvm import (
    ARRAY,
    COUNT,
    F32,
    FLOAT,
    FLOAT_ARRAY,
    FLOATS,
    I32,
    I64,
    INDEX,
    INTS,
    LANES,
    SHORTS,
    TILE,
    VOID,
    WEIGHTS,
    Builder,
    Value,
    constant,
    f32x16,
    i32x16,
    number,
    operation,
    pick,
    pointer_to,
    prefetch,
    splat,
    steps,
)


def _widen_two(b: Builder, array: Value, dtype: str, i: Value, ahead: int) -> tuple[Value, Value]:
    """16 weights of each of two neighbouring inputs (pack.py), with a prefetch."""
    second = b.add(i, ir.Constant(i.type, LANES))
    prefetch(b, array, i, ahead)
    if dtype == FLOAT:
        prefetch(b, array, second, ahead)
        return b.load(pointer_to(b, array, i, FLOATS), align=4), b.load(pointer_to(b, array, second, FLOATS), align=4)
    if dtype == "uint16":
        cells = b.load(pointer_to(b, array, i, INTS), align=2)
        low, high = b.shl(cells, number(16)), b.and_(cells, number(-1 << 16))
        return b.bitcast(low, FLOATS), b.bitcast(high, FLOATS)
    low, high = (b.load(pointer_to(b, array, start, SHORTS), align=2) for start in (i, second))
    return CPU.widen_f16(b, low), CPU.widen_f16(b, high)


def _broadcasts(b: Builder, x: Value, i: Value, stride: Value, count: int) -> list[Value]:
    """The float32 x[i], x[i + stride], ... each in all lanes."""
    return [splat(b, b.load(pointer_to(b, x, start, F32), align=4)) for start in steps(b, i, stride, count)]


def _neighbours(b: Builder, x: Value, y: Value, odd: int) -> Value:
    """The even, or odd, lanes of x, then of y."""
    return b.shuffle_vector(x, y, ir.Constant(ir.VectorType(I32, LANES), list(range(odd, 2 * LANES, 2))))


def _outer(
    columns: Iterable[Value], rows: Iterable[Value], tile: list[Value]
) -> Iterator[tuple[tuple[Value, Value], Value]]:
    """Each vector of a tile with its column and row: ((column, row), vector)."""
    return zip(itertools.product(columns, rows), tile, strict=True)


def _tile_of(*arguments: Any) -> Any:
    """Tile type for an operation whose last operand is the number of vectors."""
    return f32x16, arguments[-1].literal_value


def _int_tile_of(*arguments: Any) -> Any:
    """The same, for integers."""
    return i32x16, arguments[-1].literal_value


def like_tile(tile: Any, *_: Any) -> Any:
    """Result type of an operation whose first operand is a tile of the same shape."""
    return tile


@operation(_tile_of, COUNT)
def zeros_tile(b: Builder, count: int) -> list[Value]:
    """count vectors of 0.0"""
    return [number(0.0)] * count


@operation(_tile_of, FLOAT_ARRAY, INDEX, INDEX, COUNT)
def load_tile(b: Builder, array: Value, i: Value, stride: Value, count: int) -> list[Value]:
    """count times 16 float32, from array[i], array[i + stride], ..."""
    return [b.load(pointer_to(b, array, start, FLOATS), align=4) for start in steps(b, i, stride, count)]


@operation(VOID, FLOAT_ARRAY, INDEX, INDEX, TILE)
def store_tile(b: Builder, array: Value, i: Value, stride: Value, tile: list[Value]) -> None:
    """16 float32 each, to array[i], array[i + stride], ..."""
    for start, x in zip(steps(b, i, stride, len(tile)), tile, strict=True):
        b.store(x, pointer_to(b, array, start, FLOATS), align=4)


@operation(like_tile, TILE, TILE, FLOAT_ARRAY, INDEX, INDEX)
def fma_tile(b: Builder, tile: list[Value], w: list[Value], x: Value, i: Value, stride: Value) -> list[Value]:
    """outer product: tile[c, r] + w[r] x[i + c stride], for tiles in the order (0, 0), (0, 1), ... (1, 0), ..."""
    columns = _broadcasts(b, x, i, stride, len(tile) // len(w))
    return [CPU.fma(b, row, column, acc) for (column, row), acc in _outer(columns, w, tile)]


# ---- single rows of a tile ----


@operation(like_tile, TILE, f32x16, FLOAT_ARRAY, INDEX, INDEX)
def fma_rows(b: Builder, tile: list[Value], x: Value, array: Value, i: Value, stride: Value) -> list[Value]:
    """tile[r] + x times 16 float32 from array[i + r stride]"""
    rows = (b.load(pointer_to(b, array, start, FLOATS), align=4) for start in steps(b, i, stride, len(tile)))
    return [CPU.fma(b, x, row, acc) for row, acc in zip(rows, tile, strict=True)]


@operation(VOID, FLOAT_ARRAY, INDEX, TILE)
def store_totals(b: Builder, array: Value, i: Value, tile: list[Value]) -> None:
    """array[i + r] = the sum of all lanes of tile[r], for 2, 4, 8 or 16 of them, always in the same order"""
    count = len(tile)
    for _ in range(4):  # each time neighbours are added, and the sums of two vectors fit into one
        pairs = list(zip(tile[0::2], tile[1::2], strict=True)) if len(tile) > 1 else [(tile[0], tile[0])]
        tile = [b.fadd(_neighbours(b, x, y, 0), _neighbours(b, x, y, 1)) for x, y in pairs]
    b.store(pick(b, tile[0], list(range(count))), pointer_to(b, array, i, ir.VectorType(F32, count)), align=4)


@operation(like_tile, TILE, TILE)
def add_tiles(b: Builder, x: list[Value], y: list[Value]) -> list[Value]:
    """x + y"""
    return [b.fadd(one, other) for one, other in zip(x, y, strict=True)]


# ---- grids: tiles of neighbouring vectors of several rows ----


def _grid_of(*arguments: Any) -> Any:
    """Tile type for an operation whose last operands are the numbers of rows and of vectors of each."""
    rows, vectors = (argument.literal_value for argument in arguments[-2:])
    return f32x16, rows * vectors


def _grid(b: Builder, array: Value, start: Value, stride: Value, rows: int, vectors: int) -> list[Value]:
    """Pointers to this many neighbouring vectors of each row, rows ``stride`` apart."""
    offsets = [ir.Constant(I64, LANES * vector) for vector in range(vectors)]
    starts = itertools.product(steps(b, start, stride, rows), offsets)
    return [pointer_to(b, array, b.add(row, offset), FLOATS) for row, offset in starts]


@operation(_grid_of, FLOAT_ARRAY, INDEX, INDEX, COUNT, COUNT)
def load_grid(b: Builder, array: Value, i: Value, stride: Value, rows: int, vectors: int) -> list[Value]:
    """a tile: ``vectors`` times 16 float32 from array[i], from array[i + stride], ..."""
    return [b.load(pointer, align=4) for pointer in _grid(b, array, i, stride, rows, vectors)]


@operation(VOID, FLOAT_ARRAY, INDEX, INDEX, TILE, COUNT)
def store_grid(b: Builder, array: Value, i: Value, stride: Value, tile: list[Value], vectors: int) -> None:
    """the reverse of load_grid"""
    for pointer, x in zip(_grid(b, array, i, stride, len(tile) // vectors, vectors), tile, strict=True):
        b.store(x, pointer, align=4)


# ---- weights of convolutions: float32, or int16 with a scale per channel ----


def _weights_of(*arguments: Any) -> Any:
    """Tile type for an operation whose last operands are the number of vectors and a distance."""
    return f32x16, arguments[-2].literal_value


@operation(_weights_of, WEIGHTS, INDEX, INDEX, COUNT, COUNT)
def load_weights(b: Builder, weights: Value, i: Value, stride: Value, count: int, ahead: int) -> list[Value]:
    """count times 16 weights, from element i, i + stride, ... of the array, as float32; int16 are not scaled

    It prefetches those this many bytes ahead, 0: none.
    """
    array, dtype = weights
    if ahead:
        for start in steps(b, i, stride, count):
            prefetch(b, array, start, ahead)
    if dtype == FLOAT:
        return [b.load(pointer_to(b, array, start, FLOATS), align=4) for start in steps(b, i, stride, count)]
    levels = [b.load(pointer_to(b, array, start, SHORTS), align=2) for start in steps(b, i, stride, count)]
    return [b.sitofp(b.sext(level, INTS), FLOATS) for level in levels]


@operation(_grid_of, WEIGHTS, FLOAT_ARRAY, INDEX, COUNT, COUNT)
def start_sums(b: Builder, weights: Value, bias: Value, i: Value, rows: int, vectors: int) -> list[Value]:
    """what the sums of a tile begin with: bias[i], ... in every row, or 0 where they will be scaled"""
    if weights[1] != FLOAT:
        return [number(0.0)] * (rows * vectors)
    return [b.load(pointer, align=4) for pointer in _grid(b, bias, i, i, 1, vectors)] * rows


@operation(like_tile, TILE, WEIGHTS, FLOAT_ARRAY, FLOAT_ARRAY, INDEX, COUNT)
def end_sums(
    b: Builder, tile: list[Value], weights: Value, scale: Value, bias: Value, i: Value, vectors: int
) -> list[Value]:
    """the sums of a tile: as they are, or with int16 weights times scale[i], ... plus bias[i], ... in every row"""
    if weights[1] == FLOAT:
        return tile
    scales, biases = (
        [b.load(pointer, align=4) for pointer in _grid(b, array, i, i, 1, vectors)] for array in (scale, bias)
    )
    return [CPU.fma(b, x, scales[k % vectors], biases[k % vectors]) for k, x in enumerate(tile)]


# ---- packed weights as in pack.py: row r of a tile is 16 rows of the matrix, column c an item ----


@operation(like_tile, TILE, WEIGHTS, INDEX, INDEX, FLOAT_ARRAY, INDEX, INDEX, COUNT, COUNT)
def fma_weights(
    b: Builder,
    tile: Value,
    weights: Value,
    i: Value,
    stride: Value,
    x: Value,
    j: Value,
    to: Value,
    rows: int,
    ahead: int,
) -> list[Value]:
    """tile[c, r] + the weights of one input at weights[i + r stride] times x[j + c to], + those of the next input

    It prefetches the weights that many bytes ahead.
    """
    array, dtype = weights
    two_inputs = zip(*(_widen_two(b, array, dtype, at, ahead) for at in steps(b, i, stride, rows)), strict=True)
    for k, w in zip(steps(b, j, ir.Constant(j.type, 1), 2), two_inputs, strict=True):
        columns = _broadcasts(b, x, k, to, len(tile) // rows)
        tile = [CPU.fma(b, row, column, acc) for (column, row), acc in _outer(columns, w, tile)]
    return tile


@operation(_int_tile_of, ARRAY, INDEX, INDEX, COUNT, ARRAY, ARRAY, INDEX, INDEX, COUNT, COUNT, COUNT)
def group_tile(
    b: Builder,
    values: Value,
    i: Value,
    stride: Value,
    ahead: int,
    levels: Value,
    zeros: Value,
    group: Value,
    to: Value,
    bits: int,
    rows: int,
    size: int,
) -> list[Value]:
    """tile[c, r]: sums of products, exact: the 32 weights of each of 16 rows at values[i + r stride] as levels of this
    many bits, times the 32 levels of inputs of group number group + c to; it prefetches weights that many bytes ahead

    zeros[group] corrects for the offset of 8 of stored int4 levels, 16 times that for the 128 of int8 levels.
    """
    sums = CPU.levels4 if bits == 4 else CPU.levels8
    groups = steps(b, group, to, size // rows)
    lanes = ir.VectorType(I32, sums.lanes)
    offsets = [constant(lanes, 0)] * len(groups)
    if sums.has_offset:
        shift = constant(lanes, 0 if bits == 4 else 4)
        offsets = [b.shl(splat(b, b.load(b.gep(zeros, [one])), sums.lanes), shift) for one in groups]
    first = ir.Constant(group.type, GROUP)
    inputs = [pointer_to(b, levels, b.mul(one, first), I32) for one in groups]
    weights = Weights(b, values, steps(b, i, stride, rows), bits, ahead, lanes)
    return sums_of(b, sums, weights, inputs, offsets)


@operation(like_tile, TILE, TILE, ARRAY, INDEX, INDEX, FLOAT_ARRAY, INDEX, INDEX, COUNT, COUNT)
def scale_tile(
    b: Builder,
    tile: Value,
    ints: Value,
    w: Value,
    i: Value,
    stride: Value,
    x: Value,
    j: Value,
    to: Value,
    rows: int,
    ahead: int,
) -> list[Value]:
    """tile[c, r] + ints[c, r] times x[j + c to] times the 16 float16 at w[i + r stride]; it prefetches these"""
    scales = []
    for start in steps(b, i, stride, rows):
        prefetch(b, w, start, ahead)
        scales.append(CPU.widen_f16(b, b.load(pointer_to(b, w, start, SHORTS), align=2)))
    columns = _broadcasts(b, x, j, to, len(tile) // rows)
    return [
        CPU.fma(b, b.fmul(b.sitofp(dot, FLOATS), column), scale, acc)
        for dot, ((column, scale), acc) in zip(ints, _outer(columns, scales, tile), strict=True)
    ]


@operation(VOID, ARRAY, INDEX, COUNT)
def prefetch_lines(b: Builder, array: Value, i: Value, count: int) -> None:
    """nothing; prefetches this many cache lines from array[i] on"""
    for line in range(count):
        prefetch(b, array, i, LINE * line)


@operation(VOID, FLOAT_ARRAY, INDEX, INDEX, INDEX, TILE, COUNT)
def store_items(b: Builder, y: Value, i: Value, stride: Value, to: Value, tile: list[Value], rows: int) -> None:
    """tile[c, r] to y[i + r stride + c to]"""
    starts = [start for item in steps(b, i, to, len(tile) // rows) for start in steps(b, item, stride, rows)]
    for start, x in zip(starts, tile, strict=True):
        b.store(x, pointer_to(b, y, start, FLOATS), align=4)
