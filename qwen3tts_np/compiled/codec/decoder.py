"""The decoder of ``decoder.py`` on compiled kernels: the same blocks in the same order.

Activations are rows [T, channels] throughout, channels zero-padded. A stream is processed in blocks of frames, and
every layer keeps the past inputs it needs (``pipeline.py``); a complete clip is a stream that ends. The wide
convolutions use minimal filtering (``toom_cook_jit.py``), unless ``exact``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qwen3tts_np_kernels.activation_jit import GELU, Activation, silu_gate
from qwen3tts_np_kernels.attention_jit import attention
from qwen3tts_np_kernels.conv_jit import Convolution, conv, depthwise_conv, mono_conv
from qwen3tts_np_kernels.norm_jit import rms_norm
from qwen3tts_np_kernels.threads_jit import Team
from qwen3tts_np_kernels.toom_cook_jit import MinimalFilter, minimal_conv

from ...checkpoint.keys import load
from ...checkpoint.safetensors import Checkpoint
from ...codec.decoder import CHUNK_FRAMES, CONTEXT_FRAMES, CONVNEXT_EPS, CodecDecoderWeights, codec_decoder_sizes
from ...config import CodecDecoderConfig
from ...ops import F32, Ints, layer_norm, lookup, rope_angles, rotate
from .decoder_weights import CompiledDecoderWeights, Layer, Upsample
from .packed import read_packed_decoder
from .pipeline import Block, Stream

# Frames per block in the layers up to the first waveform block, in the second, and in the others. At low rates frames
# share a pass over many weights, so a block should be long; at high rates its activations should stay in the cache, so
# it should be short.
BLOCK_FRAMES = (64, 8, 2)


@dataclass(frozen=True)
class CompiledCodecDecoder:
    """The packed weights of the decoder and the engine that runs them."""

    config: CodecDecoderConfig
    weights: CompiledDecoderWeights
    team: Team

    @classmethod
    def load(
        cls, checkpoint: Checkpoint, c: CodecDecoderConfig, team: Team, exact: bool = False
    ) -> CompiledCodecDecoder:
        """The decoder of a checked ``speech_tokenizer`` file: mapped where it is packed beside it, or packed now.

        ``exact`` doubles the time and brings the waveform from within 1e-5 of the reference to within 2e-6.
        """
        if not exact and (ready := read_packed_decoder(checkpoint)) is not None:
            return cls(c, ready, team)
        w = load(CodecDecoderWeights, checkpoint, codec_decoder_sizes(c), "decoder.", np.dtype(np.float32))
        return cls(c, CompiledDecoderWeights.pack(w, c, exact), team)

    def decode_chunked(self, codes: Ints) -> F32:
        """The official result for any length, as ``decoder.decode_chunked``: codes [T, G] -> waveform [T * samples]."""
        waves = []
        for start in range(0, len(codes), CHUNK_FRAMES):
            context = min(CONTEXT_FRAMES, start)
            waves.append(self.decode(codes[start - context : start + CHUNK_FRAMES])[context * self._samples :])
        return np.concatenate(waves)

    def stream(self) -> tuple[Stream, ...]:
        """The state of a new stream."""
        return tuple(Stream() for _ in BLOCK_FRAMES)

    def decode(self, codes: Ints, past: tuple[Stream, ...] | None = None) -> F32:
        """codes [T, G] -> waveform [T * samples], -1 to 1: a complete clip, or the next frames of the stream ``past``.

        The samples of a stream are the same bits for any division into calls.
        """
        x: NDArray[Any] = codes
        works: tuple[Callable[[Any, Block], F32], ...]
        works = self._up_to_first_block, self._second_block, self._from_third_block
        shapes = self._behind_block(0), self._behind_block(1), (self._samples,)
        for stream, frames, work, shape in zip(past or self.stream(), BLOCK_FRAMES, works, shapes, strict=True):
            y = np.empty((len(codes), *shape), np.float32)
            stream.run(self.team, x, y, frames, work)
            x = y
        return x.reshape(-1)

    @property
    def _samples(self) -> int:
        """Samples per frame."""
        return math.prod((*self.config.upsampling_ratios, *self.config.upsample_rates))

    def _behind_block(self, i: int) -> tuple[int, int]:
        """Rows per frame after waveform block i, and values per row."""
        rows = math.prod((*self.config.upsampling_ratios, *self.config.upsample_rates[: i + 1]))
        return rows, len(self.weights.waveform_blocks[i].units[-1].conv2.bias)

    def _up_to_first_block(self, codes: Ints, block: Block) -> F32:
        """codes [T, G] -> [T * rows, W / 2]."""
        w = self.weights
        x = self._pre_transformer(self._split_rvq(codes, block), block)
        for i, (up, ratio) in enumerate(zip(w.upsample, self.config.upsampling_ratios, strict=True)):
            x = _upsample(x, up, ratio, block, f"upsample.{i}")
        past = w.first_conv.taps - 1
        y, a = _rows(len(x), w.first_conv), _rows(1 + len(x), w.first_conv)
        x = block.after_past("first_conv", _behind(past, x), past)
        conv(x, w.first_conv, y, activation=w.snakes[0], activated=a[1:])
        return self._waveform_block(a, 0, 0, len(codes), block)

    def _second_block(self, a: F32, block: Block) -> F32:
        """[T, rows, W / 2] -> [T * rows, W / 4]."""
        return self._waveform_block(_behind(1, a.reshape(-1, a.shape[2])), 1, 0, len(a), block)

    def _from_third_block(self, a: F32, block: Block) -> F32:
        """[T, rows, W / 4] -> [T * samples]."""
        w, frames = self.weights, len(a)
        a, end, past = _behind(1, a.reshape(-1, a.shape[2])), len(w.waveform_blocks), len(w.last_conv.weight) - 1
        for i in range(2, end):
            a = self._waveform_block(a, i, 1 if i + 1 < end else past, frames, block)
        return np.clip(mono_conv(block.after_past("last_conv", a, past), w.last_conv), -1, 1)

    def _split_rvq(self, codes: Ints, block: Block) -> F32:
        """Dequantisation and the first convolution: codes [T, G] -> [T, Z]."""
        w, past = self.weights, self.weights.pre_conv.taps - 1
        x = _rows(past + len(codes), w.rvq_first.output_proj)
        conv(lookup(codes[:, :1], w.rvq_first.codebooks), w.rvq_first.output_proj, x[past:])
        conv(lookup(codes[:, 1:], w.rvq_rest.codebooks), w.rvq_rest.output_proj, x[past:], residual=True)
        y = _rows(len(codes), w.pre_conv)
        conv(block.after_past("pre_conv", x, past), w.pre_conv, y)
        return y

    def _pre_transformer(self, x: F32, block: Block) -> F32:
        """[T, Z] -> [T, Z]."""
        w, c, size = self.weights.pre_transformer, self.config, self.config.hidden_size
        rope = rope_angles(np.arange(block.position, block.position + len(x)), c.head_dim, c.rope_theta)
        y = _rows(len(x), w.input_proj)
        conv(x, w.input_proj, y)
        for i, layer in enumerate(w.layers):
            h = rms_norm(y[:, :size], layer.input_layernorm, c.rms_norm_eps)
            conv(self._attention(h, layer, rope, block, f"layers.{i}"), layer.output, y, residual=True)
            h = rms_norm(y[:, :size], layer.post_attention_layernorm, c.rms_norm_eps)
            conv(_gated(h, layer), layer.down, y, residual=True)
        x = _rows(len(x), w.output_proj)
        conv(rms_norm(y[:, :size], w.norm, c.rms_norm_eps), w.output_proj, x)
        return x

    def _attention(self, x: F32, w: Layer, rope: tuple[Any, Any], block: Block, name: str) -> F32:
        """[T, H] -> [T, ND], before the output projection."""
        c, t = self.config, len(x)
        heads, kv_heads, d = c.num_attention_heads, c.num_key_value_heads, c.head_dim
        qkv = _rows(t, w.qkv)
        conv(x, w.qkv, qkv)
        q, k, v = np.split(qkv[:, : (heads + 2 * kv_heads) * d], [heads * d, (heads + kv_heads) * d], axis=1)
        past = c.sliding_window - 1
        kv = np.empty((past + t, 2, kv_heads, d), np.float32)
        kv[past:, 0] = rotate(k.reshape(t, kv_heads, d), *rope)
        kv[past:, 1] = v.reshape(t, kv_heads, d)
        seen = block.after_past(name, kv, past)[past - min(past, block.position) :]
        q = np.asarray(rotate(q.reshape(t, heads, d), *rope), np.float32)
        return attention(q, seen[:, 0], seen[:, 1], c.sliding_window).reshape(t, heads * d)

    def _waveform_block(self, a: F32, i: int, past: int, frames: int, block: Block) -> F32:
        """[1 + T, C] -> [past + T * rate, C / 2]; SnakeBeta of the layer that reads them is already applied to both.

        The first rows are space for the past: in x for this block, in the result for the next.
        """
        w, name = self.weights.waveform_blocks[i], f"decoder.{i}"
        x, columns = _rows(len(a) - 1, w.conv), len(w.units[0].conv2.bias)
        samples = len(x) * w.rate
        now, a = block.after_past(f"{name}.conv", a, 1), np.empty((w.units[0].past + samples, columns), np.float32)
        here = a[w.units[0].past :].reshape(x.shape)
        _causal(now, w.conv, x, frames, 1, w.units[0].snake1.repeated(w.rate), here)
        x = x.reshape(samples, columns)
        readers = *((unit.snake1, unit.past) for unit in w.units[1:]), (self.weights.snakes[i + 1], past)
        for j, (unit, (snake, past)) in enumerate(zip(w.units, readers, strict=True)):
            now, h = block.after_past(f"{name}.units.{j}", a, unit.past), np.empty_like(x)
            _causal(now, unit.conv1, h, frames, unit.dilation, unit.snake2, h)
            a = np.empty((past + samples, columns), np.float32)
            conv(h, unit.conv2, x, residual=True, activation=snake, activated=a[past:])
        return a


def _causal(
    x: F32, w: Convolution | MinimalFilter, y: F32, frames: int, dilation: int, then: Activation, activated: F32
) -> None:
    """y = convolution of the rows of ``frames`` frames, activated = then(y)."""
    if isinstance(w, MinimalFilter):
        minimal_conv(x, w, y, frame=len(y) // frames, dilation=dilation, activation=then, activated=activated)
    else:
        conv(x, w, y, dilation=dilation, activation=then, activated=activated)


def _gated(x: F32, w: Layer) -> F32:
    """[T, H] -> [T, F], before the down projection."""
    gate_up = _rows(len(x), w.gate_up)
    conv(x, w.gate_up, gate_up)
    y = np.empty((len(x), gate_up.shape[1] // 2), np.float32)
    silu_gate(gate_up, y)
    return y


def _upsample(x: F32, w: Upsample, ratio: int, block: Block, name: str) -> F32:
    """[T, Z] -> [T * ratio, Z]."""
    past = len(w.depthwise.weight) - 1
    room = np.empty((past + len(x) * ratio, len(w.narrow.bias)), np.float32)
    y = room[past:]
    conv(x, w.conv, y.reshape(len(x), -1))
    h, wide = np.empty_like(y), _rows(len(y), w.widen)
    depthwise_conv(block.after_past(name, room, past), w.depthwise, h)
    h = np.asarray(layer_norm(h[:, : len(w.norm)], w.norm, w.norm_bias, CONVNEXT_EPS), np.float32)
    conv(h, w.widen, wide, activation=GELU)
    conv(wide, w.narrow, y, residual=True)
    return y


def _rows(count: int, w: Convolution | MinimalFilter) -> F32:
    """A buffer for ``count`` output rows of ``w``."""
    return np.empty((count, len(w.bias)), np.float32)


def _behind(past: int, x: F32) -> F32:
    """x after space for ``past`` rows."""
    y = np.empty((past + len(x), x.shape[1]), np.float32)
    y[past:] = x
    return y
