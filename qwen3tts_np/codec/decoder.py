"""Codes to waveform: split RVQ, a transformer at the frame rate, then convolutions up to the sample rate.

Official: ``Qwen3TTSTokenizerV2Decoder``. Activations are [T, H] in the transformer and [C, T] in the convolutions; T
counts frames at first and samples at the end. Every block is causal and ``past.py`` keeps the inputs it needs from
earlier frames, so a stream can be decoded in pieces.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from ..checkpoint.keys import Names, Sizes, block, blocks, load, tensor
from ..checkpoint.safetensors import Checkpoint
from ..config import CodecDecoderConfig
from ..conv import Conv, conv_sizes
from ..mlp import GatedMLP, mlp
from ..ops import (
    Array,
    Ints,
    codebook_entries,
    depthwise_conv1d,
    gelu,
    layer_norm,
    linear,
    rms_norm,
    rope_angles,
    snake_beta,
)
from ..trace import Scope, record
from .conv import TransposedConv, next_conv, next_conv_transpose
from .past import Past
from .rvq import DecoderQuantizer, dequantise
from .transformer import AttentionWeights, self_attention

NAME = "speech_tokenizer.decoder"
CHUNK_FRAMES = 300  # new frames per chunk of the official decoder
CONTEXT_FRAMES = 25  # earlier frames decoded again as left context, whose samples are dropped
DILATIONS = (1, 3, 9)  # of the three residual units of a waveform block
CONVNEXT_EPS = 1e-6


@dataclass(frozen=True)
class DecoderMLP(GatedMLP):
    official: ClassVar[Names] = ("Qwen3TTSTokenizerV2DecoderMlp",)


@dataclass(frozen=True)
class DecoderLayer:
    """A layer without q/k norm, with a LayerScale on both residuals."""

    official: ClassVar[Names] = ("Qwen3TTSTokenizerV2DecoderTransformerLayer",)

    input_layernorm: Array = tensor("input_layernorm.weight", "H")
    self_attn: AttentionWeights = block(AttentionWeights, "self_attn")
    self_attn_layer_scale: Array = tensor("self_attn_layer_scale.scale", "H")
    post_attention_layernorm: Array = tensor("post_attention_layernorm.weight", "H")
    mlp: DecoderMLP = block(DecoderMLP, "mlp")
    mlp_layer_scale: Array = tensor("mlp_layer_scale.scale", "H")


@dataclass(frozen=True)
class PreTransformerWeights:
    official: ClassVar[Names] = ("Qwen3TTSTokenizerV2DecoderTransformerModel",)

    input_proj: Array = tensor("input_proj.weight", "H Z")
    input_proj_bias: Array = tensor("input_proj.bias", "H")
    layers: tuple[DecoderLayer, ...] = blocks(DecoderLayer, "layers.{}", "L")
    norm: Array = tensor("norm.weight", "H")
    output_proj: Array = tensor("output_proj.weight", "Z H")
    output_proj_bias: Array = tensor("output_proj.bias", "Z")


@dataclass(frozen=True)
class ConvNeXtWeights:
    official: ClassVar[Names] = ("Qwen3TTSTokenizerV2ConvNeXtBlock",)

    dwconv: Array = tensor("dwconv.conv.weight", "Z 1 7")
    dwconv_bias: Array = tensor("dwconv.conv.bias", "Z")
    norm: Array = tensor("norm.weight", "Z")
    norm_bias: Array = tensor("norm.bias", "Z")
    pwconv1: Array = tensor("pwconv1.weight", "4Z Z")
    pwconv1_bias: Array = tensor("pwconv1.bias", "4Z")
    pwconv2: Array = tensor("pwconv2.weight", "Z 4Z")
    pwconv2_bias: Array = tensor("pwconv2.bias", "Z")
    gamma: Array = tensor("gamma", "Z")


@dataclass(frozen=True)
class UpsampleWeights:
    """One entry of ``decoder.upsample``: a transposed convolution, then a ConvNeXt block."""

    conv: TransposedConv = block(TransposedConv, "0.conv", lambda s: conv_sizes(s["Z"], s["Z"], s["rate"]))
    convnext: ConvNeXtWeights = block(ConvNeXtWeights, "1")


@dataclass(frozen=True)
class SnakeWeights:
    """The parameters of SnakeBeta, both stored as logarithms."""

    official: ClassVar[Names] = ("SnakeBeta",)

    alpha: Array = tensor("alpha", "width")
    beta: Array = tensor("beta", "width")


@dataclass(frozen=True)
class ResidualUnitWeights:
    official: ClassVar[Names] = ("Qwen3TTSTokenizerV2DecoderDecoderResidualUnit",)

    act1: SnakeWeights = block(SnakeWeights, "act1")
    conv1: Conv = block(Conv, "conv1.conv", lambda s: conv_sizes(s["width"], s["width"], 7))
    act2: SnakeWeights = block(SnakeWeights, "act2")
    conv2: Conv = block(Conv, "conv2.conv", lambda s: conv_sizes(s["width"], s["width"], 1))


@dataclass(frozen=True)
class WaveformBlockWeights:
    """SnakeBeta, transposed convolution, units of dilation 1, 3, 9."""

    official: ClassVar[Names] = ("Qwen3TTSTokenizerV2DecoderDecoderBlock",)

    snake: SnakeWeights = block(SnakeWeights, "block.0", lambda s: {"width": s["wide"]})
    conv: TransposedConv = block(
        TransposedConv, "block.1.conv", lambda s: {"in": s["wide"], "out": s["width"], "kernel": 2 * s["rate"]}
    )
    units: tuple[ResidualUnitWeights, ...] = blocks(ResidualUnitWeights, "block.{}", "units", first=2)


@dataclass(frozen=True)
class CodecDecoderWeights:
    """All weights. The last two indices of ``decoder.decoder`` follow the waveform blocks."""

    official: ClassVar[Names] = ("Qwen3TTSTokenizerV2Decoder",)

    rvq_first: DecoderQuantizer = block(DecoderQuantizer, "quantizer.rvq_first", lambda s: {**s, "layers": 1})
    rvq_rest: DecoderQuantizer = block(DecoderQuantizer, "quantizer.rvq_rest", lambda s: {**s, "layers": s["G"] - 1})
    pre_conv: Conv = block(Conv, "pre_conv.conv", lambda s: conv_sizes(s["Z"], s["Q"], 3))
    pre_transformer: PreTransformerWeights = block(PreTransformerWeights, "pre_transformer")
    upsample: tuple[UpsampleWeights, ...] = blocks(
        UpsampleWeights, "upsample.{}", "upsamples", lambda s, i: {**s, "rate": s[f"ratio{i}"]}
    )
    first_conv: Conv = block(Conv, "decoder.0.conv", lambda s: conv_sizes(s["W"], s["Z"], 7))
    waveform_blocks: tuple[WaveformBlockWeights, ...] = blocks(
        WaveformBlockWeights,
        "decoder.{}",
        "waveform_blocks",
        lambda s, i: {"wide": s["W"] >> i, "width": s["W"] >> (i + 1), "rate": s[f"rate{i}"], "units": 3},
        first=1,
    )
    last_snake: SnakeWeights = block(SnakeWeights, "decoder.{snake_at}", lambda s: {"width": s["last"]})
    last_conv: Conv = block(Conv, "decoder.{conv_at}.conv", lambda s: conv_sizes(1, s["last"], 7))


def codec_decoder_sizes(c: CodecDecoderConfig) -> Sizes:
    """The letters of ``CodecDecoderWeights``."""
    n = len(c.upsample_rates)
    return {
        "H": c.hidden_size,
        "F": c.intermediate_size,
        "L": c.num_hidden_layers,
        "ND": c.num_attention_heads * c.head_dim,
        "KD": c.num_key_value_heads * c.head_dim,
        "C": c.codebook_size,
        "G": c.num_quantizers,
        "Q": c.codebook_dim,
        "Q/2": c.codebook_dim // 2,
        "Z": c.latent_dim,
        "4Z": 4 * c.latent_dim,
        "W": c.decoder_dim,
        "upsamples": len(c.upsampling_ratios),
        "waveform_blocks": n,
        "snake_at": n + 1,
        "conv_at": n + 2,
        "last": c.decoder_dim >> n,
        **{f"ratio{i}": ratio for i, ratio in enumerate(c.upsampling_ratios)},
        **{f"rate{i}": rate for i, rate in enumerate(c.upsample_rates)},
    }


@dataclass(frozen=True)
class CodecDecoder:
    """The decoder: its configuration and weights."""

    config: CodecDecoderConfig
    weights: CodecDecoderWeights

    @classmethod
    def load(cls, checkpoint: Checkpoint, c: CodecDecoderConfig, dtype: np.dtype[Any]) -> CodecDecoder:
        """Read it from a checked ``speech_tokenizer`` file; ``dtype`` is the type of all arithmetic."""
        return cls(c, load(CodecDecoderWeights, checkpoint, codec_decoder_sizes(c), "decoder.", dtype))

    @cached_property
    def codebooks(self) -> tuple[Array, ...]:
        """The entries of the G codebooks, each [C, Q/2]."""
        stored = (*self.weights.rvq_first.codebooks, *self.weights.rvq_rest.codebooks)
        return tuple(codebook_entries(b.embedding_sum, b.cluster_usage) for b in stored)


def decode_chunked(codes: Ints, d: CodecDecoder) -> Array:
    """The official result for any length: codes [T, G], T at least 1 -> waveform [T * samples per frame].

    Trap: it decodes 300 frames at a time, each chunk after 25 frames of left context and with positions from 0. From
    frame 300 on, the result therefore differs from :func:`decode` of all frames at once.
    """
    samples = math.prod((*d.config.upsampling_ratios, *d.config.upsample_rates))  # per frame
    waves = []
    for start in range(0, len(codes), CHUNK_FRAMES):
        context = min(CONTEXT_FRAMES, start)
        waves.append(decode(codes[start - context : start + CHUNK_FRAMES], d)[context * samples :])
    return np.concatenate(waves)


def decode_continuous(codes: Ints, d: CodecDecoder, past: Past | None = None) -> Array:
    """All frames of a stream, or those that follow ``past``, without restarts: :func:`decode`, frame by frame.

    The last bits of a matrix product depend on its shape. Here every product has the shape of one frame, so the samples
    are the same bits for any division into calls. They equal those of a single pass up to rounding.
    """
    past = past or Past()
    return np.concatenate([decode(codes[t : t + 1], d, past) for t in range(len(codes))])


def decode(codes: Ints, d: CodecDecoder, past: Past | None = None) -> Array:
    """Decode a clip, or the frames that follow ``past``, in one pass.

    codes [T, G], T at least 1 -> waveform [T * samples per frame], from -1 to 1.
    """
    w, c, past = d.weights, d.config, past or Past()
    x = split_rvq(codes, d)  # [Q, T]
    x = next_conv(x, w.pre_conv, past, f"{NAME}.pre_conv")  # [Z, T]
    x = pre_transformer(x.T, w.pre_transformer, c, past, f"{NAME}.pre_transformer").T  # [Z, T]
    for i, (up, ratio) in enumerate(zip(w.upsample, c.upsampling_ratios, strict=True)):
        x = next_conv_transpose(x, up.conv, ratio, past, f"{NAME}.upsample.{i}.0")  # [Z, T * ratio]
        x = convnext(x, up.convnext, past, f"{NAME}.upsample.{i}.1")
    past.frames += len(codes)
    return waveform(x, w, c, past, f"{NAME}.decoder")


def split_rvq(codes: Ints, d: CodecDecoder) -> Array:
    """The vector of each frame: the entry of code 0 plus those of the other codes. codes [T, G] -> [Q, T]."""
    name, w = f"{NAME}.quantizer", d.weights
    first = dequantise(codes[:, :1], d.codebooks[:1], w.rvq_first.output_proj, f"{name}.rvq_first")
    rest = dequantise(codes[:, 1:], d.codebooks[1:], w.rvq_rest.output_proj, f"{name}.rvq_rest")
    return record(name, first + rest)


def pre_transformer(x: Array, w: PreTransformerWeights, c: CodecDecoderConfig, past: Past, name: str) -> Array:
    """Transformer with a sliding window, between two projections. x [T, Z] -> [T, Z]."""
    t = Scope(name)
    rope = rope_angles(np.arange(past.frames, past.frames + len(x)), c.head_dim, c.rope_theta)
    x = t("input_proj", linear(x, w.input_proj, w.input_proj_bias))  # [T, H]
    for i, layer in enumerate(w.layers):
        x = transformer_layer(x, layer, rope, c, past, f"{name}.layers.{i}")
    x = t("norm", rms_norm(x, w.norm, c.rms_norm_eps))
    return t("output_proj", linear(x, w.output_proj, w.output_proj_bias))


def transformer_layer(
    x: Array, w: DecoderLayer, rope: tuple[Array, Array], c: CodecDecoderConfig, past: Past, name: str
) -> Array:
    """Attention and SwiGLU, both scaled per channel before they are added. x [T, H] -> [T, H]."""
    t = Scope(name)
    h = t("input_layernorm", rms_norm(x, w.input_layernorm, c.rms_norm_eps))
    h = self_attention(h, w.self_attn, rope, c.sliding_window, c, f"{name}.self_attn", past)
    x = t("post_attention_layernorm.input", x + t("self_attn_layer_scale", w.self_attn_layer_scale * h))
    h = t("post_attention_layernorm", rms_norm(x, w.post_attention_layernorm, c.rms_norm_eps))
    return t.output(x + t("mlp_layer_scale", w.mlp_layer_scale * mlp(h, w.mlp, f"{name}.mlp")))


def convnext(x: Array, w: ConvNeXtWeights, past: Past, name: str) -> Array:
    """ConvNeXt block (Liu et al., 2022): depthwise convolution, then a feed-forward per frame. x [Z, T] -> [Z, T]."""
    t, padded = Scope(name), past.padded(name, x, w.dwconv.shape[2] - 1)
    h = t("dwconv", depthwise_conv1d(padded, w.dwconv, w.dwconv_bias))  # [Z, T]
    h = t("norm", layer_norm(h.T, w.norm, w.norm_bias, CONVNEXT_EPS))  # [T, Z]
    h = t("act", gelu(t("pwconv1", linear(h, w.pwconv1, w.pwconv1_bias))))  # [T, 4Z]
    h = t("pwconv2", linear(h, w.pwconv2, w.pwconv2_bias))  # [T, Z]
    return t.output(x + (w.gamma * h).T)


def waveform(x: Array, w: CodecDecoderWeights, c: CodecDecoderConfig, past: Past, name: str) -> Array:
    """Upsample in blocks that halve the channels, then to one channel. x [Z, T] -> [T * product of the rates]."""
    x = next_conv(x, w.first_conv, past, f"{name}.0")  # [W, T]
    for i, (part, rate) in enumerate(zip(w.waveform_blocks, c.upsample_rates, strict=True), start=1):
        x = waveform_block(x, part, rate, past, f"{name}.{i}")  # [W / 2^i, T * rate]
    last = len(w.waveform_blocks) + 1
    x = snake(x, w.last_snake, f"{name}.{last}")
    x = next_conv(x, w.last_conv, past, f"{name}.{last + 1}")  # [1, T]
    return record(NAME, np.clip(x, -1, 1))[0]


def waveform_block(x: Array, w: WaveformBlockWeights, rate: int, past: Past, name: str) -> Array:
    """SnakeBeta, a transposed convolution, three residual units. x [C, T] -> [C / 2, T * rate]."""
    x = snake(x, w.snake, f"{name}.block.0")
    x = next_conv_transpose(x, w.conv, rate, past, f"{name}.block.1")  # [C / 2, T * rate]
    for i, (unit, dilation) in enumerate(zip(w.units, DILATIONS, strict=True), start=2):
        x = residual_unit(x, unit, dilation, past, f"{name}.block.{i}")
    return record(name, x)


def residual_unit(x: Array, w: ResidualUnitWeights, dilation: int, past: Past, name: str) -> Array:
    """x + a dilated convolution and a pointwise one, SnakeBeta before each. x [C, T] -> [C, T]."""
    h = next_conv(snake(x, w.act1, f"{name}.act1"), w.conv1, past, f"{name}.conv1", dilation)
    h = next_conv(snake(h, w.act2, f"{name}.act2"), w.conv2, past, f"{name}.conv2")
    return record(name, x + h)


def snake(x: Array, w: SnakeWeights, name: str) -> Array:
    """SnakeBeta. x [C, T] -> [C, T]."""
    return record(name, snake_beta(x, w.alpha, w.beta))
