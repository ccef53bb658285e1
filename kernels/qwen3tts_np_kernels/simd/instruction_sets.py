"""All differences between CPUs, as one table: an entry per instruction set, the most capable first.

LLVM selects the instructions of a CPU by itself, with few exceptions: those that it would replace by a call into a
library that Numba does not link, and sums of byte products, which it does not recognise. An entry defines how these
are emitted, and the tile shapes, which follow from the number of vectors that fit into the registers. A new
instruction set is a new entry here; no kernel checks which CPU it is compiled for.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from llvmlite import ir

from .llvm import (
    FLOATS,
    HALVES,
    I8,
    I16,
    I32,
    INTS,
    LANES,
    WORDS,
    Builder,
    Value,
    call,
    constant,
    lane_list,
    number,
    pick,
)

X86, ARM = ("x86_64", "amd64"), ("aarch64", "arm64")

Unary = Callable[[Builder, Value], Value]
Binary = Callable[[Builder, Value, Value], Value]
Ternary = Callable[[Builder, Value, Value, Value], Value]


class Tiles(NamedTuple):
    """Shapes of the register tiles: as many sums as there are registers, less those that hold the factors."""

    conv_rows: int
    conv_vectors: int
    """Of a convolution: rows by vectors of channels summed at once."""
    linear_blocks: int
    linear_items: int
    """Of a matrix product: at most this many blocks of 16 rows by this many items."""
    attention_positions: int
    """Keys multiplied with a query at once."""
    prompt_items: int = 0
    """Of a product of quantised weights with more items than ``linear_items``: at most this many of them, at least 6;
    0: as with few items."""


TILES_OF_32 = Tiles(
    conv_rows=12, conv_vectors=2, linear_blocks=2, linear_items=8, attention_positions=16, prompt_items=6
)
TILES_OF_8 = Tiles(conv_rows=6, conv_vectors=1, linear_blocks=1, linear_items=4, attention_positions=4)


class Sums(NamedTuple):
    """How the products of a group of 32 stored levels, unsigned bytes, with signed bytes from -127 to 127 are summed.

    Each lane has the products of its own 4 bytes. Integers are summed exactly, so every way gives the same sums.
    """

    prepare: Callable[[Builder, Value], tuple[Value, ...]]
    """64 levels as ``add`` takes them: work that is done once for all items."""
    add: Callable[[Builder, Value, tuple[Value, ...], Value], Value]
    """total + products: (total, prepared levels, signed bytes)."""
    whole: Unary | None = None
    """A total of the complete group as 32-bit integers, where ``add`` counts in another form; it starts from 0."""
    has_offset: bool = True
    """Whether levels are multiplied as they are stored, so that the sum has to be corrected for the offset."""
    total: Any = INTS
    """The type of a total."""
    settled: Unary = lambda b, total: total
    """The total, computed before anything that comes later: where LLVM would keep too much at once otherwise."""
    lanes: int = LANES
    """Lanes that these functions take at once: all of them, or those of a register, where all do not fit into them."""


@dataclass(frozen=True)
class InstructionSet:
    """An entry of the table."""

    name: str
    machines: tuple[str, ...]
    """Of ``platform.machine()``, in lower case; empty for any."""
    features: frozenset[str]
    """Of LLVM; the entry needs them all."""
    tiles: Tiles
    fma: Ternary
    """x y + z of floats: one instruction, rounded once, where the CPU has it."""
    widen_f16: Unary
    """16 finite float16 (as 16-bit integers) to float32, exactly."""
    levels8: Sums
    """Of int8 levels, stored with an offset of 128."""
    levels4: Sums
    """Of int4 levels, stored with an offset of 8."""
    pause: Callable[[Builder], None]
    """A hint to the CPU that this is a spin loop."""
    cache_line: int = 64
    """Bytes that cores hand over at a time: the most of any such CPU, for Apple's have 128."""
    intrinsics: tuple[str, ...] = ()
    """Declarations of LLVM intrinsics that an older LLVM may lack."""

    @property
    def is_x86(self) -> bool:
        return self.machines == X86

    @property
    def rounds_once(self) -> bool:
        """Whether ``fma`` is fused."""
        return self.fma is fused

    def runs_on(self, machine: str, features: frozenset[str]) -> bool:
        return (not self.machines or machine.lower() in self.machines) and self.features <= features


# ---- multiply-add ----


def fused(b: Builder, x: Value, y: Value, z: Value) -> Value:
    return call(b, "llvm.fma.v16f32", FLOATS, x, y, z)


def rounded_twice(b: Builder, x: Value, y: Value, z: Value) -> Value:
    """Without the instruction, LLVM would call the C library's fma sixteen times."""
    return b.fadd(b.fmul(x, y), z)


# ---- float16 ----


def converted(b: Builder, bits: Value) -> Value:
    return b.fpext(b.bitcast(bits, HALVES), FLOATS)


def rebiased(b: Builder, bits: Value) -> Value:
    """Without the instruction, LLVM would call a library that Numba does not link."""
    wide = b.zext(bits, INTS)
    sign = b.shl(b.and_(wide, number(0x8000)), number(16))
    magnitude = b.bitcast(b.shl(b.and_(wide, number(0x7FFF)), number(13)), FLOATS)
    scaled = b.fmul(magnitude, number(2.0**112))  # exponents are counted from -15 in float16, from -127 in float32
    return b.bitcast(b.or_(b.bitcast(scaled, INTS), sign), FLOATS)


# ---- sums of byte products ----


def _in_parts(b: Builder, name: str, lanes: int, element: Any, *operands: Value, result: Any = I32) -> Value:
    """An instruction for vectors of fewer 32-bit lanes, of elements of such a type, repeated to cover 16 lanes."""
    parts = []
    for first in range(0, LANES, lanes):
        values = []
        for operand in operands:
            typed = b.bitcast(operand, _filled(element, LANES))
            width = typed.type.count // LANES  # elements per lane
            values.append(pick(b, typed, list(range(width * first, width * (first + lanes)))))
        parts.append(call(b, name, _filled(result, lanes), *values))
    return joined(b, parts)


def joined(b: Builder, parts: list[Value]) -> Value:
    """Vectors as one."""
    while len(parts) > 1:
        both = lane_list(list(range(2 * parts[0].type.count)))
        parts = [b.shuffle_vector(low, high, both) for low, high in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def _filled(element: Any, lanes: int) -> Any:
    """The vector of elements of such a type that fills so many 32-bit lanes."""
    return ir.VectorType(element, lanes * 32 // element.width)


def _unchanged(b: Builder, levels: Value) -> tuple[Value, ...]:
    return (levels,)


def _vnni(lanes: int) -> tuple[str, Sums]:
    """The x86 instruction that sums 4 byte products per lane, for so many lanes: its declaration, and sums by it.

    Trap: LLVM 22 changed the operand types of this intrinsic. It still accepts the former types, as every LLVM accepts
    the intrinsics of older ones, so use the former types.
    """
    name, vector = f"llvm.x86.avx512.vpdpbusd.{32 * lanes}", f"<{lanes} x i32>"

    def add(b: Builder, total: Value, levels: tuple[Value, ...], signed: Value) -> Value:
        return _in_parts(b, name, lanes, I32, total, *levels, signed)

    return f"{vector} @{name}({vector}, {vector}, {vector})", Sums(_unchanged, add)


def _by_words(pair_sums: Binary, kept: Unary = lambda b, total: total) -> Sums:
    """By sums of two neighbouring products of 16 bits: those of the odd bytes, and those of the even ones.

    ``kept``: what keeps the sums in registers, where LLVM does not.
    """
    byte = constant(WORDS, 8)

    def prepare(b: Builder, levels: Value) -> tuple[Value, ...]:
        u = b.bitcast(levels, WORDS)
        return b.lshr(u, byte), b.lshr(b.shl(u, byte), byte)

    def add(b: Builder, total: Value, levels: tuple[Value, ...], signed: Value) -> Value:
        (odd, even), s = levels, b.bitcast(signed, WORDS)
        sums = pair_sums(b, odd, b.ashr(s, byte)), pair_sums(b, even, b.ashr(b.shl(s, byte), byte))
        return kept(b, b.add(total, b.add(*sums)))

    return Sums(prepare, add)


def _in_order(b: Builder, total: Value, lanes: int, register: str = "v") -> Value:
    """``total`` as it is, in registers of so many lanes and this kind, before anything that comes later is computed.

    It is an empty statement of assembly, which LLVM can neither move nor look into. Trap: LLVM takes sums of many terms
    apart and orders them anew; what it then keeps at a time does not fit into the registers, and half of all
    instructions of the loop move sums and factors to memory and back.
    """
    parts = []
    for first in range(0, total.type.count, lanes):
        part = pick(b, total, list(range(first, first + lanes)))
        nothing = ir.InlineAsm(ir.FunctionType(part.type, [part.type]), "", f"={register},0", side_effect=True)
        parts.append(b.call(nothing, [part]))
    return joined(b, parts)


def _by_bytes(name: str, lanes: int, pair_sums: Binary) -> Sums:
    """Of int4 levels: by the x86 instruction that sums 2 products of bytes in 16 bits, for so many lanes.

    It takes unsigned and signed bytes, and cuts off a sum that does not fit. Here all fit: a total has two sums per
    lane, each of 16 products of a group, which are at most 16 * 15 * 127 = 30480.
    """
    ones = number(0x00010001)

    def add(b: Builder, total: Value, levels: tuple[Value, ...], signed: Value) -> Value:
        products = _in_parts(b, f"llvm.x86.{name}", lanes, I8, *levels, signed, result=I16)
        return _in_order(b, b.bitcast(b.add(b.bitcast(total, WORDS), b.bitcast(products, WORDS)), INTS), lanes)

    return Sums(_unchanged, add, whole=lambda b, total: pair_sums(b, total, ones))


def _by_signs(name: str, sign: str, lanes: int, pair_sums: Binary) -> Sums:
    """Of int8 levels: by the same instruction, with the magnitude of a level, and the other factor with its sign.

    The sum of 2 products is at most 2 * 128 * 127 = 32512, which fits, but no third product would.
    """
    bytes_, offset, ones = _filled(I8, LANES), number(0x80808080 - (1 << 32)), number(0x00010001)

    def prepare(b: Builder, levels: Value) -> tuple[Value, ...]:
        level = b.xor(levels, offset)
        signed = b.bitcast(level, bytes_)
        return call(b, "llvm.abs.v64i8", bytes_, signed, ir.Constant(ir.IntType(1), 0)), level

    def add(b: Builder, total: Value, levels: tuple[Value, ...], signed: Value) -> Value:
        size, level = levels
        turned = _in_parts(b, f"llvm.x86.{sign}", lanes, I8, signed, level, result=I8)
        pairs = _in_parts(b, f"llvm.x86.{name}", lanes, I8, size, turned, result=I16)
        return _in_order(b, b.add(total, pair_sums(b, pairs, ones)), lanes)

    return Sums(prepare, add, has_offset=False)


def _madd(name: str, lanes: int) -> Binary:
    """The older x86 instruction that sums 2 word products per lane, for so many lanes."""
    return lambda b, x, y: _in_parts(b, f"llvm.x86.{name}", lanes, I16, x, y)


def _pair_sums(b: Builder, x: Value, y: Value) -> Value:
    """Plain IR; LLVM selects the instructions."""
    wide = ir.VectorType(I32, 2 * LANES)
    x, y = b.bitcast(x, WORDS), b.bitcast(y, WORDS)
    products = b.mul(b.sext(x, wide), b.sext(y, wide))
    return b.add(pick(b, products, list(range(0, 32, 2))), pick(b, products, list(range(1, 32, 2))))


# ---- sums of byte products on ARM: in vectors of 4 lanes, a register each ----

_NEON_BYTES, _NEON_WORDS, _NEON_INTS = (ir.VectorType(i, 128 // i.width) for i in (I8, I16, I32))


def _signed(b: Builder, levels: Value) -> tuple[Value, ...]:
    """int8 levels without their offset of 128."""
    return (b.xor(levels, constant(_NEON_INTS, 0x80808080 - (1 << 32))),)


def _dot(name: str) -> Callable[[Builder, Value, tuple[Value, ...], Value], Value]:
    """The instruction that sums 4 byte products per lane: of signed bytes, or (usdot) of unsigned levels and signed."""

    def add(b: Builder, total: Value, levels: tuple[Value, ...], signed: Value) -> Value:
        factors = (b.bitcast(x, _NEON_BYTES) for x in (*levels, signed))
        return call(b, f"llvm.aarch64.neon.{name}.v4i32.v16i8", _NEON_INTS, total, *factors)

    return add


def _products(b: Builder, levels: Value, signed: Value) -> list[Value]:
    """16 products of signed bytes, in two vectors of 16-bit lanes."""
    u, s = b.bitcast(levels, _NEON_BYTES), b.bitcast(signed, _NEON_BYTES)
    halves = [list(range(8)), list(range(8, 16))]
    return [call(b, "llvm.aarch64.neon.smull.v8i16", _NEON_WORDS, pick(b, u, h), pick(b, s, h)) for h in halves]


def _folded(b: Builder, products: list[Value]) -> Value:
    """The sums of 4 neighbours. The sum of 2 must fit into 16 bits."""
    pairs = call(b, "llvm.aarch64.neon.addp.v8i16", _NEON_WORDS, *products)
    return call(b, "llvm.aarch64.neon.saddlp.v4i32.v8i16", _NEON_INTS, pairs)


def _words8(b: Builder, total: Value, levels: tuple[Value, ...], signed: Value) -> Value:
    """Two products of int8 levels are at most 2 * 128 * 127 = 32512, which fits."""
    return b.add(total, _folded(b, _products(b, *levels, signed)))


def _words4(b: Builder, total: Value, levels: tuple[Value, ...], signed: Value) -> Value:
    """A sum for each of 4 inputs: the 8 products of a group are at most 8 * 15 * 127 = 15240."""
    return b.add(total, joined(b, _products(b, *levels, signed)))


def _folded4(b: Builder, total: Value) -> Value:
    """Two of these sums are at most 30480."""
    return _folded(b, [pick(b, total, list(range(8))), pick(b, total, list(range(8, 16)))])


# ---- waiting ----


def _x86_pause(b: Builder) -> None:
    call(b, "llvm.x86.sse2.pause", ir.VoidType())


def _arm_yield(b: Builder) -> None:
    call(b, "llvm.aarch64.hint", ir.VoidType(), ir.Constant(I32, 1))


def _no_pause(b: Builder) -> None:
    pass


# ---- the table ----

_AVX2 = frozenset({"avx2", "fma", "f16c"})
_AVX512 = _AVX2 | {"avx512f", "avx512bw"}
_VNNI_512, _vnni_512 = _vnni(16)
_VNNI_256, _vnni_256 = _vnni(8)
_madd_512, _madd_256, _madd_128 = _madd("avx512.pmaddw.d.512", 16), _madd("avx2.pmadd.wd", 8), _madd("sse2.pmadd.wd", 4)
_words_512 = _by_words(_madd_512, lambda b, total: _in_order(b, total, 16))
_words_128, _words = _by_words(_madd_128), _by_words(_pair_sums)
_bytes_512 = _by_bytes("avx512.pmaddubs.w.512", 16, _madd_512)
_bytes_256 = _by_bytes("avx2.pmadd.ub.sw", 8, _madd_256)
_signs_256 = _by_signs("avx2.pmadd.ub.sw", "avx2.psign.b", 8, _madd_256)
_on_neon = functools.partial(Sums, lanes=4, settled=lambda b, total: _in_order(b, total, 4, "w"))
_usdot_8 = _on_neon(_unchanged, _dot("usdot"))
_sdot_8, _sdot_4 = _on_neon(_signed, _dot("sdot"), has_offset=False), _on_neon(_unchanged, _dot("sdot"))
_words_8 = _on_neon(_signed, _words8, has_offset=False)
_words_4 = _on_neon(_unchanged, _words4, whole=_folded4, total=ir.VectorType(I16, 16))

INSTRUCTION_SETS = (
    InstructionSet(
        "AVX-512 with VNNI", X86, _AVX512 | {"avx512vnni"}, TILES_OF_32, fma=fused, widen_f16=converted,
        levels8=_vnni_512, levels4=_vnni_512, pause=_x86_pause, intrinsics=(_VNNI_512,),
    ),
    InstructionSet(
        "AVX-512", X86, _AVX512, TILES_OF_32, fma=fused, widen_f16=converted,
        levels8=_words_512, levels4=_bytes_512, pause=_x86_pause,
    ),
    InstructionSet(
        "AVX2 with VNNI", X86, _AVX2 | {"avxvnni"}, TILES_OF_8, fma=fused, widen_f16=converted,
        levels8=_vnni_256, levels4=_vnni_256, pause=_x86_pause, intrinsics=(_VNNI_256,),
    ),
    InstructionSet(
        "AVX2", X86, _AVX2, TILES_OF_8, fma=fused, widen_f16=converted,
        levels8=_signs_256, levels4=_bytes_256, pause=_x86_pause,
    ),
    InstructionSet(
        "SSE2", X86, frozenset(), TILES_OF_8, fma=rounded_twice, widen_f16=rebiased,
        levels8=_words_128, levels4=_words_128, pause=_x86_pause,
    ),
    InstructionSet(
        "NEON with i8mm", ARM, frozenset({"dotprod", "i8mm"}), TILES_OF_8, fma=fused, widen_f16=converted,
        levels8=_usdot_8, levels4=_sdot_4, pause=_arm_yield, cache_line=128,
    ),
    InstructionSet(
        "NEON with dotprod", ARM, frozenset({"dotprod"}), TILES_OF_8, fma=fused, widen_f16=converted,
        levels8=_sdot_8, levels4=_sdot_4, pause=_arm_yield, cache_line=128,
    ),
    InstructionSet(
        "NEON", ARM, frozenset(), TILES_OF_8, fma=fused, widen_f16=converted,
        levels8=_words_8, levels4=_words_4, pause=_arm_yield, cache_line=128,
    ),
    InstructionSet(
        "generic", (), frozenset(), TILES_OF_8, fma=rounded_twice, widen_f16=rebiased,
        levels8=_words, levels4=_words, pause=_no_pause,
    ),
)  # fmt: skip
