"""Self-attention of both halves of the codec. Norms and feed-forwards differ: each half has its own layer.

Official: ``Qwen3TTSTokenizerV2DecoderAttention`` and ``MimiAttention``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..checkpoint.keys import Names, tensor
from ..config import CodecDecoderConfig, CodecEncoderConfig
from ..ops import Array, attention, linear, rotate
from ..trace import Scope
from .past import Past


@dataclass(frozen=True)
class AttentionWeights:
    official: ClassVar[Names] = ("Qwen3TTSTokenizerV2DecoderAttention", "MimiAttention")

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
    """Causal attention, without the talker's norm on q and k. x [T, H] -> [T, H].

    x is a complete sequence or, with ``past`` and a ``window``, the next positions of a stream.
    """
    t, d = Scope(name), c.head_dim
    q = t("q_proj", linear(x, w.q_proj)).reshape(len(x), c.num_attention_heads, d)  # [T, N, D]
    k = t("k_proj", linear(x, w.k_proj)).reshape(len(x), c.num_key_value_heads, d)  # [T, K, D]
    v = t("v_proj", linear(x, w.v_proj)).reshape(len(x), c.num_key_value_heads, d)  # [T, K, D]
    q, k = t("q_rot", rotate(q, *rope)), t("k_rot", rotate(k, *rope))
    if past is not None and window is not None:
        k, v = (past.before(f"{name}.{n}", a.T, window - 1).T for n, a in (("k", k), ("v", v)))  # [S + T, K, D]
    context = t("context", attention(q, k, v, window).reshape(len(x), -1))  # [T, ND]
    return t("o_proj", linear(context, w.o_proj))
