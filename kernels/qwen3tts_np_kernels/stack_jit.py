"""Stacks of packed matrices of one shape, in any format.

A stack carries the address of the compiled function that multiplies by its format. So the transformer and the frame
loop are compiled once, not once per format, and do not contain the products, which take long to compile.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from llvmlite import ir

from .arrays import F32, I8, I32, U8, U16
from .cpu import inlined
from .linear_jit import product_address
from .pack import BLOCK, Packed
from .simd.llvm import ARRAY, I64, INT64, LANES, VOID, Builder, Value, operation
from .simd.ops import add, load, store
from .threads_jit import Member, share


class Stack(NamedTuple):
    """Matrices of one shape, packed consecutively."""

    values: U8  # of any format, as bytes
    scales: U16
    size: int  # weights of one matrix, padding included
    inputs: int  # padding included
    product: int  # address of the function that `multiply` calls


class Levels(NamedTuple):
    """A thread's own buffers for inputs quantised in groups of 32, for formats that multiply integers."""

    levels: I8
    scales: F32
    zeros: I32


def new_stack(arena: Packed, size: int, inputs: int) -> Stack:
    """The matrices of ``arena`` as a stack: ``size`` weights and ``inputs`` inputs each, padding included."""
    return Stack(arena.values.view(np.uint8), arena.scales, size, inputs, product_address(arena.format))


@operation(
    VOID, INT64, ARRAY, ARRAY, INT64, INT64, INT64,
    ARRAY, ARRAY, ARRAY, ARRAY, ARRAY, INT64, INT64, INT64, INT64,
)  # fmt: skip
def _call(
    b: Builder, address: Value, values: Value, scales: Value, start: Value, inputs: Value, count: Value,
    x: Value, levels: Value, x_scales: Value, zeros: Value, y: Value, y_to: Value, first: Value, end: Value,
    fresh: Value,
) -> None:  # fmt: skip
    """nothing; calls the product at an address with a block of arguments (``arguments.py``), arrays without sizes"""
    arguments = (values, scales, start, inputs, count, x, levels, x_scales, zeros, y, y_to, first, end, fresh)
    words = []
    for argument in arguments:
        is_array = isinstance(argument.type, ir.PointerType)
        words += [b.ptrtoint(argument, I64), ir.Constant(I64, 0)] if is_array else [argument]
    with b.goto_entry_block():  # once, not in every turn of a loop
        block = b.alloca(I64, len(words))
    for i, word in enumerate(words):
        b.store(word, b.gep(block, [ir.Constant(I64, i)]))
    signature = ir.FunctionType(I64, [block.type])
    b.call(b.inttoptr(address, signature.as_pointer()), [block])


@inlined
def multiply(
    stack: Stack, index: int, x: F32, count: int, y: F32, y_to: int, first: int, end: int, own: Levels, fresh: bool
) -> None:
    """Rows of blocks first to end - 1 of matrix ``index`` times ``count`` columns of x [count, inputs], flat.

    Column c of the result starts at y[c * y_to]; it does not depend on ``count``, first or end. Unless x is ``fresh``,
    it is that of the call before, and its levels are in ``own``.
    """
    _call(
        stack.product, stack.values, stack.scales, index * stack.size, stack.inputs, count,
        x, own.levels, own.scales, own.zeros, y, y_to, first, end, fresh,
    )  # fmt: skip


class Affine(NamedTuple):
    """A matrix with a bias."""

    weight: Stack
    bias: F32  # rows, padded


@inlined
def affine(me: Member, w: Affine, x: F32, count: int, y: F32, own: Levels) -> None:
    """y [count, rows] = x wᵀ + bias, both flat: this thread's rows."""
    rows = w.bias.size
    first, end = share(me, rows // BLOCK)
    multiply(w.weight, 0, x, count, y, rows, first, end, own, True)
    for c in range(count):
        for i in range(first * BLOCK, end * BLOCK, LANES):
            store(y, c * rows + i, add(load(y, c * rows + i), load(w.bias, i)))
