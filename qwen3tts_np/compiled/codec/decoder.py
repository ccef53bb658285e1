"""The decoder of ``decoder.py`` on compiled kernels: the same blocks in the same order.

Activations are rows [T, channels] throughout, channels zero-padded. Streams are processed in blocks of frames, and
every layer keeps the past inputs it needs (``pipeline.py``); a complete clip is a stream that ends. The wide
convolutions use minimal filtering (``toom_cook_jit.py``), unless ``exact``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from qwen3tts_np_kernels.activation_jit import GELU, Activation, silu_gate
from qwen3tts_np_kernels.attention_jit import HEAD_STEP, POSITIONS, window_attention
from qwen3tts_np_kernels.conv_jit import Convolution, WeightFormat, conv, depthwise_conv, mono_conv
from qwen3tts_np_kernels.norm_jit import rms_norm
from qwen3tts_np_kernels.team import Team
from qwen3tts_np_kernels.toom_cook_jit import MinimalFilter, minimal_conv

from ...checkpoint.keys import load
from ...checkpoint.safetensors import Checkpoint
from ...codec.decoder import CHUNK_FRAMES, CONTEXT_FRAMES, CONVNEXT_EPS, CodecDecoderWeights, codec_decoder_sizes
from ...config import CodecDecoderConfig
from ...ops import F32, AnyArray, Ints, layer_norm, lookup, rope_angles, rotate
from .decoder_weights import CompiledDecoderWeights, Layer, Upsample
from .packed import read_packed_decoder
from .pipeline import Block, Room, Stream, run

# Frames per block in the layers up to the first waveform block, in the second, and in the others. At low rates frames
# share a pass over many weights, so a block should be long; at high rates its activations should stay in the cache, so
# it should be short.
BLOCK_FRAMES = (64, 8, 2)
# With fewer frames than these per thread, all threads compute one block together.
FEWEST_FRAMES = (16, 4, 2)


@dataclass(frozen=True)
class CompiledCodecDecoder:
    """The packed weights of the decoder and the engine that runs them."""

    config: CodecDecoderConfig
    weights: CompiledDecoderWeights
    team: Team

    @classmethod
    def load(
        cls,
        checkpoint: Checkpoint,
        c: CodecDecoderConfig,
        team: Team,
        exact: bool = False,
        weights: WeightFormat = "float32",
    ) -> CompiledCodecDecoder:
        """The decoder of a checked ``speech_tokenizer`` file: mapped where it is packed beside it, or packed now.

        ``weights``: their format where they are packed now (``decoder_weights.py``); a packed file has its own.
        ``exact`` doubles the time and brings the waveform from within 1e-5 of the reference to within 2e-6.
        """
        if not exact and (ready := read_packed_decoder(checkpoint)) is not None:
            return cls(c, ready, team)
        w = load(CodecDecoderWeights, checkpoint, codec_decoder_sizes(c), "decoder.", np.dtype(np.float32))
        return cls(c, CompiledDecoderWeights.pack(w, c, exact, weights), team)

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
        return self.decode_together([codes], [past or self.stream()])[0]

    def decode_together(self, codes: Sequence[Ints], pasts: Sequence[tuple[Stream, ...]]) -> list[F32]:
        """The next frames [T, G] of several streams in one pass over the weights -> the waveform of each.

        The samples of each are the same bits in any company.
        """
        lengths = [len(one) for one in codes]
        x: AnyArray = np.concatenate(codes)
        works: tuple[Callable[[Any, Block], F32], ...]
        works = self._up_to_first_block, self._second_block, self._from_third_block
        shapes = self._behind_block(0), self._behind_block(1), (self._samples,)
        stages = zip(zip(*pasts, strict=True), BLOCK_FRAMES, FEWEST_FRAMES, works, shapes, strict=True)
        for streams, frames, fewest, work, shape in stages:
            y = np.empty((len(x), *shape), np.float32)
            run(streams, lengths, self.team, x, y, frames, work, fewest)
            x = y
        return [wave.reshape(-1) for wave in np.split(x, np.cumsum(lengths)[:-1])]

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
        x = _after(block, w.first_conv.taps - 1, x).read("first_conv")
        count = int(block.rows.sum()) * math.prod(self.config.upsampling_ratios)
        y, a = _rows(count, w.first_conv), block.room(1, count, len(w.first_conv.bias))
        conv(x, w.first_conv, y, activation=w.snakes[0], activated=a.rows, signals=block.signals(count), run=block.run)
        return self._waveform_block(a, 0, 0, block).rows

    def _second_block(self, a: F32, block: Block) -> F32:
        """[T, rows, W / 2] -> [T * rows, W / 4]."""
        return self._waveform_block(_after(block, 1, a.reshape(-1, a.shape[2])), 1, 0, block).rows

    def _from_third_block(self, a: F32, block: Block) -> F32:
        """[T, rows, W / 4] -> [T * samples]."""
        w, past = self.weights, len(self.weights.last_conv.weight) - 1
        now, end = _after(block, 1, a.reshape(-1, a.shape[2])), len(w.waveform_blocks)
        for i in range(2, end):
            now = self._waveform_block(now, i, 1 if i + 1 < end else past, block)
        waves = [mono_conv(x, w.last_conv) for x in block.split(now.read("last_conv"), past)]
        return np.clip(np.concatenate(waves), -1, 1)

    def _split_rvq(self, codes: Ints, block: Block) -> F32:
        """Dequantisation and the first convolution: codes [T, G] -> [T, Z]."""
        w = self.weights
        x = block.room(w.pre_conv.taps - 1, len(codes), len(w.rvq_first.output_proj.bias))
        conv(lookup(codes[:, :1], w.rvq_first.codebooks), w.rvq_first.output_proj, x.rows, run=block.run)
        conv(lookup(codes[:, 1:], w.rvq_rest.codebooks), w.rvq_rest.output_proj, x.rows, residual=True, run=block.run)
        y = _rows(len(codes), w.pre_conv)
        conv(x.read("pre_conv"), w.pre_conv, y, signals=block.rows, run=block.run)
        return y

    def _pre_transformer(self, x: F32, block: Block) -> F32:
        """[T, Z] -> [T, Z]."""
        w, c, size = self.weights.pre_transformer, self.config, self.config.hidden_size
        positions = [np.arange(part.position, part.position + part.rows) for part in block.parts]
        rope = rope_angles(np.concatenate(positions), c.head_dim, c.rope_theta)
        y = _rows(len(x), w.input_proj)
        conv(x, w.input_proj, y, run=block.run)
        for i, layer in enumerate(w.layers):
            h = rms_norm(y[:, :size], layer.input_layernorm, c.rms_norm_eps)
            conv(self._attention(h, layer, rope, block, f"layers.{i}"), layer.output, y, residual=True, run=block.run)
            h = rms_norm(y[:, :size], layer.post_attention_layernorm, c.rms_norm_eps)
            conv(_gated(h, layer, block), layer.down, y, residual=True, run=block.run)
        x = _rows(len(x), w.output_proj)
        conv(rms_norm(y[:, :size], w.norm, c.rms_norm_eps), w.output_proj, x, run=block.run)
        return x

    def _attention(self, x: F32, w: Layer, rope: tuple[Any, Any], block: Block, name: str) -> F32:
        """[T, H] -> [T, ND], before the output projection."""
        c, t = self.config, len(x)
        heads, kv_heads, d = c.num_attention_heads, c.num_key_value_heads, c.head_dim
        qkv = _rows(t, w.qkv)
        conv(x, w.qkv, qkv, run=block.run)
        q, k, v = np.split(qkv[:, : (heads + 2 * kv_heads) * d], [heads * d, (heads + kv_heads) * d], axis=1)
        wide = -(-d // HEAD_STEP) * HEAD_STEP
        kv = block.room(c.sliding_window - 1, t, 2, kv_heads, wide, behind=POSITIONS)
        queries, y = np.zeros((2, t, heads, wide), np.float32)
        queries[..., :d] = rotate(q.reshape(t, heads, d), *rope)
        kv.rows[..., d:] = 0
        kv.rows[:, 0, :, :d] = rotate(k.reshape(t, kv_heads, d), *rope)
        kv.rows[:, 1, :, :d] = v.reshape(t, kv_heads, d)
        seen = block.split(kv.read(name), kv.past)
        for part, ours, theirs, result in zip(block.parts, block.split(queries), seen, block.split(y), strict=True):
            theirs = theirs[kv.past - min(kv.past, part.position) :]
            window_attention(ours, theirs, result, d, c.sliding_window, block.run)
        return np.ascontiguousarray(y[..., :d]).reshape(t, heads * d)

    def _waveform_block(self, a: Room, i: int, past: int, block: Block) -> Room:
        """[T, C] -> [T * rate, C / 2] with room for ``past`` rows; SnakeBeta of the reader is applied to both."""
        w, name = self.weights.waveform_blocks[i], f"decoder.{i}"
        x, columns = _rows(len(a.rows), w.conv), len(w.units[0].conv2.bias)
        samples = len(x) * w.rate
        now, a = a.read(f"{name}.conv"), block.room(w.units[0].past, samples, columns)
        _causal(now, w.conv, x, block, 1, w.units[0].snake1.repeated(w.rate), a.rows.reshape(x.shape))
        x = x.reshape(samples, columns)
        readers = *((unit.snake1, unit.past) for unit in w.units[1:]), (self.weights.snakes[i + 1], past)
        for j, (unit, (snake, past)) in enumerate(zip(w.units, readers, strict=True)):
            now, h = a.read(f"{name}.units.{j}"), np.empty_like(x)
            _causal(now, unit.conv1, h, block, unit.dilation, unit.snake2, h)
            a = block.room(past, samples, columns)
            conv(h, unit.conv2, x, residual=True, activation=snake, activated=a.rows, run=block.run)
        return a


def _causal(
    x: F32, w: Convolution | MinimalFilter, y: F32, block: Block, dilation: int, then: Activation, activated: F32
) -> None:
    """y = convolution of the rows of a block, activated = then(y)."""
    how: dict[str, Any] = {"activation": then, "activated": activated, "signals": block.signals(len(y))}
    if isinstance(w, MinimalFilter):
        minimal_conv(x, w, y, frame=len(y) // int(block.rows.sum()), dilation=dilation, **how, run=block.run)
    else:
        conv(x, w, y, dilation=dilation, **how, run=block.run)


def _gated(x: F32, w: Layer, block: Block) -> F32:
    """[T, H] -> [T, F], before the down projection."""
    gate_up = _rows(len(x), w.gate_up)
    conv(x, w.gate_up, gate_up, run=block.run)
    y = np.empty((len(x), gate_up.shape[1] // 2), np.float32)
    silu_gate(gate_up, y)
    return y


def _upsample(x: F32, w: Upsample, ratio: int, block: Block, name: str) -> F32:
    """[T, Z] -> [T * ratio, Z]."""
    past = len(w.depthwise.weight) - 1
    room = block.room(past, len(x) * ratio, len(w.narrow.bias))
    y = room.rows
    conv(x, w.conv, y.reshape(len(x), -1), run=block.run)
    h, wide = np.empty_like(y), _rows(len(y), w.widen)
    for before, after in zip(block.split(room.read(name), past), block.split(h), strict=True):
        depthwise_conv(before, w.depthwise, after)
    h = np.asarray(layer_norm(h[:, : len(w.norm)], w.norm, w.norm_bias, CONVNEXT_EPS), np.float32)
    conv(h, w.widen, wide, activation=GELU, run=block.run)
    conv(wide, w.narrow, y, residual=True, run=block.run)
    return y


def _rows(count: int, w: Convolution | MinimalFilter) -> F32:
    """A buffer for ``count`` output rows of ``w``."""
    return np.empty((count, len(w.bias)), np.float32)


def _after(block: Block, past: int, x: F32) -> Room:
    """The rows x with room for ``past`` others."""
    room = block.room(past, *x.shape)
    room.rows[:] = x
    return room
