"""The 1-D convolution of the codec and the speaker encoder, as it is stored. Each network pads in its own way."""

from __future__ import annotations

from dataclasses import dataclass

from .checkpoint.keys import Sizes, tensor
from .ops import Array, conv1d


@dataclass(frozen=True)
class Conv:
    """A 1-D convolution with a bias: weight [out, in, kernel]."""

    weight: Array = tensor("weight", "out in kernel")
    bias: Array = tensor("bias", "out")


def conv_sizes(out: int, in_: int, kernel: int) -> Sizes:
    return {"out": out, "in": in_, "kernel": kernel}


def conv(x: Array, w: Conv, stride: int = 1, dilation: int = 1) -> Array:
    """x [in, T], padded already -> [out, (T - (kernel - 1) * dilation - 1) // stride + 1]."""
    return conv1d(x, w.weight, w.bias, stride, dilation)
