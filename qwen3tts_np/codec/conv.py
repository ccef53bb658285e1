"""The causal convolutions of both halves of the codec: each output frame sees its own input frames and the past.

Official: ``Qwen3TTSTokenizerV2CausalConvNet``, ``Qwen3TTSTokenizerV2CausalTransConvNet``, ``MimiConv1d``.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from ..checkpoint.tables import Conv, TransposedConv
from ..ops import Array, conv1d, conv_transpose1d
from ..trace import record


def causal_conv(x: Array, w: Conv, stride: int = 1, dilation: int = 1) -> Array:
    """x [in, T] -> [out, ceil(T / stride)]."""
    return conv1d(pad_causal(x, w.weight.shape[2], stride, dilation), w.weight, w.bias, stride, dilation)


def pad_causal(
    x: Array, taps: int, stride: int = 1, dilation: int = 1, mode: Literal["constant", "edge"] = "constant"
) -> Array:
    """x [C, T] with what a convolution needs before its first frame, and after its last to fill the last stride."""
    before = (taps - 1) * dilation + 1 - stride
    after = -x.shape[1] % stride
    return np.pad(x, ((0, 0), (before, after)), mode=mode)


def causal_conv_transpose(x: Array, w: TransposedConv, stride: int, name: str) -> Array:
    """x [in, T] -> [out, T * stride]. What the last frames add beyond that would need the frames after them."""
    y = conv_transpose1d(x, w.weight, w.bias, stride)  # [out, (T - 1) * stride + taps]
    record(f"{name}.conv", y)
    y = y[:, : x.shape[1] * stride]
    record(name, y)
    return y
