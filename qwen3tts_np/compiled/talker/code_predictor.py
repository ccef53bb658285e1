"""The compiled code predictor: completes a frame with codes 1 to G - 1, one pass each.

Twin of ``talker/code_predictor.py``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from qwen3tts_np_kernels.cpu import inlined, inner
from qwen3tts_np_kernels.pack import BLOCK
from qwen3tts_np_kernels.simd.llvm import LANES
from qwen3tts_np_kernels.simd.ops import load, store
from qwen3tts_np_kernels.stack_jit import affine
from qwen3tts_np_kernels.threads_jit import Member, barrier, share
from qwen3tts_np_kernels.transformer_jit import Cache, Columns, Work, levels_of, normalise, transform

from .batch import DRAWING, IDLE, Batch, Choosing
from .code_tables import load_embedding
from .sampling import NOT_A_NUMBER, Rule, Scratch, choose, predictor_scores, rule_at, skip_choice
from .talker import read_head
from .weights import Model, Predictor


@inlined
def complete_frame(
    me: Member,
    model: Model,
    batch: Batch,
    choosing: Choosing,
    going: int,
    cache: Cache,
    columns: Columns,
    work: Work,
) -> None:
    """Choose codes 1..G-1. The first pass reads code 0 and, at the position before it, the talker's hidden state."""
    predictor, groups = model.predictor, batch.codes.shape[1]
    for group in range(1, groups):
        count = 2 * going if group == 1 else going
        _gather_inputs(me, model, batch, group, going, columns, work)
        _enter(me, predictor, count, work)
        barrier(me)
        transform(me, predictor.layers, columns, count, going, cache, work)
        h = work.normed[me.index]
        normalise(work.x, going, predictor.layers.norm, predictor.layers.sizes, h)
        read_head(me, predictor.heads, group - 1, h, going, predictor.entries, work)
        barrier(me)
        if me.index == 0:
            _choose_codes(predictor, batch, choosing, group, work)
        barrier(me)


@inlined
def _gather_inputs(
    me: Member, model: Model, batch: Batch, group: int, going: int, columns: Columns, work: Work
) -> None:
    """Write the inputs for code ``group`` to every thread's own ``work.normed`` [columns, width]."""
    width, inputs = model.tables.width, work.normed[me.index]
    for c in range(going):
        item = batch.going[c]
        table = (model.tables.first[group - 1] + batch.codes[item, group - 1]) * width
        for i in range(0, width, LANES):
            store(inputs, c * width + i, load_embedding(model.tables, table + i))
        if me.index == 0:
            columns.item[c], columns.position[c] = item, group
        if group == 1:
            before = going + c
            for i in range(0, width, LANES):
                store(inputs, before * width + i, load(batch.hidden, item * width + i))
            if me.index == 0:
                columns.item[before], columns.position[before] = item, 0


@inlined
def _enter(me: Member, predictor: Predictor, count: int, work: Work) -> None:
    """Write the inputs, projected where the predictor is narrower than the talker, to ``work.x``."""
    inputs, width = work.normed[me.index], predictor.layers.sizes.width
    if predictor.projects:
        affine(me, predictor.projection, inputs, count, work.x, levels_of(me, work))
    else:
        first, end = share(me, width // LANES)
        for c in range(count):
            for i in range(c * width + first * LANES, c * width + end * LANES, LANES):
                store(work.x, i, load(inputs, i))


@inlined
def _choose_codes(predictor: Predictor, batch: Batch, choosing: Choosing, group: int, work: Work) -> None:
    """Code ``group`` of every item that continues. Those that have ended still consume draws, as officially."""
    row = -(-predictor.entries // BLOCK) * BLOCK
    column = 0
    for item in range(batch.state.size):
        if batch.state[item] == IDLE:
            continue
        stream, rule = batch.stream[batch.stream_of[item]], rule_at(choosing.subtalker, item)
        if batch.state[item] == DRAWING:
            skip_choice(predictor.entries, rule, stream)
            continue
        predictor_scores(work.product, column * row, predictor.entries, rule, choosing.scratch.scores)
        batch.codes[item, group] = chosen(predictor.entries, rule, stream, choosing.scratch, batch, item)
        column += 1


@inner
def chosen(count: int, rule: Rule, stream: NDArray[np.uint32], scratch: Scratch, batch: Batch, item: int) -> int:
    """The code chosen from the scores in ``scratch``; the item has ``failed`` if they have no probabilities."""
    code = choose(count, rule, stream, scratch)
    if code == NOT_A_NUMBER:
        batch.failed[item] = True
        return 0
    return code
