"""Softmax over the last axis."""

import numpy as np

from .arrays import Array


def softmax_ref(x: Array) -> Array:
    """exp(x - max) / sum over the last axis; -inf gives exactly 0. x [..., S] -> [..., S]."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))  # [..., S]
    return e / e.sum(axis=-1, keepdims=True)
