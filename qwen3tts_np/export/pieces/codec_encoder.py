"""The codec encoder: a clip's codes.

As ``codec/encoder.py``. In: ``waveform`` [samples] at the codec's rate, of any length. Out: ``encoder.quantizer``
[frames, G], the codes, frames = ceil(samples / samples per frame). Nothing is carried: a clip is encoded whole.
"""

from __future__ import annotations

import math

from ...codec.encoder import DOWNSAMPLE_STRIDE
from ...config import CodecEncoderConfig
from ...ops import Array
from ..target import Target, V
from ..weights import Tensors
from .attention import by_head, context, heads_of, rope_angles, rotated
from .codebooks import entries_of
from .layouts import channels_of, rows_of

NAME = "encoder"


def build(t: Target[V], c: CodecEncoderConfig, groups: int, tensors: Tensors) -> None:
    wave = t.input("waveform", ["samples"])
    x = t.reshape(wave, [1, 1, -1], f"{NAME}.encoder.input")
    x = _seanet(t, x, c, tensors, f"{NAME}.encoder.layers")  # [1, H, T] at 25 Hz
    x = channels_of(t, _transformer(t, rows_of(t, x, f"{NAME}.encoder"), c, f"{NAME}.encoder_transformer"), NAME)
    x = _downsample(t, x, tensors, f"{NAME}.downsample")  # [1, H, T] at 12.5 Hz
    codes = _quantised(t, x, 1, tensors, f"{NAME}.quantizer.semantic_residual_vector_quantizer")
    codes += _quantised(t, x, groups - 1, tensors, f"{NAME}.quantizer.acoustic_residual_vector_quantizer")
    t.output(t.concat(codes, 1, f"{NAME}.quantizer"), f"{NAME}.quantizer", ["encoded_frames", groups], "int64")


def _seanet(t: Target[V], x: V, c: CodecEncoderConfig, tensors: Tensors, name: str) -> V:
    """Strided convolutions, each doubling the channels. x [1, 1, samples] -> [1, H, T]."""
    x = _conv(t, x, tensors, f"{name}.0")
    for i, ratio in enumerate(reversed(c.upsampling_ratios)):
        unit = f"{name}.{3 * i + 1}"
        h = _conv(t, t.elu(x, f"{unit}.block.0"), tensors, f"{unit}.block.1")
        h = _conv(t, t.elu(h, f"{unit}.block.2"), tensors, f"{unit}.block.3")
        x = t.elu(t.add(x, h, unit), f"{name}.{3 * i + 2}")
        x = _conv(t, x, tensors, f"{name}.{3 * i + 3}", ratio)
    last = 3 * len(c.upsampling_ratios) + 1
    return _conv(t, t.elu(x, f"{name}.{last}"), tensors, f"{name}.{last + 1}")


def _conv(t: Target[V], x: V, tensors: Tensors, name: str, stride: int = 1) -> V:
    """A causal convolution. x [1, in, T] -> [1, out, ceil(T / stride)].

    Behind the clip there are as many zeros as the last output can need, stride - 1: where it needs fewer, the others
    are not enough for one more. So the graph does not depend on the length.
    """
    taps = tensors[f"{name}.conv.weight"].shape[2]
    if (taps, stride) != (1, 1):
        x = t.pad(x, 2, taps - stride, stride - 1, f"{name}/padded", mode="constant")
    return t.conv1d(x, t.weight(f"{name}.conv.weight"), t.weight(f"{name}.conv.bias"), name, stride=stride)


def _transformer(t: Target[V], x: V, c: CodecEncoderConfig, name: str) -> V:
    """All layers, with no norm after the last. x [T, H] -> [T, H]."""
    positions = t.indices(x, 0, f"{name}/positions")
    rope, mask = rope_angles(t, positions, c, name), _causal_mask(t, positions, name)
    for i in range(c.num_hidden_layers):
        x = _layer(t, x, rope, mask, c, f"{name}.layers.{i}")
    return x


def _causal_mask(t: Target[V], positions: V, name: str) -> V:
    """0 where a position sees another, -inf elsewhere: [T, T]. Trap: the sliding window is not applied."""
    keys, queries = t.expand_dims(positions, 0, f"{name}/row"), t.expand_dims(positions, 1, f"{name}/column")
    return t.where(t.less_equal(keys, queries, f"{name}/visible"), 0.0, -math.inf, f"{name}/causal_mask")


def _layer(t: Target[V], x: V, rope: tuple[V, V], mask: V, c: CodecEncoderConfig, name: str) -> V:
    """Attention and a GELU feed-forward, both scaled per channel before they are added. x [T, H]."""
    h = t.layer_norm(x, f"{name}.input_layernorm", c.norm_eps)
    h = _self_attention(t, h, rope, mask, c, f"{name}.self_attn")
    h = t.mul(h, t.weight(f"{name}.self_attn_layer_scale.scale"), f"{name}.self_attn_layer_scale")
    x = t.add(x, h, f"{name}.post_attention_layernorm.input")
    h = t.layer_norm(x, f"{name}.post_attention_layernorm", c.norm_eps)
    h = t.linear(t.gelu(t.linear(h, f"{name}.mlp.fc1"), f"{name}.mlp.activation_fn"), f"{name}.mlp.fc2")
    h = t.mul(h, t.weight(f"{name}.mlp_layer_scale.scale"), f"{name}.mlp_layer_scale")
    return t.add(x, h, name)


def _self_attention(t: Target[V], x: V, rope: tuple[V, V], mask: V, c: CodecEncoderConfig, name: str) -> V:
    q = heads_of(t, t.linear(x, f"{name}.q_proj"), c.num_attention_heads, c, f"{name}.q_proj")
    k = heads_of(t, t.linear(x, f"{name}.k_proj"), c.num_key_value_heads, c, f"{name}.k_proj")
    v = heads_of(t, t.linear(x, f"{name}.v_proj"), c.num_key_value_heads, c, f"{name}.v_proj")
    q, k = rotated(t, q, rope, c, f"{name}.q_rot"), rotated(t, k, rope, c, f"{name}.k_rot")
    keys, values = by_head(t, k, f"{name}.k_rot"), by_head(t, v, f"{name}.v_proj")
    return t.linear(context(t, q, keys, values, mask, c, name), f"{name}.o_proj")


def _downsample(t: Target[V], x: V, tensors: Tensors, name: str) -> V:
    """Halve the frame rate, padding with the first and the last frame. x [1, H, T] -> [1, H, ceil(T / 2)]."""
    taps, stride = tensors[f"{name}.conv.weight"].shape[2], DOWNSAMPLE_STRIDE
    x = t.pad(x, 2, taps - stride, stride - 1, f"{name}/padded", mode="edge")
    return t.conv1d(x, t.weight(f"{name}.conv.weight"), None, name, stride=stride)


def _quantised(t: Target[V], x: V, count: int, tensors: Tensors, name: str) -> list[V]:
    """The nearest entry of each codebook to the residual of those before it. x [1, H, T] -> codes, [T, 1] each."""
    if f"{name}.input_proj.weight" in tensors:
        x = t.conv1d(x, t.weight(f"{name}.input_proj.weight"), None, f"{name}.input_proj")
    residual, codes = rows_of(t, x, f"{name}.input_proj"), []  # [T, E]
    for i in range(count):
        layer = f"{name}.layers.{i}"
        entries = entries_of(tensors, f"{layer}.codebook", "embed_sum")  # [C, E]
        table = t.constant(entries, f"{layer}.codebook")
        ids = t.argmax(_nearness(t, residual, table, entries, layer), 1, f"{layer}.codes")  # [T]
        codes.append(t.expand_dims(ids, 1, f"{layer}/column"))
        if i < count - 1:
            residual = t.sub(residual, t.gather(table, ids, 0, f"{layer}/quantized"), f"{layer}/residual")
    return codes


def _nearness(t: Target[V], x: V, table: V, entries: Array, name: str) -> V:
    """Minus the distance of every frame to every entry, with the clamp and the root of ``nearest``: [T, C].

    Rounded as there, because where two entries are equally near this rounding decides.
    """
    products = t.matmul(
        t.mul(x, -2.0, f"{name}/doubled"), t.transpose(table, [1, 0], f"{name}/columns"), f"{name}/products"
    )
    squares = t.constant((entries * entries).sum(axis=1), f"{name}.codebook/squares")  # [C]
    own = t.sum(t.mul(x, x, f"{name}/square"), 1, f"{name}/squares")  # [T, 1]
    total = t.add(t.add(products, own, f"{name}/with_own"), squares, f"{name}/with_all")
    return t.mul(t.sqrt(t.maximum(total, 0.0, f"{name}/clamped"), f"{name}/distances"), -1.0, f"{name}/nearness")
