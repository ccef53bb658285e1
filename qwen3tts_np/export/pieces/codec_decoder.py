"""The codec decoder: the samples of the next frames of a stream.

As ``codec/decoder.py``. In: ``codes`` [frames, G]. Out: ``decoder`` [samples], -1 to 1. Carried, zeros before the first
frame: the inputs that each causal convolution still needs, keys and values of the last frames that a frame can see, and
how many of these there have been. So chunks of any size have the samples of the whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Generic

import numpy as np

from ...codec.decoder import CONVNEXT_EPS, DILATIONS
from ...config import CodecDecoderConfig
from ...ops import AnyArray
from ..target import Target, V
from ..weights import Tensors
from .attention import by_head, context, heads_of, rope_angles, rotated
from .causal import causal_conv, causal_conv_transpose
from .codebooks import entries_of, values_of
from .layouts import channels_of, rows_of
from .mlp import gated_mlp

NAME = "decoder"


def build(t: Target[V], c: CodecDecoderConfig, tensors: Tensors) -> None:
    codes = t.input("codes", ["frames", c.num_quantizers], "int64")
    x = _quantizer(t, codes, c, tensors, f"{NAME}.quantizer")  # [1, Q, T]
    x = causal_conv(t, x, tensors, f"{NAME}.pre_conv")  # [1, Z, T]
    x = _pre_transformer(t, x, c, f"{NAME}.pre_transformer")
    for i, ratio in enumerate(c.upsampling_ratios):
        x = causal_conv_transpose(t, x, tensors, f"{NAME}.upsample.{i}.0", ratio)  # [1, Z, T * ratio]
        x = _convnext(t, x, c, tensors, f"{NAME}.upsample.{i}.1")
    x = causal_conv(t, x, tensors, f"{NAME}.decoder.0")
    for i, rate in enumerate(c.upsample_rates, start=1):
        x = _waveform_block(t, x, tensors, rate, f"{NAME}.decoder.{i}")  # [1, W / 2^i, T * rate]
    last = len(c.upsample_rates) + 1
    x = causal_conv(t, _snake(t, x, tensors, f"{NAME}.decoder.{last}"), tensors, f"{NAME}.decoder.{last + 1}")
    x = t.minimum(t.maximum(x, -1.0, f"{NAME}/above"), 1.0, f"{NAME}/clipped")
    t.output(t.reshape(x, [-1], f"{NAME}/samples"), NAME, ["decoded_samples"])


def _quantizer(t: Target[V], codes: V, c: CodecDecoderConfig, tensors: Tensors, name: str) -> V:
    """The vector of each frame: the entry of code 0 plus those of the other codes. codes [T, G] -> [1, Q, T]."""
    first = _dequantised(t, codes, range(1), tensors, f"{name}.rvq_first")
    rest = _dequantised(t, codes, range(1, c.num_quantizers), tensors, f"{name}.rvq_rest")
    return t.add(first, rest, name)


def _dequantised(t: Target[V], codes: V, groups: Sequence[int], tensors: Tensors, name: str) -> V:
    total: V | None = None
    for layer, g in enumerate(groups):
        book = f"{name}.vq.layers.{layer}"
        entries = t.constant(entries_of(tensors, f"{book}._codebook", "embedding_sum"), f"{book}._codebook")  # [C, E]
        ids = t.squeeze(t.slice(codes, 1, g, g + 1, f"{book}/column"), 1, f"{book}/ids")  # [T]
        found = t.gather(entries, ids, 0, book)  # [T, E]
        total = found if total is None else t.add(total, found, f"{book}/sum")
    assert total is not None
    weight = t.weight(f"{name}.output_proj.weight")
    return t.conv1d(channels_of(t, total, f"{name}.vq"), weight, None, f"{name}.output_proj")


def _pre_transformer(t: Target[V], x: V, c: CodecDecoderConfig, name: str) -> V:
    """Transformer with a sliding window, between two projections. x [1, Z, T] -> [1, Z, T].

    Attention depends on differences of positions alone, so they are counted from the oldest frame of the window, and a
    stream has no end. What is carried of it is how many frames of the window there have been.
    """
    x = t.linear(rows_of(t, x, f"{name}.input_proj"), f"{name}.input_proj", bias=True)  # [T, H]
    window = _Window(t, x, c, name)
    for i in range(c.num_hidden_layers):
        x = _layer(t, x, window, c, f"{name}.layers.{i}")
    x = t.linear(t.rms_norm(x, f"{name}.norm", c.rms_norm_eps), f"{name}.output_proj", bias=True)
    return channels_of(t, x, f"{name}.output_proj")


class _Window(Generic[V]):
    """What all layers have of the window: frames before this call, then those of this call."""

    def __init__(self, t: Target[V], x: V, c: CodecDecoderConfig, name: str) -> None:
        self.before = before = c.sliding_window - 1
        frames = t.indices(x, 0, f"{name}/new_frames")  # [T]
        oldest = t.constant(np.arange(before), f"{name}/before")
        places = t.concat([oldest, t.add(frames, before, f"{name}/own_places")], 0, f"{name}/places")  # [S]
        self.of_keys = cos, sin = rope_angles(t, places, c, name)
        own = (t.slice(part, 0, before, None, f"{name}/own_{of}") for part, of in ((cos, "cos"), (sin, "sin")))
        self.of_queries: tuple[V, V] = tuple(own)  # type: ignore[assignment]
        self.mask = self._mask(t, frames, places, name)

    def _mask(self, t: Target[V], frames: V, places: V, name: str) -> V:
        """0 where a frame sees a place of the window, -inf elsewhere and before the first frame: [T, S]."""
        seen = t.state(f"{name}.frames", [1])
        count = t.add(
            t.cast(t.slice(frames, 0, -1, None, f"{name}/last"), "float32", f"{name}/later"), 1.0, f"{name}/new"
        )
        now = t.minimum(t.add(seen, count, f"{name}/sum"), float(self.before), f"{name}/seen")
        t.next_state(now, f"{name}.frames", [1])
        row = t.expand_dims(t.cast(places, "float32", f"{name}/counted"), 0, f"{name}/row")  # [1, S]
        column = t.expand_dims(t.cast(frames, "float32", f"{name}/counted_frames"), 1, f"{name}/column")  # [T, 1]
        empty = t.add(t.mul(seen, -1.0, f"{name}/unseen"), float(self.before), f"{name}/empty")  # places with nothing
        first = t.maximum(column, t.expand_dims(empty, 0, f"{name}/empty_column"), f"{name}/first")  # [T, 1]
        last = t.add(column, float(self.before), f"{name}/itself")
        near = t.where(t.less_equal(first, row, f"{name}/not_earlier"), 0.0, -math.inf, f"{name}/near")
        causal = t.where(t.less_equal(row, last, f"{name}/not_later"), 0.0, -math.inf, f"{name}/causal")
        return t.add(causal, near, f"{name}/window_mask")


def _layer(t: Target[V], x: V, window: _Window[V], c: CodecDecoderConfig, name: str) -> V:
    """Attention and SwiGLU, both scaled per channel before they are added. x [T, H]."""
    h = t.rms_norm(x, f"{name}.input_layernorm", c.rms_norm_eps)
    h = _self_attention(t, h, window, c, f"{name}.self_attn")
    h = t.mul(h, t.weight(f"{name}.self_attn_layer_scale.scale"), f"{name}.self_attn_layer_scale")
    x = t.add(x, h, f"{name}.post_attention_layernorm.input")
    h = gated_mlp(t, t.rms_norm(x, f"{name}.post_attention_layernorm", c.rms_norm_eps), f"{name}.mlp")
    h = t.mul(h, t.weight(f"{name}.mlp_layer_scale.scale"), f"{name}.mlp_layer_scale")
    return t.add(x, h, name)


def _self_attention(t: Target[V], x: V, window: _Window[V], c: CodecDecoderConfig, name: str) -> V:
    """Attention to the last ``sliding_window`` frames, this one included. Keys are carried as they are before they are
    turned, since their place in the window changes. x [T, H]."""
    k_heads, shape = c.num_key_value_heads, [window.before, c.num_key_value_heads, c.head_dim]
    q = heads_of(t, t.linear(x, f"{name}.q_proj"), c.num_attention_heads, c, f"{name}.q_proj")
    k = heads_of(t, t.linear(x, f"{name}.k_proj"), k_heads, c, f"{name}.k_proj")
    v = heads_of(t, t.linear(x, f"{name}.v_proj"), k_heads, c, f"{name}.v_proj")
    k, v = _behind(t, k, f"{name}.key", shape), _behind(t, v, f"{name}.value", shape)  # [S, K, D]
    q, k = rotated(t, q, window.of_queries, c, f"{name}/q"), rotated(t, k, window.of_keys, c, f"{name}/k")
    keys, values = by_head(t, k, f"{name}/k"), by_head(t, v, f"{name}.value")
    return t.linear(context(t, q, keys, values, window.mask, c, name), f"{name}.o_proj")


def _behind(t: Target[V], new: V, name: str, shape: list[int]) -> V:
    """new [T, K, D] behind the last ones of earlier calls, [S, K, D]; the last ones are carried on."""
    whole = t.concat([t.state(name, shape), new], 0, f"{name}/window")
    t.next_state(t.slice(whole, 0, -shape[0], None, f"{name}/kept"), name, shape)
    return whole


def _convnext(t: Target[V], x: V, c: CodecDecoderConfig, tensors: Tensors, name: str) -> V:
    """ConvNeXt block: depthwise convolution, then a feed-forward per frame. x [1, Z, T] -> [1, Z, T]."""
    h = causal_conv(t, x, tensors, f"{name}.dwconv", groups=c.latent_dim)
    h = t.layer_norm(rows_of(t, h, f"{name}.dwconv"), f"{name}.norm", CONVNEXT_EPS)  # [T, Z]
    h = t.gelu(t.linear(h, f"{name}.pwconv1", bias=True), f"{name}.act")  # [T, 4Z]
    h = t.mul(t.linear(h, f"{name}.pwconv2", bias=True), t.weight(f"{name}.gamma"), f"{name}.gamma/scaled")
    return t.add(x, channels_of(t, h, f"{name}.pwconv2"), name)


def _waveform_block(t: Target[V], x: V, tensors: Tensors, rate: int, name: str) -> V:
    """SnakeBeta, a transposed convolution, three residual units. x [1, C, T] -> [1, C / 2, T * rate]."""
    x = causal_conv_transpose(t, _snake(t, x, tensors, f"{name}.block.0"), tensors, f"{name}.block.1", rate)
    for i, dilation in enumerate(DILATIONS, start=2):
        unit = f"{name}.block.{i}"
        h = causal_conv(t, _snake(t, x, tensors, f"{unit}.act1"), tensors, f"{unit}.conv1", dilation)
        h = causal_conv(t, _snake(t, h, tensors, f"{unit}.act2"), tensors, f"{unit}.conv2")
        x = t.add(x, h, unit)
    return x


def _snake(t: Target[V], x: V, tensors: Tensors, name: str) -> V:
    """SnakeBeta, x + sin²(x e^alpha) / (e^beta + 1e-9); the exponentials are constants. x [1, C, T]."""
    alpha, beta = (np.exp(values_of(tensors, f"{name}.{part}"))[:, None] for part in ("alpha", "beta"))
    frequency = t.constant(alpha, f"{name}.alpha/exp")
    wave = t.sin(t.mul(x, frequency, f"{name}/phase"), f"{name}/wave")
    share: AnyArray = 1 / (beta + np.float32(1e-9))
    square = t.mul(t.mul(wave, wave, f"{name}/square"), t.constant(share, f"{name}.beta/share"), f"{name}/added")
    return t.add(x, square, name)
