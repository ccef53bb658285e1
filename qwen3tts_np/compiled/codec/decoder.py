"""The decoder of ``decoder.py`` on compiled kernels: the same blocks in the same order.

Activations are rows [T, channels] throughout, channels zero-padded. Streams are processed in blocks of frames, and
every layer keeps the past inputs it needs (``pipeline.py``); a complete clip is a stream that ends. The wide
convolutions use minimal filtering (``toom_cook_jit.py``), unless ``exact``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from qwen3tts_np_kernels.activation_jit import GELU, Activation, silu_gate
from qwen3tts_np_kernels.attention_jit import HEAD_STEP, POSITIONS, window_attention
from qwen3tts_np_kernels.conv_jit import Convolution, WeightFormat, conv, depthwise_conv, mono_conv
from qwen3tts_np_kernels.norm_jit import layer_norm_rows, rms_norm_rows
from qwen3tts_np_kernels.rope_jit import rotate_into
from qwen3tts_np_kernels.rows_jit import copy_rows
from qwen3tts_np_kernels.rvq_jit import look_up
from qwen3tts_np_kernels.team import Team
from qwen3tts_np_kernels.toom_cook_jit import MinimalFilter, minimal_conv

from ...checkpoint.keys import load
from ...checkpoint.safetensors import Checkpoint
from ...codec.decoder import CHUNK_FRAMES, CONTEXT_FRAMES, CONVNEXT_EPS, CodecDecoderWeights, codec_decoder_sizes
from ...config import CodecDecoderConfig
from ...ops import F32, I64, AnyArray, Ints, rope_angles
from .decoder_weights import CompiledDecoderWeights, Layer, Upsample
from .packed import read_packed_decoder
from .passes import Passes, Work
from .pipeline import Block, Room, Stream, run

# Frames per block in the layers up to the first waveform block, in the second, and in the others. At low rates frames
# share a pass over many weights, so a block should be long; at high rates its activations should stay in the cache, so
# it should be short.
BLOCK_FRAMES = (64, 8, 2)
# With fewer frames than these per thread, all threads compute one block together.
FEWEST_FRAMES = (16, 4, 2)
THREADS = 4  # at most, that count for this


class _Stage(NamedTuple):
    """Layers that are computed in blocks of the same number of frames."""

    work: Work
    block_frames: int
    fewest_frames: int
    shape: tuple[int, ...]  # of its result, for a frame


@dataclass(frozen=True)
class CompiledCodecDecoder:
    """The packed weights of the decoder and the engine that runs them."""

    config: CodecDecoderConfig
    weights: CompiledDecoderWeights
    team: Team
    passes: Passes = field(default_factory=Passes)

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
        x: AnyArray = np.concatenate(codes).astype(np.int64, copy=False)
        if x.size and not 0 <= x.min() <= x.max() < self.config.codebook_size:
            raise ValueError(f"codes {x.min()} to {x.max()}: expected 0 to {self.config.codebook_size - 1}")

        def few(stage: tuple[_Stage, Any]) -> bool:
            return 0 < len(x) < stage[0].fewest_frames * min(self.team.size, THREADS)

        for together, group in groupby(zip(self._stages, zip(*pasts, strict=True), strict=True), few):
            stages, streams = zip(*group, strict=True)
            if together:
                x = self.passes.run([stage.work for stage in stages], streams, lengths, self.team, x)
                continue
            for stage, past in zip(stages, streams, strict=True):
                y = np.empty((len(x), *stage.shape), np.float32)
                run(past, lengths, self.team, x, y, stage.block_frames, stage.work)
                x = y
        return [wave.reshape(-1) for wave in np.split(x, np.cumsum(lengths)[:-1])]

    @property
    def _stages(self) -> list[_Stage]:
        works: list[Work] = [self._up_to_first_block, self._second_block, self._from_third_block]
        shapes = self._behind_block(0), self._behind_block(1), (self._samples,)
        return [_Stage(*stage) for stage in zip(works, BLOCK_FRAMES, FEWEST_FRAMES, shapes, strict=True)]

    @property
    def _samples(self) -> int:
        """Samples per frame."""
        return math.prod((*self.config.upsampling_ratios, *self.config.upsample_rates))

    def _behind_block(self, i: int) -> tuple[int, int]:
        """Rows per frame after waveform block i, and values per row."""
        rows = math.prod((*self.config.upsampling_ratios, *self.config.upsample_rates[: i + 1]))
        return rows, len(self.weights.waveform_blocks[i].units[-1].conv2.bias)

    def _up_to_first_block(self, codes: I64, block: Block) -> F32:
        """codes [T, G] -> [T * rows, W / 2]."""
        w = self.weights
        x = self._pre_transformer(self._split_rvq(codes, block), block)
        for i, (up, ratio) in enumerate(zip(w.upsample, self.config.upsampling_ratios, strict=True)):
            x = _upsample(x, up, ratio, block, f"upsample.{i}")
        x = _after(block, w.first_conv.taps - 1, x).read("first_conv")
        count = int(block.rows.sum()) * math.prod(self.config.upsampling_ratios)
        y, a = _rows(count, w.first_conv, block), block.room(1, count, len(w.first_conv.bias))
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
        y = block.run.empty(len(now.rows))
        for x, wave in zip(block.split(now.read("last_conv"), past), block.split(y), strict=True):
            mono_conv(x, w.last_conv, wave, block.run)
        return y

    def _split_rvq(self, codes: I64, block: Block) -> F32:
        """Dequantisation and the first convolution: codes [T, G] -> [T, Z]."""
        w = self.weights
        x = block.room(w.pre_conv.taps - 1, len(codes), len(w.rvq_first.output_proj.bias))
        first, rest = w.rvq_first, w.rvq_rest
        conv(look_up(codes, 0, first.codebooks, block.run), first.output_proj, x.rows, run=block.run)
        conv(look_up(codes, 1, rest.codebooks, block.run), rest.output_proj, x.rows, residual=True, run=block.run)
        y = _rows(len(codes), w.pre_conv, block)
        conv(x.read("pre_conv"), w.pre_conv, y, signals=block.rows, run=block.run)
        return y

    def _pre_transformer(self, x: F32, block: Block) -> F32:
        """[T, Z] -> [T, Z]."""
        w, c = self.weights.pre_transformer, self.config
        places = block.known(partial(_places, window=c.sliding_window, head_dim=c.head_dim, theta=c.rope_theta))
        y = _rows(len(x), w.input_proj, block)
        conv(x, w.input_proj, y, run=block.run)
        for i, layer in enumerate(w.layers):
            h = rms_norm_rows(y, layer.input_layernorm, c.rms_norm_eps, block.run)
            a = self._attention(h, layer, places, block, f"layers.{i}")
            conv(a, layer.output, y, residual=True, run=block.run)
            h = rms_norm_rows(y, layer.post_attention_layernorm, c.rms_norm_eps, block.run)
            conv(_gated(h, layer, block), layer.down, y, residual=True, run=block.run)
        x = _rows(len(x), w.output_proj, block)
        conv(rms_norm_rows(y, w.norm, c.rms_norm_eps, block.run), w.output_proj, x, run=block.run)
        return x

    def _attention(self, x: F32, w: Layer, places: Sequence[AnyArray], block: Block, name: str) -> F32:
        """[T, H] -> [T, ND], before the output projection."""
        c, t, (cos, sin, before) = self.config, len(x), places
        heads, kv_heads, d = c.num_attention_heads, c.num_key_value_heads, c.head_dim
        qkv = _rows(t, w.qkv, block)
        conv(x, w.qkv, qkv, run=block.run)
        wide = -(-d // HEAD_STEP) * HEAD_STEP
        kv = block.room(c.sliding_window - 1, t, 2, kv_heads, wide, behind=POSITIONS)
        queries, y = block.run.empty(t, heads, wide), block.run.empty(t, heads, wide)
        rotate_into(qkv, (cos, sin), d, queries, kv.rows, block.run)
        seen = zip(block.split(queries), block.split(kv.read(name), kv.past), block.split(y), strict=True)
        for i, (ours, theirs, result) in enumerate(seen):
            window_attention(ours, theirs, result, d, c.sliding_window, before[i : i + 1], block.run)
        if d == wide:
            return y.reshape(t, -1)
        narrow = block.run.empty(t, heads, d)
        copy_rows(y, narrow, block.run)
        return narrow.reshape(t, -1)

    def _waveform_block(self, a: Room, i: int, past: int, block: Block) -> Room:
        """[T, C] -> [T * rate, C / 2] with room for ``past`` rows; SnakeBeta of the reader is applied to both."""
        w, name = self.weights.waveform_blocks[i], f"decoder.{i}"
        x, columns = _rows(len(a.rows), w.conv, block), len(w.units[0].conv2.bias)
        samples = len(x) * w.rate
        now, a = a.read(f"{name}.conv"), block.room(w.units[0].past, samples, columns)
        _causal(now, w.conv, x, block, 1, w.units[0].snake1.repeated(w.rate), a.rows.reshape(x.shape))
        x = x.reshape(samples, columns)
        readers = *((unit.snake1, unit.past) for unit in w.units[1:]), (self.weights.snakes[i + 1], past)
        for j, (unit, (snake, past)) in enumerate(zip(w.units, readers, strict=True)):
            now, h = a.read(f"{name}.units.{j}"), block.run.empty(*x.shape)
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


def _places(block: Block, window: int, head_dim: int, theta: float) -> tuple[AnyArray, ...]:
    """cos and sin [T, D / 2] of the positions, and [parts] how many positions before each part are in its window."""
    positions = [np.arange(part.position, part.position + part.rows) for part in block.parts]
    before = [min(part.position, window - 1) for part in block.parts]
    return *rope_angles(np.concatenate(positions), head_dim, theta), np.array(before, np.int64)


def _gated(x: F32, w: Layer, block: Block) -> F32:
    """[T, H] -> [T, F], before the down projection."""
    gate_up = _rows(len(x), w.gate_up, block)
    conv(x, w.gate_up, gate_up, run=block.run)
    y = block.run.empty(len(x), gate_up.shape[1] // 2)
    silu_gate(gate_up, y, block.run)
    return y


def _upsample(x: F32, w: Upsample, ratio: int, block: Block, name: str) -> F32:
    """[T, Z] -> [T * ratio, Z]."""
    past = len(w.depthwise.weight) - 1
    room = block.room(past, len(x) * ratio, len(w.narrow.bias))
    y = room.rows
    conv(x, w.conv, y.reshape(len(x), -1), run=block.run)
    h, wide = block.run.empty(*y.shape), _rows(len(y), w.widen, block)
    for before, after in zip(block.split(room.read(name), past), block.split(h), strict=True):
        depthwise_conv(before, w.depthwise, after, block.run)
    h = layer_norm_rows(h, w.norm, w.norm_bias, CONVNEXT_EPS, block.run)
    conv(h, w.widen, wide, activation=GELU, run=block.run)
    conv(wide, w.narrow, y, residual=True, run=block.run)
    return y


def _rows(count: int, w: Convolution | MinimalFilter, block: Block) -> F32:
    """A buffer for ``count`` output rows of ``w``."""
    return block.run.empty(count, len(w.bias))


def _after(block: Block, past: int, x: F32) -> Room:
    """The rows x with room for ``past`` others."""
    room = block.room(past, *x.shape)
    copy_rows(x, room.rows, block.run)
    return room
