"""Waveform to codes: SEANet down to 25 frames a second, a transformer, a convolution to 12.5, split RVQ.

Official: ``Qwen3TTSTokenizerV2Encoder``, that is ``MimiModel.encode`` (Défossez et al., 2024). Activations are [C, T]
in the convolutions and [T, H] in the transformer; T counts samples at first and frames at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..checkpoint.keys import load
from ..checkpoint.safetensors import Checkpoint
from ..checkpoint.tables import CodecEncoderWeights, EncoderLayer, SEANetStage, SEANetWeights, codec_encoder_sizes
from ..config import CodecEncoderConfig
from ..ops import Array, Ints, codebook_entries, conv1d, elu, gelu, layer_norm, linear, rope_angles
from ..trace import record
from .conv import causal_conv, pad_causal
from .rvq import quantise
from .transformer import self_attention

NAME = "speech_tokenizer.encoder"
DOWNSAMPLE_STRIDE = 2  # the official code has this 2 whatever the rates are


@dataclass(frozen=True)
class CodecEncoder:
    """The weights of the encoder."""

    config: CodecEncoderConfig
    weights: CodecEncoderWeights
    groups: int  # G: codebooks in use; the file holds more, and a frame keeps its first G codes

    @classmethod
    def load(cls, checkpoint: Checkpoint, c: CodecEncoderConfig, groups: int, dtype: np.dtype[Any]) -> CodecEncoder:
        """Read it from a checked ``speech_tokenizer`` file; ``dtype`` is that of all its arithmetic."""
        return cls(c, load(CodecEncoderWeights, checkpoint, codec_encoder_sizes(c), "encoder.", dtype), groups)

    @cached_property
    def codebooks(self) -> tuple[Array, ...]:
        """The entries of the G codebooks, each [C, E]."""
        stored = (*self.weights.semantic.codebooks, *self.weights.acoustic.codebooks)[: self.groups]
        return tuple(codebook_entries(b.embed_sum, b.cluster_usage) for b in stored)


def encode(wave: Array, e: CodecEncoder) -> Ints:
    """wave [samples], at least one -> codes [ceil(samples / samples a frame), G]."""
    w = e.weights
    x = seanet(wave[None], w.seanet, e.config, f"{NAME}.encoder.layers")  # [H, T] at 25 Hz
    x = transformer(x.T, w.layers, e.config, f"{NAME}.encoder_transformer").T
    x = downsample(x, w.downsample.weight)  # [H, T] at 12.5 Hz
    record(f"{NAME}.downsample", x)
    return split_rvq(x, e)


def seanet(x: Array, w: SEANetWeights, c: CodecEncoderConfig, name: str) -> Array:
    """Strided convolutions that double the channels each time. x [1, samples] -> [H, T]."""
    x = causal_conv(x, w.first)  # [filters, samples]
    record(f"{name}.0", x)
    for i, (stage, ratio) in enumerate(zip(w.stages, reversed(c.upsampling_ratios), strict=True)):
        x = seanet_stage(x, stage, ratio, name, 3 * i + 1)
    last = 3 * len(w.stages) + 1
    x = causal_conv(activated(x, f"{name}.{last}"), w.last)  # [H, T]
    record(f"{name}.{last + 1}", x)
    return x


def seanet_stage(x: Array, w: SEANetStage, ratio: int, name: str, at: int) -> Array:
    """A residual unit, then ELU and a convolution of stride ``ratio``, at three indices from ``at``.

    x [C, T] -> [2C, ceil(T / ratio)].
    """
    unit = f"{name}.{at}"
    h = causal_conv(activated(x, f"{unit}.block.0"), w.narrow)  # [C / compress, T]
    record(f"{unit}.block.1", h)
    h = causal_conv(activated(h, f"{unit}.block.2"), w.widen)  # [C, T]
    record(f"{unit}.block.3", h)
    x = x + h
    record(unit, x)
    x = causal_conv(activated(x, f"{name}.{at + 1}"), w.down, stride=ratio)  # [2C, ceil(T / ratio)]
    record(f"{name}.{at + 2}", x)
    return x


def activated(x: Array, name: str) -> Array:
    """ELU. Any shape."""
    x = elu(x)
    record(name, x)
    return x


def transformer(x: Array, layers: tuple[EncoderLayer, ...], c: CodecEncoderConfig, name: str) -> Array:
    """All layers, with no norm after the last. x [T, H] -> [T, H]."""
    rope = rope_angles(np.arange(len(x)), c.head_dim, c.rope_theta)
    for i, layer in enumerate(layers):
        x = transformer_layer(x, layer, rope, c, f"{name}.layers.{i}")
    return x


def transformer_layer(x: Array, w: EncoderLayer, rope: tuple[Array, Array], c: CodecEncoderConfig, name: str) -> Array:
    """Attention and a GELU feed-forward, both scaled per channel before they are added. x [T, H] -> [T, H]."""
    h = layer_norm(x, w.input_layernorm, w.input_layernorm_bias, c.norm_eps)
    record(f"{name}.input_layernorm", h)
    # Trap: the configuration states a sliding window, and the official code does not apply it.
    h = w.self_attn_layer_scale * self_attention(h, w, rope, None, c, f"{name}.self_attn")
    record(f"{name}.self_attn_layer_scale", h)
    x = x + h
    record(f"{name}.post_attention_layernorm.input", x)
    h = layer_norm(x, w.post_attention_layernorm, w.post_attention_layernorm_bias, c.norm_eps)
    record(f"{name}.post_attention_layernorm", h)
    h = w.mlp_layer_scale * mlp(h, w, f"{name}.mlp")
    record(f"{name}.mlp_layer_scale", h)
    x = x + h
    record(name, x)
    return x


def mlp(x: Array, w: EncoderLayer, name: str) -> Array:
    """x [T, H] -> [T, H]."""
    h = linear(x, w.fc1)  # [T, F]
    record(f"{name}.fc1", h)
    h = gelu(h)
    record(f"{name}.activation_fn", h)
    y = linear(h, w.fc2)
    record(f"{name}.fc2", y)
    return y


def downsample(x: Array, weight: Array) -> Array:
    """Half the frame rate. Trap: alone of all convolutions, it pads with its first and last frame, and has no bias.

    x [H, T] -> [H, ceil(T / 2)].
    """
    return conv1d(pad_causal(x, weight.shape[2], DOWNSAMPLE_STRIDE, mode="edge"), weight, stride=DOWNSAMPLE_STRIDE)


def split_rvq(x: Array, e: CodecEncoder, given: Ints | None = None) -> Ints:
    """Code 0 from one quantiser, the others from a second one on the same x. x [H, T] -> codes [T, G].

    ``given`` codes [T, G] are taken instead of the nearest.
    """
    name, w = f"{NAME}.quantizer", e.weights
    first, rest = (None, None) if given is None else (given[:, :1], given[:, 1:])
    semantic = quantise(x, e.codebooks[:1], w.semantic.input_proj, f"{name}.semantic_residual_vector_quantizer", first)
    acoustic = quantise(x, e.codebooks[1:], w.acoustic.input_proj, f"{name}.acoustic_residual_vector_quantizer", rest)
    return np.concatenate([semantic, acoustic], axis=1)
