"""Codes to waveform: split RVQ, a transformer at the frame rate, then convolutions up to the sample rate.

Official: ``Qwen3TTSTokenizerV2Decoder``. Activations are [T, H] in the transformer and [C, T] in the convolutions; T
counts frames at first and samples at the end. Every block is causal. Of a stream's past it needs only what ``past``
keeps (``past.py``), so a stream may be decoded piece by piece.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..checkpoint.keys import load
from ..checkpoint.safetensors import Checkpoint
from ..checkpoint.tables import (
    CodecDecoderWeights,
    ConvNeXtWeights,
    DecoderLayer,
    PreTransformerWeights,
    ResidualUnitWeights,
    SnakeWeights,
    WaveformBlockWeights,
    codec_decoder_sizes,
)
from ..config import CodecDecoderConfig
from ..mlp import mlp
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
from ..trace import record
from .conv import next_conv, next_conv_transpose
from .past import Past
from .rvq import dequantise
from .transformer import self_attention

NAME = "speech_tokenizer.decoder"
CHUNK_FRAMES = 300  # the official decoder reads this many new frames at a time,
CONTEXT_FRAMES = 25  # and before them up to this many old ones, whose samples it drops
DILATIONS = (1, 3, 9)  # of the three residual units of a waveform block
CONVNEXT_EPS = 1e-6


@dataclass(frozen=True)
class CodecDecoder:
    """The weights of the decoder, with the codebook entries worked out."""

    config: CodecDecoderConfig
    weights: CodecDecoderWeights
    codebooks: tuple[Array, ...]  # G of [C, Q/2]

    @classmethod
    def load(cls, checkpoint: Checkpoint, c: CodecDecoderConfig, dtype: np.dtype[Any]) -> CodecDecoder:
        """Read it from a checked ``speech_tokenizer`` file; ``dtype`` is that of all its arithmetic."""
        w = load(CodecDecoderWeights, checkpoint, codec_decoder_sizes(c), "decoder.", dtype)
        stored = (*w.rvq_first.codebooks, *w.rvq_rest.codebooks)
        return cls(c, w, tuple(codebook_entries(b.embedding_sum, b.cluster_usage) for b in stored))


def decode_chunked(codes: Ints, d: CodecDecoder) -> Array:
    """The official result for any length: codes [T, G], T at least 1 -> waveform [T * samples a frame].

    Trap: it decodes 300 frames at a time, each chunk after 25 frames of left context and with positions from 0. So
    from frame 300 on it is not what :func:`decode` makes of all frames at once.
    """
    samples = math.prod((*d.config.upsampling_ratios, *d.config.upsample_rates))  # a frame
    waves = []
    for start in range(0, len(codes), CHUNK_FRAMES):
        context = min(CONTEXT_FRAMES, start)
        waves.append(decode(codes[start - context : start + CHUNK_FRAMES], d)[context * samples :])
    return np.concatenate(waves)


def decode_continuous(codes: Ints, d: CodecDecoder, past: Past | None = None) -> Array:
    """All frames of a stream, or those that follow ``past``, without restarts: as :func:`decode`, frame by frame.

    The last bits of a matrix product depend on its shape. Here every product is that of one frame, so the samples are
    the same to the last bit in however many calls they are made. They are those of one pass up to rounding.
    """
    past = past or Past()
    return np.concatenate([decode(codes[t : t + 1], d, past) for t in range(len(codes))])


def decode(codes: Ints, d: CodecDecoder, past: Past | None = None) -> Array:
    """One pass over a clip, or over what follows ``past``.

    codes [T, G], T at least 1 -> waveform [T * samples a frame], from -1 to 1.
    """
    w, c, past = d.weights, d.config, past or Past()
    x = split_rvq(codes, d)  # [Q, T]
    x = next_conv(x, w.pre_conv, past, f"{NAME}.pre_conv")  # [Z, T]
    record(f"{NAME}.pre_conv", x)
    x = pre_transformer(x.T, w.pre_transformer, c, past, f"{NAME}.pre_transformer").T  # [Z, T]
    for i, (up, ratio) in enumerate(zip(w.upsample, c.upsampling_ratios, strict=True)):
        x = next_conv_transpose(x, up.conv, ratio, past, f"{NAME}.upsample.{i}.0")  # [Z, T * ratio]
        x = convnext(x, up.convnext, past, f"{NAME}.upsample.{i}.1")
    past.frames += len(codes)
    return waveform(x, w, c, past, f"{NAME}.decoder")


def split_rvq(codes: Ints, d: CodecDecoder) -> Array:
    """The vector of each frame: what code 0 stands for plus what the others do. codes [T, G] -> [Q, T]."""
    name = f"{NAME}.quantizer"
    x = dequantise(codes[:, :1], d.codebooks[:1], d.weights.rvq_first.output_proj, f"{name}.rvq_first")
    x = x + dequantise(codes[:, 1:], d.codebooks[1:], d.weights.rvq_rest.output_proj, f"{name}.rvq_rest")
    record(name, x)
    return x


def pre_transformer(x: Array, w: PreTransformerWeights, c: CodecDecoderConfig, past: Past, name: str) -> Array:
    """Transformer with a sliding window, between two projections. x [T, Z] -> [T, Z]."""
    rope = rope_angles(np.arange(past.frames, past.frames + len(x)), c.head_dim, c.rope_theta)
    x = linear(x, w.input_proj, w.input_proj_bias)  # [T, H]
    record(f"{name}.input_proj", x)
    for i, layer in enumerate(w.layers):
        x = transformer_layer(x, layer, rope, c, past, f"{name}.layers.{i}")
    x = rms_norm(x, w.norm, c.rms_norm_eps)
    record(f"{name}.norm", x)
    x = linear(x, w.output_proj, w.output_proj_bias)  # [T, Z]
    record(f"{name}.output_proj", x)
    return x


def transformer_layer(
    x: Array, w: DecoderLayer, rope: tuple[Array, Array], c: CodecDecoderConfig, past: Past, name: str
) -> Array:
    """Attention and SwiGLU, both scaled per channel before they are added. x [T, H] -> [T, H]."""
    h = rms_norm(x, w.input_layernorm, c.rms_norm_eps)
    record(f"{name}.input_layernorm", h)
    h = w.self_attn_layer_scale * self_attention(h, w, rope, c.sliding_window, c, f"{name}.self_attn", past)
    record(f"{name}.self_attn_layer_scale", h)
    x = x + h
    record(f"{name}.post_attention_layernorm.input", x)
    h = rms_norm(x, w.post_attention_layernorm, c.rms_norm_eps)
    record(f"{name}.post_attention_layernorm", h)
    h = w.mlp_layer_scale * mlp(h, w, f"{name}.mlp")
    record(f"{name}.mlp_layer_scale", h)
    x = x + h
    record(name, x)
    return x


def convnext(x: Array, w: ConvNeXtWeights, past: Past, name: str) -> Array:
    """A depthwise convolution, then a feed-forward on every frame. x [Z, T] -> [Z, T]. Liu et al., 2022."""
    h = depthwise_conv1d(past.padded(name, x, w.dwconv.shape[2] - 1), w.dwconv, w.dwconv_bias)  # [Z, T]
    record(f"{name}.dwconv", h)
    h = layer_norm(h.T, w.norm, w.norm_bias, CONVNEXT_EPS)  # [T, Z]
    record(f"{name}.norm", h)
    h = linear(h, w.pwconv1, w.pwconv1_bias)  # [T, 4Z]
    record(f"{name}.pwconv1", h)
    h = gelu(h)
    record(f"{name}.act", h)
    h = linear(h, w.pwconv2, w.pwconv2_bias)  # [T, Z]
    record(f"{name}.pwconv2", h)
    x = x + (w.gamma * h).T
    record(name, x)
    return x


def waveform(x: Array, w: CodecDecoderWeights, c: CodecDecoderConfig, past: Past, name: str) -> Array:
    """Upsample, halving the channels each time, until one is left. x [Z, T] -> [T * product of the rates]."""
    x = next_conv(x, w.first_conv, past, f"{name}.0")  # [W, T]
    record(f"{name}.0", x)
    for i, (block, rate) in enumerate(zip(w.waveform_blocks, c.upsample_rates, strict=True), start=1):
        x = waveform_block(x, block, rate, past, f"{name}.{i}")  # [W / 2^i, T * rate]
    last = len(w.waveform_blocks) + 1
    x = snake(x, w.last_snake, f"{name}.{last}")
    x = next_conv(x, w.last_conv, past, f"{name}.{last + 1}")  # [1, T]
    record(f"{name}.{last + 1}", x)
    x = np.clip(x, -1, 1)
    record(NAME, x)
    return x[0]


def waveform_block(x: Array, w: WaveformBlockWeights, rate: int, past: Past, name: str) -> Array:
    """SnakeBeta, a transposed convolution, three residual units. x [C, T] -> [C / 2, T * rate]."""
    x = snake(x, w.snake, f"{name}.block.0")
    x = next_conv_transpose(x, w.conv, rate, past, f"{name}.block.1")  # [C / 2, T * rate]
    for i, (unit, dilation) in enumerate(zip(w.units, DILATIONS, strict=True), start=2):
        x = residual_unit(x, unit, dilation, past, f"{name}.block.{i}")
    record(name, x)
    return x


def residual_unit(x: Array, w: ResidualUnitWeights, dilation: int, past: Past, name: str) -> Array:
    """x + a dilated convolution and a pointwise one, SnakeBeta before each. x [C, T] -> [C, T]."""
    h = next_conv(snake(x, w.act1, f"{name}.act1"), w.conv1, past, f"{name}.conv1", dilation)
    record(f"{name}.conv1", h)
    h = next_conv(snake(h, w.act2, f"{name}.act2"), w.conv2, past, f"{name}.conv2")
    record(f"{name}.conv2", h)
    x = x + h
    record(name, x)
    return x


def snake(x: Array, w: SnakeWeights, name: str) -> Array:
    """SnakeBeta. x [C, T] -> [C, T]."""
    x = snake_beta(x, w.alpha, w.beta)
    record(name, x)
    return x
