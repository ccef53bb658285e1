"""Vectors of 16 lanes for Numba: the only instructions the compiled kernels are written in.

``f32x16`` and ``i32x16`` are Numba values like an int or a float. Each operation is a few lines of LLVM code, and
LLVM cuts the 16 lanes to what the CPU has: one AVX-512 register, two of AVX2, four of NEON. ``array, i`` means 16
consecutive elements of a one-dimensional contiguous array from element i on. Nothing checks bounds.

A tile is a tuple of vectors, one register each; the operations on tiles unroll themselves, so that one kernel source
serves every tile size.

Trap: kernels cached on disk contain these operations, and Numba does not see an edit in another file. After a change
here delete ``__pycache__`` (or ``NUMBA_CACHE_DIR``).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Concatenate, ParamSpec

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

from . import cpu

P = ParamSpec("P")
Builder = Any  # llvmlite is not typed
Value = Any

LANES = 16
_I8, _I16, _I32, _I64, _HALF, _F32 = (*map(ir.IntType, (8, 16, 32, 64)), ir.HalfType(), ir.FloatType())
_BYTES, _SHORTS, _INTS, _HALVES, _FLOATS = (ir.VectorType(t, LANES) for t in (_I8, _I16, _I32, _HALF, _F32))
_WORDS = ir.VectorType(_I16, 2 * LANES)  # the 16-bit halves of the lanes


class Vector(types.Type):  # type: ignore[misc]  # Numba has no types
    """The Numba type of a vector; values live in registers only."""

    def __init__(self, name: str, llvm_type: ir.VectorType) -> None:
        self.llvm_type = llvm_type
        super().__init__(name)


f32x16 = Vector("f32x16", _FLOATS)
i32x16 = Vector("i32x16", _INTS)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, vector.llvm_type)


_ARRAY = object()  # a contiguous array of any dtype; the body gets a pointer to its first element
_FLOAT_ARRAY = object()  # the same, float32 only
_TILE = object()  # a tuple of vectors; the body gets a list of them
_WEIGHTS = object()  # a contiguous array whose dtype tells the format; the body gets a pointer and the Numba dtype
_COUNT = object()  # a constant whole number; the body gets it as a Python int
_ARRAYS = (_ARRAY, _FLOAT_ARRAY, _WEIGHTS)


def _operation(result: Any, *operands: Any) -> Callable[[Callable[Concatenate[Any, P], Any]], Callable[P, Any]]:
    """Make a Numba function of a body that emits LLVM code: body(builder, one LLVM value each operand)."""

    def accepts(operand: Any, actual: Any) -> bool:
        if operand in _ARRAYS:
            fits = isinstance(actual, types.Array) and actual.layout in "CF" and actual.ndim == 1
            return fits and (operand is not _FLOAT_ARRAY or actual.dtype == types.float32)
        if operand is _TILE:
            return isinstance(actual, types.UniTuple) and isinstance(actual.dtype, Vector)
        return operand is not _COUNT or isinstance(actual, types.IntegerLiteral)

    def lower(context: Any, builder: Any, operand: Any, actual: Any, value: Any) -> Any:
        if operand in _ARRAYS:
            pointer = context.make_array(actual)(context, builder, value).data
            return (pointer, actual.dtype) if operand is _WEIGHTS else pointer
        if operand is _TILE:
            return cgutils.unpack_tuple(builder, value)
        return actual.literal_value if operand is _COUNT else value

    def decorate(body: Callable[Concatenate[Any, P], Any]) -> Callable[P, Any]:
        @functools.wraps(body)
        def typed(_context: Any, *actual: Any) -> Any:
            if not all(map(accepts, operands, actual)):
                return None
            out = result if isinstance(result, types.Type) else result(*actual)
            kept = [a if o in (*_ARRAYS, _TILE, _COUNT) else o for o, a in zip(operands, actual, strict=True)]

            def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
                each = zip(operands, signature.args, values, strict=True)
                value = body(builder, *(lower(context, builder, *one) for one in each))  # type: ignore[call-arg]
                if out is types.void:
                    return context.get_dummy_value()
                return cgutils.pack_array(builder, value) if isinstance(out, types.UniTuple) else value

            return out(*kept), generate

        operation: Callable[P, Any] = intrinsic(prefer_literal=_COUNT in operands)(typed)
        return operation

    return decorate


def _number(value: float) -> Any:
    """A constant in all lanes: floats for a float, integers for an int."""
    element, vector = (_F32, _FLOATS) if isinstance(value, float) else (_I32, _INTS)
    return ir.Constant(vector, [ir.Constant(element, value)] * LANES)


def _call(b: Any, name: str, result: Any, *values: Any) -> Any:
    function_type = ir.FunctionType(result, [value.type for value in values])
    return b.call(cgutils.get_or_insert_function(b.module, function_type, name), values)


def _lanes(lanes: list[int]) -> Any:
    """Lane numbers, as a shuffle takes them."""
    return ir.Constant(ir.VectorType(_I32, len(lanes)), lanes)


def _pick(b: Any, vector: Any, lanes: list[int]) -> Any:
    """The given lanes as a vector of their own."""
    return b.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), _lanes(lanes))


def _splat(b: Any, value: Any) -> Any:
    first = b.insert_element(ir.Constant(ir.VectorType(value.type, LANES), ir.Undefined), value, ir.Constant(_I32, 0))
    return _pick(b, first, [0] * LANES)


def _at(b: Any, array: Any, index: Any, read_as: Any) -> Any:
    """Pointer to array[index], read as another type."""
    return b.bitcast(b.gep(array, [index]), read_as.as_pointer())


def _fma(b: Builder, x: Value, y: Value, z: Value) -> Value:
    return _call(b, "llvm.fma.v16f32", _FLOATS, x, y, z) if cpu.FUSED else b.fadd(b.fmul(x, y), z)


def _maximum(b: Builder, x: Value, y: Value) -> Value:
    return b.select(b.fcmp_ordered(">", x, y), x, y)  # one instruction on x86, unlike llvm.maxnum


def _minimum(b: Builder, x: Value, y: Value) -> Value:
    return b.select(b.fcmp_ordered("<", x, y), x, y)


def _rint(b: Builder, x: Value) -> Value:
    return _call(b, "llvm.rint.v16f32", _FLOATS, x)


def _widen_bf16(b: Builder, bits: Value) -> Value:
    return b.bitcast(b.shl(b.zext(bits, _INTS), _number(16)), _FLOATS)


def _widen_f16(b: Builder, bits: Value) -> Value:
    if cpu.HALF:
        return b.fpext(b.bitcast(bits, _HALVES), _FLOATS)
    wide = b.zext(bits, _INTS)
    sign = b.shl(b.and_(wide, _number(0x8000)), _number(16))
    magnitude = b.bitcast(b.shl(b.and_(wide, _number(0x7FFF)), _number(13)), _FLOATS)
    rebiased = b.fmul(magnitude, _number(2.0**112))  # exponents are counted from -15 in float16, from -127 in float32
    return b.bitcast(b.or_(b.bitcast(rebiased, _INTS), sign), _FLOATS)


def _in_parts(b: Builder, name: str, lanes: int, *operands: Value) -> Value:
    """An x86 instruction for vectors of so many 32-bit lanes, as often as 16 lanes need it."""
    part_type = ir.VectorType(_I32, lanes)
    parts = []
    for first in range(0, LANES, lanes):
        values = []
        for operand in operands:
            width = operand.type.count // LANES  # elements to a lane
            values.append(_pick(b, operand, list(range(width * first, width * (first + lanes)))))
        parts.append(_call(b, name, part_type, *values))
    while len(parts) > 1:
        both = _lanes(list(range(2 * parts[0].type.count)))
        parts = [b.shuffle_vector(low, high, both) for low, high in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def _pair_sums(b: Builder, x: Value, y: Value) -> Value:
    """Sums of two neighbouring 16-bit products."""
    if cpu.MADD_LANES:
        name = {16: "avx512.pmaddw.d.512", 8: "avx2.pmadd.wd", 4: "sse2.pmadd.wd"}[cpu.MADD_LANES]
        return _in_parts(b, f"llvm.x86.{name}", cpu.MADD_LANES, x, y)
    wide = ir.VectorType(_I32, 2 * LANES)
    products = b.mul(b.sext(x, wide), b.sext(y, wide))
    return b.add(_pick(b, products, list(range(0, 32, 2))), _pick(b, products, list(range(1, 32, 2))))


def _dot4(b: Builder, total: Value, unsigned: Value, signed: Value) -> Value:
    if cpu.DOT_LANES:
        name = f"llvm.x86.avx512.vpdpbusd.{32 * cpu.DOT_LANES}"
        return _in_parts(b, name, cpu.DOT_LANES, total, unsigned, signed)
    u, s = b.bitcast(unsigned, _WORDS), b.bitcast(signed, _WORDS)
    byte = ir.Constant(_WORDS, [ir.Constant(_I16, 8)] * _WORDS.count)
    odd = _pair_sums(b, b.lshr(u, byte), b.ashr(s, byte))
    even = _pair_sums(b, b.lshr(b.shl(u, byte), byte), b.ashr(b.shl(s, byte), byte))
    return b.add(total, b.add(even, odd))


def _dot2(b: Builder, total: Value, x: Value, y: Value) -> Value:
    if cpu.DOT_LANES:
        return _in_parts(b, f"llvm.x86.avx512.vpdpwssd.{32 * cpu.DOT_LANES}", cpu.DOT_LANES, total, x, y)
    return b.add(total, _pair_sums(b, b.bitcast(x, _WORDS), b.bitcast(y, _WORDS)))


def _fold(b: Builder, x: Value, combine: Callable[[Value, Value], Value]) -> Value:
    """All lanes into one: the upper half onto the lower, four times."""
    width = LANES
    while width > 1:
        width //= 2
        x = combine(_pick(b, x, list(range(width))), _pick(b, x, list(range(width, 2 * width))))
    return b.extract_element(x, ir.Constant(_I32, 0))


def _polynomial(b: Builder, x: Value, coefficients: tuple[float, ...]) -> Value:
    """Horner's scheme, lowest power first."""
    value = _number(coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        value = _fma(b, value, x, _number(coefficient))
    return value


# Minimax fits (Lawson's iteration, float64): (e**r - 1 - r) / r**2 for |r| < ln(2) / 2, relative error 3e-9 in e**r;
# (sin(r) / r - 1) / r**2 in powers of r**2 for |r| < pi / 2, absolute error 5e-9 in sin(r).
_EXP = (0.49999994, 0.166665211, 0.041668389, 0.00836874545, 0.00138145406)
_SIN = (-0.166666567, 0.00833301526, -0.000198064794, 2.59975172e-06)
# Cody and Waite: constants in parts, the first so short that its product with a small whole number is exact.
_LN2_PARTS = (355 / 512, math.log(2) - 355 / 512)
_PI_MIDDLE = float(np.float32(math.pi - 201 / 64))
_PI_PARTS = (201 / 64, _PI_MIDDLE, math.pi - 201 / 64 - _PI_MIDDLE)


def _exp(b: Builder, x: Value) -> Value:
    inside = _maximum(b, _number(-88.0), _minimum(b, _number(89.0), x))  # in this order NaN stays NaN
    n = _rint(b, b.fmul(inside, _number(1 / math.log(2))))
    r = inside
    for part in _LN2_PARTS:
        r = _fma(b, n, _number(-part), r)
    power = _fma(b, b.fmul(r, r), _polynomial(b, r, _EXP), b.fadd(r, _number(1.0)))
    whole = b.fptosi(n, _INTS)
    half = b.ashr(whole, _number(1))  # 2**n in two factors: n = 128 has no float32 of its own
    for exponent in (half, b.sub(whole, half)):
        power = b.fmul(power, b.bitcast(b.shl(b.add(exponent, _number(127)), _number(23)), _FLOATS))
    return b.select(b.fcmp_ordered("<", x, _number(-87.33654)), _number(0.0), power)


def _prefetch(b: Builder, array: Value, i: Value, ahead: int) -> None:
    """Ask for the cache line so many bytes behind array[i]."""
    pointer = b.gep(_at(b, array, i, _I8), [ir.Constant(_I64, ahead)])
    flags = (ir.Constant(_I32, flag) for flag in (0, 3, 1))  # read, keep in all caches, data
    _call(b, f"llvm.prefetch.{pointer.type.intrinsic_name}", ir.VoidType(), pointer, *flags)


def _widen_two(b: Builder, array: Value, dtype: Any, i: Value, ahead: int) -> tuple[Value, Value]:
    """16 weights of each of two neighbouring inputs (pack.py), with a look ahead."""
    second = b.add(i, ir.Constant(i.type, LANES))
    _prefetch(b, array, i, ahead)
    if dtype == types.float32:
        _prefetch(b, array, second, ahead)
        return b.load(_at(b, array, i, _FLOATS), align=4), b.load(_at(b, array, second, _FLOATS), align=4)
    if dtype == types.uint16:
        cells = b.load(_at(b, array, i, _INTS), align=2)
        low, high = b.shl(cells, _number(16)), b.and_(cells, _number(-1 << 16))
        return b.bitcast(low, _FLOATS), b.bitcast(high, _FLOATS)
    low, high = (b.load(_at(b, array, start, _SHORTS), align=2) for start in (i, second))
    return _widen_f16(b, low), _widen_f16(b, high)


def _broadcasts(b: Builder, x: Value, i: Value, stride: Value, count: int) -> list[Value]:
    """The float32 x[i], x[i + stride], ... each in all lanes."""
    return [_splat(b, b.load(_at(b, x, start, _F32), align=4)) for start in _steps(b, i, stride, count)]


def _outer(
    columns: Iterable[Value], rows: Iterable[Value], tile: list[Value]
) -> Iterator[tuple[tuple[Value, Value], Value]]:
    """Each vector of a tile with its column and its row: ((column, row), vector)."""
    return zip(itertools.product(columns, rows), tile, strict=True)


def _steps(b: Builder, start: Value, stride: Value, count: int) -> list[Value]:
    """start, start + stride, ..."""
    starts = [start]
    while len(starts) < count:
        starts.append(b.add(starts[-1], stride))
    return starts


# ---- constants ----


@_operation(f32x16)
def zeros(b: Builder) -> Value:
    """0.0 in all lanes"""
    return _number(0.0)


@_operation(i32x16)
def zeros_int(b: Builder) -> Value:
    """0 in all lanes"""
    return _number(0)


@_operation(i32x16)
def lane_numbers(b: Builder) -> Value:
    """0, 1, ... 15"""
    return ir.Constant(_INTS, [ir.Constant(_I32, lane) for lane in range(LANES)])


@_operation(f32x16, types.float32)
def splat(b: Builder, x: Value) -> Value:
    """the number x in all lanes"""
    return _splat(b, x)


@_operation(i32x16, types.int32)
def splat_int(b: Builder, x: Value) -> Value:
    """the integer x in all lanes"""
    return _splat(b, x)


# ---- memory ----


@_operation(f32x16, _FLOAT_ARRAY, types.intp)
def load(b: Builder, array: Value, i: Value) -> Value:
    """16 float32"""
    return b.load(_at(b, array, i, _FLOATS), align=4)


@_operation(f32x16, _ARRAY, types.intp)
def load_bf16(b: Builder, array: Value, i: Value) -> Value:
    """16 bfloat16 (uint16), widened exactly"""
    return _widen_bf16(b, b.load(_at(b, array, i, _SHORTS), align=2))


@_operation(f32x16, _ARRAY, types.intp)
def load_f16(b: Builder, array: Value, i: Value) -> Value:
    """16 finite float16 (a 16-bit type of any name), widened exactly"""
    return _widen_f16(b, b.load(_at(b, array, i, _SHORTS), align=2))


@_operation(f32x16, _ARRAY, types.intp)
def load_i8(b: Builder, array: Value, i: Value) -> Value:
    """16 int8, as floats"""
    return b.sitofp(b.sext(b.load(_at(b, array, i, _BYTES), align=1), _INTS), _FLOATS)


@_operation(i32x16, _ARRAY, types.intp)
def load_int(b: Builder, array: Value, i: Value) -> Value:
    """64 bytes from element i of an array of any type"""
    return b.load(_at(b, array, i, _INTS), align=1)


@_operation(f32x16, _FLOAT_ARRAY, types.intp)
def broadcast(b: Builder, array: Value, i: Value) -> Value:
    """the float32 array[i] in all lanes"""
    return _splat(b, b.load(_at(b, array, i, _F32), align=4))


@_operation(i32x16, _ARRAY, types.intp)
def broadcast_int(b: Builder, array: Value, i: Value) -> Value:
    """the 4 bytes from element i of an array of any type in all lanes"""
    return _splat(b, b.load(_at(b, array, i, _I32), align=1))


@_operation(f32x16, _FLOAT_ARRAY, types.intp, types.intp)
def load_first(b: Builder, array: Value, i: Value, count: Value) -> Value:
    """the first count float32 of 16, 0.0 in the other lanes; touches no more than these"""
    place = cgutils.alloca_once_value(b, _number(0.0))
    with cgutils.for_range(b, count) as loop:
        lane = b.gep(b.bitcast(place, _F32.as_pointer()), [loop.index])
        b.store(b.load(b.gep(array, [b.add(i, loop.index)])), lane)
    return b.load(place)


@_operation(types.void, _FLOAT_ARRAY, types.intp, f32x16)
def store(b: Builder, array: Value, i: Value, x: Value) -> None:
    """16 float32"""
    b.store(x, _at(b, array, i, _FLOATS), align=4)


@_operation(types.void, _ARRAY, types.intp, f32x16)
def store_bf16(b: Builder, array: Value, i: Value, x: Value) -> None:
    """16 finite floats as bfloat16 (uint16), to nearest, ties to even"""
    bits = b.bitcast(x, _INTS)
    odd = b.and_(b.lshr(bits, _number(16)), _number(1))
    rounded = b.lshr(b.add(b.add(bits, _number(0x7FFF)), odd), _number(16))
    b.store(b.trunc(rounded, _SHORTS), _at(b, array, i, _SHORTS), align=2)


@_operation(types.void, _ARRAY, types.intp, i32x16)
def store_int(b: Builder, array: Value, i: Value, x: Value) -> None:
    """64 bytes from element i of an array of any type"""
    b.store(x, _at(b, array, i, _INTS), align=1)


@_operation(types.void, _ARRAY, types.intp, i32x16)
def store_i8(b: Builder, array: Value, i: Value, x: Value) -> None:
    """16 int8: the low bytes"""
    b.store(b.trunc(x, _BYTES), _at(b, array, i, _BYTES), align=1)


@_operation(types.void, _ARRAY, types.intp, i32x16)
def store_i16(b: Builder, array: Value, i: Value, x: Value) -> None:
    """16 int16: the low halves"""
    b.store(b.trunc(x, _SHORTS), _at(b, array, i, _SHORTS), align=2)


@_operation(types.void, _FLOAT_ARRAY, types.intp, f32x16, types.intp)
def store_first(b: Builder, array: Value, i: Value, x: Value, count: Value) -> None:
    """the first count float32 of 16; touches no more than these"""
    with cgutils.for_range(b, count) as loop:
        b.store(b.extract_element(x, loop.index), b.gep(array, [b.add(i, loop.index)]))


@_operation(types.void, _ARRAY, types.intp)
def prefetch(b: Builder, array: Value, i: Value) -> None:
    """ask for the cache line of array[i], which may lie outside: it is a hint"""
    _prefetch(b, array, i, 0)


# ---- float arithmetic ----


@_operation(f32x16, f32x16, f32x16, f32x16)
def fma(b: Builder, x: Value, y: Value, z: Value) -> Value:
    """x y + z, rounded once where the CPU can"""
    return _fma(b, x, y, z)


@_operation(f32x16, f32x16, f32x16)
def add(b: Builder, x: Value, y: Value) -> Value:
    """x + y"""
    return b.fadd(x, y)


@_operation(f32x16, f32x16, f32x16)
def sub(b: Builder, x: Value, y: Value) -> Value:
    """x - y"""
    return b.fsub(x, y)


@_operation(f32x16, f32x16, f32x16)
def mul(b: Builder, x: Value, y: Value) -> Value:
    """x y"""
    return b.fmul(x, y)


@_operation(f32x16, f32x16, f32x16)
def div(b: Builder, x: Value, y: Value) -> Value:
    """x / y"""
    return b.fdiv(x, y)


@_operation(f32x16, f32x16)
def sqrt(b: Builder, x: Value) -> Value:
    """square root"""
    return _call(b, "llvm.sqrt.v16f32", _FLOATS, x)


@_operation(f32x16, f32x16)
def absolute(b: Builder, x: Value) -> Value:
    """|x|"""
    return _call(b, "llvm.fabs.v16f32", _FLOATS, x)


@_operation(f32x16, f32x16, f32x16)
def maximum(b: Builder, x: Value, y: Value) -> Value:
    """the greater; y where either is not a number"""
    return _maximum(b, x, y)


@_operation(f32x16, f32x16, f32x16)
def minimum(b: Builder, x: Value, y: Value) -> Value:
    """the smaller; y where either is not a number"""
    return _minimum(b, x, y)


@_operation(f32x16, f32x16)
def rint(b: Builder, x: Value) -> Value:
    """the nearest whole number, ties to even"""
    return _rint(b, x)


# ---- integer arithmetic, modulo 2**32 ----


@_operation(i32x16, i32x16, i32x16)
def add_int(b: Builder, x: Value, y: Value) -> Value:
    """x + y"""
    return b.add(x, y)


@_operation(i32x16, i32x16, i32x16)
def sub_int(b: Builder, x: Value, y: Value) -> Value:
    """x - y"""
    return b.sub(x, y)


@_operation(i32x16, i32x16, i32x16)
def mul_int(b: Builder, x: Value, y: Value) -> Value:
    """x y"""
    return b.mul(x, y)


@_operation(i32x16, i32x16, types.int32)
def and_int(b: Builder, x: Value, mask: Value) -> Value:
    """x & mask, the same mask in all lanes"""
    return b.and_(x, _splat(b, mask))


@_operation(i32x16, i32x16, types.int32)
def shift_left(b: Builder, x: Value, bits: Value) -> Value:
    """x << bits"""
    return b.shl(x, _splat(b, bits))


@_operation(i32x16, i32x16, types.int32)
def shift_right(b: Builder, x: Value, bits: Value) -> Value:
    """x >> bits, zeros move in"""
    return b.lshr(x, _splat(b, bits))


@_operation(i32x16, i32x16, types.int32)
def shift_right_signed(b: Builder, x: Value, bits: Value) -> Value:
    """x >> bits, copies of the sign move in"""
    return b.ashr(x, _splat(b, bits))


@_operation(i32x16, i32x16, i32x16, i32x16)
def dot4_u8s8(b: Builder, total: Value, unsigned: Value, signed: Value) -> Value:
    """total + the 4 products of unsigned and signed bytes in each lane, exactly"""
    return _dot4(b, total, unsigned, signed)


@_operation(i32x16, i32x16, i32x16, i32x16)
def dot2_s16(b: Builder, total: Value, x: Value, y: Value) -> Value:
    """total + the 2 products of signed 16-bit halves in each lane"""
    return _dot2(b, total, x, y)


# ---- conversion and choice ----


@_operation(f32x16, i32x16)
def to_float(b: Builder, x: Value) -> Value:
    """integers as floats"""
    return b.sitofp(x, _FLOATS)


@_operation(i32x16, f32x16)
def to_int(b: Builder, x: Value) -> Value:
    """the nearest integers, ties to even; for |x| < 2**31"""
    return b.fptosi(_rint(b, x), _INTS)


@_operation(f32x16, i32x16)
def as_float(b: Builder, x: Value) -> Value:
    """the floats of these bits"""
    return b.bitcast(x, _FLOATS)


@_operation(i32x16, f32x16)
def as_int(b: Builder, x: Value) -> Value:
    """the bits of these floats"""
    return b.bitcast(x, _INTS)


@_operation(i32x16, f32x16, f32x16)
def greater(b: Builder, x: Value, y: Value) -> Value:
    """-1 where x > y, else 0"""
    return b.sext(b.fcmp_ordered(">", x, y), _INTS)


@_operation(i32x16, i32x16, i32x16)
def greater_int(b: Builder, x: Value, y: Value) -> Value:
    """-1 where x > y, else 0"""
    return b.sext(b.icmp_signed(">", x, y), _INTS)


@_operation(f32x16, i32x16, f32x16, f32x16)
def select(b: Builder, condition: Value, x: Value, y: Value) -> Value:
    """x where the condition is not 0, else y"""
    return b.select(b.icmp_signed("!=", condition, _number(0)), x, y)


# ---- across lanes ----


@_operation(types.float32, f32x16)
def total(b: Builder, x: Value) -> Value:
    """the sum of all lanes, always in the same order: halves onto halves"""
    return _fold(b, x, b.fadd)


@_operation(types.int32, i32x16)
def total_int(b: Builder, x: Value) -> Value:
    """the sum of all lanes"""
    return _fold(b, x, b.add)


@_operation(types.float32, f32x16)
def largest(b: Builder, x: Value) -> Value:
    """the greatest lane"""
    return _fold(b, x, functools.partial(_maximum, b))


@_operation(types.float32, f32x16, types.intp)
def lane(b: Builder, x: Value, i: Value) -> Value:
    """lane i"""
    return b.extract_element(x, i)


# ---- functions ----


@_operation(f32x16, f32x16)
def exp(b: Builder, x: Value) -> Value:
    """e**x within 2 units of the last place; 0 below -87.33, where float32 turns subnormal, inf above 88.72"""
    return _exp(b, x)


@_operation(f32x16, f32x16)
def silu(b: Builder, x: Value) -> Value:
    """x / (1 + e**-x)"""
    return b.fdiv(x, b.fadd(_number(1.0), _exp(b, b.fsub(_number(-0.0), x))))


@_operation(f32x16, f32x16)
def sin_squared(b: Builder, x: Value) -> Value:
    """sin(x)**2 for |x| < 2**16, with an error of at most 3e-7 and 4e-8 on average"""
    periods = _rint(b, b.fmul(x, _number(1 / math.pi)))
    for part in _PI_PARTS:
        x = _fma(b, periods, _number(-part), x)  # at most pi / 2 in the end
    square = b.fmul(x, x)
    sine = _fma(b, b.fmul(_polynomial(b, square, _SIN), square), x, x)
    return b.fmul(sine, sine)


# ---- tiles ----


def _tile_of(*arguments: Any) -> Any:
    """Tile type for an operation whose last operand is the number of vectors."""
    return types.UniTuple(f32x16, arguments[-1].literal_value)


def _int_tile_of(*arguments: Any) -> Any:
    return types.UniTuple(i32x16, arguments[-1].literal_value)


def _like_tile(tile: Any, *_: Any) -> Any:
    return tile


@_operation(_tile_of, _COUNT)
def zeros_tile(b: Builder, count: int) -> list[Value]:
    """count vectors of 0.0"""
    return [_number(0.0)] * count


@_operation(_int_tile_of, _COUNT)
def zeros_int_tile(b: Builder, count: int) -> list[Value]:
    """count vectors of integer 0"""
    return [_number(0)] * count


@_operation(_tile_of, _FLOAT_ARRAY, types.intp, types.intp, _COUNT)
def load_tile(b: Builder, array: Value, i: Value, stride: Value, count: int) -> list[Value]:
    """count times 16 float32, from array[i], array[i + stride], ..."""
    return [b.load(_at(b, array, start, _FLOATS), align=4) for start in _steps(b, i, stride, count)]


@_operation(_int_tile_of, _ARRAY, types.intp, types.intp, _COUNT)
def load_int_tile(b: Builder, array: Value, i: Value, stride: Value, count: int) -> list[Value]:
    """count times 64 bytes, from array[i], array[i + stride], ... of any type"""
    return [b.load(_at(b, array, start, _INTS), align=1) for start in _steps(b, i, stride, count)]


@_operation(types.void, _FLOAT_ARRAY, types.intp, types.intp, _TILE)
def store_tile(b: Builder, array: Value, i: Value, stride: Value, tile: list[Value]) -> None:
    """16 float32 each, to array[i], array[i + stride], ..."""
    for start, x in zip(_steps(b, i, stride, len(tile)), tile, strict=True):
        b.store(x, _at(b, array, start, _FLOATS), align=4)


@_operation(_like_tile, _TILE, _TILE, _FLOAT_ARRAY, types.intp, types.intp)
def fma_tile(b: Builder, tile: list[Value], w: list[Value], x: Value, i: Value, stride: Value) -> list[Value]:
    """outer product: tile[c, r] + w[r] x[i + c stride], for tiles in the order (0, 0), (0, 1), ... (1, 0), ..."""
    columns = _broadcasts(b, x, i, stride, len(tile) // len(w))
    return [_fma(b, row, column, acc) for (column, row), acc in _outer(columns, w, tile)]


@_operation(_like_tile, _TILE, _TILE, _ARRAY, types.intp, types.intp)
def dot4_tile(b: Builder, tile: list[Value], u: list[Value], s: Value, i: Value, stride: Value) -> list[Value]:
    """like fma_tile, of integers: 4 unsigned bytes in each lane of u[r] times the 4 signed bytes at s[i + c stride]"""
    columns = [
        _splat(b, b.load(_at(b, s, start, _I32), align=1)) for start in _steps(b, i, stride, len(tile) // len(u))
    ]
    return [_dot4(b, acc, row, column) for (column, row), acc in _outer(columns, u, tile)]


# ---- packed weights as in pack.py: row r of a tile stands for 16 rows of the matrix, column c for an item ----


@_operation(_like_tile, _TILE, _WEIGHTS, types.intp, types.intp, _FLOAT_ARRAY, types.intp, types.intp, _COUNT, _COUNT)
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

    It asks for the weights that lie so many bytes ahead.
    """
    array, dtype = weights
    two_inputs = zip(*(_widen_two(b, array, dtype, at, ahead) for at in _steps(b, i, stride, rows)), strict=True)
    for k, w in zip(_steps(b, j, ir.Constant(j.type, 1), 2), two_inputs, strict=True):
        columns = _broadcasts(b, x, k, to, len(tile) // rows)
        tile = [_fma(b, row, column, acc) for (column, row), acc in _outer(columns, w, tile)]
    return tile


@_operation(_int_tile_of, _ARRAY, types.intp, types.intp, _COUNT, _COUNT)
def load_cells(b: Builder, array: Value, i: Value, stride: Value, ahead: int, rows: int) -> list[Value]:
    """like load_int_tile; it asks for the cells that lie so many bytes ahead"""
    cells = []
    for start in _steps(b, i, stride, rows):
        _prefetch(b, array, start, ahead)
        cells.append(b.load(_at(b, array, start, _INTS), align=1))
    return cells


@_operation(_like_tile, _TILE)
def low_halves(b: Builder, tile: list[Value]) -> list[Value]:
    """the low 4 bits of each byte"""
    return [b.and_(cells, _number(0x0F0F0F0F)) for cells in tile]


@_operation(_like_tile, _TILE)
def high_halves(b: Builder, tile: list[Value]) -> list[Value]:
    """the high 4 bits of each byte"""
    return [b.and_(b.lshr(cells, _number(4)), _number(0x0F0F0F0F)) for cells in tile]


@_operation(_int_tile_of, _ARRAY, types.intp, types.intp, _COUNT, _COUNT, _COUNT)
def zero_points(b: Builder, zeros: Value, i: Value, to: Value, bits: int, rows: int, size: int) -> list[Value]:
    """the int32 zeros[i + c to] << bits in all lanes of tile[c, r]"""
    values = [b.load(b.gep(zeros, [start])) for start in _steps(b, i, to, size // rows)]
    columns = [b.shl(_splat(b, value), _number(bits)) for value in values]
    return [column for column in columns for _ in range(rows)]


@_operation(
    _like_tile, _TILE, _TILE, _ARRAY, types.intp, types.intp, _FLOAT_ARRAY, types.intp, types.intp, _COUNT, _COUNT
)
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
    """tile[c, r] + ints[c, r] times x[j + c to] times the 16 float16 at w[i + r stride]; it asks ahead for these"""
    scales = []
    for start in _steps(b, i, stride, rows):
        _prefetch(b, w, start, ahead)
        scales.append(_widen_f16(b, b.load(_at(b, w, start, _SHORTS), align=2)))
    columns = _broadcasts(b, x, j, to, len(tile) // rows)
    return [
        _fma(b, b.fmul(b.sitofp(dot, _FLOATS), column), scale, acc)
        for dot, ((column, scale), acc) in zip(ints, _outer(columns, scales, tile), strict=True)
    ]


@_operation(types.void, _FLOAT_ARRAY, types.intp, types.intp, types.intp, _TILE, _COUNT)
def store_items(b: Builder, y: Value, i: Value, stride: Value, to: Value, tile: list[Value], rows: int) -> None:
    """tile[c, r] to y[i + r stride + c to]"""
    starts = [start for item in _steps(b, i, to, len(tile) // rows) for start in _steps(b, item, stride, rows)]
    for start, x in zip(starts, tile, strict=True):
        b.store(x, _at(b, y, start, _FLOATS), align=4)


# ---- between threads: arrays of int64 ----


@_operation(types.int64, _ARRAY, types.intp, types.int64)
def atomic_add(b: Builder, array: Value, i: Value, x: Value) -> Value:
    """array[i] += x for all threads to see; what was there before"""
    return b.atomic_rmw("add", b.gep(array, [i]), x, "seq_cst")


@_operation(types.int64, _ARRAY, types.intp)
def atomic_load(b: Builder, array: Value, i: Value) -> Value:
    """array[i], and with it all that its writer wrote before (acquire)"""
    return b.load_atomic(b.gep(array, [i]), "acquire", 8)


@_operation(types.void, _ARRAY, types.intp, types.int64)
def atomic_store(b: Builder, array: Value, i: Value, x: Value) -> None:
    """array[i] = x, after all that this thread wrote before (release)"""
    b.store_atomic(x, b.gep(array, [i]), "release", 8)


@_operation(types.void)
def pause(b: Builder) -> None:
    """tell the CPU that this is a waiting loop"""
    if cpu.X86:
        _call(b, "llvm.x86.sse2.pause", ir.VoidType())
    elif cpu.ARM:
        _call(b, "llvm.aarch64.hint", ir.VoidType(), ir.Constant(_I32, 1))  # yield
