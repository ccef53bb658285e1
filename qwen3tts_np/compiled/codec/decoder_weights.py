"""The weights of the codec decoder (``decoder.py``), packed for the compiled kernels.

Matrices that read the same input are merged, and LayerScale and gamma are folded into the weights before them.

At the rate of frames, and in the first convolutions above it, reading the weights takes most of the time of a short
packet. There they may be int16 with a scale per output channel (``conv_jit.py``). The others are always float32: few,
or transformed for minimal filtering, which magnifies what rounding changes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from qwen3tts_np_kernels.activation_jit import Activation, snake_beta
from qwen3tts_np_kernels.conv_jit import (
    Convolution,
    DepthwiseConvolution,
    MonoConvolution,
    WeightFormat,
    pack_conv,
    pack_depthwise,
    pack_mono,
    transposed_as_conv,
    width,
)
from qwen3tts_np_kernels.toom_cook_jit import TWO_TAPS, MinimalFilter, pack_minimal

from ...codec.decoder import (
    DILATIONS,
    CodecDecoderWeights,
    DecoderLayer,
    PreTransformerWeights,
    ResidualUnitWeights,
    SnakeWeights,
    UpsampleWeights,
    WaveformBlockWeights,
)
from ...codec.rvq import DecoderQuantizer
from ...config import CodecDecoderConfig
from ...ops import F32, codebook_entries


@dataclass(frozen=True)
class Quantizer:
    codebooks: tuple[F32, ...]  # of [C, Q/2]
    output_proj: Convolution

    @classmethod
    def pack(cls, w: DecoderQuantizer, weights: WeightFormat) -> Quantizer:
        entries = tuple(codebook_entries(b.embedding_sum, b.cluster_usage) for b in w.codebooks)
        return cls(entries, pack_conv(w.output_proj, None, weights))


@dataclass(frozen=True)
class Layer:
    input_layernorm: F32
    qkv: Convolution
    output: Convolution
    post_attention_layernorm: F32
    gate_up: Convolution
    down: Convolution

    @classmethod
    def pack(cls, w: DecoderLayer, weights: WeightFormat) -> Layer:
        qkv = np.concatenate([w.self_attn.q_proj, w.self_attn.k_proj, w.self_attn.v_proj])
        gate_up = np.concatenate([_whole_vectors(w.mlp.gate_proj), _whole_vectors(w.mlp.up_proj)])
        return cls(
            w.input_layernorm.copy(),
            pack_conv(qkv, None, weights),
            pack_conv(w.self_attn_layer_scale[:, None] * w.self_attn.o_proj, None, weights),
            w.post_attention_layernorm.copy(),
            pack_conv(gate_up, None, weights),
            pack_conv(w.mlp_layer_scale[:, None] * w.mlp.down_proj, None, weights),
        )


def _whole_vectors(matrix: F32) -> F32:
    """[out, in], rows zero-padded to a multiple of the register tile."""
    return np.pad(matrix, ((0, width(len(matrix)) - len(matrix)), (0, 0)))


@dataclass(frozen=True)
class PreTransformer:
    input_proj: Convolution
    layers: tuple[Layer, ...]
    norm: F32
    output_proj: Convolution

    @classmethod
    def pack(cls, w: PreTransformerWeights, weights: WeightFormat) -> PreTransformer:
        first = pack_conv(w.input_proj, w.input_proj_bias, weights)
        last = pack_conv(w.output_proj, w.output_proj_bias, weights)
        return cls(first, tuple(Layer.pack(layer, weights) for layer in w.layers), w.norm.copy(), last)


@dataclass(frozen=True)
class Upsample:
    """A transposed convolution and a ConvNeXt block."""

    conv: Convolution
    depthwise: DepthwiseConvolution
    norm: F32
    norm_bias: F32
    widen: Convolution
    narrow: Convolution

    @classmethod
    def pack(cls, w: UpsampleWeights, ratio: int, weights: WeightFormat) -> Upsample:
        c = w.convnext
        return cls(
            pack_conv(*transposed_as_conv(w.conv.weight, w.conv.bias, ratio), weights),
            pack_depthwise(c.dwconv, c.dwconv_bias),
            c.norm.copy(),
            c.norm_bias.copy(),
            pack_conv(c.pwconv1, c.pwconv1_bias, weights),
            pack_conv(c.gamma[:, None] * c.pwconv2, c.gamma * c.pwconv2_bias, weights),
        )


@dataclass(frozen=True)
class ResidualUnit:
    snake1: Activation
    conv1: Convolution | MinimalFilter
    snake2: Activation
    conv2: Convolution
    dilation: int

    @property
    def past(self) -> int:
        """Rows it reads before its own."""
        return (self.conv1.taps - 1) * self.dilation

    @classmethod
    def pack(cls, w: ResidualUnitWeights, dilation: int, exact: bool) -> ResidualUnit:
        first = (pack_conv if exact else pack_minimal)(w.conv1.weight, w.conv1.bias)
        second = pack_conv(w.conv2.weight, w.conv2.bias)
        return cls(_pack_snake(w.act1), first, _pack_snake(w.act2), second, dilation)


@dataclass(frozen=True)
class WaveformBlock:
    conv: Convolution | MinimalFilter
    rate: int
    units: tuple[ResidualUnit, ...]

    @classmethod
    def pack(cls, w: WaveformBlockWeights, rows: int, rate: int, exact: bool, weights: WeightFormat) -> WaveformBlock:
        """Pack a block with ``rows`` input rows and ``rows * rate`` output rows per frame."""
        spread = transposed_as_conv(w.conv.weight, w.conv.bias, rate)
        # A short frame fills no tile: minimal filtering would save little, and its weights take three times the space.
        short = rows < TWO_TAPS.results
        conv = pack_conv(*spread, weights if short else "float32") if exact or short else pack_minimal(*spread)
        units = tuple(ResidualUnit.pack(u, d, exact) for u, d in zip(w.units, DILATIONS, strict=True))
        return cls(conv, rate, units)


def _pack_snake(w: SnakeWeights) -> Activation:
    return snake_beta(w.alpha, w.beta, width(len(w.alpha)))


@dataclass(frozen=True)
class CompiledDecoderWeights:
    """All of ``CodecDecoderWeights``."""

    rvq_first: Quantizer
    rvq_rest: Quantizer
    pre_conv: Convolution
    pre_transformer: PreTransformer
    upsample: tuple[Upsample, ...]
    first_conv: Convolution
    waveform_blocks: tuple[WaveformBlock, ...]
    snakes: tuple[Activation, ...]  # before each waveform block, and before the last convolution
    last_conv: MonoConvolution

    @classmethod
    def pack(
        cls, w: CodecDecoderWeights, c: CodecDecoderConfig, exact: bool, weights: WeightFormat = "float32"
    ) -> CompiledDecoderWeights:
        """``exact``: sum tap by tap everywhere, without minimal filtering. ``weights``: where few rows share them."""
        rows = [math.prod((*c.upsampling_ratios, *c.upsample_rates[:i])) for i in range(len(c.upsample_rates))]
        blocks = zip(w.waveform_blocks, rows, c.upsample_rates, strict=True)
        return cls(
            Quantizer.pack(w.rvq_first, weights),
            Quantizer.pack(w.rvq_rest, weights),
            pack_conv(w.pre_conv.weight, w.pre_conv.bias, weights),
            PreTransformer.pack(w.pre_transformer, weights),
            tuple(Upsample.pack(u, ratio, weights) for u, ratio in zip(w.upsample, c.upsampling_ratios, strict=True)),
            pack_conv(w.first_conv.weight, w.first_conv.bias, weights),
            tuple(WaveformBlock.pack(block, count, rate, exact, weights) for block, count, rate in blocks),
            tuple(map(_pack_snake, (*(block.snake for block in w.waveform_blocks), w.last_snake))),
            pack_mono(w.last_conv.weight, w.last_conv.bias),
        )
