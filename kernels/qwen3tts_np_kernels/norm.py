"""RMSNorm and LayerNorm over the last axis."""

import numpy as np

from .arrays import Array


def rms_norm_ref(x: Array, weight: Array, eps: float) -> Array:
    """x / rms(x) * weight. x [..., H], weight [H]."""
    mean_square = np.mean(x * x, axis=-1, keepdims=True)  # [..., 1]
    return x / np.sqrt(mean_square + eps) * weight


def rms_norm_backward_ref(dy: Array, x: Array, weight: Array, eps: float) -> tuple[Array, Array]:
    """The gradients dx [..., H] and dweight [H] of ``rms_norm_ref``, given dy [..., H].

    With r = sqrt(mean(x²) + eps), n = x / r and dn = dy weight:

        dx = (dn - n mean(dn n)) / r,    dweight = sum over rows of dy n
    """
    rms = np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)  # [..., 1]
    n, dn = x / rms, dy * weight  # [..., H]
    dx = (dn - n * np.mean(dn * n, axis=-1, keepdims=True)) / rms
    return dx, (dy * n).reshape(-1, len(weight)).sum(0)


def layer_norm_ref(x: Array, weight: Array, bias: Array, eps: float) -> Array:
    """(x - mean) / std * weight + bias, variance over all H values. x [..., H], weight and bias [H]."""
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = np.mean(centred * centred, axis=-1, keepdims=True)  # [..., 1]
    return centred / np.sqrt(variance + eps) * weight + bias
