"""The causal convolutions of both halves of the codec: an output frame depends only on current and earlier inputs.

Official: ``Qwen3TTSTokenizerV2CausalConvNet``, ``Qwen3TTSTokenizerV2CausalTransConvNet``, ``MimiConv1d``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..checkpoint.keys import tensor
from ..conv import Conv, conv
from ..ops import Array, conv_transpose1d
from ..trace import Scope, record
from .past import Past


@dataclass(frozen=True)
class TransposedConv:
    """A transposed 1-D convolution: weight [in, out, kernel], the first two axes swapped relative to ``Conv``."""

    weight: Array = tensor("weight", "in out kernel")
    bias: Array = tensor("bias", "out")


def causal_conv(x: Array, w: Conv, stride: int = 1, dilation: int = 1) -> Array:
    """x [in, T] -> [out, ceil(T / stride)]."""
    return conv(pad_causal(x, w.weight.shape[2], stride, dilation), w, stride, dilation)


def pad_causal(
    x: Array, taps: int, stride: int = 1, dilation: int = 1, mode: Literal["constant", "edge"] = "constant"
) -> Array:
    """x [C, T] padded at the start for causality, and at the end to complete the last stride."""
    before = (taps - 1) * dilation + 1 - stride
    after = -x.shape[1] % stride
    return np.pad(x, ((0, 0), (before, after)), mode=mode)


def next_conv(x: Array, w: Conv, past: Past, name: str, dilation: int = 1) -> Array:
    """:func:`causal_conv` of stride 1 on the next frames of a stream. x [in, T] -> [out, T]."""
    return record(name, conv(past.padded(name, x, (w.weight.shape[2] - 1) * dilation), w, dilation=dilation))


def next_conv_transpose(x: Array, w: TransposedConv, stride: int, past: Past, name: str) -> Array:
    """x [in, T] -> [out, T * stride], trimmed where the sum would need later frames."""
    t, frames = Scope(name), x.shape[1]
    x = past.before(name, x, -(-w.weight.shape[2] // stride) - 1)  # frames whose taps extend into the next: [in, S + T]
    y = conv_transpose1d(x, w.weight, w.bias, stride)  # [out, (S + T - 1) * stride + taps]
    y = t("conv", y[:, (x.shape[1] - frames) * stride :])
    return t.output(y[:, : frames * stride])
