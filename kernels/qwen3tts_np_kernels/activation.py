"""Pointwise non-linearities."""

import math

import numpy as np

from .arrays import Array


def sigmoid_ref(x: Array) -> Array:
    """1 / (1 + exp(-x)), computed in the form that does not overflow for the sign of x."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


def silu_ref(x: Array) -> Array:
    """x * sigmoid(x)."""
    return x * sigmoid_ref(x)


def silu_backward_ref(dy: Array, x: Array) -> Array:
    """The gradient dx of ``silu_ref``: dy s (1 + x (1 - s)) with s = sigmoid(x)."""
    s = sigmoid_ref(x)
    return dy * s * (1 + x * (1 - s))


def swiglu_ref(gate: Array, up: Array) -> Array:
    """silu(gate) * up, the middle of a SwiGLU (Shazeer, 2020)."""
    return silu_ref(gate) * up


def swiglu_backward_ref(dy: Array, gate: Array, up: Array) -> tuple[Array, Array]:
    """The gradients dgate and dup of ``swiglu_ref``: dgate = dy up silu'(gate), dup = dy silu(gate)."""
    return silu_backward_ref(dy * up, gate), dy * silu_ref(gate)


def gelu_ref(x: Array) -> Array:
    """x * Phi(x): the exact form with erf, not the tanh approximation."""
    from scipy.special import erf  # 0.3 s to import, which the compiled path does not need

    return x * (1 + erf(x / math.sqrt(2))) / 2


def elu_ref(x: Array) -> Array:
    """x above 0, exp(x) - 1 below."""
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def snake_beta_ref(x: Array, alpha: Array, beta: Array) -> Array:
    """x + sin²(x e^alpha) / (e^beta + 1e-9), alpha and beta per channel. x [C, T], alpha and beta [C].

    Trap: both parameters are stored as logarithms.
    """
    wave = np.sin(x * np.exp(alpha)[:, None])
    return x + wave * wave / (np.exp(beta)[:, None] + 1e-9)
