"""Operations on vectors of 16 lanes: constants, memory, arithmetic, choice, across lanes, and between threads.

Each docstring states the result.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from llvmlite import ir

from ..cpu import CPU
from . import llvm
from .llvm import (
    ARRAY,
    BYTES,
    F32,
    FLOAT,
    FLOAT_ARRAY,
    FLOATS,
    I32,
    INDEX,
    INT32,
    INT64,
    INTS,
    LANES,
    SHORTS,
    VOID,
    Builder,
    Value,
    f32x16,
    i32x16,
    number,
    operation,
    pick,
    pointer_to,
)

# ---- constants ----


@operation(f32x16)
def zeros(b: Builder) -> Value:
    """0.0 in all lanes"""
    return number(0.0)


@operation(i32x16)
def zeros_int(b: Builder) -> Value:
    """0 in all lanes"""
    return number(0)


@operation(i32x16)
def lane_numbers(b: Builder) -> Value:
    """0, 1, ... 15"""
    return ir.Constant(INTS, [ir.Constant(I32, lane) for lane in range(LANES)])


@operation(f32x16, FLOAT)
def splat(b: Builder, x: Value) -> Value:
    """the number x in all lanes"""
    return llvm.splat(b, x)


@operation(i32x16, INT32)
def splat_int(b: Builder, x: Value) -> Value:
    """the integer x in all lanes"""
    return llvm.splat(b, x)


# ---- memory ----


@operation(f32x16, FLOAT_ARRAY, INDEX)
def load(b: Builder, array: Value, i: Value) -> Value:
    """16 float32"""
    return b.load(pointer_to(b, array, i, FLOATS), align=4)


@operation(f32x16, ARRAY, INDEX)
def load_bf16(b: Builder, array: Value, i: Value) -> Value:
    """16 bfloat16 (uint16), widened exactly"""
    bits = b.load(pointer_to(b, array, i, SHORTS), align=2)
    return b.bitcast(b.shl(b.zext(bits, INTS), number(16)), FLOATS)


@operation(i32x16, ARRAY, INDEX)
def load_int(b: Builder, array: Value, i: Value) -> Value:
    """64 bytes from element i of an array of any type"""
    return b.load(pointer_to(b, array, i, INTS), align=1)


@operation(f32x16, FLOAT_ARRAY, INDEX, INDEX)
def load_first(b: Builder, array: Value, i: Value, count: Value) -> Value:
    """the first count float32 of 16, 0.0 in the other lanes; touches no more than these"""
    from numba.core import cgutils

    place = cgutils.alloca_once_value(b, number(0.0))
    with cgutils.for_range(b, count) as loop:
        lane = b.gep(b.bitcast(place, F32.as_pointer()), [loop.index])
        b.store(b.load(b.gep(array, [b.add(i, loop.index)])), lane)
    return b.load(place)


@operation(VOID, FLOAT_ARRAY, INDEX, f32x16)
def store(b: Builder, array: Value, i: Value, x: Value) -> None:
    """16 float32"""
    b.store(x, pointer_to(b, array, i, FLOATS), align=4)


@operation(VOID, ARRAY, INDEX, i32x16)
def store_int(b: Builder, array: Value, i: Value, x: Value) -> None:
    """64 bytes from element i of an array of any type"""
    b.store(x, pointer_to(b, array, i, INTS), align=1)


@operation(VOID, ARRAY, INDEX, i32x16)
def store_i8(b: Builder, array: Value, i: Value, x: Value) -> None:
    """16 int8: the low bytes"""
    b.store(b.trunc(x, BYTES), pointer_to(b, array, i, BYTES), align=1)


@operation(VOID, FLOAT_ARRAY, INDEX, f32x16, INDEX)
def store_first(b: Builder, array: Value, i: Value, x: Value, count: Value) -> None:
    """the first count float32 of 16; touches no more than these"""
    from numba.core import cgutils

    with cgutils.for_range(b, count) as loop:
        b.store(b.extract_element(x, loop.index), b.gep(array, [b.add(i, loop.index)]))


# ---- arithmetic; of integers modulo 2**32 ----


@operation(f32x16, f32x16, f32x16, f32x16)
def fma(b: Builder, x: Value, y: Value, z: Value) -> Value:
    """x y + z, rounded once where the CPU can"""
    return CPU.fma(b, x, y, z)


@operation(f32x16, f32x16, f32x16)
def add(b: Builder, x: Value, y: Value) -> Value:
    """x + y"""
    return b.fadd(x, y)


@operation(f32x16, f32x16, f32x16)
def sub(b: Builder, x: Value, y: Value) -> Value:
    """x - y"""
    return b.fsub(x, y)


@operation(f32x16, f32x16, f32x16)
def mul(b: Builder, x: Value, y: Value) -> Value:
    """x y"""
    return b.fmul(x, y)


@operation(f32x16, f32x16)
def sqrt(b: Builder, x: Value) -> Value:
    """square root"""
    return llvm.call(b, "llvm.sqrt.v16f32", FLOATS, x)


@operation(f32x16, f32x16)
def absolute(b: Builder, x: Value) -> Value:
    """|x|"""
    return llvm.call(b, "llvm.fabs.v16f32", FLOATS, x)


@operation(f32x16, f32x16, f32x16)
def maximum(b: Builder, x: Value, y: Value) -> Value:
    """the greater of x and y; y if either is NaN"""
    return llvm.maximum(b, x, y)


@operation(i32x16, i32x16, i32x16)
def add_int(b: Builder, x: Value, y: Value) -> Value:
    """x + y"""
    return b.add(x, y)


# ---- conversion and choice ----


@operation(i32x16, f32x16)
def to_int(b: Builder, x: Value) -> Value:
    """the nearest integers, ties to even; for |x| < 2**31"""
    return b.fptosi(llvm.rint(b, x), INTS)


@operation(f32x16, i32x16)
def as_float(b: Builder, x: Value) -> Value:
    """the floats of these bits"""
    return b.bitcast(x, FLOATS)


@operation(i32x16, f32x16)
def as_int(b: Builder, x: Value) -> Value:
    """the bits of these floats"""
    return b.bitcast(x, INTS)


@operation(i32x16, f32x16, f32x16)
def greater(b: Builder, x: Value, y: Value) -> Value:
    """-1 where x > y, else 0"""
    return b.sext(b.fcmp_ordered(">", x, y), INTS)


@operation(f32x16, i32x16, f32x16, f32x16)
def select(b: Builder, condition: Value, x: Value, y: Value) -> Value:
    """x where the condition is not 0, else y"""
    return b.select(b.icmp_signed("!=", condition, number(0)), x, y)


# ---- across lanes ----


def _fold(b: Builder, x: Value, combine: Callable[[Value, Value], Value]) -> Value:
    """Reduce all lanes to one: the upper half onto the lower, four times."""
    width = LANES
    while width > 1:
        width //= 2
        x = combine(pick(b, x, list(range(width))), pick(b, x, list(range(width, 2 * width))))
    return b.extract_element(x, ir.Constant(I32, 0))


@operation(FLOAT, f32x16)
def total(b: Builder, x: Value) -> Value:
    """the sum of all lanes, always in the same order: halves onto halves"""
    return _fold(b, x, b.fadd)


@operation(INT32, i32x16)
def total_int(b: Builder, x: Value) -> Value:
    """the sum of all lanes"""
    return _fold(b, x, b.add)


@operation(FLOAT, f32x16)
def largest(b: Builder, x: Value) -> Value:
    """the greatest lane"""
    return _fold(b, x, functools.partial(llvm.maximum, b))


# ---- between threads: arrays of int64 ----


@operation(INT64, ARRAY, INDEX, INT64)
def atomic_add(b: Builder, array: Value, i: Value, x: Value) -> Value:
    """array[i] before array[i] += x, atomic across threads"""
    return b.atomic_rmw("add", b.gep(array, [i]), x, "seq_cst")


@operation(INT64, ARRAY, INDEX, INT64)
def atomic_exchange(b: Builder, array: Value, i: Value, x: Value) -> Value:
    """array[i] before array[i] = x, atomic across threads"""
    return b.atomic_rmw("xchg", b.gep(array, [i]), x, "seq_cst")


@operation(INT64, ARRAY, INDEX)
def atomic_load(b: Builder, array: Value, i: Value) -> Value:
    """array[i], with acquire ordering: all that its writer wrote before is visible"""
    return b.load_atomic(b.gep(array, [i]), "acquire", 8)


@operation(VOID)
def pause(b: Builder) -> None:
    """nothing; a hint to the CPU that this is a spin loop"""
    CPU.pause(b)
