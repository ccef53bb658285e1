"""The decoder of ``decoder.py`` on compiled kernels: the same blocks in the same order, many times as fast.

Activations are rows [T, channels] throughout, channels filled up to whole vectors. A stream passes through in blocks of
frames, and every layer keeps what it needs of the past (``pipeline.py``): a whole clip is a stream that ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qwen3tts_np_kernels.activation_jit import Activation, gelu, silu_gate, snake_beta
from qwen3tts_np_kernels.attention_jit import attention
from qwen3tts_np_kernels.conv_jit import (
    Convolution,
    DepthwiseConvolution,
    MonoConvolution,
    conv,
    depthwise_conv,
    mono_conv,
    pack_conv,
    pack_depthwise,
    pack_mono,
    transposed_as_conv,
    width,
)
from qwen3tts_np_kernels.norm_jit import rms_norm
from qwen3tts_np_kernels.threads_jit import Team
from qwen3tts_np_kernels.toom_cook_jit import MinimalFilter, minimal_conv, pack_minimal

from ..checkpoint.keys import load
from ..checkpoint.safetensors import Checkpoint
from ..checkpoint.tables import (
    CodecDecoderWeights,
    ConvNeXtWeights,
    DecoderLayer,
    DecoderQuantizer,
    ResidualUnitWeights,
    SnakeWeights,
    UpsampleWeights,
    WaveformBlockWeights,
    codec_decoder_sizes,
)
from ..config import CodecDecoderConfig
from ..ops import Ints, codebook_entries, layer_norm, lookup, rope_angles, rotate
from .decoder import CHUNK_FRAMES, CONTEXT_FRAMES, CONVNEXT_EPS, DILATIONS
from .pipeline import Block, Stream

F32 = NDArray[np.float32]

# Frames that pass together through the first, the second and the other waveform blocks. At low rates they share a pass
# over many weights, so they should be many; at high rates their activations should stay in the cache: few.
BLOCK_FRAMES = (64, 8, 2)


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
    """The three input projections are one matrix, and so are gate and up. LayerScale is multiplied into the weights."""

    input_layernorm: F32
    qkv: Convolution
    output: Convolution
    post_attention_layernorm: F32
    gate_up: Convolution
    down: Convolution

    @classmethod
    def pack(cls, w: DecoderLayer) -> Layer:
        return cls(
            w.input_layernorm,
            pack_conv(np.concatenate([w.q_proj, w.k_proj, w.v_proj])),
            pack_conv(w.self_attn_layer_scale[:, None] * w.o_proj),
            w.post_attention_layernorm,
            pack_conv(np.concatenate([_whole_vectors(w.gate_proj), _whole_vectors(w.up_proj)])),
            pack_conv(w.mlp_layer_scale[:, None] * w.down_proj),
        )


@dataclass(frozen=True)
class Upsample:
    """A transposed convolution and a ConvNeXt block, gamma multiplied into the last weights."""

    conv: Convolution
    depthwise: DepthwiseConvolution
    norm: F32
    norm_bias: F32
    widen: Convolution
    narrow: Convolution

    @classmethod
    def pack(cls, w: UpsampleWeights, ratio: int) -> Upsample:
        return cls(pack_conv(*transposed_as_conv(w.conv.weight, w.conv.bias, ratio)), *_pack_convnext(w.convnext))


def _pack_convnext(w: ConvNeXtWeights) -> tuple[DepthwiseConvolution, F32, F32, Convolution, Convolution]:
    widen = pack_conv(w.pwconv1, w.pwconv1_bias)
    narrow = pack_conv(w.gamma[:, None] * w.pwconv2, w.gamma * w.pwconv2_bias)
    return pack_depthwise(w.dwconv, w.dwconv_bias), w.norm, w.norm_bias, widen, narrow


@dataclass(frozen=True)
class ResidualUnit:
    snake1: Activation
    conv1: Convolution | MinimalFilter
    snake2: Activation
    conv2: Convolution
    dilation: int

    @property
    def past(self) -> int:
        """Rows it sees before its own."""
        return (self.conv1.taps - 1) * self.dilation

    @classmethod
    def pack(cls, w: ResidualUnitWeights, dilation: int, exact: bool) -> ResidualUnit:
        first = (pack_conv if exact else pack_minimal)(w.conv1.weight, w.conv1.bias)
        second = pack_conv(w.conv2.weight, w.conv2.bias)
        return cls(_pack_snake(w.act1), first, _pack_snake(w.act2), second, dilation)


@dataclass(frozen=True)
class WaveformBlock:
    snake: Activation
    conv: Convolution | MinimalFilter
    rate: int
    units: tuple[ResidualUnit, ...]

    @classmethod
    def pack(cls, w: WaveformBlockWeights, rate: int, exact: bool) -> WaveformBlock:
        units = tuple(ResidualUnit.pack(u, d, exact) for u, d in zip(w.units, DILATIONS, strict=True))
        conv = (pack_conv if exact else pack_minimal)(*transposed_as_conv(w.conv.weight, w.conv.bias, rate))
        return cls(_pack_snake(w.snake), conv, rate, units)


def _pack_snake(w: SnakeWeights) -> Activation:
    return snake_beta(w.alpha, w.beta, width(len(w.alpha)))


def _whole_vectors(matrix: F32) -> F32:
    """[out, in] with rows of zeros up to whole register tiles."""
    return np.pad(matrix, ((0, width(len(matrix)) - len(matrix)), (0, 0)))


def _rows(count: int, w: Convolution | MinimalFilter) -> F32:
    """Room for ``count`` rows that ``w`` makes."""
    return np.empty((count, len(w.bias)), np.float32)


@dataclass(frozen=True)
class FastCodecDecoder:
    """Packed weights, and the threads that use them."""

    config: CodecDecoderConfig
    team: Team
    rvq_first: Quantizer
    rvq_rest: Quantizer
    pre_conv: Convolution
    input_proj: Convolution
    layers: tuple[Layer, ...]
    norm: F32
    output_proj: Convolution
    upsample: tuple[Upsample, ...]
    first_conv: Convolution
    waveform_blocks: tuple[WaveformBlock, ...]
    last_snake: Activation
    last_conv: MonoConvolution

    @classmethod
    def load(cls, checkpoint: Checkpoint, c: CodecDecoderConfig, team: Team, exact: bool = False) -> FastCodecDecoder:
        """Pack the decoder of a checked ``speech_tokenizer`` file."""
        w = load(CodecDecoderWeights, checkpoint, codec_decoder_sizes(c), "decoder.", np.dtype(np.float32))
        transformer = w.pre_transformer
        return cls(
            c,
            team,
            Quantizer.pack(w.rvq_first),
            Quantizer.pack(w.rvq_rest),
            pack_conv(w.pre_conv.weight, w.pre_conv.bias),
            pack_conv(transformer.input_proj, transformer.input_proj_bias),
            tuple(map(Layer.pack, transformer.layers)),
            transformer.norm,
            pack_conv(transformer.output_proj, transformer.output_proj_bias),
            tuple(map(Upsample.pack, w.upsample, c.upsampling_ratios)),
            pack_conv(w.first_conv.weight, w.first_conv.bias),
            tuple(WaveformBlock.pack(b, r, exact) for b, r in zip(w.waveform_blocks, c.upsample_rates, strict=True)),
            _pack_snake(w.last_snake),
            pack_mono(w.last_conv.weight, w.last_conv.bias),
        )

    @property
    def frame_samples(self) -> int:
        return math.prod((*self.config.upsampling_ratios, *self.config.upsample_rates))

    def decode_chunked(self, codes: Ints) -> F32:
        """The official result for any length, as ``decoder.decode_chunked``: codes [T, G] -> waveform [T * samples]."""
        waves = []
        for start in range(0, len(codes), CHUNK_FRAMES):
            context = min(CONTEXT_FRAMES, start)
            waves.append(self.decode(codes[start - context : start + CHUNK_FRAMES])[context * self.frame_samples :])
        return np.concatenate(waves)

    def stream(self) -> tuple[Stream, ...]:
        """The state of a new stream: one for each length of blocks."""
        return tuple(Stream() for _ in BLOCK_FRAMES)

    def decode(self, codes: Ints, past: tuple[Stream, ...] | None = None) -> F32:
        """The next samples of a stream, or of one of its own: codes [T, G] -> waveform [T * samples], -1 to 1."""
        x: NDArray[Any] = codes
        works: tuple[Callable[[Any, Block], F32], ...] = self._first_block, self._second_block, self._other_blocks
        shapes = self._frame_shape(1), self._frame_shape(2), (self.frame_samples,)
        for stream, frames, work, shape in zip(past or self.stream(), BLOCK_FRAMES, works, shapes, strict=True):
            y = np.empty((len(codes), *shape), np.float32)
            stream.run(self.team, x, y, frames, work)
            x = y
        return x.reshape(-1)

    def _frame_shape(self, blocks: int) -> tuple[int, int]:
        """Rows of a frame behind so many waveform blocks, and their width."""
        rows = math.prod((*self.config.upsampling_ratios, *self.config.upsample_rates[:blocks]))
        return rows, len(self.waveform_blocks[blocks - 1].units[-1].conv2.bias)

    def _first_block(self, codes: Ints, block: Block) -> F32:
        """All before the second waveform block, its SnakeBeta included: codes [T, G] -> [T * rows, W / 2]."""
        x = self._pre_transformer(self._split_rvq(codes, block), block)
        for i, (up, ratio) in enumerate(zip(self.upsample, self.config.upsampling_ratios, strict=True)):
            x = _upsample(x, up, ratio, block, f"upsample.{i}")
        past = self.first_conv.taps - 1
        y, a = _rows(len(x), self.first_conv), _rows(1 + len(x), self.first_conv)
        x = block.after_past("first_conv", _behind(past, x), past)
        conv(x, self.first_conv, y, activation=self.waveform_blocks[0].snake, activated=a[1:])
        return self._waveform_block(a, 0, 0, len(codes), block)

    def _second_block(self, a: F32, block: Block) -> F32:
        """[T, rows, W / 2] -> [T * rows, W / 4]."""
        return self._waveform_block(_behind(1, a.reshape(-1, a.shape[2])), 1, 0, len(a), block)

    def _other_blocks(self, a: F32, block: Block) -> F32:
        """[T, rows, W / 4] -> [T * samples]."""
        frames, blocks, past = len(a), len(self.waveform_blocks), len(self.last_conv.weight) - 1
        a = _behind(1, a.reshape(-1, a.shape[2]))
        for i in range(2, blocks):
            a = self._waveform_block(a, i, 1 if i + 1 < blocks else past, frames, block)
        return np.clip(mono_conv(block.after_past("last_conv", a, past), self.last_conv), -1, 1)

    def _waveform_block(self, a: F32, i: int, past: int, frames: int, block: Block) -> F32:
        """[1 + T, C], through this block's SnakeBeta already -> [past + T * rate, C / 2], through that of the next."""
        w, name = self.waveform_blocks[i], f"decoder.{i}"
        snakes = *(b.snake for b in self.waveform_blocks), self.last_snake
        x, columns = _rows(len(a) - 1, w.conv), len(w.units[0].conv2.bias)
        samples = len(x) * w.rate
        now, a = block.after_past(f"{name}.conv", a, 1), np.empty((w.units[0].past + samples, columns), np.float32)
        room = a[w.units[0].past :]
        _filter(now, w.conv, x, frames, 1, w.units[0].snake1.repeated(w.rate), room.reshape(x.shape))
        x = x.reshape(samples, columns)
        readers = *((unit.snake1, unit.past) for unit in w.units[1:]), (snakes[i + 1], past)
        for j, (unit, (snake, past)) in enumerate(zip(w.units, readers, strict=True)):
            now, h = block.after_past(f"{name}.units.{j}", a, unit.past), np.empty_like(x)
            _filter(now, unit.conv1, h, frames, unit.dilation, unit.snake2, h)
            a = np.empty((past + samples, columns), np.float32)
            conv(h, unit.conv2, x, residual=True, activation=snake, activated=a[past:])
        return a

    def _split_rvq(self, codes: Ints, block: Block) -> F32:
        """codes [T, G] -> [T, Z], after the first convolution."""
        x = _rows(self.pre_conv.taps - 1 + len(codes), self.rvq_first.output_proj)
        now = x[self.pre_conv.taps - 1 :]
        conv(lookup(codes[:, :1], self.rvq_first.codebooks), self.rvq_first.output_proj, now)
        conv(lookup(codes[:, 1:], self.rvq_rest.codebooks), self.rvq_rest.output_proj, now, residual=True)
        y = _rows(len(codes), self.pre_conv)
        conv(block.after_past("pre_conv", x, self.pre_conv.taps - 1), self.pre_conv, y)
        return y

    def _pre_transformer(self, x: F32, block: Block) -> F32:
        """[T, Z] -> [T, Z]."""
        c, size = self.config, self.config.hidden_size
        rope = rope_angles(np.arange(block.position, block.position + len(x)), c.head_dim, c.rope_theta)
        h = _rows(len(x), self.input_proj)
        conv(x, self.input_proj, h)
        for i, layer in enumerate(self.layers):
            normed = rms_norm(h[:, :size], layer.input_layernorm, c.rms_norm_eps)
            context = self._attention(normed, layer, rope, block, i)
            conv(context, layer.output, h, residual=True)
            _mlp(rms_norm(h[:, :size], layer.post_attention_layernorm, c.rms_norm_eps), layer, h)
        y = _rows(len(x), self.output_proj)
        conv(rms_norm(h[:, :size], self.norm, c.rms_norm_eps), self.output_proj, y)
        return y

    def _attention(self, x: F32, layer: Layer, rope: tuple[F32, F32], block: Block, i: int) -> F32:
        """[T, H] -> [T, ND], before the output projection."""
        c, t = self.config, len(x)
        heads, kv_heads, d = c.num_attention_heads, c.num_key_value_heads, c.head_dim
        qkv = _rows(t, layer.qkv)
        conv(x, layer.qkv, qkv)
        q, k, v = np.split(qkv[:, : (heads + 2 * kv_heads) * d], [heads * d, (heads + kv_heads) * d], axis=1)
        past = c.sliding_window - 1
        kv = np.empty((past + t, 2, kv_heads, d), np.float32)
        kv[past:, 0] = rotate(k.reshape(t, kv_heads, d), *rope)
        kv[past:, 1] = v.reshape(t, kv_heads, d)
        seen = block.after_past(f"layers.{i}", kv, past)[past - min(past, block.position) :]
        q = rotate(q.reshape(t, heads, d), *rope)
        return attention(q, seen[:, 0], seen[:, 1], c.sliding_window).reshape(t, heads * d)


def _behind(past: int, x: F32) -> F32:
    """x behind room for ``past`` rows."""
    y = np.empty((past + len(x), x.shape[1]), np.float32)
    y[past:] = x
    return y


def _mlp(x: F32, w: Layer, h: F32) -> None:
    """h += SwiGLU of x. x and h [T, H]."""
    gate_up = _rows(len(x), w.gate_up)
    conv(x, w.gate_up, gate_up)
    gated = np.empty((len(x), gate_up.shape[1] // 2), np.float32)
    silu_gate(gate_up, gated)
    conv(gated, w.down, h, residual=True)


def _upsample(x: F32, w: Upsample, ratio: int, block: Block, name: str) -> F32:
    """[T, Z] -> [T * ratio, Z]."""
    past = len(w.depthwise.weight) - 1
    wide = np.empty((past + len(x) * ratio, len(w.narrow.bias)), np.float32)
    y = wide[past:]
    conv(x, w.conv, y.reshape(len(x), -1))
    h = np.empty_like(y)
    depthwise_conv(block.after_past(name, wide, past), w.depthwise, h)
    h = layer_norm(h[:, : len(w.norm)], w.norm, w.norm_bias, CONVNEXT_EPS)
    widened = _rows(len(h), w.widen)
    conv(h, w.widen, widened, activation=gelu, activated=widened)
    conv(widened, w.narrow, y, residual=True)
    return y


def _filter(
    x: F32, w: Convolution | MinimalFilter, y: F32, frames: int, dilation: int, then: Activation, z: F32
) -> None:
    """y = convolution of x, z = then(y), for as many frames."""
    if isinstance(w, MinimalFilter):
        minimal_conv(x, w, y, frame=len(y) // frames, dilation=dilation, activation=then, activated=z)
    else:
        conv(x, w, y, dilation=dilation, activation=then, activated=z)
