"""Row order of the matrices of a transformer, as ``transformer_jit.py`` reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from qwen3tts_np_kernels.pack import BLOCK, Format, Packed
from qwen3tts_np_kernels.stack_jit import Stack
from qwen3tts_np_kernels.transformer_jit import Transformer, TransformerSizes

from ...config import CodePredictorConfig, TalkerConfig
from ...talker.code_predictor import CodePredictorWeights
from ...talker.layer import Qwen3Layer
from ...talker.talker import TalkerWeights
from .stacks import Matrix, Rows, fill, padded, stack, take, vectors


def transformer(
    w: TalkerWeights | CodePredictorWeights,
    c: TalkerConfig | CodePredictorConfig,
    form: Format,
    ready: Callable[[str], Packed | None],
) -> Transformer:
    """The layers and the last norm of the talker or the code predictor. ``ready``: arenas of the checkpoint."""
    sizes = TransformerSizes(
        layers=c.num_hidden_layers,
        width=padded(c.hidden_size),
        hidden_size=c.hidden_size,
        feed_forward=padded(c.intermediate_size),
        heads=c.num_attention_heads,
        kv_heads=c.num_key_value_heads,
        half=padded(c.head_dim) // 2,
        head_dim=c.head_dim,
        eps=c.rms_norm_eps,
    )
    head, layers = 2 * sizes.half, w.layers
    heads = sizes.heads + 2 * sizes.kv_heads  # of queries, keys and values

    def pack(name: str, matrix: Callable[[Qwen3Layer], Matrix], rows: int, inputs: int) -> Stack:
        return stack([partial(matrix, w) for w in layers], rows, inputs, form, ready(name))

    return Transformer(
        sizes,
        qkv=pack("qkv", partial(_qkv, sizes=sizes, form=form), heads * head, sizes.width),
        o_proj=pack("o_proj", partial(_o_proj, sizes=sizes, form=form), sizes.width, sizes.heads * head),
        gate_up=pack("gate_up", partial(_gate_up, sizes=sizes, form=form), 2 * sizes.feed_forward, sizes.width),
        down_proj=pack("down_proj", lambda w: take(w.mlp.down_proj, form), sizes.width, sizes.feed_forward),
        input_norm=vectors([w.input_layernorm for w in layers]),
        post_norm=vectors([w.post_attention_layernorm for w in layers]),
        q_norm=vectors([w.self_attn.q_norm for w in layers], halves=2),
        k_norm=vectors([w.self_attn.k_norm for w in layers], halves=2),
        norm=vectors([w.norm])[0],
    )


def _qkv(w: Qwen3Layer, sizes: TransformerSizes, form: Format) -> Matrix:
    """Rows by key/value head: its queries, its key, its value. [K * (queries + 2) * head, H]"""

    def arrange(q: Rows, k: Rows, v: Rows) -> Rows:
        q, k, v = (_split_heads(rows, sizes) for rows in (q, k, v))  # [N or K, head, ...]
        queries = q.reshape(sizes.kv_heads, -1, *q.shape[1:])  # [K, queries, head, ...]
        return np.concatenate([queries, k[:, None], v[:, None]], axis=1).reshape(-1, q.shape[2])

    return _together(arrange, [w.self_attn.q_proj, w.self_attn.k_proj, w.self_attn.v_proj], form)


def _split_heads(rows: Rows, sizes: TransformerSizes) -> Rows:
    """[N * D, ...] -> [N, head, ...]: each half of a head zero-padded."""
    halves = rows.reshape(-1, 2, sizes.head_dim // 2, rows.shape[1])
    return fill(halves, {2: sizes.half}).reshape(-1, 2 * sizes.half, rows.shape[1])


def _o_proj(w: Qwen3Layer, sizes: TransformerSizes, form: Format) -> Matrix:
    """[H, N * head]: the inputs in the order of the padded heads."""
    if 2 * sizes.half == sizes.head_dim:
        return take(w.self_attn.o_proj, form)
    (matrix,) = take(w.self_attn.o_proj, None)  # [H, N * D]
    halves = matrix.reshape(len(matrix), -1, sizes.head_dim // 2)
    return (fill(halves, {2: sizes.half}).reshape(len(matrix), -1),)


def _gate_up(w: Qwen3Layer, sizes: TransformerSizes, form: Format) -> Matrix:
    """[2 F, H]: 16 rows of gate, the same 16 of up, the next of gate ..."""

    def arrange(gate: Rows, up: Rows) -> Rows:
        blocks = [fill(rows, {0: sizes.feed_forward}).reshape(-1, 1, BLOCK, rows.shape[1]) for rows in (gate, up)]
        return np.concatenate(blocks, axis=1).reshape(-1, gate.shape[1])

    return _together(arrange, [w.mlp.gate_proj, w.mlp.up_proj], form)


def _together(arrange: Callable[..., Rows], tensors: Sequence[Any], form: Format) -> Matrix:
    """Join the rows of several matrices: weights with weights, or levels with levels and scales with scales."""
    matrices = [take(tensor, form) for tensor in tensors]
    if len({len(matrix) for matrix in matrices}) > 1:  # only some of them are quantised
        matrices = [take(tensor, None) for tensor in tensors]
    return tuple(arrange(*parts) for parts in zip(*matrices, strict=True))
