"""One Qwen3 decoder layer: x + attention(norm(x)), then x + mlp(norm(x)). The talker has 28 of them, the predictor 5.

Official: ``Qwen3TTSTalkerDecoderLayer`` and ``Qwen3TTSDecoderLayer``. Shapes: T positions of this call, S of the cache.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..checkpoint.keys import block, tensor
from ..config import CodePredictorConfig, TalkerConfig
from ..mlp import GatedMLP, mlp
from ..ops import Array, attention, linear, rms_norm, rotate
from ..trace import record
from .cache import LayerCache

Rope = tuple[Array, Array]  # cos and sin, each [T, D/2]
LayerConfig = TalkerConfig | CodePredictorConfig


@dataclass(frozen=True)
class AttentionWeights:
    official = ("Qwen3TTSTalkerAttention", "Qwen3TTSAttention")

    q_proj: Array = tensor("q_proj.weight", "ND H")
    k_proj: Array = tensor("k_proj.weight", "KD H")
    v_proj: Array = tensor("v_proj.weight", "KD H")
    o_proj: Array = tensor("o_proj.weight", "H ND")
    q_norm: Array = tensor("q_norm.weight", "D")
    k_norm: Array = tensor("k_norm.weight", "D")


@dataclass(frozen=True)
class Qwen3Layer:
    official = ("Qwen3TTSTalkerDecoderLayer", "Qwen3TTSDecoderLayer")

    input_layernorm: Array = tensor("input_layernorm.weight", "H")
    self_attn: AttentionWeights = block(AttentionWeights, "self_attn")
    post_attention_layernorm: Array = tensor("post_attention_layernorm.weight", "H")
    mlp: GatedMLP = block(GatedMLP, "mlp")


def attention_sizes(c: LayerConfig) -> dict[str, int]:
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
    """x [T, H] -> [T, H]; the keys and values of these T positions are appended to ``cache``."""
    h = rms_norm(x, w.input_layernorm, c.rms_norm_eps)
    record(f"{name}.input_layernorm", h)
    x = x + self_attention(h, w.self_attn, rope, cache, c, f"{name}.self_attn")
    record(f"{name}.post_attention_layernorm.input", x)
    h = rms_norm(x, w.post_attention_layernorm, c.rms_norm_eps)
    record(f"{name}.post_attention_layernorm", h)
    x = x + mlp(h, w.mlp, f"{name}.mlp")
    record(name, x)
    return x


def self_attention(x: Array, w: AttentionWeights, rope: Rope, cache: LayerCache, c: LayerConfig, name: str) -> Array:
    """Causal grouped-query attention. x [T, H] -> [T, H]."""
    t, d = len(x), c.head_dim
    q = linear(x, w.q_proj).reshape(t, c.num_attention_heads, d)  # [T, N, D]
    k = linear(x, w.k_proj).reshape(t, c.num_key_value_heads, d)  # [T, K, D]
    v = linear(x, w.v_proj).reshape(t, c.num_key_value_heads, d)  # [T, K, D]
    record(f"{name}.q_proj", q.reshape(t, -1))
    record(f"{name}.k_proj", k.reshape(t, -1))
    record(f"{name}.v_proj", v.reshape(t, -1))

    # Qwen3 normalises every head of q and k, and does so before the rotation.
    q, k = rms_norm(q, w.q_norm, c.rms_norm_eps), rms_norm(k, w.k_norm, c.rms_norm_eps)
    record(f"{name}.q_norm", q)
    record(f"{name}.k_norm", k)
    q, k = rotate(q, *rope), rotate(k, *rope)
    record(f"{name}.q_rot", q)
    record(f"{name}.k_rot", k)

    context = attention(q, *cache.append(k, v)).reshape(t, -1)  # [T, ND]
    record(f"{name}.context", context)
    y = linear(context, w.o_proj)
    record(f"{name}.o_proj", y)
    return y
