"""One Qwen3 decoder layer: x + attention(norm(x)), then x + mlp(norm(x)). The talker has 28, the code predictor 5.

Official: ``Qwen3TTSTalkerDecoderLayer`` and ``Qwen3TTSDecoderLayer``. Shapes: T positions of this call, S of the cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..checkpoint.keys import Names, Sizes, block, tensor
from ..config import CodePredictorConfig, TalkerConfig
from ..mlp import GatedMLP, mlp
from ..ops import Array, attention, linear, rms_norm, rotate
from ..trace import Scope
from .cache import LayerCache

Rope = tuple[Array, Array]  # cos and sin, each [T, D/2]
LayerConfig = TalkerConfig | CodePredictorConfig


@dataclass(frozen=True)
class AttentionWeights:
    official: ClassVar[Names] = ("Qwen3TTSTalkerAttention", "Qwen3TTSAttention")

    q_proj: Array = tensor("q_proj.weight", "ND H")
    k_proj: Array = tensor("k_proj.weight", "KD H")
    v_proj: Array = tensor("v_proj.weight", "KD H")
    o_proj: Array = tensor("o_proj.weight", "H ND")
    q_norm: Array = tensor("q_norm.weight", "D")
    k_norm: Array = tensor("k_norm.weight", "D")


@dataclass(frozen=True)
class Qwen3Layer:
    official: ClassVar[Names] = ("Qwen3TTSTalkerDecoderLayer", "Qwen3TTSDecoderLayer")

    input_layernorm: Array = tensor("input_layernorm.weight", "H")
    self_attn: AttentionWeights = block(AttentionWeights, "self_attn")
    post_attention_layernorm: Array = tensor("post_attention_layernorm.weight", "H")
    mlp: GatedMLP = block(GatedMLP, "mlp")


def attention_sizes(c: LayerConfig) -> Sizes:
    """The letters of one Qwen3 layer."""
    return {
        "H": c.hidden_size,
        "F": c.intermediate_size,
        "L": c.num_hidden_layers,
        "D": c.head_dim,
        "ND": c.num_attention_heads * c.head_dim,
        "KD": c.num_key_value_heads * c.head_dim,
    }


def decoder_layer(x: Array, w: Qwen3Layer, rope: Rope, cache: LayerCache, c: LayerConfig, name: str) -> Array:
    """One layer. x [T, H] -> [T, H]; the keys and values of these T positions are appended to ``cache``."""
    t = Scope(name)
    h = t("input_layernorm", rms_norm(x, w.input_layernorm, c.rms_norm_eps))
    x = t("post_attention_layernorm.input", x + self_attention(h, w.self_attn, rope, cache, c, f"{name}.self_attn"))
    h = t("post_attention_layernorm", rms_norm(x, w.post_attention_layernorm, c.rms_norm_eps))
    return t.output(x + mlp(h, w.mlp, f"{name}.mlp"))


def self_attention(x: Array, w: AttentionWeights, rope: Rope, cache: LayerCache, c: LayerConfig, name: str) -> Array:
    """Causal grouped-query attention. x [T, H] -> [T, H]."""
    t, d = Scope(name), c.head_dim
    q = t("q_proj", linear(x, w.q_proj)).reshape(len(x), c.num_attention_heads, d)  # [T, N, D]
    k = t("k_proj", linear(x, w.k_proj)).reshape(len(x), c.num_key_value_heads, d)  # [T, K, D]
    v = t("v_proj", linear(x, w.v_proj)).reshape(len(x), c.num_key_value_heads, d)  # [T, K, D]

    # Qwen3 normalises every head of q and k, before the rotation.
    q, k = t("q_norm", rms_norm(q, w.q_norm, c.rms_norm_eps)), t("k_norm", rms_norm(k, w.k_norm, c.rms_norm_eps))
    q, k = t("q_rot", rotate(q, *rope)), t("k_rot", rotate(k, *rope))

    context = t("context", attention(q, *cache.append(k, v)).reshape(len(x), -1))  # [T, ND]
    return t("o_proj", linear(context, w.o_proj))
