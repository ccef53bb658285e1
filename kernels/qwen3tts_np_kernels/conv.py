"""One-dimensional convolutions without padding: the blocks of the model do their own padding."""

import numpy as np

from .arrays import Array


def conv1d_ref(x: Array, weight: Array, bias: Array | None = None, stride: int = 1, dilation: int = 1) -> Array:
    """Valid cross-correlation, one matrix product per tap. x [in, T], weight [out, in, taps] -> [out, T'].

    T' = (T - (taps - 1) * dilation - 1) // stride + 1.
    """
    taps = weight.shape[2]
    frames = (x.shape[1] - (taps - 1) * dilation - 1) // stride + 1
    span = (frames - 1) * stride + 1
    y = sum(weight[:, :, j] @ x[:, j * dilation : j * dilation + span : stride] for j in range(taps))  # [out, T']
    return np.asarray(y if bias is None else y + bias[:, None])


def depthwise_conv1d_ref(x: Array, weight: Array, bias: Array) -> Array:
    """Depthwise convolution: one filter per channel. x [C, T], weight [C, 1, taps], bias [C] -> [C, T - taps + 1]."""
    taps = weight.shape[2]
    frames = x.shape[1] - taps + 1
    return np.asarray(sum(weight[:, :, j] * x[:, j : j + frames] for j in range(taps)) + bias[:, None])


def conv_transpose1d_ref(x: Array, weight: Array, bias: Array, stride: int) -> Array:
    """Transposed convolution: input t adds its taps from output t * stride on. x [in, T], weight [in, out, taps].

    Returns [out, (T - 1) * stride + taps], untrimmed.
    """
    (_, out, taps), frames = weight.shape, x.shape[1]
    y = np.zeros((out, (frames - 1) * stride + taps), dtype=x.dtype)
    for j in range(taps):
        y[:, j : j + (frames - 1) * stride + 1 : stride] += weight[:, :, j].T @ x
    return y + bias[:, None]
