"""The talker: 28 Qwen3 layers that read the prompt and predict code 0 of each frame.

Official: ``Qwen3TTSTalkerForConditionalGeneration`` and ``Qwen3TTSTalkerModel``. Trap: the three rows of the M-RoPE
positions are always equal, so it is a plain rotary embedding for any ``mrope_section``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..checkpoint.keys import Embedding, Names, Sizes, blocks, embedding, tensor
from ..config import TalkerConfig
from ..ops import Array, Ints, linear, rms_norm, rope_angles, silu
from ..trace import Scope, record
from .cache import LayerCache
from .layer import LayerConfig, Qwen3Layer, attention_sizes, decoder_layer

Cache = Sequence[LayerCache]


@dataclass(frozen=True)
class TalkerWeights:
    official: ClassVar[Names] = ("Qwen3TTSTalkerForConditionalGeneration",)

    text_embedding: Embedding = embedding("model.text_embedding.weight", "W X")
    text_projection_fc1: Array = tensor("text_projection.linear_fc1.weight", "X X")
    text_projection_fc1_bias: Array = tensor("text_projection.linear_fc1.bias", "X")
    text_projection_fc2: Array = tensor("text_projection.linear_fc2.weight", "H X")
    text_projection_fc2_bias: Array = tensor("text_projection.linear_fc2.bias", "H")
    codec_embedding: Embedding = embedding("model.codec_embedding.weight", "V H")
    layers: tuple[Qwen3Layer, ...] = blocks(Qwen3Layer, "model.layers.{}", "L")
    norm: Array = tensor("model.norm.weight", "H")
    codec_head: Array = tensor("codec_head.weight", "V H")


def talker_sizes(c: TalkerConfig) -> Sizes:
    """The letters of ``TalkerWeights``."""
    return {**attention_sizes(c), "V": c.vocab_size, "W": c.text_vocab_size, "X": c.text_hidden_size}


def new_cache(c: LayerConfig, positions: int = 0) -> Cache:
    """An empty cache, one entry per layer, with memory reserved for so many positions."""
    return [LayerCache(positions) for _ in range(c.num_hidden_layers)]


def transformer(x: Array, layers: Sequence[Qwen3Layer], norm: Array, cache: Cache, c: LayerConfig, name: str) -> Array:
    """All layers and the final norm on the T positions after those in ``cache``. x [T, H] -> [T, H]."""
    t = Scope(name)
    t("inputs_embeds", x)
    start = cache[0].length
    rope = rope_angles(np.arange(start, start + len(x)), c.head_dim, c.rope_theta)
    for i, layer in enumerate(layers):
        x = decoder_layer(x, layer, rope, cache[i], c, f"{name}.layers.{i}")
    return t("norm", rms_norm(x, norm, c.rms_norm_eps))


def read(x: Array, w: TalkerWeights, cache: Cache, c: TalkerConfig) -> tuple[Array, Array]:
    """Read T inputs; x [T, H] -> (hidden state [H], code-0 logits [V]) of the last position."""
    hidden = transformer(x, w.layers, w.norm, cache, c, "talker.model")
    logits = record("talker.codec_head", linear(hidden[-1], w.codec_head)[None])  # [1, V]
    return hidden[-1], logits[0]


def text_projection(w: TalkerWeights, ids: Ints) -> Array:
    """Project text tokens to the talker's width: two linear layers with biases. ids [T] -> [T, H]."""
    x = record("talker.model.text_embedding", w.text_embedding[ids])  # [T, X]
    x = silu(linear(x, w.text_projection_fc1, w.text_projection_fc1_bias))  # [T, X]
    return record("talker.text_projection", linear(x, w.text_projection_fc2, w.text_projection_fc2_bias))


def raw_text(w: TalkerWeights, ids: Ints) -> Array:
    """The rows of ``text_projection`` before it: what a model never reads. ids [T] -> [T, X]."""
    return w.text_embedding[ids]
