"""Stacks of packed matrices of one shape, in any format.

A stack carries the address of the compiled function that multiplies by its format. So the transformer and the frame
loop are compiled once, not once per format, and do not contain the products, which take long to compile.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import carray, from_dtype, types

from .arrays import F32, I8, I32, U8, U16
from .cpu import c_function, inlined
from .linear_jit import matmul_float, matmul_int4, matmul_int8, matvec_float, matvec_int4, matvec_int8, quantise_groups
from .pack import BLOCK, Packed
from .simd.llvm import ARRAY, LANES, Builder, Value, operation
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
    return Stack(
        arena.values.view(np.uint8), arena.scales, size, inputs, _product(arena.format.bits, arena.format.dtype).address
    )


@operation(
    types.void, types.int64, ARRAY, ARRAY, types.int64, types.int64, types.int64,
    ARRAY, ARRAY, ARRAY, ARRAY, ARRAY, types.int64, types.int64, types.int64,
)  # fmt: skip
def _call(
    b: Builder, address: Value, values: Value, scales: Value, start: Value, inputs: Value, count: Value,
    x: Value, levels: Value, x_scales: Value, zeros: Value, y: Value, y_to: Value, first: Value, end: Value,
) -> None:  # fmt: skip
    """Call the product at an address. It receives arrays as pointers to their first elements."""
    arguments = (values, scales, start, inputs, count, x, levels, x_scales, zeros, y, y_to, first, end)
    signature = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
    b.call(b.inttoptr(address, signature.as_pointer()), arguments)


@inlined
def multiply(
    stack: Stack, index: int, x: F32, count: int, y: F32, y_to: int, first: int, end: int, own: Levels
) -> None:
    """Rows of blocks first to end - 1 of matrix ``index`` times ``count`` columns of x [count, inputs], flat.

    Column c of the result starts at y[c * y_to]; it does not depend on ``count``, first or end.
    """
    _call(
        stack.product, stack.values, stack.scales, index * stack.size, stack.inputs, count,
        x, own.levels, own.scales, own.zeros, y, y_to, first, end,
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
    multiply(w.weight, 0, x, count, y, rows, first, end, own)
    for c in range(count):
        for i in range(first * BLOCK, end * BLOCK, LANES):
            store(y, c * rows + i, add(load(y, c * rows + i), load(w.bias, i)))


# ---- the functions at these addresses: C functions, so arrays are passed as pointers, without sizes ----


def _float_product(
    values: Any, scales: Any, start: int, inputs: int, count: int,
    x: Any, levels: Any, x_scales: Any, zeros: Any, y: Any, y_to: int, first: int, end: int,
) -> None:  # fmt: skip
    weights, given, result = carray(values, 1), carray(x, 1), carray(y, 1)
    if count == 1:
        matvec_float(weights, start, inputs, given, 0, result, 0, first, end)
    else:
        matmul_float(weights, start, inputs, count, given, 0, inputs, result, 0, y_to, first, end)


def _int8_product(
    values: Any, scales: Any, start: int, inputs: int, count: int,
    x: Any, levels: Any, x_scales: Any, zeros: Any, y: Any, y_to: int, first: int, end: int,
) -> None:  # fmt: skip
    weights, steps, result = carray(values, 1), carray(scales, 1), carray(y, 1)
    q, q_steps, q_zeros = carray(levels, 1), carray(x_scales, 1), carray(zeros, 1)
    quantise_groups(carray(x, 1), 0, count * inputs, q, q_steps, q_zeros, 0)
    if count == 1:
        matvec_int8(weights, steps, start, inputs, q, q_steps, q_zeros, 0, result, 0, first, end)
    else:
        matmul_int8(weights, steps, start, inputs, count, q, q_steps, q_zeros, 0, inputs, result, 0, y_to, first, end)


def _int4_product(
    values: Any, scales: Any, start: int, inputs: int, count: int,
    x: Any, levels: Any, x_scales: Any, zeros: Any, y: Any, y_to: int, first: int, end: int,
) -> None:  # fmt: skip
    weights, steps, result = carray(values, 1), carray(scales, 1), carray(y, 1)
    q, q_steps, q_zeros = carray(levels, 1), carray(x_scales, 1), carray(zeros, 1)
    quantise_groups(carray(x, 1), 0, count * inputs, q, q_steps, q_zeros, 0)
    if count == 1:
        matvec_int4(weights, steps, start, inputs, q, q_steps, q_zeros, 0, result, 0, first, end)
    else:
        matmul_int4(weights, steps, start, inputs, count, q, q_steps, q_zeros, 0, inputs, result, 0, y_to, first, end)


@cache
def _product(bits: int | None, dtype: np.dtype[Any]) -> Any:
    """The compiled product of a format. Kept indefinitely, since stacks hold its address."""
    function = _float_product if bits is None else _int4_product if bits == 4 else _int8_product
    pointer = {name: types.CPointer(getattr(types, name)) for name in ("float32", "int8", "uint16", "int32")}
    integer = types.int64
    signature = types.void(
        types.CPointer(from_dtype(dtype)), pointer["uint16"], integer, integer, integer,
        pointer["float32"], pointer["int8"], pointer["float32"], pointer["int32"],
        pointer["float32"], integer, integer, integer,
    )  # fmt: skip
    return c_function(signature, function)
