"""The code predictor: predicts the other G - 1 codes of a frame one by one, given code 0.

It is a small transformer whose cache starts empty for each frame. It first reads two inputs, the talker's hidden state
and the embedding of code 0, and then each code as it is chosen: ``lm_head[g - 1]`` gives the logits of code g, and
``codec_embedding[g - 1]`` embeds it. Traps: these embeddings have the TALKER's width; where the predictor is narrower
(1.7B), ``small_to_mtp_projection`` maps every input. The talker's hidden state is taken after its final norm.

Official: ``Qwen3TTSTalkerCodePredictorModelForConditionalGeneration``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..checkpoint.keys import Embedding, Names, Sizes, blocks, embedding, tensor
from ..config import CodePredictorConfig, TalkerConfig
from ..ops import Array, Ints, linear
from ..trace import Scope, record
from .layer import Qwen3Layer, attention_sizes
from .talker import Cache, new_cache, transformer

NAME = "talker.code_predictor"


@dataclass(frozen=True)
class CodeEmbedding:
    weight: Embedding = embedding("weight", "C TH")  # the TALKER's width, also where the predictor is narrower


@dataclass(frozen=True)
class CodeHead:
    weight: Array = tensor("weight", "C H")


@dataclass(frozen=True)
class CodePredictorWeights:
    """All weights. Embedding and head number g are those of code g + 1."""

    official: ClassVar[Names] = ("Qwen3TTSTalkerCodePredictorModelForConditionalGeneration",)

    codec_embedding: tuple[CodeEmbedding, ...] = blocks(CodeEmbedding, "model.codec_embedding.{}", "G-1")
    small_to_mtp_projection_weight: Array | None = tensor("small_to_mtp_projection.weight", "H TH", when="projects")
    small_to_mtp_projection_bias: Array | None = tensor("small_to_mtp_projection.bias", "H", when="projects")
    layers: tuple[Qwen3Layer, ...] = blocks(Qwen3Layer, "model.layers.{}", "L")
    norm: Array = tensor("model.norm.weight", "H")
    lm_head: tuple[CodeHead, ...] = blocks(CodeHead, "lm_head.{}", "G-1")


def code_predictor_sizes(c: TalkerConfig) -> Sizes:
    """The letters of ``CodePredictorWeights``."""
    small = c.code_predictor_config
    return {
        **attention_sizes(small),
        "C": small.vocab_size,
        "G-1": small.num_code_groups - 1,
        "TH": c.hidden_size,
        "projects": int(small.hidden_size != c.hidden_size),
    }


def predict_frame(
    hidden: Array,
    code0_embedding: Array,
    code0: Ints,
    w: CodePredictorWeights,
    c: CodePredictorConfig,
    choose: Callable[[Array], Ints],
) -> Ints:
    """Complete one frame of every item. hidden and code0_embedding [B, TH], code0 [B] -> [B, G].

    ``choose`` turns logits [B, C] into codes [B]; it is called once per code for all items together, because a seeded
    generator draws for the complete batch.
    """
    t = Scope(NAME)
    record("talker.model.codec_embedding", code0_embedding)
    codes = [code0]
    inputs = np.stack([hidden, code0_embedding], axis=1)  # [B, 2, TH]
    caches = [new_cache(c) for _ in hidden]
    for g, (table, head) in enumerate(zip(w.codec_embedding, w.lm_head, strict=True)):
        logits = [last_logits(x, w, head.weight, cache, c, g) for x, cache in zip(inputs, caches, strict=True)]
        codes.append(choose(np.stack(logits)))  # [B, C] -> [B]
        inputs = t(f"model.codec_embedding.{g}", table.weight[codes[-1]])[:, None]  # [B, 1, TH]
    return np.stack(codes, axis=1)


def last_logits(x: Array, w: CodePredictorWeights, head: Array, cache: Cache, c: CodePredictorConfig, g: int) -> Array:
    """x [T, TH] -> logits [C] of code g + 1."""
    hidden = transformer(project_inputs(x, w), w.layers, w.norm, cache, c, f"{NAME}.model")  # [T, H]
    return record(f"{NAME}.lm_head.{g}", linear(hidden[-1], head)[None])[0]


def project_inputs(x: Array, w: CodePredictorWeights) -> Array:
    """Inputs at the predictor's own width. x [T, TH] -> [T, H]."""
    t = Scope(NAME)
    t("small_to_mtp_projection.input", x)
    if w.small_to_mtp_projection_weight is None:
        return x
    return t("small_to_mtp_projection", linear(x, w.small_to_mtp_projection_weight, w.small_to_mtp_projection_bias))
