"""Products with packed weights, where nearly all of the time is spent: compiled twin of ``linear_ref`` in pack.py.

``matvec_*`` and ``matmul_*`` are called from other compiled code and check nothing. Their arguments:

- ``values``, ``scales``: an arena of packed matrices; ``start``: the weights before this matrix, padding included;
- ``inputs``: without padding; even in the float formats;
- ``first``, ``last``: the blocks of 16 rows from first to last - 1, so that threads can share a matrix;
- ``x[x_start + item * x_to]``: the first input of an item. int8 and int4 take the levels, scales and zeros computed
  by ``quantise_groups``, and x_start and x_to are multiples of 32, zero-padded;
- ``y[y_start + item * y_to]``: its first row of the result. Rows are written in complete blocks, zero-padded.

A sum has one order, whatever the number of threads, of items and of rows at a time: in the float formats input by
input; in int8 and int4 the products within a group, exact integers, and then group by group. So an item has the same
bits alone and in a batch.

With a single item a thread is bound by memory, not by arithmetic. Two measures bring it to the speed of a plain read:
it reads several distant parts of the matrix at once, and prefetches each.

With the positions of a prompt it is bound by arithmetic, as long as no product waits for memory. So while all items go
through one panel of a matrix, the next panel is prefetched, evenly, and the items are divided into tiles of nearly
equal width: a narrow one would take as long as a wide one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from .arguments import INTEGER, TRUTH, ArrayKind
from .arrays import F32, I8, I32, U8, U16, AnyArray
from .cpu import CPU, compiled, inlined, inner, kernel
from .pack import GROUP, LINE, TINY, Format, Packed, linear_ref
from .simd.llvm import LANES
from .simd.ops import absolute, add_int, largest, load, load_first, maximum, mul, splat, store_i8, to_int, total_int
from .simd.tiles import (
    fma_weights,
    group_tile,
    prefetch_lines,
    scale_tile,
    store_items,
    zeros_tile,
)

Arrays: TypeAlias = tuple[AnyArray, ...]
Blocks: TypeAlias = tuple[int, int, int]  # first; number of steps; distance of the blocks that are processed together
Product: TypeAlias = Callable[..., None]

STREAMS = 2  # blocks multiplied with a single item at once; with 4, memory is read more slowly (benchmarks/speed.md)
ROWS, WIDEST = CPU.tiles.linear_blocks, CPU.tiles.linear_items  # at once otherwise: the sums fill the registers
PROMPT_ITEMS = CPU.tiles.prompt_items  # at once of many: sums, products of a group and factors fit into the registers
PROMPT_LINES = 4  # of the next panel, prefetched with each group of a tile of a prompt
AHEAD = 2048  # prefetch distance in bytes
SCALES_AHEAD = 256
PANEL = 1 << 18  # weights that stay in the second-level cache while groups of items go through them
_PEAK = np.float32(127)


def linear(x: F32, packed: Packed, rows: int) -> F32:
    """x wᵀ. x float32 [T, inputs], packed matrix [rows, inputs] -> [T, rows]. Raises TypeError or ValueError."""
    if x.dtype != np.float32:
        raise TypeError(f"linear: x.dtype={x.dtype}, expected float32")
    if x.ndim != 2 or packed.weights != packed.format.count(rows, x.shape[1]):
        raise ValueError(f"linear: x{list(x.shape)} does not fit {packed.weights} weights in {rows} rows")
    if not compiled():
        return linear_ref(x, packed, rows)
    items, inputs = len(x), packed.format.padded(x.shape[1])
    flat = np.pad(x, ((0, 0), (0, inputs - x.shape[1]))).reshape(-1)
    blocks = -(-rows // LANES)
    width = blocks * LANES
    y = np.empty(items * width, np.float32)
    groups = flat.size // GROUP
    own = np.empty(flat.size, np.int8), np.empty(groups, np.float32), np.empty(groups, np.int32)
    _product(packed.format)(packed.values, packed.scales, 0, inputs, items, flat, *own, y, width, 0, blocks, True)
    return y.reshape(items, width)[:, :rows]


@kernel
def quantise_groups(x: F32, x_start: int, inputs: int, levels: I8, scales: F32, zeros: I32, start: int) -> None:
    """Levels -127 to 127 of x[x_start : x_start + inputs], as ``quantise_groups_ref``, written from levels[start].

    start is a multiple of 32; the last group is zero-padded. zeros: the correction for the offset of stored int4
    levels in a product, -8 times the sum of a group; for int8 levels it is 16 times that.
    """
    for k in range(0, inputs, GROUP):
        at, left = x_start + k, inputs - k
        if left >= GROUP:
            low, high = load(x, at), load(x, at + LANES)
        else:
            low, high = load_first(x, at, min(left, LANES)), load_first(x, at + LANES, max(left - LANES, 0))
        peak = largest(maximum(absolute(low), absolute(high)))
        inverse = splat(_PEAK / peak if peak > TINY else np.float32(0))
        low_levels, high_levels = to_int(mul(low, inverse)), to_int(mul(high, inverse))
        store_i8(levels, start + k, low_levels)
        store_i8(levels, start + k + LANES, high_levels)
        group = (start + k) // GROUP
        scales[group] = peak / _PEAK
        zeros[group] = -8 * total_int(add_int(low_levels, high_levels))


# ---- register tiles: sums of rows * columns blocks and items ----


def _float_tile(rows: int, columns: int) -> Product:
    """The tile for float32, bfloat16 and float16."""
    size = rows * columns

    @inner
    def tile(
        w: Arrays, start: int, inputs: int, which: Blocks,
        x: Arrays, x_start: int, x_to: int, y: F32, y_start: int, y_to: int,
    ) -> None:  # fmt: skip
        block, steps, apart = which
        stream = LANES * (inputs + inputs % 2)
        for b in range(block, block + steps):
            at = start + b * stream
            sums = zeros_tile(size)
            for k in range(0, inputs, 2):
                sums = fma_weights(sums, w[0], at + LANES * k, apart * stream, x[0], x_start + k, x_to, rows, AHEAD)
            store_items(y, y_start + LANES * b, LANES * apart, y_to, sums, rows)

    return tile


def _int_tile(bits: int, lines: int, rows: int, columns: int) -> Product:
    """The tile for int8 (and int6, int5) or int4.

    With each group it prefetches this many cache lines at ``coming[0]``, a byte of the values, which then moves by
    ``coming[1]``.
    """
    size = rows * columns
    group_bytes = GROUP * bits // 8

    @inner
    def tile(
        w: Arrays, start: int, inputs: int, which: Blocks,
        x: Arrays, x_start: int, x_to: int, y: F32, y_start: int, y_to: int, coming: tuple[int, int] = (0, 0),
    ) -> None:  # fmt: skip
        block, steps, apart = which
        line, onward = coming
        values, scales = w
        levels, x_scales, zeros = x
        groups = (inputs + GROUP - 1) // GROUP
        for b in range(block, block + steps):
            sums = zeros_tile(size)
            for k in range(groups):
                group = start // GROUP + (b * groups + k) * LANES  # of row 0 of the block
                to = apart * groups * LANES
                x_group = x_start // GROUP + k
                prefetch_lines(values, line, lines)
                line += onward
                ints = group_tile(
                    values, group * group_bytes, to * group_bytes, AHEAD,
                    levels, zeros, x_group, x_to // GROUP, bits, rows, size,
                )  # fmt: skip
                sums = scale_tile(sums, ints, scales, group, to, x_scales, x_group, x_to // GROUP, rows, SCALES_AHEAD)
            store_items(y, y_start + LANES * b, LANES * apart, y_to, sums, rows)

    return tile


# ---- complete products ----


def _products(tile: Callable[[int, int], Product]) -> tuple[Product, Product]:
    """Products with one item and with many, given a function that returns a tile kernel."""
    single = tile(STREAMS, 1)
    one, two, four = (tile(ROWS, columns) for columns in (1, 2, 4))
    eight = tile(ROWS, 8) if WIDEST == 8 else four

    @inlined
    def matvec(
        w: Arrays, start: int, inputs: int, x: Arrays, x_start: int, y: F32, y_start: int, first: int, last: int
    ) -> None:
        apart, left = divmod(last - first, STREAMS)
        for which in ((first, apart, apart), (last - left, left, 0)):
            single(w, start, inputs, which, x, x_start, inputs, y, y_start, inputs)

    @inlined
    def matmul(
        w: Arrays, start: int, inputs: int, items: int,
        x: Arrays, x_start: int, x_to: int, y: F32, y_start: int, y_to: int, first: int, last: int,
    ) -> None:  # fmt: skip
        # A matrix is read from memory once: by one tile for all items, or panel by panel. A panel has whole tiles of
        # blocks: what is left over takes as long as a tile.
        one_tile = items <= WIDEST and items & (items - 1) == 0
        panel = max(last - first if one_tile else PANEL // (LANES * inputs * ROWS) * ROWS, ROWS)
        for begin in range(first, last, panel):
            end = min(begin + panel, last)
            apart, left = divmod(end - begin, ROWS)
            item = 0
            while item < items:
                width = WIDEST
                while width > items - item:
                    width //= 2
                xs, ys = x_start + item * x_to, y_start + item * y_to
                for which in ((begin, apart, apart), (end - left, left, 0)):
                    if width == 8:
                        eight(w, start, inputs, which, x, xs, x_to, y, ys, y_to)
                    elif width == 4:
                        four(w, start, inputs, which, x, xs, x_to, y, ys, y_to)
                    elif width == 2:
                        two(w, start, inputs, which, x, xs, x_to, y, ys, y_to)
                    else:
                        one(w, start, inputs, which, x, xs, x_to, y, ys, y_to)
                item += width

    return matvec, matmul


def _int_products(bits: int) -> tuple[Product, Product]:
    """The same, of int8 or int4."""
    matvec, few = _products(functools.partial(_int_tile, bits, 0))
    if not PROMPT_ITEMS:
        return matvec, few
    wide, middle, narrow = (_int_tile(bits, PROMPT_LINES, ROWS, PROMPT_ITEMS - less) for less in range(3))

    @inlined
    def matmul(
        w: Arrays, start: int, inputs: int, items: int,
        x: Arrays, x_start: int, x_to: int, y: F32, y_start: int, y_to: int, first: int, last: int,
    ) -> None:  # fmt: skip
        if items <= WIDEST:
            few(w, start, inputs, items, x, x_start, x_to, y, y_start, y_to, first, last)
            return
        groups = (inputs + GROUP - 1) // GROUP
        block_bytes = groups * GROUP * LANES * bits // 8
        tiles = (items + PROMPT_ITEMS - 1) // PROMPT_ITEMS
        panel = max(PANEL // (LANES * inputs * ROWS) * ROWS, ROWS)
        for begin in range(first, last, panel):
            end = min(begin + panel, last)
            apart, left = divmod(end - begin, ROWS)
            turns = (apart + left) * groups  # of the loop over groups, in each tile
            line = start * bits // 8 + end * block_bytes
            onward = (min(panel, last - end) * block_bytes // (tiles * turns) + LINE - 1) // LINE * LINE
            for t in range(tiles):
                item = items * t // tiles
                width = items * (t + 1) // tiles - item
                xs, ys = x_start + item * x_to, y_start + item * y_to
                for which in ((begin, apart, apart), (end - left, left, 0)):
                    if width == PROMPT_ITEMS:
                        wide(w, start, inputs, which, x, xs, x_to, y, ys, y_to, (line, onward))
                    elif width == PROMPT_ITEMS - 1:
                        middle(w, start, inputs, which, x, xs, x_to, y, ys, y_to, (line, onward))
                    else:
                        narrow(w, start, inputs, which, x, xs, x_to, y, ys, y_to, (line, onward))
                    line += which[1] * groups * onward

    return matvec, matmul


_float_vector, _float_matrix = _products(_float_tile)
_int8_vector, _int8_matrix = _int_products(8)
_int4_vector, _int4_matrix = _int_products(4)


@inlined
def matvec_float(
    values: AnyArray, start: int, inputs: int, x: F32, x_start: int, y: F32, y_start: int, first: int, last: int
) -> None:
    """One item times a float32, bfloat16 or float16 matrix."""
    _float_vector((values,), start, inputs, (x,), x_start, y, y_start, first, last)


@inlined
def matmul_float(
    values: AnyArray, start: int, inputs: int, items: int,
    x: F32, x_start: int, x_to: int, y: F32, y_start: int, y_to: int, first: int, last: int,
) -> None:  # fmt: skip
    """Items times a float32, bfloat16 or float16 matrix."""
    _float_matrix((values,), start, inputs, items, (x,), x_start, x_to, y, y_start, y_to, first, last)


@inlined
def matvec_int8(
    values: U8, scales: U16, start: int, inputs: int,
    levels: I8, x_scales: F32, zeros: I32, x_start: int, y: F32, y_start: int, first: int, last: int,
) -> None:  # fmt: skip
    """One item times an int8, int6 or int5 matrix."""
    x = (levels, x_scales, zeros)
    _int8_vector((values, scales), start, inputs, x, x_start, y, y_start, first, last)


@inlined
def matmul_int8(
    values: U8, scales: U16, start: int, inputs: int, items: int,
    levels: I8, x_scales: F32, zeros: I32, x_start: int, x_to: int,
    y: F32, y_start: int, y_to: int, first: int, last: int,
) -> None:  # fmt: skip
    """Items times an int8, int6 or int5 matrix."""
    x = (levels, x_scales, zeros)
    _int8_matrix((values, scales), start, inputs, items, x, x_start, x_to, y, y_start, y_to, first, last)


@inlined
def matvec_int4(
    values: U8, scales: U16, start: int, inputs: int,
    levels: I8, x_scales: F32, zeros: I32, x_start: int, y: F32, y_start: int, first: int, last: int,
) -> None:  # fmt: skip
    """One item times an int4 matrix."""
    x = (levels, x_scales, zeros)
    _int4_vector((values, scales), start, inputs, x, x_start, y, y_start, first, last)


@inlined
def matmul_int4(
    values: U8, scales: U16, start: int, inputs: int, items: int,
    levels: I8, x_scales: F32, zeros: I32, x_start: int, x_to: int,
    y: F32, y_start: int, y_to: int, first: int, last: int,
) -> None:  # fmt: skip
    """Items times an int4 matrix."""
    x = (levels, x_scales, zeros)
    _int4_matrix((values, scales), start, inputs, items, x, x_start, x_to, y, y_start, y_to, first, last)


# ---- by address: the products of a format, for one item or many ----


def product_address(form: Format) -> int:
    """The address of the product of a format, which :func:`stack_jit.multiply` calls."""
    values, scales, x, levels, zeros = (
        ArrayKind(np.dtype(dtype), 1) for dtype in (form.dtype, np.uint16, np.float32, np.int8, np.int32)
    )
    sizes = (INTEGER, INTEGER, INTEGER)
    return _product(form).address((values, scales, *sizes, x, levels, x, zeros, x, *sizes, TRUTH))


def _product(form: Format) -> Any:
    return _float_product if form.bits is None else _int4_product if form.bits == 4 else _int8_product


@kernel
def _float_product(
    values: AnyArray, scales: U16, start: int, inputs: int, count: int,
    x: F32, levels: I8, x_scales: F32, zeros: I32, y: F32, y_to: int, first: int, end: int, fresh: bool,
) -> None:  # fmt: skip
    """The quantised inputs are not used."""
    if count == 1:
        matvec_float(values, start, inputs, x, 0, y, 0, first, end)
    else:
        matmul_float(values, start, inputs, count, x, 0, inputs, y, 0, y_to, first, end)


@kernel
def _int8_product(
    values: U8, scales: U16, start: int, inputs: int, count: int,
    x: F32, levels: I8, x_scales: F32, zeros: I32, y: F32, y_to: int, first: int, end: int, fresh: bool,
) -> None:  # fmt: skip
    if fresh:
        quantise_groups(x, 0, count * inputs, levels, x_scales, zeros, 0)
    if count == 1:
        matvec_int8(values, scales, start, inputs, levels, x_scales, zeros, 0, y, 0, first, end)
    else:
        matmul_int8(
            values, scales, start, inputs, count, levels, x_scales, zeros, 0, inputs, y, 0, y_to, first, end
        )  # fmt: skip


@kernel
def _int4_product(
    values: U8, scales: U16, start: int, inputs: int, count: int,
    x: F32, levels: I8, x_scales: F32, zeros: I32, y: F32, y_to: int, first: int, end: int, fresh: bool,
) -> None:  # fmt: skip
    if fresh:
        quantise_groups(x, 0, count * inputs, levels, x_scales, zeros, 0)
    if count == 1:
        matvec_int4(values, scales, start, inputs, levels, x_scales, zeros, 0, y, 0, first, end)
    else:
        matmul_int4(
            values, scales, start, inputs, count, levels, x_scales, zeros, 0, inputs, y, 0, y_to, first, end
        )  # fmt: skip
