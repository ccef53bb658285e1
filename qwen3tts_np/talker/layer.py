"""One Qwen3 decoder layer: x + attention(norm(x)), then x + mlp(norm(x)). The talker has 28 of them, the predictor 5.

Official: ``Qwen3TTSTalkerDecoderLayer`` and ``Qwen3TTSDecoderLayer``. Shapes: T positions of this call, S of the cache.
"""

from __future__ import annotations

from ..checkpoint.tables import Qwen3Layer
from ..config import CodePredictorConfig, TalkerConfig
from ..mlp import mlp
from ..ops import Array, attention, linear, rms_norm, rotate
from ..trace import record
from .cache import LayerCache

Rope = tuple[Array, Array]  # cos and sin, each [T, D/2]
Sizes = TalkerConfig | CodePredictorConfig


def decoder_layer(x: Array, w: Qwen3Layer, rope: Rope, cache: LayerCache, c: Sizes, name: str) -> Array:
    """x [T, H] -> [T, H]; the keys and values of these T positions are appended to ``cache``."""
    h = rms_norm(x, w.input_layernorm, c.rms_norm_eps)
    record(f"{name}.input_layernorm", h)
    x = x + self_attention(h, w, rope, cache, c, f"{name}.self_attn")
    record(f"{name}.post_attention_layernorm.input", x)
    h = rms_norm(x, w.post_attention_layernorm, c.rms_norm_eps)
    record(f"{name}.post_attention_layernorm", h)
    x = x + mlp(h, w, f"{name}.mlp")
    record(name, x)
    return x


def self_attention(x: Array, w: Qwen3Layer, rope: Rope, cache: LayerCache, c: Sizes, name: str) -> Array:
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
