"""LLVM IR for vectors of 16 lanes: their types, and the decorator that turns a body of IR into a Numba function."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec

from llvmlite import ir

P = ParamSpec("P")
Builder = Any  # llvmlite is not typed
Value = Any

LANES = 16
I8, I16, I32, I64, HALF, F32 = (*map(ir.IntType, (8, 16, 32, 64)), ir.HalfType(), ir.FloatType())
BYTES, SHORTS, INTS, HALVES, FLOATS = (ir.VectorType(element, LANES) for element in (I8, I16, I32, HALF, F32))
WORDS = ir.VectorType(I16, 2 * LANES)  # the 16-bit halves of the lanes


# ---- types of operands and results: names of Numba's types, and of vectors, which live in registers only ----

f32x16, i32x16 = "f32x16", "i32x16"
FLOAT, INT32, INT64, INDEX, VOID = "float32", "int32", "int64", "intp", "void"

# Kinds of operands, and what the body receives for each.
ARRAY = object()  # a contiguous array of any dtype; the body receives a pointer to its first element
FLOAT_ARRAY = object()  # the same, float32 only
TILE = object()  # a tuple of vectors; the body receives a list of them
WEIGHTS = object()  # a contiguous array whose dtype is the format; the body receives a pointer and the dtype's name
COUNT = object()  # a constant integer; the body receives it as a Python int
ARRAYS = (ARRAY, FLOAT_ARRAY, WEIGHTS)


class Operation:
    """A function of compiled code whose body emits LLVM IR. The compiler (``compiler.py``) gives it a type."""

    def __init__(self, body: Callable[..., Any], result: Any, operands: tuple[Any, ...]) -> None:
        functools.update_wrapper(self, body)
        self.body, self.result, self.operands = body, result, operands

    def __deepcopy__(self, memo: Any) -> Operation:
        return self  # the compiler copies what refers to it

    def __call__(self, *operands: Any) -> Any:
        raise NotImplementedError(f"{self.body.__name__} is for compiled code only")


def operation(result: Any, *operands: Any) -> Callable[[Callable[Concatenate[Any, P], Any]], Callable[P, Any]]:
    """Make a function of compiled code of a body that emits LLVM IR: body(builder, one LLVM value per operand).

    ``result``: a type, a type and a count for a tile, or a function that gives one for the operands' Numba types.
    """

    def decorate(body: Callable[Concatenate[Any, P], Any]) -> Callable[P, Any]:
        return Operation(body, result, operands)

    return decorate


# ---- building blocks of bodies ----


def constant(vector: Any, value: float) -> Any:
    """A constant in all lanes of a type of vectors."""
    return ir.Constant(vector, [ir.Constant(vector.element, value)] * vector.count)


def number(value: float) -> Any:
    """A constant in all 16 lanes: of floats for a float, of integers for an int."""
    return constant(FLOATS if isinstance(value, float) else INTS, value)


def call(b: Builder, name: str, result: Any, *values: Value) -> Value:
    """A call of an LLVM intrinsic or a C function with the given operands."""
    known = b.module.globals.get(name)
    if known is None:
        known = ir.Function(b.module, ir.FunctionType(result, [value.type for value in values]), name)
    return b.call(known, values)


def lane_list(lanes: list[int]) -> Any:
    """Lane numbers in the form that a shuffle takes."""
    return ir.Constant(ir.VectorType(I32, len(lanes)), lanes)


def pick(b: Builder, vector: Value, lanes: list[int]) -> Value:
    """The given lanes as a vector of their own."""
    return b.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), lane_list(lanes))


def splat(b: Builder, value: Value, lanes: int = LANES) -> Value:
    """A scalar in all lanes."""
    first = b.insert_element(ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined), value, ir.Constant(I32, 0))
    return pick(b, first, [0] * lanes)


def pointer_to(b: Builder, array: Value, index: Value, read_as: Any) -> Value:
    """Pointer to array[index], read as another type."""
    return b.bitcast(b.gep(array, [index]), read_as.as_pointer())


def prefetch(b: Builder, array: Value, i: Value, ahead: int) -> None:
    """Prefetch the cache line this many bytes after array[i]."""
    pointer = b.gep(pointer_to(b, array, i, I8), [ir.Constant(I64, ahead)])
    flags = (ir.Constant(I32, flag) for flag in (0, 3, 1))  # read, keep in all caches, data
    call(b, f"llvm.prefetch.{pointer.type.intrinsic_name}", ir.VoidType(), pointer, *flags)


def steps(b: Builder, start: Value, stride: Value, count: int) -> list[Value]:
    """start, start + stride, ..."""
    starts = [start]
    while len(starts) < count:
        starts.append(b.add(starts[-1], stride))
    return starts


def maximum(b: Builder, x: Value, y: Value) -> Value:
    """The greater of x and y; y if either is NaN."""
    return b.select(b.fcmp_ordered(">", x, y), x, y)  # one instruction on x86, unlike llvm.maxnum


def minimum(b: Builder, x: Value, y: Value) -> Value:
    """The smaller of x and y; y if either is NaN."""
    return b.select(b.fcmp_ordered("<", x, y), x, y)


def rint(b: Builder, x: Value) -> Value:
    """The nearest integer, ties to even."""
    return call(b, "llvm.rint.v16f32", FLOATS, x)
