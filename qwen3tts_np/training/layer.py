"""One Qwen3 layer and its gradient: x + attention(norm(x)), then x + mlp(norm(x)), and the same from bottom to top.

The forward pass is that of ``talker/layer.py``, on the positions of many sequences at once. Shapes: P positions of all
sequences, one behind the other; the other letters are those of ``config.py``.

``forward`` is read from top to bottom, ``backward`` beside it from bottom to top. Where the loss depends on y = f(x)
only through y, dx stands for its gradient with respect to x; a value that two branches use has the sum of both.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from qwen3tts_np_kernels.self_attention import self_attention, self_attention_backward

from ..ops import Array
from ..talker.layer import LayerConfig, Rope
from .operations import rms_norm, rms_norm_backward, rotate, rotate_backward, swiglu, swiglu_backward
from .parameters import Parameters


class Block(NamedTuple):
    """Rows ``first`` to ``end`` of the positions: sequences of ``length`` one behind the other."""

    first: int
    end: int
    length: int


class Kept(NamedTuple):
    """What the gradient of a layer needs of its forward pass."""

    x: Array  # [P, H]
    h: Array  # [P, H]
    q: Array  # [P, N, D]
    k: Array  # [P, K, D]
    v: Array  # [P, K, D]
    q_rot: Array  # [P, N, D]
    k_rot: Array  # [P, K, D]
    probabilities: list[Array]  # of each block [B, K, N/K, T, T]
    context: Array  # [P, ND]
    x2: Array  # [P, H]
    h2: Array  # [P, H]
    gate: Array  # [P, F]
    up: Array  # [P, F]
    gated: Array  # [P, F]


def forward(
    x: Array, w: Parameters, name: str, rope: Rope, blocks: Iterable[Block], c: LayerConfig
) -> tuple[Array, Kept]:
    """x [P, H] -> y [P, H], and what ``backward`` needs. ``rope``: cos and sin [P, D/2] of each position."""
    p, d, eps = len(x), c.head_dim, c.rms_norm_eps
    h = rms_norm(x, w[f"{name}.input_layernorm.weight"], eps)
    q = w.linear(h, f"{name}.self_attn.q_proj").reshape(p, c.num_attention_heads, d)
    k = w.linear(h, f"{name}.self_attn.k_proj").reshape(p, c.num_key_value_heads, d)
    v = w.linear(h, f"{name}.self_attn.v_proj").reshape(p, c.num_key_value_heads, d)
    q_rot = rotate(rms_norm(q, w[f"{name}.self_attn.q_norm.weight"], eps), *rope)
    k_rot = rotate(rms_norm(k, w[f"{name}.self_attn.k_norm.weight"], eps), *rope)
    context, probabilities = _attend(q_rot, k_rot, v, blocks)
    x2 = x + w.linear(context, f"{name}.self_attn.o_proj")

    h2 = rms_norm(x2, w[f"{name}.post_attention_layernorm.weight"], eps)
    gate = w.linear(h2, f"{name}.mlp.gate_proj")
    up = w.linear(h2, f"{name}.mlp.up_proj")
    gated = swiglu(gate, up)
    y = x2 + w.linear(gated, f"{name}.mlp.down_proj")
    return y, Kept(x, h, q, k, v, q_rot, k_rot, probabilities, context, x2, h2, gate, up, gated)


def backward(
    dy: Array, kept: Kept, w: Parameters, name: str, rope: Rope, blocks: Iterable[Block], c: LayerConfig
) -> Array:
    """dx [P, H], given dy [P, H]. Adds to the gradients of the weights that are trained."""
    x, h, q, k, v, q_rot, k_rot, probabilities, context, x2, h2, gate, up, gated = kept
    p, eps = len(x), c.rms_norm_eps
    dgated = w.linear_backward(dy, gated, f"{name}.mlp.down_proj")
    dgate, dup = swiglu_backward(dgated, gate, up)
    dh2 = w.linear_backward(dup, h2, f"{name}.mlp.up_proj")
    dh2 += w.linear_backward(dgate, h2, f"{name}.mlp.gate_proj")
    dx2 = dy + norm_backward(dh2, x2, w, f"{name}.post_attention_layernorm.weight", eps)

    dcontext = w.linear_backward(dx2, context, f"{name}.self_attn.o_proj").reshape(q.shape)
    dq_rot, dk_rot, dv = _attend_backward(dcontext, q_rot, k_rot, v, probabilities, blocks)
    dk = norm_backward(rotate_backward(dk_rot, *rope), k, w, f"{name}.self_attn.k_norm.weight", eps)
    dq = norm_backward(rotate_backward(dq_rot, *rope), q, w, f"{name}.self_attn.q_norm.weight", eps)
    dh = w.linear_backward(dv.reshape(p, -1), h, f"{name}.self_attn.v_proj")
    dh += w.linear_backward(dk.reshape(p, -1), h, f"{name}.self_attn.k_proj")
    dh += w.linear_backward(dq.reshape(p, -1), h, f"{name}.self_attn.q_proj")
    return dx2 + norm_backward(dh, x, w, f"{name}.input_layernorm.weight", eps)


def norm_backward(dy: Array, x: Array, w: Parameters, name: str, eps: float) -> Array:
    """dx of an RMSNorm, whose weight learns."""
    dx, dweight = rms_norm_backward(dy, x, w[name], eps)
    w.learn(name, dweight)
    return dx


def _attend(q: Array, k: Array, v: Array, blocks: Iterable[Block]) -> tuple[Array, list[Array]]:
    """Attention within each sequence -> context [P, ND], and the probabilities of each block."""
    context, probabilities = np.empty(q.shape, q.dtype), []
    for block in blocks:
        seen, p = self_attention(_sequences(q, block), _sequences(k, block), _sequences(v, block))
        context[block.first : block.end] = seen.reshape(-1, *q.shape[1:])
        probabilities.append(p)
    return context.reshape(len(q), -1), probabilities


def _attend_backward(
    dcontext: Array, q: Array, k: Array, v: Array, probabilities: list[Array], blocks: Iterable[Block]
) -> tuple[Array, Array, Array]:
    dq, dk, dv = np.empty_like(q), np.empty_like(k), np.empty_like(v)
    for block, p in zip(blocks, probabilities, strict=True):
        dy, *of_block = (_sequences(part, block) for part in (dcontext, q, k, v))
        found = self_attention_backward(dy, of_block[0], of_block[1], of_block[2], p)
        for whole, part in zip((dq, dk, dv), found, strict=True):
            whole[block.first : block.end] = part.reshape(-1, *whole.shape[1:])
    return dq, dk, dv


def _sequences(x: Array, block: Block) -> Array:
    """The sequences of a block. [P, heads, D] -> [B, T, heads, D], a view."""
    return x[block.first : block.end].reshape(-1, block.length, *x.shape[1:])
