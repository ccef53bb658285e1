"""The weights of the codec decoder (``decoder.py``), packed for the compiled kernels.

Matrices that read the same input are merged, and LayerScale and gamma are folded into the weights before them.
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
    def pack(cls, w: DecoderQuantizer) -> Quantizer:
        entries = tuple(codebook_entries(b.embedding_sum, b.cluster_usage) for b in w.codebooks)
        return cls(entries, pack_conv(w.output_proj))


@dataclass(frozen=True)
class Layer:
    input_layernorm: F32
    qkv: Convolution
    output: Convolution
    post_attention_layernorm: F32
    gate_up: Convolution
    down: Convolution

    @classmethod
    def pack(cls, w: DecoderLayer) -> Layer:
        return cls(
            w.input_layernorm.copy(),
            pack_conv(np.concatenate([w.self_attn.q_proj, w.self_attn.k_proj, w.self_attn.v_proj])),
            pack_conv(w.self_attn_layer_scale[:, None] * w.self_attn.o_proj),
            w.post_attention_layernorm.copy(),
            pack_conv(np.concatenate([_whole_vectors(w.mlp.gate_proj), _whole_vectors(w.mlp.up_proj)])),
            pack_conv(w.mlp_layer_scale[:, None] * w.mlp.down_proj),
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
    def pack(cls, w: PreTransformerWeights) -> PreTransformer:
        first, last = pack_conv(w.input_proj, w.input_proj_bias), pack_conv(w.output_proj, w.output_proj_bias)
        return cls(first, tuple(map(Layer.pack, w.layers)), w.norm.copy(), last)


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
    def pack(cls, w: UpsampleWeights, ratio: int) -> Upsample:
        c = w.convnext
        return cls(
            pack_conv(*transposed_as_conv(w.conv.weight, w.conv.bias, ratio)),
            pack_depthwise(c.dwconv, c.dwconv_bias),
            c.norm.copy(),
            c.norm_bias.copy(),
            pack_conv(c.pwconv1, c.pwconv1_bias),
            pack_conv(c.gamma[:, None] * c.pwconv2, c.gamma * c.pwconv2_bias),
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
    def pack(cls, w: WaveformBlockWeights, rows: int, rate: int, exact: bool) -> WaveformBlock:
        """Pack a block with ``rows`` input rows and ``rows * rate`` output rows per frame."""
        # A short frame fills no tile: minimal filtering would save little, and its weights take three times the space.
        pack = pack_conv if exact or rows < TWO_TAPS.results else pack_minimal
        conv = pack(*transposed_as_conv(w.conv.weight, w.conv.bias, rate))
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
    def pack(cls, w: CodecDecoderWeights, c: CodecDecoderConfig, exact: bool) -> CompiledDecoderWeights:
        """``exact``: sum tap by tap everywhere, without minimal filtering."""
        rows = [math.prod((*c.upsampling_ratios, *c.upsample_rates[:i])) for i in range(len(c.upsample_rates))]
        blocks = zip(w.waveform_blocks, rows, c.upsample_rates, strict=True)
        return cls(
            Quantizer.pack(w.rvq_first),
            Quantizer.pack(w.rvq_rest),
            pack_conv(w.pre_conv.weight, w.pre_conv.bias),
            PreTransformer.pack(w.pre_transformer),
            tuple(map(Upsample.pack, w.upsample, c.upsampling_ratios)),
            pack_conv(w.first_conv.weight, w.first_conv.bias),
            tuple(WaveformBlock.pack(block, count, rate, exact) for block, count, rate in blocks),
            tuple(map(_pack_snake, (*(block.snake for block in w.waveform_blocks), w.last_snake))),
            pack_mono(w.last_conv.weight, w.last_conv.bias),
        )
