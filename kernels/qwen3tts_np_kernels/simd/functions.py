"""exp, sin² and activations of 16 lanes, as polynomials: the same bits on every CPU with fused multiply-add."""

from __future__ import annotations

import math

import numpy as np

from ..cpu import CPU
from .llvm import FLOATS, INTS, Builder, Value, f32x16, maximum, minimum, number, operation, rint

# Minimax fits (Lawson's iteration, float64): (e**r - 1 - r) / r**2 for |r| < ln(2) / 2, relative error 3e-9 in e**r;
# (sin(r) / r - 1) / r**2 in powers of r**2 for |r| < pi / 2, absolute error 5e-9 in sin(r).
_EXP = (0.49999994, 0.166665211, 0.041668389, 0.00836874545, 0.00138145406)
_SIN = (-0.166666567, 0.00833301526, -0.000198064794, 2.59975172e-06)
# Phi(-u) = e**(-u u / 2) P(1 / (1 + 0.3 u)) for u >= 0: a fit by Lawson's iteration, relative error 6e-8.
_TAIL_STEEPNESS = 0.3
_TAIL = (
    7.16795921e-06,
    0.11948771,
    0.121920191,
    0.0946841985,
    0.142533720,
    -0.0765035003,
    0.228657141,
    -0.169164523,
    0.0383779258,
)
# Cody and Waite: constants in parts, the first so short that its product with a small integer is exact.
_LN2_PARTS = (355 / 512, math.log(2) - 355 / 512)
_PI_MIDDLE = float(np.float32(math.pi - 201 / 64))
_PI_PARTS = (201 / 64, _PI_MIDDLE, math.pi - 201 / 64 - _PI_MIDDLE)


def _polynomial(b: Builder, x: Value, coefficients: tuple[float, ...]) -> Value:
    """Horner's scheme, lowest power first."""
    value = number(coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        value = CPU.fma(b, value, x, number(coefficient))
    return value


def _without_multiples(b: Builder, x: Value, count: Value, parts: tuple[float, ...]) -> Value:
    """x - ``count`` times a constant that is given in parts."""
    for part in parts:
        x = CPU.fma(b, count, number(-part), x)
    return x


def _exp(b: Builder, x: Value) -> Value:
    inside = maximum(b, number(-88.0), minimum(b, number(89.0), x))  # in this order NaN stays NaN
    n = rint(b, b.fmul(inside, number(1 / math.log(2))))
    r = _without_multiples(b, inside, n, _LN2_PARTS)
    power = CPU.fma(b, b.fmul(r, r), _polynomial(b, r, _EXP), b.fadd(r, number(1.0)))
    whole = b.fptosi(n, INTS)
    half = b.ashr(whole, number(1))  # 2**n in two factors: n = 128 has no float32 of its own
    for exponent in (half, b.sub(whole, half)):
        power = b.fmul(power, b.bitcast(b.shl(b.add(exponent, number(127)), number(23)), FLOATS))
    return b.select(b.fcmp_ordered("<", x, number(-87.33654)), number(0.0), power)


@operation(f32x16, f32x16)
def exp(b: Builder, x: Value) -> Value:
    """e**x within 2 units of the last place; 0 below -87.33, where float32 turns subnormal, inf above 88.72"""
    return _exp(b, x)


@operation(f32x16, f32x16)
def sin_squared(b: Builder, x: Value) -> Value:
    """sin(x)**2 for |x| < 2**16, with an error of at most 3e-7 and 4e-8 on average"""
    periods = rint(b, b.fmul(x, number(1 / math.pi)))
    x = _without_multiples(b, x, periods, _PI_PARTS)  # at most pi / 2 in the end
    square = b.fmul(x, x)
    sine = CPU.fma(b, b.fmul(_polynomial(b, square, _SIN), square), x, x)
    return b.fmul(sine, sine)


@operation(f32x16, f32x16)
def silu(b: Builder, x: Value) -> Value:
    """x / (1 + e**-x)"""
    return b.fdiv(x, b.fadd(number(1.0), _exp(b, b.fsub(number(-0.0), x))))


@operation(f32x16, f32x16)
def sigmoid(b: Builder, x: Value) -> Value:
    """1 / (1 + e**-x)"""
    return b.fdiv(number(1.0), b.fadd(number(1.0), _exp(b, b.fsub(number(-0.0), x))))


@operation(f32x16, f32x16)
def elu(b: Builder, x: Value) -> Value:
    """x above 0, e**x - 1 below, within 2 units of the last place"""
    below = maximum(b, x, number(-30.0))
    n = rint(b, b.fmul(below, number(1.4426950408889634)))
    r = _without_multiples(b, below, n, _LN2_PARTS)
    rise = CPU.fma(b, b.fmul(r, r), _polynomial(b, r, _EXP), r)  # e**r - 1, with all its digits near 0
    bits = b.shl(b.add(b.fptosi(n, INTS), number(127)), number(23))
    power = b.bitcast(bits, x.type)  # 2**n
    return b.select(b.fcmp_ordered(">", x, number(0.0)), x, CPU.fma(b, power, rise, b.fsub(power, number(1.0))))


@operation(f32x16, f32x16)
def gelu(b: Builder, x: Value) -> Value:
    """x Phi(x) with a relative error of 5e-7 above -2, and an absolute one of half a unit of x's last place below"""
    u = maximum(b, x, b.fsub(number(0.0), x))
    near = b.fdiv(number(1.0), CPU.fma(b, u, number(_TAIL_STEEPNESS), number(1.0)))
    decay = _exp(b, b.fmul(b.fmul(u, u), number(-0.5)))
    tail = b.fmul(b.fmul(x, decay), _polynomial(b, near, _TAIL))  # x Phi(-|x|)
    return b.select(b.fcmp_ordered(">", x, number(0.0)), b.fsub(x, tail), tail)
