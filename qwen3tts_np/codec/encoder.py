"""Waveform to codes: SEANet down to 25 frames per second, a transformer, a convolution to 12.5, split RVQ.

Official: ``Qwen3TTSTokenizerV2Encoder``, that is ``MimiModel.encode`` (Défossez et al., 2024). Activations are [C, T]
in the convolutions and [T, H] in the transformer; T counts samples at first and frames at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from ..checkpoint.keys import Names, Sizes, block, blocks, load, tensor
from ..checkpoint.safetensors import Checkpoint
from ..config import CodecEncoderConfig
from ..conv import Conv, conv_sizes
from ..ops import Array, Ints, codebook_entries, conv1d, elu, gelu, layer_norm, linear, rope_angles
from ..trace import Scope, record
from .conv import causal_conv, pad_causal
from .rvq import EncoderQuantizer, quantise
from .transformer import AttentionWeights, self_attention

NAME = "speech_tokenizer.encoder"
DOWNSAMPLE_STRIDE = 2  # a constant in the official code, whatever the rates are


@dataclass(frozen=True)
class SEANetStage:
    """A residual unit (``MimiResnetBlock``), then a strided convolution that doubles the channels."""

    narrow: Conv = block(
        Conv, "{unit_at}.block.1.conv", lambda s: conv_sizes(s["inner"], s["width"], s["residual_kernel"])
    )
    widen: Conv = block(Conv, "{unit_at}.block.3.conv", lambda s: conv_sizes(s["width"], s["inner"], 1))
    down: Conv = block(Conv, "{down_at}.conv", lambda s: conv_sizes(2 * s["width"], s["width"], 2 * s["ratio"]))


@dataclass(frozen=True)
class SEANetWeights:
    """Weights of SEANet. Every third index is a residual unit; the ELUs between them occupy the other indices."""

    official: ClassVar[Names] = ("MimiEncoder",)

    first: Conv = block(Conv, "0.conv", lambda s: conv_sizes(s["filters"], 1, s["kernel"]))
    stages: tuple[SEANetStage, ...] = blocks(
        SEANetStage,
        "",
        "stages",
        lambda s, i: {
            "unit_at": 1 + 3 * i,
            "down_at": 3 + 3 * i,
            "width": s["filters"] << i,
            "inner": (s["filters"] << i) // s["compress"],
            "residual_kernel": s["residual_kernel"],
            "ratio": s[f"ratio{i}"],
        },
    )
    last: Conv = block(
        Conv, "{last_at}.conv", lambda s: conv_sizes(s["H"], s["filters"] << s["stages"], s["last_kernel"])
    )


@dataclass(frozen=True)
class EncoderLayer:
    """A layer with LayerNorm, an ungated GELU MLP and a LayerScale on both residuals."""

    official: ClassVar[Names] = ("MimiTransformerLayer",)

    input_layernorm: Array = tensor("input_layernorm.weight", "H")
    input_layernorm_bias: Array = tensor("input_layernorm.bias", "H")
    self_attn: AttentionWeights = block(AttentionWeights, "self_attn")
    self_attn_layer_scale: Array = tensor("self_attn_layer_scale.scale", "H")
    post_attention_layernorm: Array = tensor("post_attention_layernorm.weight", "H")
    post_attention_layernorm_bias: Array = tensor("post_attention_layernorm.bias", "H")
    fc1: Array = tensor("mlp.fc1.weight", "F H")
    fc2: Array = tensor("mlp.fc2.weight", "H F")
    mlp_layer_scale: Array = tensor("mlp_layer_scale.scale", "H")


@dataclass(frozen=True)
class DownsampleConv:
    weight: Array = tensor("weight", "H H down_kernel")


@dataclass(frozen=True)
class CodecEncoderWeights:
    """All weights. All quantisers of the file are included; the model uses the first G codes."""

    official: ClassVar[Names] = ("Qwen3TTSTokenizerV2Encoder",)

    seanet: SEANetWeights = block(SEANetWeights, "encoder.layers")
    layers: tuple[EncoderLayer, ...] = blocks(EncoderLayer, "encoder_transformer.layers.{}", "L")
    downsample: DownsampleConv = block(DownsampleConv, "downsample.conv")
    semantic: EncoderQuantizer = block(
        EncoderQuantizer, "quantizer.semantic_residual_vector_quantizer", lambda s: {**s, "layers": 1}
    )
    acoustic: EncoderQuantizer = block(
        EncoderQuantizer, "quantizer.acoustic_residual_vector_quantizer", lambda s: {**s, "layers": s["quantizers"] - 1}
    )


def codec_encoder_sizes(c: CodecEncoderConfig) -> Sizes:
    """The letters of ``CodecEncoderWeights``."""
    strides = tuple(reversed(c.upsampling_ratios))  # the file lists them in the decoder's order
    return {
        "H": c.hidden_size,
        "F": c.intermediate_size,
        "L": c.num_hidden_layers,
        "ND": c.num_attention_heads * c.head_dim,
        "KD": c.num_key_value_heads * c.head_dim,
        "C": c.codebook_size,
        "E": c.codebook_dim,
        "quantizers": c.num_quantizers,
        "projects": int(c.codebook_dim != c.hidden_size),
        "down_kernel": 2 * c.downsample_stride,
        "filters": c.num_filters,
        "kernel": c.kernel_size,
        "residual_kernel": c.residual_kernel_size,
        "last_kernel": c.last_kernel_size,
        "compress": c.compress,
        "stages": len(strides),
        "last_at": 3 * len(strides) + 2,
        **{f"ratio{i}": stride for i, stride in enumerate(strides)},
    }


@dataclass(frozen=True)
class CodecEncoder:
    """The encoder: its configuration and weights."""

    config: CodecEncoderConfig
    weights: CodecEncoderWeights
    groups: int  # codebooks in use [G]; the file holds more, and a frame keeps its first G codes

    @classmethod
    def load(cls, checkpoint: Checkpoint, c: CodecEncoderConfig, groups: int, dtype: np.dtype[Any]) -> CodecEncoder:
        """Read it from a checked ``speech_tokenizer`` file; ``dtype`` is the type of all arithmetic."""
        return cls(c, load(CodecEncoderWeights, checkpoint, codec_encoder_sizes(c), "encoder.", dtype), groups)

    @cached_property
    def codebooks(self) -> tuple[Array, ...]:
        """The entries of the G codebooks, each [C, E]."""
        stored = (*self.weights.semantic.codebooks, *self.weights.acoustic.codebooks)[: self.groups]
        return tuple(codebook_entries(b.embed_sum, b.cluster_usage) for b in stored)


def encode(wave: Array, e: CodecEncoder) -> Ints:
    """Encode a clip. wave [samples], at least one -> codes [ceil(samples / samples per frame), G]."""
    w = e.weights
    x = seanet(wave[None], w.seanet, e.config, f"{NAME}.encoder.layers")  # [H, T] at 25 Hz
    x = transformer(x.T, w.layers, e.config, f"{NAME}.encoder_transformer").T
    x = record(f"{NAME}.downsample", downsample(x, w.downsample.weight))  # [H, T] at 12.5 Hz
    return split_rvq(x, e)


def seanet(x: Array, w: SEANetWeights, c: CodecEncoderConfig, name: str) -> Array:
    """Strided convolutions, each doubling the channels. x [1, samples] -> [H, T]."""
    t = Scope(name)
    x = t("0", causal_conv(x, w.first))  # [filters, samples]
    for i, (stage, ratio) in enumerate(zip(w.stages, reversed(c.upsampling_ratios), strict=True)):
        x = seanet_stage(x, stage, ratio, name, 3 * i + 1)
    last = 3 * len(w.stages) + 1
    x = t(f"{last}", elu(x))
    return t(f"{last + 1}", causal_conv(x, w.last))


def seanet_stage(x: Array, w: SEANetStage, ratio: int, name: str, at: int) -> Array:
    """A residual unit, then ELU and a convolution of stride ``ratio``, at three indices from ``at``.

    x [C, T] -> [2C, ceil(T / ratio)].
    """
    t, unit = Scope(name), Scope(f"{name}.{at}")
    h = unit("block.1", causal_conv(unit("block.0", elu(x)), w.narrow))  # [C / compress, T]
    h = unit("block.3", causal_conv(unit("block.2", elu(h)), w.widen))  # [C, T]
    x = unit.output(x + h)
    return t(f"{at + 2}", causal_conv(t(f"{at + 1}", elu(x)), w.down, stride=ratio))


def transformer(x: Array, layers: tuple[EncoderLayer, ...], c: CodecEncoderConfig, name: str) -> Array:
    """All layers, with no norm after the last. x [T, H] -> [T, H]."""
    rope = rope_angles(np.arange(len(x)), c.head_dim, c.rope_theta)
    for i, layer in enumerate(layers):
        x = transformer_layer(x, layer, rope, c, f"{name}.layers.{i}")
    return x


def transformer_layer(x: Array, w: EncoderLayer, rope: tuple[Array, Array], c: CodecEncoderConfig, name: str) -> Array:
    """Attention and a GELU feed-forward, both scaled per channel before they are added. x [T, H] -> [T, H]."""
    t = Scope(name)
    h = t("input_layernorm", layer_norm(x, w.input_layernorm, w.input_layernorm_bias, c.norm_eps))
    # Trap: the configuration has a sliding window, but the official code does not apply it.
    h = self_attention(h, w.self_attn, rope, None, c, f"{name}.self_attn")
    x = t("post_attention_layernorm.input", x + t("self_attn_layer_scale", w.self_attn_layer_scale * h))
    h = layer_norm(x, w.post_attention_layernorm, w.post_attention_layernorm_bias, c.norm_eps)
    h = mlp(t("post_attention_layernorm", h), w, f"{name}.mlp")
    return t.output(x + t("mlp_layer_scale", w.mlp_layer_scale * h))


def mlp(x: Array, w: EncoderLayer, name: str) -> Array:
    """Feed-forward with GELU. x [T, H] -> [T, H]."""
    t = Scope(name)
    h = t("activation_fn", gelu(t("fc1", linear(x, w.fc1))))  # [T, F]
    return t("fc2", linear(h, w.fc2))


def downsample(x: Array, weight: Array) -> Array:
    """Halve the frame rate. Trap: unlike all other convolutions, it pads with its first and last frame and has no bias.

    x [H, T] -> [H, ceil(T / 2)].
    """
    return conv1d(pad_causal(x, weight.shape[2], DOWNSAMPLE_STRIDE, mode="edge"), weight, stride=DOWNSAMPLE_STRIDE)


def split_rvq(x: Array, e: CodecEncoder, given: Ints | None = None) -> Ints:
    """Code 0 from one quantiser, the others from a second one on the same x. x [H, T] -> codes [T, G].

    ``given`` codes [T, G] replace the nearest ones.
    """
    name, w = f"{NAME}.quantizer", e.weights
    first, rest = (None, None) if given is None else (given[:, :1], given[:, 1:])
    semantic = quantise(x, e.codebooks[:1], w.semantic.input_proj, f"{name}.semantic_residual_vector_quantizer", first)
    acoustic = quantise(x, e.codebooks[1:], w.acoustic.input_proj, f"{name}.acoustic_residual_vector_quantizer", rest)
    return np.concatenate([semantic, acoustic], axis=1)
