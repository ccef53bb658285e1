"""RMSNorm and LayerNorm over the last axis."""

import numpy as np

from .arrays import Array


def rms_norm_ref(x: Array, weight: Array, eps: float) -> Array:
    """x / rms(x) * weight. x [..., H], weight [H]."""
    mean_square = np.mean(x * x, axis=-1, keepdims=True)  # [..., 1]
    return x / np.sqrt(mean_square + eps) * weight


def layer_norm_ref(x: Array, weight: Array, bias: Array, eps: float) -> Array:
    """(x - mean) / std * weight + bias, variance over all H values. x [..., H], weight and bias [H]."""
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = np.mean(centred * centred, axis=-1, keepdims=True)  # [..., 1]
    return centred / np.sqrt(variance + eps) * weight + bias
