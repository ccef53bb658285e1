"""RMSNorm and LayerNorm over the last axis."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


def rms_norm_ref(x: Floats, weight: Floats, eps: float) -> Floats:
    """x / rms(x) * weight. x [..., H], weight [H]."""
    mean_square = np.mean(x * x, axis=-1, keepdims=True)  # [..., 1]
    return x / np.sqrt(mean_square + eps) * weight


def layer_norm_ref(x: Floats, weight: Floats, bias: Floats, eps: float) -> Floats:
    """(x - mean) / std * weight + bias, variance over all H values. x [..., H], weight and bias [H]."""
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = np.mean(centred * centred, axis=-1, keepdims=True)  # [..., 1]
    return centred / np.sqrt(variance + eps) * weight + bias
