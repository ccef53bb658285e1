"""Rotary position embedding, split-half layout (Su et al., 2021, as in Llama and Qwen)."""

import numpy as np

from .arrays import Array, Ints


def rope_angles_ref(positions: Ints, head_dim: int, theta: float) -> tuple[Array, Array]:
    """cos and sin of position * theta^(-2j / D), each float32 [T, D/2]. positions [T].

    The official tables are computed in float32 whatever the model's dtype; a float64 run widens these same values, so
    that it measures the arithmetic and not another table. Each step is rounded to float32 as in the official code, but
    powers, cosines and sines are computed in float64 first: the last bits of NumPy's float32 ones depend on the CPU.
    """
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)  # [D/2]
    powers = np.power(np.float64(np.float32(theta)), exponents.astype(np.float64)).astype(np.float32)
    frequencies = np.float32(1.0) / powers  # [D/2]
    angles = (positions.astype(np.float32)[:, None] * frequencies).astype(np.float64)  # [T, D/2]
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def rotate_ref(x: Array, cos: Array, sin: Array) -> Array:
    """Rotate the pair (j, j + D/2) of every head by its angle. x [T, heads, D], cos and sin [T, D/2]."""
    low, high = np.split(x, 2, axis=-1)  # each [T, heads, D/2]
    c, s = cos[:, None].astype(x.dtype), sin[:, None].astype(x.dtype)  # [T, 1, D/2]
    return np.concatenate([low * c - high * s, high * c + low * s], axis=-1)


def rotate_backward_ref(dy: Array, cos: Array, sin: Array) -> Array:
    """The gradient dx of ``rotate_ref``: a rotation is undone by the opposite angle. dy [T, heads, D]."""
    return rotate_ref(dy, cos, -sin)
