"""The frame loop's body, compiled: one call a frame in every thread of a team. Compiled twin of generate.py's loop.

One frame: choose code 0 from the talker's logits, let the code predictor complete the frame, and read the sum of the
frame's embeddings and the next piece of text, which gives the logits of the next code 0. Items that have ended are
left out; those that go on are the columns of every pass.

All threads run all of this. What one thread does alone (choices, lists) the first does; what another thread wrote
is read behind a barrier.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import overload
from numpy.typing import NDArray

from .cpu import inlined, inner
from .pack import BLOCK
from .sampling_jit import NOT_A_NUMBER, Rule, Scratch, choose, predictor_scores, skip_choice, talker_scores
from .simd.functions import silu
from .simd.llvm import LANES
from .simd.ops import add, load, load_bf16, store
from .stack_jit import Stack, multiply
from .threads_jit import Member, barrier, share, team_kernel
from .transformer_jit import Cache, Columns, Transformer, Work, levels_of, normalise, transform

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]

MIN_NEW_TOKENS = 2  # the first two codes 0 are never the end of speech
CONTROL_TOKENS = 1024  # the upper end of the talker's vocabulary, never codes


class Affine(NamedTuple):
    """A matrix with a bias."""

    weight: Stack
    bias: F32  # rows, padded


class Talker(NamedTuple):
    layers: Transformer
    head: Stack
    vocabulary: int  # [V]
    eos: int


class Predictor(NamedTuple):
    layers: Transformer
    heads: Stack  # G - 1
    entries: int  # [C]
    projection: Affine  # small_to_mtp_projection
    projects: bool  # otherwise there is none


class CodeTables(NamedTuple):
    """The embeddings of all G code tables, one below the other: rows as wide as the talker's, flat."""

    values: NDArray[Any]  # bfloat16 as uint16, or float32
    first: I64  # [G] the first row of each table
    width: int


class Model(NamedTuple):
    talker: Talker
    predictor: Predictor
    tables: CodeTables


class Batch(NamedTuple):
    """What B items carry from frame to frame."""

    logits: F32  # [B, V], rows filled up to whole vectors, flat: of the next code 0
    hidden: F32  # [B, width], flat: of the last position read
    seen: NDArray[np.bool_]  # [B, V] codes 0 so far
    finished: NDArray[np.bool_]  # [B]
    length: I64  # [B] positions of the prompt
    text: F32  # [rows, width], flat: what is added to the frames of the items
    text_first: I64  # [B] the row of an item's first frame
    text_last: I64  # [B] the row of all frames from some on
    stream: NDArray[np.uint32]  # [streams, STATE + 1]
    stream_of: I64  # [B]
    codes: I64  # [B, G] of this frame
    going: I64  # [B] the items that go on
    status: I64  # [2] how many these are; 1 if a choice failed because logits were not finite


class Choosing(NamedTuple):
    """How codes are chosen, and room to do it."""

    talker: Rule
    subtalker: Rule
    scratch: Scratch


@team_kernel
def write_frame(
    me: Member,
    model: Model,
    batch: Batch,
    choosing: Choosing,
    step: int,
    is_last: bool,
    talker_cache: Cache,
    predictor_cache: Cache,
    columns: Columns,
    work: Work,
) -> None:
    """Choose codes 0; unless all items have ended or this ``is_last``, complete the frame and read it.

    Afterwards ``batch.codes`` has a frame for each of the first ``batch.status[0]`` items of ``batch.going``.
    """
    if me.index == 0:
        _choose_code0(model.talker, batch, choosing, step)
    barrier(me)
    going = batch.status[0]
    if going == 0 or is_last:
        return
    _complete_frame(me, model, batch, choosing, going, predictor_cache, columns, work)
    _embed_frame(me, model.tables, batch, step, going, columns, work)
    barrier(me)
    transform(me, model.talker.layers, columns, going, talker_cache, work)
    _read_logits(me, model.talker, batch, np.int64(0), going, columns, work)  # a plain 0 would be compiled on its own


@team_kernel
def read_prompt(
    me: Member, talker: Talker, batch: Batch, count: int, ends: I64, cache: Cache, columns: Columns, work: Work
) -> None:
    """Read ``count`` columns of prompts, whose inputs are in ``work.x``.

    ends[c]: 1 if column c is the last of its prompt, else 0. Such columns come last.
    """
    transform(me, talker.layers, columns, count, cache, work)
    inside = count
    while inside > 0 and ends[inside - 1]:
        inside -= 1
    if inside < count:
        _read_logits(me, talker, batch, inside, count - inside, columns, work)


@inner
def _read_logits(
    me: Member, talker: Talker, batch: Batch, first: int, count: int, columns: Columns, work: Work
) -> None:
    """Hidden states and logits of the items whose columns of ``work.x`` are first, first + 1, ..."""
    width = talker.layers.sizes.width
    h = work.normed[me.index]
    normalise(work.x[first * width :], count, talker.layers.norm, talker.layers.sizes, h)
    if me.index == 0:
        for c in range(count):
            for i in range(0, width, LANES):
                store(batch.hidden, columns.item[first + c] * width + i, load(h, c * width + i))
    row = _matrix_logits(me, talker.head, 0, h, count, talker.vocabulary, work)
    begin, end = share(me, row // LANES)
    for c in range(count):
        for i in range(begin * LANES, end * LANES, LANES):
            store(batch.logits, columns.item[first + c] * row + i, load(work.product, c * row + i))


@inlined
def _matrix_logits(me: Member, head: Stack, index: int, h: F32, count: int, entries: int, work: Work) -> int:
    """Logits [count, entries], rows filled up to whole vectors, to ``work.product``: this thread's part.

    Gives the length of a row.
    """
    blocks = -(-entries // BLOCK)
    first, end = share(me, blocks)
    multiply(head, index, h, count, work.product, blocks * BLOCK, first, end, levels_of(me, work))
    return blocks * BLOCK


@inlined
def _choose_code0(talker: Talker, batch: Batch, choosing: Choosing, step: int) -> None:
    """Code 0 of every item, and the list of those that go on."""
    vocabulary, row = talker.vocabulary, -(-talker.vocabulary // BLOCK) * BLOCK
    going = 0
    for item in range(batch.finished.size):
        stream = batch.stream[batch.stream_of[item]]
        if batch.finished[item]:
            skip_choice(vocabulary, choosing.talker, stream)
            continue
        talker_scores(
            batch.logits, item * row, vocabulary, batch.seen[item], max(vocabulary - CONTROL_TOKENS, 0), talker.eos,
            step >= MIN_NEW_TOKENS, choosing.talker, choosing.scratch.scores,
        )  # fmt: skip
        code = _chosen(vocabulary, choosing.talker, stream, choosing.scratch, batch)
        batch.codes[item, 0] = code
        batch.seen[item, code] = True
        if code == talker.eos:
            batch.finished[item] = True
        else:
            batch.going[going] = item
            going += 1
    batch.status[0] = going


@inlined
def _complete_frame(
    me: Member,
    model: Model,
    batch: Batch,
    choosing: Choosing,
    going: int,
    cache: Cache,
    columns: Columns,
    work: Work,
) -> None:
    """Codes 1..G-1. The first pass reads two positions of each item: the talker's hidden state, and code 0."""
    predictor, groups = model.predictor, batch.codes.shape[1]
    for group in range(1, groups):
        count = 2 * going if group == 1 else going
        _gather_inputs(me, model, batch, group, going, columns, work)
        _enter(me, predictor, count, work)
        barrier(me)
        transform(me, predictor.layers, columns, count, cache, work)
        sizes = predictor.layers.sizes
        h = work.normed[me.index]
        normalise(work.x[(count - going) * sizes.width :], going, predictor.layers.norm, sizes, h)
        _matrix_logits(me, predictor.heads, group - 1, h, going, predictor.entries, work)
        barrier(me)
        if me.index == 0:
            _choose_codes(predictor, batch, choosing, group, work)
        barrier(me)


@inlined
def _gather_inputs(
    me: Member, model: Model, batch: Batch, group: int, going: int, columns: Columns, work: Work
) -> None:
    """What the predictor reads to choose code ``group``, in every thread's own ``work.normed`` [columns, width]."""
    width, inputs = model.tables.width, work.normed[me.index]
    for c in range(going):
        item, own = batch.going[c], c
        if group == 1:
            for i in range(0, width, LANES):
                store(inputs, c * width + i, load(batch.hidden, item * width + i))
            own = going + c
        table = (model.tables.first[group - 1] + batch.codes[item, group - 1]) * width
        for i in range(0, width, LANES):
            store(inputs, own * width + i, load_stored(model.tables.values, table + i))
        if me.index == 0:
            columns.item[c] = columns.item[own] = item
            columns.position[c] = 0
            columns.position[own] = group


@inlined
def _enter(me: Member, predictor: Predictor, count: int, work: Work) -> None:
    """Inputs, projected where the predictor is narrower than the talker, to ``work.x``."""
    inputs, width = work.normed[me.index], predictor.layers.sizes.width
    if predictor.projects:
        _affine(me, predictor.projection, inputs, count, work.x, width, work)
    else:
        first, end = share(me, width // LANES)
        for c in range(count):
            for i in range(c * width + first * LANES, c * width + end * LANES, LANES):
                store(work.x, i, load(inputs, i))


@inlined
def _choose_codes(predictor: Predictor, batch: Batch, choosing: Choosing, group: int, work: Work) -> None:
    """Code ``group`` of every item that goes on. The others keep their place in the draw, as officially."""
    row = -(-predictor.entries // BLOCK) * BLOCK
    column = 0
    for item in range(batch.finished.size):
        stream = batch.stream[batch.stream_of[item]]
        if batch.finished[item]:
            skip_choice(predictor.entries, choosing.subtalker, stream)
            continue
        predictor_scores(work.product, column * row, predictor.entries, choosing.subtalker, choosing.scratch.scores)
        batch.codes[item, group] = _chosen(predictor.entries, choosing.subtalker, stream, choosing.scratch, batch)
        column += 1


@inner
def _chosen(count: int, rule: Rule, stream: NDArray[np.uint32], scratch: Scratch, batch: Batch) -> int:
    code = choose(count, rule, stream, scratch)
    if code == NOT_A_NUMBER:
        batch.status[1] = 1
        return 0
    return code


@inlined
def _embed_frame(
    me: Member, tables: CodeTables, batch: Batch, step: int, going: int, columns: Columns, work: Work
) -> None:
    """Talker inputs: the sum of a frame's embeddings and the next piece of text, to ``work.x``: this thread's part."""
    width, groups = tables.width, batch.codes.shape[1]
    first, end = share(me, width // LANES)
    for c in range(going):
        item = batch.going[c]
        text = min(batch.text_first[item] + step, batch.text_last[item]) * width
        for i in range(first * LANES, end * LANES, LANES):
            x = load_stored(tables.values, (tables.first[0] + batch.codes[item, 0]) * width + i)
            for group in range(1, groups):
                row = tables.first[group] + batch.codes[item, group]
                x = add(x, load_stored(tables.values, row * width + i))
            store(work.x, c * width + i, add(x, load(batch.text, text + i)))
        if me.index == 0:
            columns.item[c], columns.position[c] = item, batch.length[item] + step


@team_kernel
def project_text(me: Member, fc1: Affine, fc2: Affine, x: F32, count: int, hidden: F32, y: F32, work: Work) -> None:
    """``text_projection``: fc2(silu(fc1(x))) of ``count`` columns, all of them flat and filled up to whole vectors."""
    width = fc1.bias.size
    _affine(me, fc1, x, count, hidden, width, work)
    first, end = share(me, width // BLOCK)
    for c in range(count):
        for i in range(c * width + first * BLOCK, c * width + end * BLOCK, LANES):
            store(hidden, i, silu(load(hidden, i)))
    barrier(me)
    _affine(me, fc2, hidden, count, y, fc2.bias.size, work)


@inlined
def _affine(me: Member, w: Affine, x: F32, count: int, y: F32, width: int, work: Work) -> None:
    """y [count, width] = x wᵀ + bias: this thread's rows."""
    first, end = share(me, width // BLOCK)
    multiply(w.weight, 0, x, count, y, width, first, end, levels_of(me, work))
    for c in range(count):
        for i in range(first * BLOCK, end * BLOCK, LANES):
            store(y, c * width + i, add(load(y, c * width + i), load(w.bias, i)))


def load_stored(values: NDArray[Any], i: int) -> Any:
    """16 values from element i, as they are stored: float32, or bfloat16 as uint16."""
    raise NotImplementedError("compiled code only")


@overload(load_stored)
def _load_stored(values: Any, i: Any) -> Callable[..., Any]:
    if values.dtype == types.float32:

        def whole(values: Any, i: Any) -> Any:
            return load(values, i)

        return whole

    def half(values: Any, i: Any) -> Any:
        return load_bf16(values, i)

    return half
