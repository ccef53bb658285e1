"""LLVM IR for vectors of 16 lanes: their types, and the decorator that turns a body of IR into a Numba function."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

P = ParamSpec("P")
Builder = Any  # llvmlite is not typed
Value = Any

LANES = 16
I8, I16, I32, I64, HALF, F32 = (*map(ir.IntType, (8, 16, 32, 64)), ir.HalfType(), ir.FloatType())
BYTES, SHORTS, INTS, HALVES, FLOATS = (ir.VectorType(element, LANES) for element in (I8, I16, I32, HALF, F32))
WORDS = ir.VectorType(I16, 2 * LANES)  # the 16-bit halves of the lanes


class Vector(types.Type):  # type: ignore[misc]  # Numba has no types
    """The Numba type of a vector; values live in registers only."""

    def __init__(self, name: str, llvm_type: ir.VectorType) -> None:
        self.llvm_type = llvm_type
        super().__init__(name)


f32x16 = Vector("f32x16", FLOATS)
i32x16 = Vector("i32x16", INTS)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, vector.llvm_type)


# ---- Numba functions: kinds of operands, and what the body receives for each ----

ARRAY = object()  # a contiguous array of any dtype; the body receives a pointer to its first element
FLOAT_ARRAY = object()  # the same, float32 only
TILE = object()  # a tuple of vectors; the body receives a list of them
WEIGHTS = object()  # a contiguous array whose dtype is the format; the body receives a pointer and the Numba dtype
COUNT = object()  # a constant integer; the body receives it as a Python int
_ARRAYS = (ARRAY, FLOAT_ARRAY, WEIGHTS)


def operation(result: Any, *operands: Any) -> Callable[[Callable[Concatenate[Any, P], Any]], Callable[P, Any]]:
    """Make a Numba function of a body that emits LLVM IR: body(builder, one LLVM value per operand).

    ``result``: its Numba type, or a function of the types of the operands.
    """

    def accepts(operand: Any, actual: Any) -> bool:
        if operand in _ARRAYS:
            fits = isinstance(actual, types.Array) and actual.layout in "CF" and actual.ndim == 1
            return fits and (operand is not FLOAT_ARRAY or actual.dtype == types.float32)
        if operand is TILE:
            return isinstance(actual, types.UniTuple) and isinstance(actual.dtype, Vector)
        return operand is not COUNT or isinstance(actual, types.IntegerLiteral)

    def lower(context: Any, builder: Any, operand: Any, actual: Any, value: Any) -> Any:
        if operand in _ARRAYS:
            pointer = context.make_array(actual)(context, builder, value).data
            return (pointer, actual.dtype) if operand is WEIGHTS else pointer
        if operand is TILE:
            return cgutils.unpack_tuple(builder, value)
        return actual.literal_value if operand is COUNT else value

    def decorate(body: Callable[Concatenate[Any, P], Any]) -> Callable[P, Any]:
        @functools.wraps(body)
        def typed(_context: Any, *actual: Any) -> Any:
            if not all(map(accepts, operands, actual)):
                return None
            out = result if isinstance(result, types.Type) else result(*actual)
            kept = [a if o in (*_ARRAYS, TILE, COUNT) else o for o, a in zip(operands, actual, strict=True)]

            def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
                each = zip(operands, signature.args, values, strict=True)
                value = body(builder, *(lower(context, builder, *one) for one in each))  # type: ignore[call-arg]
                if out is types.void:
                    return context.get_dummy_value()
                return cgutils.pack_array(builder, value) if isinstance(out, types.UniTuple) else value

            return out(*kept), generate

        function: Callable[P, Any] = intrinsic(prefer_literal=COUNT in operands)(typed)
        return function

    return decorate


# ---- building blocks of bodies ----


def number(value: float) -> Any:
    """A constant in all lanes: of floats for a float, of integers for an int."""
    element, vector = (F32, FLOATS) if isinstance(value, float) else (I32, INTS)
    return ir.Constant(vector, [ir.Constant(element, value)] * LANES)


def call(b: Builder, name: str, result: Any, *values: Value) -> Value:
    """A call of an LLVM intrinsic or a C function with the given operands."""
    function_type = ir.FunctionType(result, [value.type for value in values])
    return b.call(cgutils.get_or_insert_function(b.module, function_type, name), values)


def lane_list(lanes: list[int]) -> Any:
    """Lane numbers in the form that a shuffle takes."""
    return ir.Constant(ir.VectorType(I32, len(lanes)), lanes)


def pick(b: Builder, vector: Value, lanes: list[int]) -> Value:
    """The given lanes as a vector of their own."""
    return b.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), lane_list(lanes))


def splat(b: Builder, value: Value) -> Value:
    """A scalar in all lanes."""
    first = b.insert_element(ir.Constant(ir.VectorType(value.type, LANES), ir.Undefined), value, ir.Constant(I32, 0))
    return pick(b, first, [0] * LANES)


def pointer_to(b: Builder, array: Value, index: Value, read_as: Any) -> Value:
    """Pointer to array[index], read as another type."""
    return b.bitcast(b.gep(array, [index]), read_as.as_pointer())


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
