"""Softmax over the last axis."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


def softmax_ref(x: Floats) -> Floats:
    """exp(x - max) / sum over the last axis; -inf gives exactly 0. x [..., S] -> [..., S]."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))  # [..., S]
    return e / e.sum(axis=-1, keepdims=True)
