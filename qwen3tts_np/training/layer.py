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

from ..compiled.blas import limited_blas
from ..ops import Array
from ..talker.layer import LayerConfig, Rope
from .operations import rms_norm, rms_norm_backward, rotate, rotate_backward, swiglu, swiglu_backward
from .parameters import Parameters
from .threads import parts, side_by_side


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
    attended: list[Attended]  # with their probabilities
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
    context, attended = _attend(q_rot, k_rot, v, blocks)
    x2 = x + w.linear(context, f"{name}.self_attn.o_proj")

    h2 = rms_norm(x2, w[f"{name}.post_attention_layernorm.weight"], eps)
    gate = w.linear(h2, f"{name}.mlp.gate_proj")
    up = w.linear(h2, f"{name}.mlp.up_proj")
    gated = swiglu(gate, up)
    y = x2 + w.linear(gated, f"{name}.mlp.down_proj")
    return y, Kept(x, h, q, k, v, q_rot, k_rot, attended, context, x2, h2, gate, up, gated)


def backward(dy: Array, kept: Kept, w: Parameters, name: str, rope: Rope, c: LayerConfig) -> Array:
    """dx [P, H], given dy [P, H]. Adds to the gradients of the weights that are trained."""
    x, h, q, k, v, q_rot, k_rot, attended, context, x2, h2, gate, up, gated = kept
    p, eps = len(x), c.rms_norm_eps
    dgated = w.linear_backward(dy, gated, f"{name}.mlp.down_proj")
    dgate, dup = swiglu_backward(dgated, gate, up)
    dh2 = w.linear_backward(dup, h2, f"{name}.mlp.up_proj")
    dh2 += w.linear_backward(dgate, h2, f"{name}.mlp.gate_proj")
    dx2 = dy + norm_backward(dh2, x2, w, f"{name}.post_attention_layernorm.weight", eps)

    dcontext = w.linear_backward(dx2, context, f"{name}.self_attn.o_proj").reshape(q.shape)
    dq_rot, dk_rot, dv = _attend_backward(dcontext, q_rot, k_rot, v, attended)
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


class Attended(NamedTuple):
    """Some sequences of a block, and some key/value heads with the query heads that read them: one thread's part."""

    block: Block
    sequences: slice
    heads: slice
    probabilities: list[Array]

    def of(self, x: Array, kv_heads: int) -> Array:
        """This part of x [P, heads, D], as a view [B, T, heads, D]."""
        whole = x[self.block.first : self.block.end].reshape(-1, self.block.length, *x.shape[1:])
        group = x.shape[1] // kv_heads
        return whole[self.sequences, :, self.heads.start * group : self.heads.stop * group]


def _attend(q: Array, k: Array, v: Array, blocks: Iterable[Block]) -> tuple[Array, list[Attended]]:
    """Attention within each sequence -> context [P, ND], and the probabilities of each part."""
    context, heads = np.empty(q.shape, q.dtype), k.shape[1]

    def attend(part: Attended) -> Attended:
        part.of(context, heads)[...], kept = self_attention(*(part.of(x, heads) for x in (q, k, v)))
        return part._replace(probabilities=kept)

    asked = [part for block in blocks for part in _parts(block, heads, q[0].size)]
    with limited_blas(1 if len(asked) > 1 else None):
        attended = side_by_side(attend, asked)
    return context.reshape(len(q), -1), attended


def _attend_backward(
    dcontext: Array, q: Array, k: Array, v: Array, attended: list[Attended]
) -> tuple[Array, Array, Array]:
    dq, dk, dv, heads = np.empty_like(q), np.empty_like(k), np.empty_like(v), k.shape[1]

    def back(part: Attended) -> None:
        dy, *read = (part.of(x, heads) for x in (dcontext, q, k, v))
        found = self_attention_backward(dy, read[0], read[1], read[2], part.probabilities)
        for whole, gradient in zip((dq, dk, dv), found, strict=True):
            part.of(whole, heads)[...] = gradient

    with limited_blas(1 if len(attended) > 1 else None):
        side_by_side(back, attended)
    return dq, dk, dv


def _parts(block: Block, heads: int, width: int) -> list[Attended]:
    """A block for the threads: its sequences, or the heads where it has but one."""
    count, values = (block.end - block.first) // block.length, (block.end - block.first) * width
    if count > 1:
        return [Attended(block, part, slice(0, heads), []) for part in parts(count, values)]
    return [Attended(block, slice(0, 1), part, []) for part in parts(heads, values)]
