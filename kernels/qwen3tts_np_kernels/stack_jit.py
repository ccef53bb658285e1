"""Stacks of packed matrices of one shape, and their products, whatever their format."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import overload
from numpy.typing import NDArray

from .linear_jit import (
    matmul_float,
    matmul_int4,
    matmul_int8,
    matvec_float,
    matvec_int4,
    matvec_int8,
    quantise_groups,
)

F32 = NDArray[np.float32]


class FloatStack(NamedTuple):
    """float32, bfloat16 or float16 matrices, packed one behind the other."""

    values: NDArray[Any]
    size: int  # weights of one matrix, padding included
    inputs: int  # a multiple of 32


class Int8Stack(NamedTuple):
    """int8 matrices."""

    values: NDArray[np.uint8]
    scales: NDArray[np.uint16]
    size: int
    inputs: int


class Int4Stack(NamedTuple):
    """int4 matrices."""

    values: NDArray[np.uint8]
    scales: NDArray[np.uint16]
    size: int
    inputs: int


Stack = FloatStack | Int8Stack | Int4Stack


class Levels(NamedTuple):
    """Inputs quantised in groups of 32 for integer products: a thread's own working space."""

    levels: NDArray[np.int8]
    scales: F32
    sums: NDArray[np.int32]


def quantise(stack: Stack, x: F32, count: int, levels: Levels) -> None:
    """Quantise ``count`` columns of x [count, inputs], flat, if the format of ``stack`` multiplies integers."""
    raise NotImplementedError("compiled code only")


def multiply(
    stack: Stack, index: int, x: F32, levels: Levels, count: int, y: F32, y_to: int, first: int, end: int
) -> None:
    """Rows of blocks first..end-1 of matrix ``index`` times ``count`` columns of x, or of ``levels`` made of it.

    Column c of y begins at y[c * y_to].
    """
    raise NotImplementedError("compiled code only")


def _is(stack: Any, cls: type) -> bool:
    return isinstance(stack, types.NamedTuple) and stack.instance_class is cls


@overload(quantise)
def _quantise(stack: Any, x: Any, count: Any, levels: Any) -> Callable[..., None]:
    if _is(stack, FloatStack):

        def nothing(stack: Any, x: Any, count: Any, levels: Any) -> None:
            pass

        return nothing

    def groups(stack: Any, x: Any, count: Any, levels: Any) -> None:
        for c in range(count):
            at = c * stack.inputs
            quantise_groups(x, at, stack.inputs, levels.levels, levels.scales, levels.sums, at)

    return groups


@overload(multiply)
def _multiply(
    stack: Any, index: Any, x: Any, levels: Any, count: Any, y: Any, y_to: Any, first: Any, end: Any
) -> Callable[..., None]:
    if _is(stack, FloatStack):

        def floats(
            stack: Any, index: Any, x: Any, levels: Any, count: Any, y: Any, y_to: Any, first: Any, end: Any
        ) -> None:
            start = index * stack.size
            if count == 1:
                matvec_float(stack.values, start, stack.inputs, x, 0, y, 0, first, end)
            else:
                matmul_float(stack.values, start, stack.inputs, count, x, 0, stack.inputs, y, 0, y_to, first, end)

        return floats

    vector, matrix = (matvec_int8, matmul_int8) if _is(stack, Int8Stack) else (matvec_int4, matmul_int4)

    def integers(
        stack: Any, index: Any, x: Any, levels: Any, count: Any, y: Any, y_to: Any, first: Any, end: Any
    ) -> None:
        start, q = index * stack.size, levels
        if count == 1:
            vector(
                stack.values, stack.scales, start, stack.inputs, q.levels, q.scales, q.sums, 0, y, 0, first, end
            )
        else:
            matrix(
                stack.values, stack.scales, start, stack.inputs, count, q.levels, q.scales, q.sums, 0, stack.inputs,
                y, 0, y_to, first, end,
            )  # fmt: skip

    return integers
