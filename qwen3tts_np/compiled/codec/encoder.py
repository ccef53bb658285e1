"""The encoder of ``encoder.py`` on compiled kernels: the same blocks in the same order, many times faster.

Activations are rows [T, channels] throughout. The clip is processed in blocks (``pipeline.py``): short ones where the
row rate is high, so that they stay in the cache, and long ones where the weights are large, so that many rows share a
pass over them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
from qwen3tts_np_kernels.activation_jit import ELU, GELU, activate
from qwen3tts_np_kernels.attention_jit import attention
from qwen3tts_np_kernels.conv_jit import Convolution, conv, pack_conv
from qwen3tts_np_kernels.rvq_jit import Codebook, nearest, pack_codebook
from qwen3tts_np_kernels.team import Team

from ...checkpoint.keys import load
from ...checkpoint.safetensors import Checkpoint
from ...codec.encoder import DOWNSAMPLE_STRIDE, CodecEncoderWeights, EncoderLayer, SEANetStage, codec_encoder_sizes
from ...codec.rvq import EncoderQuantizer
from ...config import CodecEncoderConfig
from ...ops import F32, Ints, codebook_entries, layer_norm, rope_angles, rotate
from .pipeline import TURN_THREADS, Block, Stream, run_in_turns

FAST_STAGES = 2  # of SEANet: they have most of the rows, and few of the weights
# Block sizes: 40 ms steps in the convolutions and in the transformer, frames in the quantisers. They are multiples of
# 12 rows in every layer, of which a register tile has 12.
FAST_STEPS, SLOW_STEPS, TRANSFORMER_STEPS, QUANTISER_FRAMES = 6, 48, 240, 96


@dataclass(frozen=True)
class Stage:
    narrow: Convolution
    widen: Convolution
    down: Convolution
    stride: int

    @classmethod
    def pack(cls, w: SEANetStage, stride: int) -> Stage:
        narrow, widen, down = (pack_conv(c.weight, c.bias) for c in (w.narrow, w.widen, w.down))
        return cls(narrow, widen, down, stride)


@dataclass(frozen=True)
class Layer:
    """The three input projections are one matrix. LayerScale is folded into the weights."""

    input_layernorm: tuple[F32, F32]
    qkv: Convolution
    output: Convolution
    post_attention_layernorm: tuple[F32, F32]
    fc1: Convolution
    fc2: Convolution

    @classmethod
    def pack(cls, w: EncoderLayer) -> Layer:
        return cls(
            (w.input_layernorm.copy(), w.input_layernorm_bias.copy()),
            pack_conv(np.concatenate([w.self_attn.q_proj, w.self_attn.k_proj, w.self_attn.v_proj])),
            pack_conv(w.self_attn_layer_scale[:, None] * w.self_attn.o_proj),
            (w.post_attention_layernorm.copy(), w.post_attention_layernorm_bias.copy()),
            pack_conv(w.fc1),
            pack_conv(w.mlp_layer_scale[:, None] * w.fc2),
        )


@dataclass(frozen=True)
class Quantizer:
    input_proj: Convolution | None
    codebooks: tuple[Codebook, ...]

    @classmethod
    def pack(cls, w: EncoderQuantizer, groups: int) -> Quantizer:
        entries = (codebook_entries(b.embed_sum, b.cluster_usage) for b in w.codebooks[:groups])
        projection = None if w.input_proj is None else pack_conv(w.input_proj)
        return cls(projection, tuple(map(pack_codebook, entries)))


@dataclass(frozen=True)
class CompiledCodecEncoder:
    """The packed weights of the encoder and the engine that runs them."""

    config: CodecEncoderConfig
    team: Team
    first: Convolution
    stages: tuple[Stage, ...]
    last: Convolution
    layers: tuple[Layer, ...]
    downsample: Convolution
    semantic: Quantizer
    acoustic: Quantizer

    @classmethod
    def load(cls, checkpoint: Checkpoint, c: CodecEncoderConfig, groups: int, team: Team) -> CompiledCodecEncoder:
        """Pack the encoder of a checked ``speech_tokenizer`` file, with the codebooks in use."""
        w = load(CodecEncoderWeights, checkpoint, codec_encoder_sizes(c), "encoder.", np.dtype(np.float32))
        return cls(
            c,
            team,
            pack_conv(w.seanet.first.weight, w.seanet.first.bias),
            tuple(map(Stage.pack, w.seanet.stages, reversed(c.upsampling_ratios))),
            pack_conv(w.seanet.last.weight, w.seanet.last.bias),
            tuple(map(Layer.pack, w.layers)),
            pack_conv(w.downsample.weight),
            Quantizer.pack(w.semantic, 1),
            Quantizer.pack(w.acoustic, groups - 1),
        )

    def encode(self, wave: F32) -> Ints:
        """wave float32 [samples], at least one -> codes [ceil(samples / samples per frame), G]."""
        x = self._seanet(wave)
        y = np.empty_like(x)
        run_in_turns(self.team, x, y, TRANSFORMER_STEPS, partial(self._transformer, self._empty_caches(len(x))))
        before = self.downsample.taps - DOWNSAMPLE_STRIDE
        y = np.pad(y, ((before, -len(y) % DOWNSAMPLE_STRIDE), (0, 0)), mode="edge")
        frames = np.arange((len(y) - before) // DOWNSAMPLE_STRIDE)
        codes = np.empty((len(frames), len(self.semantic.codebooks) + len(self.acoustic.codebooks)), np.int64)
        run_in_turns(self.team, frames, codes, QUANTISER_FRAMES, partial(self._split_rvq, y))
        return codes

    def _seanet(self, wave: F32) -> F32:
        """[samples] -> [T, H]. Of what the fast stages hand to the others, only the rows of some blocks are kept."""
        ratios = [stage.stride for stage in self.stages]
        hop, per_step = math.prod(ratios[:FAST_STAGES]), math.prod(ratios[FAST_STAGES:])  # of a row in the middle
        rows = -(-len(wave) // hop)
        x = np.empty((-(-rows // per_step), len(self.last.bias)), np.float32)
        fast, slow, at_once = Stream(), Stream(), SLOW_STEPS * min(self.team.size, TURN_THREADS)
        for start in range(0, len(x), at_once):
            y = x[start : start + at_once]
            now = np.arange(start * per_step, min((start + at_once) * per_step, rows))
            middle = _rows(len(now), self.stages[FAST_STAGES - 1].down)
            fast.run(self.team, now, middle, FAST_STEPS * per_step, partial(self._fast_stages, wave, hop), TURN_THREADS)
            slow_stages = partial(self._slow_stages, middle, per_step)
            slow.run(self.team, np.arange(len(y)), y, SLOW_STEPS, slow_stages, TURN_THREADS)
        return x

    def _fast_stages(self, wave: F32, hop: int, rows: Ints, block: Block) -> F32:
        """The part of the wave [samples] covered by these rows [T] -> [T, C]."""
        now = wave[rows[0] * hop : (rows[-1] + 1) * hop, None]
        x, y = _behind(self.first.taps - 1, now), _rows(len(now), self.first)
        conv(block.after_past("first", x, self.first.taps - 1), self.first, y)
        for i, stage in enumerate(self.stages[:FAST_STAGES]):
            y = _seanet_stage(y, stage, block, f"{i}")
        return y

    def _slow_stages(self, rows: F32, per_step: int, steps: Ints, block: Block) -> F32:
        """The rows [.., C] covered by these steps [T] -> [T, H]."""
        x = rows[steps[0] * per_step : (steps[-1] + 1) * per_step].copy()
        for i, stage in enumerate(self.stages[FAST_STAGES:], FAST_STAGES):
            x = _seanet_stage(x, stage, block, f"{i}")
        past = self.last.taps - 1
        a, y = _elu_behind(past, x), _rows(len(x), self.last)
        conv(block.after_past("last", a, past), self.last, y)
        return y

    def _empty_caches(self, steps: int) -> list[F32]:
        """Buffers for the keys and values of every layer: each [T, 2, K, D]."""
        shape = steps, 2, self.config.num_key_value_heads, self.config.head_dim
        return [np.empty(shape, np.float32) for _ in self.layers]

    def _transformer(self, caches: list[F32], x: F32, block: Block) -> F32:
        """x [T, H] -> [T, H]."""
        c, size = self.config, self.config.hidden_size
        x, now = x.copy(), slice(block.position, block.position + len(x))
        rope = rope_angles(np.arange(now.start, now.stop), c.head_dim, c.rope_theta)
        for i, (layer, cache) in enumerate(zip(self.layers, caches, strict=True)):
            h = layer_norm(x[:, :size], *layer.input_layernorm, c.norm_eps)
            conv(self._attention(h, layer, rope, cache, now, block, f"{i}"), layer.output, x, residual=True)
            h = layer_norm(x[:, :size], *layer.post_attention_layernorm, c.norm_eps)
            wide = _rows(len(h), layer.fc1)
            conv(h, layer.fc1, wide, activation=GELU)
            conv(wide, layer.fc2, x, residual=True)
        return x

    def _attention(
        self, x: F32, w: Layer, rope: tuple[F32, F32], cache: F32, now: slice, block: Block, name: str
    ) -> F32:
        """[T, H] -> [T, ND], before the output projection. Trap: no window, as in ``encoder.py``."""
        c, t = self.config, len(x)
        heads, kv_heads, d = c.num_attention_heads, c.num_key_value_heads, c.head_dim
        qkv = _rows(t, w.qkv)
        conv(x, w.qkv, qkv)
        q, k, v = np.split(qkv[:, : (heads + 2 * kv_heads) * d], [heads * d, (heads + kv_heads) * d], axis=1)
        cache[now, 0] = rotate(k.reshape(t, kv_heads, d), *rope)
        cache[now, 1] = v.reshape(t, kv_heads, d)
        block.after_past(name, cache[now], 0)  # earlier blocks were here: the cache is filled up to this one
        seen = cache[: now.stop]
        q = rotate(q.reshape(t, heads, d), *rope)
        return attention(q, seen[:, 0], seen[:, 1]).reshape(t, heads * d)

    def _split_rvq(self, x: F32, frames: Ints, block: Block) -> Ints:
        """Half the frame rate, then the codes. x [2 T + taps - 2, H] of the clip, frames [T] -> codes [T, G]."""
        first, stride = frames[0] * DOWNSAMPLE_STRIDE, DOWNSAMPLE_STRIDE
        y = _rows(len(frames), self.downsample)
        conv(x[first : first + len(frames) * stride + self.downsample.taps - stride], self.downsample, y, stride=stride)
        return np.concatenate([self._quantise(y, self.semantic), self._quantise(y, self.acoustic)], axis=1)

    def _quantise(self, x: F32, w: Quantizer) -> Ints:
        """The entry of each codebook nearest to the residual of those before it. x [T, H] -> codes [T, G']."""
        residual, codes = x, []
        if w.input_proj is not None:
            residual = _rows(len(x), w.input_proj)
            conv(x, w.input_proj, residual)
        residual = residual[:, : self.config.codebook_dim].copy()
        for codebook in w.codebooks:
            codes.append(nearest(residual, codebook))
            residual -= codebook.entries[codes[-1]]
        return np.stack(codes, axis=1) if codes else np.empty((len(x), 0), np.int64)


def _seanet_stage(x: F32, w: Stage, block: Block, name: str) -> F32:
    """A residual unit, then a convolution of stride r. x [T, C], overwritten -> [ceil(T / r), 2C].

    Only the length of the last block may not be a multiple of the stride; it is zero-padded.
    """
    past, before = w.narrow.taps - 1, w.down.taps - w.stride
    h = _rows(len(x), w.narrow)
    conv(block.after_past(f"{name}.narrow", _elu_behind(past, x), past), w.narrow, h, activation=ELU)
    end = before + len(x)
    a = np.empty((end + -len(x) % w.stride, x.shape[1]), np.float32)
    a[end:] = 0
    conv(h, w.widen, x, residual=True, activation=ELU, activated=a[before:end])
    y = _rows(-(-len(x) // w.stride), w.down)
    conv(block.after_past(f"{name}.down", a, before), w.down, y, stride=w.stride)
    return y


def _rows(count: int, w: Convolution) -> F32:
    """A buffer for ``count`` output rows of ``w``."""
    return np.empty((count, len(w.bias)), np.float32)


def _behind(past: int, x: F32) -> F32:
    """x after space for ``past`` rows."""
    y = np.empty((past + len(x), x.shape[1]), np.float32)
    y[past:] = x
    return y


def _elu_behind(past: int, x: F32) -> F32:
    """ELU(x) after space for ``past`` rows."""
    y = np.empty((past + len(x), x.shape[1]), np.float32)
    activate(x, ELU, y[past:])
    return y
