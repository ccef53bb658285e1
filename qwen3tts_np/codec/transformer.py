"""Self-attention of both halves of the codec. Norms and feed-forwards differ: each half has its own layer.

Official: ``Qwen3TTSTokenizerV2DecoderAttention`` and ``MimiAttention``.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..checkpoint.keys import tensor
from ..config import CodecDecoderConfig, CodecEncoderConfig
from ..ops import Array, attention, linear, rotate
from ..trace import record
from .past import Past


@dataclass(frozen=True)
class AttentionWeights:
    official = ("Qwen3TTSTokenizerV2DecoderAttention", "MimiAttention")

    q_proj: Array = tensor("q_proj.weight", "ND H")
    k_proj: Array = tensor("k_proj.weight", "KD H")
    v_proj: Array = tensor("v_proj.weight", "KD H")
    o_proj: Array = tensor("o_proj.weight", "H ND")


def self_attention(
    x: Array,
    w: AttentionWeights,
    rope: tuple[Array, Array],
    window: int | None,
    c: CodecDecoderConfig | CodecEncoderConfig,
    name: str,
    past: Past | None = None,
) -> Array:
    """Causal attention; unlike the talker's, without a norm on q and k. x [T, H] -> [T, H].

    x is one whole sequence or, with ``past`` and a ``window``, what comes next in a stream.
    """
    t, d = len(x), c.head_dim
    q, k, v = linear(x, w.q_proj), linear(x, w.k_proj), linear(x, w.v_proj)  # [T, ND], [T, KD], [T, KD]
    record(f"{name}.q_proj", q)
    record(f"{name}.k_proj", k)
    record(f"{name}.v_proj", v)
    q = rotate(q.reshape(t, c.num_attention_heads, d), *rope)  # [T, N, D]
    k = rotate(k.reshape(t, c.num_key_value_heads, d), *rope)  # [T, K, D]
    record(f"{name}.q_rot", q)
    record(f"{name}.k_rot", k)
    v = v.reshape(t, c.num_key_value_heads, d)  # [T, K, D]
    if past is not None and window is not None:
        k, v = (past.before(f"{name}.{n}", a.T, window - 1).T for n, a in (("k", k), ("v", v)))  # [S + T, K, D]
    context = attention(q, k, v, window).reshape(t, -1)  # [T, ND]
    record(f"{name}.context", context)
    y = linear(context, w.o_proj)
    record(f"{name}.o_proj", y)
    return y
