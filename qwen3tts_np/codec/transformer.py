"""Self-attention of both halves of the codec. Norms and feed-forwards differ: each half has its own layer.

Official: ``Qwen3TTSTokenizerV2DecoderAttention`` and ``MimiAttention``.
"""

from __future__ import annotations

from ..checkpoint.tables import DecoderLayer, EncoderLayer
from ..config import CodecDecoderConfig, CodecEncoderConfig
from ..ops import Array, attention, linear, rotate
from ..trace import record


def self_attention(
    x: Array,
    w: DecoderLayer | EncoderLayer,
    rope: tuple[Array, Array],
    window: int | None,
    c: CodecDecoderConfig | CodecEncoderConfig,
    name: str,
) -> Array:
    """Causal attention over one whole sequence; unlike the talker's, without a norm on q and k. x [T, H] -> [T, H]."""
    t, d = len(x), c.head_dim
    q, k, v = linear(x, w.q_proj), linear(x, w.k_proj), linear(x, w.v_proj)  # [T, ND], [T, KD], [T, KD]
    record(f"{name}.q_proj", q)
    record(f"{name}.k_proj", k)
    record(f"{name}.v_proj", v)
    q = rotate(q.reshape(t, c.num_attention_heads, d), *rope)  # [T, N, D]
    k = rotate(k.reshape(t, c.num_key_value_heads, d), *rope)  # [T, K, D]
    record(f"{name}.q_rot", q)
    record(f"{name}.k_rot", k)
    context = attention(q, k, v.reshape(t, c.num_key_value_heads, d), window).reshape(t, -1)  # [T, ND]
    record(f"{name}.context", context)
    y = linear(context, w.o_proj)
    record(f"{name}.o_proj", y)
    return y
