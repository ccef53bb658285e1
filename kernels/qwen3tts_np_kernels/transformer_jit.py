"""One compiled forward pass of a Qwen3 transformer: prefill and steps of the talker, and steps of the code predictor.

A column is one position of one item. A pass reads every weight once and applies it to all its columns, so a batch
costs little more than one item, and a prompt little more than a step. A column's result does not depend on the others
of its pass, except through the cache, nor on the number of threads: rows of a matrix are shared out, never a sum.

Widths are zero-padded: H and F to a multiple of ``STEP`` values, and each half of a head, which rotation keeps apart,
to a multiple of 16. Rows of q, k and v are grouped by key/value head: its queries, its key, its value. So a thread that
takes a key/value head needs no other thread up to the attention's result. Blocks of gate and up rows alternate.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .arrays import F32, I8, I32, I64
from .attention_jit import attend, norm_rotate
from .cpu import inlined, inner
from .norm_jit import rms_norm_row
from .pack import BLOCK
from .simd.functions import silu
from .simd.llvm import LANES
from .simd.ops import add, load, mul, store
from .stack_jit import Levels, Stack, multiply
from .threads_jit import Member, barrier, first_part, next_part

STEP = 2 * LANES


class TransformerSizes(NamedTuple):
    """Sizes of one transformer. Those without a letter in brackets are as stored, padding included."""

    layers: int
    width: int
    hidden_size: int  # [H]
    feed_forward: int
    heads: int  # [N]
    kv_heads: int  # [K]
    half: int  # of a head
    head_dim: int  # [D]
    eps: float


class Transformer(NamedTuple):
    """Weights of all layers: stacks of matrices, and the vectors of the layers, concatenated."""

    sizes: TransformerSizes
    qkv: Stack
    o_proj: Stack
    gate_up: Stack
    down_proj: Stack
    input_norm: F32  # [layers, width]
    post_norm: F32  # [layers, width]
    q_norm: F32  # [layers, head]
    k_norm: F32  # [layers, head]
    norm: F32  # [width]


class Cache(NamedTuple):
    """Keys and values [items, layers, K, room, head], flat, and the angles [room, head / 2] of all positions, flat."""

    k: F32
    v: F32
    room: int
    cos: F32
    sin: F32


class Columns(NamedTuple):
    """The columns of a pass: the item and the position of each."""

    item: I64
    position: I64


class Work(NamedTuple):
    """Buffers for passes of up to M columns. Shapes [threads, ...] have a row per thread; the others are shared."""

    x: F32  # [M, width], flat: the residual stream
    qkv: F32  # [M, K, queries + 2, head], flat
    context: F32  # [M, N, head], flat: the attention's result
    gated: F32  # [M, feed_forward], flat
    product: F32  # [M, 2 * feed_forward], flat: output of a matrix before it is moved or added to its destination
    normed: F32  # [threads, M * width]
    scores: F32  # [threads, 2 * room]
    levels: I8  # [threads, M * widest input]
    scales: F32  # [threads, ...]
    zeros: I32  # [threads, ...]


@inner
def transform(me: Member, w: Transformer, columns: Columns, count: int, wanted: int, cache: Cache, work: Work) -> None:
    """Apply all layers to ``count`` columns, in place in ``work.x``, where the first ``wanted`` have their results.

    The others are read for those that follow them: their last layer is keys and values, and nothing else.
    """
    for layer in range(w.sizes.layers):
        results = count if layer < w.sizes.layers - 1 else wanted
        _self_attention(me, w, layer, columns, count, results, cache, work)
        _mlp(me, w, layer, results, work)


@inner
def normalise(x: F32, count: int, weight: F32, sizes: TransformerSizes, y: F32) -> None:
    """y = RMSNorm of the first ``count`` columns of x [M, width], both flat.

    Every thread computes all of it for itself, which takes less time than a barrier.
    """
    for at in range(0, count * sizes.width, sizes.width):
        rms_norm_row(x, at, weight, 0, sizes.width, sizes.hidden_size, sizes.eps, y, at)


@inlined
def _self_attention(
    me: Member, w: Transformer, layer: int, columns: Columns, count: int, results: int, cache: Cache, work: Work
) -> None:
    sizes = w.sizes
    rows = (sizes.heads // sizes.kv_heads + 2) * 2 * sizes.half  # of a key/value head in the qkv matrix
    h = work.normed[me.index]
    normalise(work.x, count, w.input_norm[layer], sizes, h)
    blocks = rows // BLOCK
    own = levels_of(me, work)
    part = first_part(me, sizes.kv_heads)
    while part.first < part.end:
        first, end = part.first * blocks, part.end * blocks
        multiply(w.qkv, layer, h, count, work.qkv, sizes.kv_heads * rows, first, end, own, part.fresh)
        for kv_head in range(part.first, part.end):
            _attend_head(me, w, layer, kv_head, columns, count, results, cache, work)
        part = next_part(me, sizes.kv_heads, part)
    barrier(me)

    _add_product(me, w.o_proj, layer, work.context, results, sizes.width, work)
    barrier(me)


@inner
def _attend_head(
    me: Member,
    w: Transformer,
    layer: int,
    kv_head: int,
    columns: Columns,
    count: int,
    results: int,
    cache: Cache,
    work: Work,
) -> None:
    """Normalise and rotate the queries and key of one key/value head, cache key and value, and attend."""
    sizes = w.sizes
    group, head = sizes.heads // sizes.kv_heads, 2 * sizes.half
    rows = (group + 2) * head
    for c in range(count):
        at = (c * sizes.kv_heads + kv_head) * rows
        key, value = at + group * head, at + (group + 1) * head
        angle = columns.position[c] * sizes.half
        for query in range(at, key, head):
            norm_rotate(
                work.qkv, query, sizes.half, sizes.head_dim, w.q_norm[layer], sizes.eps, cache.cos, cache.sin, angle
            )
        norm_rotate(work.qkv, key, sizes.half, sizes.head_dim, w.k_norm[layer], sizes.eps, cache.cos, cache.sin, angle)
        place = _place(columns.item[c], layer, kv_head, sizes, cache) + columns.position[c] * head
        for i in range(0, head, LANES):
            store(cache.k, place + i, load(work.qkv, key + i))
            store(cache.v, place + i, load(work.qkv, value + i))
    scale = 1.0 / np.sqrt(sizes.head_dim)
    for c in range(results):
        query, y_at = (c * sizes.kv_heads + kv_head) * rows, (c * sizes.heads + kv_head * group) * head
        place = _place(columns.item[c], layer, kv_head, sizes, cache)
        attend(
            work.qkv, query, group, head, cache.k, cache.v, place, head, columns.position[c] + 1, scale,
            work.scores[me.index], work.context, y_at,
        )  # fmt: skip


@inlined
def _place(item: int, layer: int, kv_head: int, sizes: TransformerSizes, cache: Cache) -> int:
    """Offset of the keys and values of one head of one item."""
    return ((item * sizes.layers + layer) * sizes.kv_heads + kv_head) * cache.room * 2 * sizes.half


@inlined
def _mlp(me: Member, w: Transformer, layer: int, count: int, work: Work) -> None:
    sizes = w.sizes
    h = work.normed[me.index]
    normalise(work.x, count, w.post_norm[layer], sizes, h)
    blocks, own = sizes.feed_forward // BLOCK, levels_of(me, work)
    part = first_part(me, blocks)
    while part.first < part.end:
        first, end = 2 * part.first, 2 * part.end
        multiply(w.gate_up, layer, h, count, work.product, 2 * sizes.feed_forward, first, end, own, part.fresh)
        for c in range(count):
            for block in range(part.first, part.end):
                gate = (c * sizes.feed_forward + block * BLOCK) * 2
                gated = mul(silu(load(work.product, gate)), load(work.product, gate + BLOCK))
                store(work.gated, c * sizes.feed_forward + block * BLOCK, gated)
        part = next_part(me, blocks, part)
    barrier(me)

    _add_product(me, w.down_proj, layer, work.gated, count, sizes.width, work)
    barrier(me)


@inlined
def _add_product(me: Member, stack: Stack, layer: int, x: F32, count: int, width: int, work: Work) -> None:
    """work.x += matrix ``layer`` of the stack times x: the rows that this thread takes, two blocks at least."""
    own = levels_of(me, work)
    part = first_part(me, width // STEP)
    while part.first < part.end:
        first, end = part.first * STEP, part.end * STEP
        multiply(stack, layer, x, count, work.product, width, first // BLOCK, end // BLOCK, own, part.fresh)
        for c in range(count):
            for i in range(c * width + first, c * width + end, LANES):
                store(work.x, i, add(load(work.x, i), load(work.product, i)))
        part = next_part(me, width // STEP, part)


@inlined
def levels_of(me: Member, work: Work) -> Levels:
    """This thread's buffers for quantised inputs."""
    return Levels(work.levels[me.index], work.scales[me.index], work.zeros[me.index])
