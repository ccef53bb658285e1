"""One step of AdamW (Loshchilov and Hutter, 2019), as ``torch.optim.AdamW`` computes it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .arrays import Array


class AdamWStep(NamedTuple):
    """The numbers of one step, the same for every weight of a tensor."""

    keep: float  # 1 - rate * decay: what decay leaves of a weight
    size: float  # rate / (1 - beta1 ** step)
    correction: float  # sqrt(1 - beta2 ** step)
    beta1: float
    beta2: float
    eps: float
    scale: float  # what the gradient is multiplied by first


def adamw_ref(weight: Array, gradient: Array, first: Array, second: Array, step: AdamWStep) -> None:
    """Change weight and both moments in place, and set the gradient to 0. Contiguous, all of one shape and type.

        g = scale gradient
        first = first + (1 - beta1) (g - first),    second = beta2 second + (1 - beta2) g²
        weight = keep weight - size first / (sqrt(second) / correction + eps)

    Every weight is computed in float64 from the stored numbers, and each result rounded once.
    """
    w, g, m, v = (array.astype(np.float64) for array in (weight, gradient, first, second))
    g *= step.scale
    m += (1 - step.beta1) * (g - m)
    v = step.beta2 * v + (1 - step.beta2) * (g * g)
    weight[...] = step.keep * w - step.size * m / (np.sqrt(v) / step.correction + step.eps)
    first[...], second[...], gradient[...] = m, v, 0


def sum_of_squares_ref(x: Array) -> float:
    """The sum of x², in float64. Any shape."""
    return float(np.sum(np.square(x, dtype=np.float64)))
