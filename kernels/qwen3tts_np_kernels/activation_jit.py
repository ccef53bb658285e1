"""Pointwise functions over rows [T, channels]; convolutions apply them to the output they have just computed.

Compiled twin of activation.py.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .activation import elu_ref, gelu_ref, swiglu_backward_ref, swiglu_ref
from .arrays import F32, Array
from .cpu import compiled, inlined, inner, kernel
from .simd.functions import elu, gelu, sigmoid, silu, sin_squared
from .simd.llvm import LANES
from .simd.ops import fma, load, load_first, maximum, mul, splat, store, store_first, sub, zeros
from .threads_jit import Member, share
from .together_jit import ALONE, Runner

_NOTHING, _SNAKE, _ELU, _GELU, _RELU = range(5)


class Activation(NamedTuple):
    """The function to apply, if any; for SnakeBeta with its two parameters per channel."""

    kind: int
    frequency: F32
    gain: F32

    def repeated(self, times: int) -> Activation:
        """The same activation for rows that are ``times`` rows side by side."""
        return Activation(self.kind, np.tile(self.frequency, times), np.tile(self.gain, times))


_NONE = np.zeros(0, np.float32)
NOTHING = Activation(_NOTHING, _NONE, _NONE)
ELU = Activation(_ELU, _NONE, _NONE)
GELU = Activation(_GELU, _NONE, _NONE)
RELU = Activation(_RELU, _NONE, _NONE)


def snake_beta(alpha: F32, beta: F32, width: int) -> Activation:
    """x + sin²(x e^alpha) / (e^beta + 1e-9) from the logarithms [C] of the checkpoint, for rows of ``width`` values.

    The exponentials are computed in float64 and rounded once: the last bits of NumPy's float32 exp depend on the CPU.
    """
    frequency, gain = np.zeros(width, np.float32), np.zeros(width, np.float32)
    frequency[: len(alpha)] = np.exp(alpha.astype(np.float64))
    gain[: len(beta)] = 1 / (np.exp(beta.astype(np.float64)) + 1e-9)
    return Activation(_SNAKE, frequency, gain)


def activate(x: F32, activation: Activation, out: F32) -> None:
    """out = activation(x). Both contiguous float32 [T, W], W a multiple of the vector length; may be the same array."""
    _check_rows("activate", x=x, out=out)
    if x.shape != out.shape or activation.gain.size not in (0, x.shape[1]):
        shapes = f"x{list(x.shape)}, out{list(out.shape)}"
        raise ValueError(f"activate: {shapes} and SnakeBeta for {activation.gain.size} channels do not fit")
    if compiled():
        _activate(x.reshape(-1), *activation, out.reshape(-1))
    else:
        out[:] = activation_ref(x, activation)


def silu_gate(x: F32, out: F32, run: Runner = ALONE) -> None:
    """out = silu(gate) * up: the middle of a SwiGLU. x float32 [T, 2 W] holds gate and up side by side, out [T, W]."""
    _check_rows("silu_gate", x=x, out=out)
    width = out.shape[1]
    if x.shape != (len(out), 2 * width):
        raise ValueError(f"silu_gate: x{list(x.shape)} and out{list(out.shape)} do not fit [T, 2 W] and [T, W]")
    if compiled():
        run(_silu_gate, x.reshape(-1), width, out.reshape(-1))
    else:
        out[:] = swiglu_ref(x[:, :width], x[:, width:])


def swiglu(gate: F32, up: F32) -> F32:
    """silu(gate) * up. Float32 of one shape; contiguous arrays are not copied."""
    gate, up = _alike("swiglu", gate, up)
    if not compiled():
        return np.asarray(swiglu_ref(gate, up), np.float32)
    y = np.empty(gate.shape, np.float32)
    _swiglu(gate.reshape(-1), up.reshape(-1), y.reshape(-1))
    return y


def swiglu_backward(dy: F32, gate: F32, up: F32) -> tuple[F32, F32]:
    """The gradients dgate and dup of ``swiglu``. Float32 of one shape; contiguous arrays are not copied."""
    dy, gate, up = _alike("swiglu_backward", dy, gate, up)
    if not compiled():
        return swiglu_backward_ref(dy, gate, up)
    dgate, dup = np.empty(gate.shape, np.float32), np.empty(gate.shape, np.float32)
    _swiglu_backward(*(array.reshape(-1) for array in (dy, gate, up, dgate, dup)))
    return dgate, dup


def _alike(function: str, *arrays: F32) -> tuple[F32, ...]:
    if len({array.shape for array in arrays}) > 1 or any(array.dtype != np.float32 for array in arrays):
        found = ", ".join(f"{array.dtype} {list(array.shape)}" for array in arrays)
        raise ValueError(f"{function}: {found} must be float32 of one shape")
    return tuple(np.ascontiguousarray(array) for array in arrays)


def activation_ref(x: Array, activation: Activation) -> Array:
    """The activation of x of any shape [..., channels]."""
    if activation.kind == _SNAKE:
        wave = np.sin(x * activation.frequency)
        return x + wave * wave * activation.gain
    if activation.kind == _RELU:
        return np.maximum(x, 0)
    return {_ELU: elu_ref, _GELU: gelu_ref}.get(activation.kind, np.asarray)(x)


def _check_rows(function: str, **arrays: F32) -> None:
    for name, array in arrays.items():
        if array.dtype != np.float32 or array.ndim != 2 or array.shape[1] % LANES or not array.flags.c_contiguous:
            found = f"{array.dtype} {list(array.shape)}"
            raise ValueError(f"{function}: {name} is {found}, expected contiguous float32 rows of {LANES} n values")


@kernel
def _activate(x: F32, kind: int, frequency: F32, gain: F32, y: F32) -> None:
    width = frequency.size if kind == _SNAKE else x.size
    for row in range(0, x.size, max(width, 1)):
        activate_row(x, row, 0, width, kind, frequency, gain, y)


@inner
def activate_row(x: F32, row: int, first: int, end: int, kind: int, frequency: F32, gain: F32, y: F32) -> None:
    """y = activation(x) for the channels first to end - 1 of the row at this offset; a no-op for ``NOTHING``."""
    if kind == _SNAKE:
        for i in range(first, end, LANES):
            value = load(x, row + i)
            store(y, row + i, fma(sin_squared(mul(value, load(frequency, i))), load(gain, i), value))
    elif kind == _ELU:
        for i in range(row + first, row + end, LANES):
            store(y, i, elu(load(x, i)))
    elif kind == _GELU:
        for i in range(row + first, row + end, LANES):
            store(y, i, gelu(load(x, i)))
    elif kind == _RELU:
        for i in range(row + first, row + end, LANES):
            store(y, i, maximum(load(x, i), zeros()))


@kernel
def _silu_gate(me: Member, x: F32, width: int, y: F32) -> None:
    first, end = share(me, width // LANES)
    for row in range(0, y.size, max(width, 1)):
        for i in range(row + first * LANES, row + end * LANES, LANES):
            store(y, i, mul(silu(load(x, row + i)), load(x, row + width + i)))


@kernel
def _swiglu(gate: F32, up: F32, y: F32) -> None:
    whole = y.size // LANES * LANES
    for i in range(0, whole, LANES):
        store(y, i, mul(silu(load(gate, i)), load(up, i)))
    rest = y.size - whole
    if rest:
        store_first(y, whole, mul(silu(load_first(gate, whole, rest)), load_first(up, whole, rest)), rest)


@kernel
def _swiglu_backward(dy: F32, gate: F32, up: F32, dgate: F32, dup: F32) -> None:
    whole = dy.size // LANES * LANES
    for i in range(0, whole, LANES):
        d, g = load(dy, i), load(gate, i)
        s = sigmoid(g)
        store(dgate, i, mul(mul(d, load(up, i)), slope(g, s)))
        store(dup, i, mul(d, mul(g, s)))
    rest = dy.size - whole
    if rest:
        d, g = load_first(dy, whole, rest), load_first(gate, whole, rest)
        s = sigmoid(g)
        store_first(dgate, whole, mul(mul(d, load_first(up, whole, rest)), slope(g, s)), rest)
        store_first(dup, whole, mul(d, mul(g, s)), rest)


@inlined
def slope(g: F32, s: F32) -> F32:
    """The derivative of silu: s + g s (1 - s), with s = sigmoid(g)."""
    return fma(mul(g, s), sub(splat(1.0), s), s)
