"""AdamW in one pass over memory: compiled twin of adamw.py."""

from __future__ import annotations

import math

import numpy as np

from .adamw import AdamWStep, adamw_ref, sum_of_squares_ref
from .arrays import F64, Array
from .cpu import compiled, kernel


def adamw(weight: Array, gradient: Array, first: Array, second: Array, step: AdamWStep) -> None:
    """Change weight and both moments in place, and set the gradient to 0. Contiguous, all of one shape and type."""
    arrays = (weight, gradient, first, second)
    if len({(array.shape, array.dtype) for array in arrays}) > 1 or not all(a.flags.c_contiguous for a in arrays):
        raise ValueError(f"adamw: {', '.join(f'{a.dtype} {list(a.shape)}' for a in arrays)} must be equal, contiguous")
    if compiled():
        _adamw(*(array.reshape(-1) for array in arrays), *step)
    else:
        adamw_ref(*arrays, step)


@kernel
def _adamw(
    weight: Array,
    gradient: Array,
    first: Array,
    second: Array,
    keep: float,
    size: float,
    correction: float,
    beta1: float,
    beta2: float,
    eps: float,
    scale: float,
) -> None:
    for i in range(weight.size):
        g = scale * gradient[i]
        m = np.float64(first[i])
        m += (1 - beta1) * (g - m)
        v = beta2 * second[i] + (1 - beta2) * (g * g)
        weight[i] = keep * weight[i] - size * m / (math.sqrt(v) / correction + eps)
        first[i], second[i], gradient[i] = m, v, 0


def sum_of_squares(x: Array) -> float:
    """The sum of x², in float64 and in one fixed order. x contiguous, of any shape."""
    if not compiled():
        return sum_of_squares_ref(x)
    total = np.zeros(1)
    _sum_of_squares(x.reshape(-1), total)
    return float(total[0])


@kernel
def _sum_of_squares(x: Array, total: F64) -> None:
    a = b = c = d = 0.0  # four sums side by side: one alone waits for each addition
    whole = x.size // 4 * 4
    for i in range(0, whole, 4):
        p, q, r, s = np.float64(x[i]), np.float64(x[i + 1]), np.float64(x[i + 2]), np.float64(x[i + 3])
        a, b, c, d = a + p * p, b + q * q, c + r * r, d + s * s
    for i in range(whole, x.size):
        a += np.float64(x[i]) * np.float64(x[i])
    total[0] = (a + b) + (c + d)
