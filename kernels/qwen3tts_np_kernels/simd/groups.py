"""Exact sums of products of a group, 32 quantised weights of each row, in the order that keeps them in registers."""

from __future__ import annotations

import functools
import itertools
from typing import Any

from llvmlite import ir

from ..pack import GROUP
from .instruction_sets import Sums, joined
from .llvm import I8, I64, LANES, Builder, Value, constant, pick, pointer_to, prefetch, splat

_CELL = 64  # bytes: 32 bits of each of 16 rows
_FOURS = GROUP // 4  # inputs are multiplied 4 at a time, which are 4 bytes of a lane

Place = tuple[int, int, int]  # of sums in a tile: the item, the block, and the first of their rows in the block


class Weights:
    """The levels of a group: of 4 neighbouring inputs at a time, as vectors of some type. Each is loaded once."""

    def __init__(self, b: Builder, values: Value, blocks: list[Value], bits: int, ahead: int, lanes: Any) -> None:
        self._b, self._values, self._bits, self._ahead, self._type = b, values, bits, ahead, lanes
        self.blocks = blocks
        self.levels = functools.cache(self._levels)
        self._stored = functools.cache(self._load)

    def _levels(self, block: int, row: int, n: int) -> Value:
        """The n-th 4 inputs of the rows from this one, a byte each."""
        b = self._b
        if self._bits == 8:
            return self._stored(block, row, n)
        stored = self._stored(block, row, n // 2)  # those of 4 inputs, and of the next 4
        if n % 2 == 0:
            return b.and_(stored, constant(self._type, 0x0F0F0F0F))
        if self._type.count == LANES:
            # Trap: x86 shifts no bytes, and what LLVM makes of it where there is GFNI is one instruction, and slower.
            return b.and_(b.lshr(stored, constant(self._type, 4)), constant(self._type, 0x0F0F0F0F))
        half = constant(ir.VectorType(I8, 4 * self._type.count), 4)
        return b.bitcast(b.lshr(b.bitcast(stored, half.type), half), self._type)

    def _load(self, block: int, row: int, cell: int) -> Value:
        b, start = self._b, self.blocks[block]
        at = b.add(start, ir.Constant(start.type, _CELL * cell + 4 * row))
        if row == 0:
            prefetch(b, self._values, at, self._ahead)
        return b.load(pointer_to(b, self._values, at, self._type), align=1)


def sums_of(b: Builder, sums: Sums, weights: Weights, inputs: list[Value], offsets: list[Value]) -> list[Value]:
    """The sums of a tile: of all blocks with the first item, then with the second, ...

    ``inputs``: pointers to the 32 levels of each item; ``offsets``: what is added to all sums of an item.
    """
    four = functools.cache(lambda item, n: _broadcast(b, inputs[item], n, sums.lanes))
    prepared = functools.cache(lambda *place: sums.prepare(b, weights.levels(*place)))
    done: dict[Place, Value] = {}
    for part in _parts(len(inputs), len(weights.blocks), sums.lanes):
        starts = [offsets[item] for item, _, _ in part]
        totals = [ir.Constant(sums.total, None)] * len(part) if sums.whole else starts
        for n in range(_FOURS):
            factors = [(prepared(block, row, n), four(item, n)) for item, block, row in part]
            totals = [sums.add(b, total, *two) for total, two in zip(totals, factors, strict=True)]
        if sums.whole:
            totals = [b.add(sums.whole(b, total), start) for total, start in zip(totals, starts, strict=True)]
        done |= zip(part, (sums.settled(b, total) for total in totals), strict=True)
    each = itertools.product(range(len(inputs)), range(len(weights.blocks)))
    return [joined(b, [done[(*place, row)] for row in range(0, LANES, sums.lanes)]) for place in each]


def _parts(items: int, blocks: int, lanes: int) -> list[list[Place]]:
    """The order in which sums are computed: those of a part at once, and one part after the other.

    Where 16 lanes are several registers, a part is one block of a single item, or half a block of several items, which
    use the same levels. So it fits into the registers, and neighbouring ones are loaded by one instruction.
    """
    rows = range(0, LANES, lanes)
    if len(rows) == 1:
        return [list(itertools.product(range(items), range(blocks), rows))]
    if items == 1:
        return [list(itertools.product([0], [block], rows)) for block in range(blocks)]
    halves = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    return [list(itertools.product(range(items), range(blocks), half)) for half in halves]


def _broadcast(b: Builder, inputs: Value, n: int, lanes: int) -> Value:
    """The n-th 4 bytes in each of so many lanes.

    An instruction of x86 takes them from memory, one of ARM from a lane of a register.
    """
    if lanes == LANES:
        return splat(b, b.load(b.gep(inputs, [ir.Constant(I64, n)]), align=1))
    register = ir.VectorType(inputs.type.pointee, lanes)
    start = b.gep(inputs, [ir.Constant(I64, n - n % lanes)])
    return pick(b, b.load(b.bitcast(start, register.as_pointer()), align=1), [n % lanes] * lanes)
