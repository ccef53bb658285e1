"""Causal layers of a stream: what a layer still needs of earlier inputs is carried from call to call."""

from __future__ import annotations

from ..target import Target, V
from ..weights import Tensors


def after_past(t: Target[V], x: V, name: str, channels: int, count: int) -> V:
    """x [1, C, T] behind the last ``count`` inputs of the layer ``name``: [1, C, count + T]. They are carried on."""
    if not count:
        return x
    whole = t.concat([t.state(name, [1, channels, count]), x], 2, f"{name}/input")
    t.next_state(t.slice(whole, 2, -count, None, f"{name}/kept"), name, [1, channels, count])
    return whole


def causal_conv(t: Target[V], x: V, tensors: Tensors, name: str, dilation: int = 1, groups: int = 1) -> V:
    """A convolution of stride 1 on the next inputs of a stream. x [1, in, T] -> [1, out, T]."""
    _, each, taps = tensors[f"{name}.conv.weight"].shape
    whole = after_past(t, x, name, each * groups, (taps - 1) * dilation)
    weight, bias = t.weight(f"{name}.conv.weight"), t.weight(f"{name}.conv.bias")
    return t.conv1d(whole, weight, bias, name, dilation=dilation, groups=groups)


def causal_conv_transpose(t: Target[V], x: V, tensors: Tensors, name: str, stride: int) -> V:
    """The samples that no later input can change. x [1, in, T] -> [1, out, T * stride].

    Inputs whose taps reach into this call are carried; where the stream begins they are zeros, which add nothing.
    """
    width, _, taps = tensors[f"{name}.conv.weight"].shape
    count = -(-taps // stride) - 1
    whole = after_past(t, x, name, width, count)
    weight, bias = t.weight(f"{name}.conv.weight"), t.weight(f"{name}.conv.bias")
    y = t.conv_transpose1d(
        whole, weight, bias, f"{name}/whole", stride=stride
    )  # [1, out, (count + T - 1) stride + taps]
    return t.slice(y, 2, count * stride, stride - taps or None, name)
