"""All differences between CPUs, as one table: an entry per instruction set, the most capable first.

LLVM selects the instructions of a CPU by itself, with few exceptions: those that it would replace by a call into a
library that Numba does not link, and sums of byte products, which it does not recognise. An entry defines how these
are emitted, and the tile shapes, which follow from the number of vectors that fit into the registers. A new
instruction set is a new entry here; no kernel checks which CPU it is compiled for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from llvmlite import ir

from .llvm import (
    FLOATS,
    HALVES,
    I16,
    I32,
    INTS,
    LANES,
    WORDS,
    Builder,
    Value,
    call,
    lane_list,
    number,
    pick,
)

_X86, _ARM = ("x86_64", "amd64"), ("aarch64", "arm64")

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


TILES_OF_32 = Tiles(conv_rows=12, conv_vectors=2, linear_blocks=2, linear_items=8, attention_positions=16)
TILES_OF_8 = Tiles(conv_rows=6, conv_vectors=1, linear_blocks=1, linear_items=4, attention_positions=4)


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
    dot4: Ternary
    """total + the 4 products of unsigned and signed bytes in each lane, exactly: (total, unsigned, signed)."""
    pause: Callable[[Builder], None]
    """A hint to the CPU that this is a spin loop."""
    intrinsics: tuple[str, ...] = ()
    """Declarations of LLVM intrinsics that an older LLVM may lack."""

    @property
    def is_x86(self) -> bool:
        return self.machines == _X86

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


def _in_parts(b: Builder, name: str, lanes: int, *operands: Value) -> Value:
    """An instruction for vectors of fewer 32-bit lanes, repeated to cover 16 lanes."""
    part_type = ir.VectorType(I32, lanes)
    parts = []
    for first in range(0, LANES, lanes):
        values = []
        for operand in operands:
            width = operand.type.count // LANES  # elements per lane
            values.append(pick(b, operand, list(range(width * first, width * (first + lanes)))))
        parts.append(call(b, name, part_type, *values))
    while len(parts) > 1:
        both = lane_list(list(range(2 * parts[0].type.count)))
        parts = [b.shuffle_vector(low, high, both) for low, high in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def _vnni(lanes: int) -> tuple[str, Ternary]:
    """The x86 instruction that sums 4 byte products per lane, for so many lanes: its declaration, and dot4 using it.

    Trap: LLVM 22 changed the operand types of this intrinsic. It still accepts the former types, as every LLVM accepts
    the intrinsics of older ones, so use the former types.
    """
    name, vector = f"llvm.x86.avx512.vpdpbusd.{32 * lanes}", f"<{lanes} x i32>"

    def dot4(b: Builder, total: Value, unsigned: Value, signed: Value) -> Value:
        return _in_parts(b, name, lanes, total, unsigned, signed)

    return f"{vector} @{name}({vector}, {vector}, {vector})", dot4


def _by_pairs(pair_sums: Binary) -> Ternary:
    """dot4 by sums of two neighbouring 16-bit products: those of the odd bytes, and those of the even ones."""

    def dot4(b: Builder, total: Value, unsigned: Value, signed: Value) -> Value:
        u, s = b.bitcast(unsigned, WORDS), b.bitcast(signed, WORDS)
        byte = ir.Constant(WORDS, [ir.Constant(I16, 8)] * WORDS.count)
        odd = pair_sums(b, b.lshr(u, byte), b.ashr(s, byte))
        even = pair_sums(b, b.lshr(b.shl(u, byte), byte), b.ashr(b.shl(s, byte), byte))
        return b.add(total, b.add(even, odd))

    return dot4


def _madd(name: str, lanes: int) -> Binary:
    """The older x86 instruction that sums 2 word products per lane, for so many lanes."""
    return lambda b, x, y: _in_parts(b, f"llvm.x86.{name}", lanes, x, y)


def _pair_sums(b: Builder, x: Value, y: Value) -> Value:
    """Plain IR; LLVM selects the instructions."""
    wide = ir.VectorType(I32, 2 * LANES)
    products = b.mul(b.sext(x, wide), b.sext(y, wide))
    return b.add(pick(b, products, list(range(0, 32, 2))), pick(b, products, list(range(1, 32, 2))))


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
_VNNI_512, _dot4_512 = _vnni(16)
_VNNI_256, _dot4_256 = _vnni(8)

INSTRUCTION_SETS = (
    InstructionSet(
        "AVX-512 with VNNI", _X86, _AVX512 | {"avx512vnni"}, TILES_OF_32,
        fma=fused, widen_f16=converted, dot4=_dot4_512, pause=_x86_pause, intrinsics=(_VNNI_512,),
    ),
    InstructionSet(
        "AVX-512", _X86, _AVX512, TILES_OF_32,
        fma=fused, widen_f16=converted, dot4=_by_pairs(_madd("avx512.pmaddw.d.512", 16)), pause=_x86_pause,
    ),
    InstructionSet(
        "AVX2 with VNNI", _X86, _AVX2 | {"avxvnni"}, TILES_OF_8,
        fma=fused, widen_f16=converted, dot4=_dot4_256, pause=_x86_pause, intrinsics=(_VNNI_256,),
    ),
    InstructionSet(
        "AVX2", _X86, _AVX2, TILES_OF_8,
        fma=fused, widen_f16=converted, dot4=_by_pairs(_madd("avx2.pmadd.wd", 8)), pause=_x86_pause,
    ),
    InstructionSet(
        "SSE2", _X86, frozenset(), TILES_OF_8,
        fma=rounded_twice, widen_f16=rebiased, dot4=_by_pairs(_madd("sse2.pmadd.wd", 4)), pause=_x86_pause,
    ),
    InstructionSet(
        "NEON", _ARM, frozenset(), TILES_OF_8,
        fma=fused, widen_f16=converted, dot4=_by_pairs(_pair_sums), pause=_arm_yield,
    ),
    InstructionSet(
        "generic", (), frozenset(), TILES_OF_8,
        fma=rounded_twice, widen_f16=rebiased, dot4=_by_pairs(_pair_sums), pause=_no_pause,
    ),
)  # fmt: skip
