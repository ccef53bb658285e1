"""One compiled frame: ``ReferenceSession.write_frame`` of ``generate.py``, a call per frame in each thread of a team.

Read the sum of the embeddings of the frame before and the next piece of text, which gives the talker's logits; choose
code 0 from them, and let the code predictor complete the frame. Items that have ended are left out; those that continue
are the columns of every pass. A frame is read when the next one is wanted: so nobody who waits for its codes waits for
that, or for text that has not arrived, and the last frame of a speech is never read.

All threads run all of this. Serial parts (choices, lists) run on the first thread; values written by another thread
are read after a barrier.
"""

from __future__ import annotations

from qwen3tts_np_kernels.cpu import inlined
from qwen3tts_np_kernels.pack import BLOCK
from qwen3tts_np_kernels.simd.llvm import LANES
from qwen3tts_np_kernels.simd.ops import add, load, store
from qwen3tts_np_kernels.threads_jit import Member, barrier, share, team_kernel
from qwen3tts_np_kernels.transformer_jit import Cache, Columns, Work, transform

from ...talker.sampling import CONTROL_TOKENS, MIN_NEW_TOKENS
from .batch import DRAWING, IDLE, SPEAKING, Batch, Choosing
from .code_predictor import chosen, complete_frame
from .code_tables import CodeTables, load_embedding
from .sampling import rule_at, skip_choice, talker_scores
from .talker import read_logits
from .weights import Model, Talker


@team_kernel
def write_frame(
    me: Member,
    model: Model,
    batch: Batch,
    choosing: Choosing,
    talker_cache: Cache,
    predictor_cache: Cache,
    columns: Columns,
    work: Work,
) -> None:
    """Read the frames that are unread and choose codes 0; unless all items have ended, complete the frame.

    Afterwards ``batch.codes`` holds a frame for each of the first ``batch.size[0]`` items of ``batch.going``, and the
    other items that spoke have ended.
    """
    if me.index == 0:
        _list_unread(batch, columns)
    barrier(me)
    unread = batch.size[1]
    if unread > 0:
        _embed_frames(me, model.tables, batch, unread, columns, work)
        barrier(me)
        transform(me, model.talker.layers, columns, unread, unread, talker_cache, work)
        read_logits(me, model.talker, batch, unread, columns, work)
        barrier(me)
    if me.index == 0:
        _choose_code0(model.talker, batch, choosing)
    barrier(me)
    going = batch.size[0]
    if going > 0:
        complete_frame(me, model, batch, choosing, going, predictor_cache, columns, work)
    if me.index == 0:
        _count_frames(batch)


@inlined
def _list_unread(batch: Batch, columns: Columns) -> None:
    """The items that speak and have not read their last frame, which are the columns of the talker's pass."""
    unread = 0
    for item in range(batch.state.size):
        if batch.state[item] == SPEAKING and batch.unread[item]:
            columns.item[unread], columns.position[unread] = item, batch.position[item]
            batch.position[item] += 1
            batch.unread[item] = False
            unread += 1
    batch.size[1] = unread


@inlined
def _choose_code0(talker: Talker, batch: Batch, choosing: Choosing) -> None:
    """Code 0 of every item that speaks, and the list of those that continue."""
    vocabulary, row = talker.vocabulary, -(-talker.vocabulary // BLOCK) * BLOCK
    going = 0
    for item in range(batch.state.size):
        if batch.state[item] == IDLE:
            continue
        stream, rule = batch.stream[batch.stream_of[item]], rule_at(choosing.talker, item)
        if batch.state[item] == DRAWING:
            skip_choice(vocabulary, rule, stream)
            continue
        talker_scores(
            batch.logits, item * row, vocabulary, batch.seen[item], max(vocabulary - CONTROL_TOKENS, 0), talker.eos,
            batch.frames[item] >= MIN_NEW_TOKENS, rule, choosing.scratch.scores,
        )  # fmt: skip
        code = chosen(vocabulary, rule, stream, choosing.scratch, batch, item)
        batch.codes[item, 0] = code
        batch.seen[item, code] = True
        if code == talker.eos or batch.frames[item] == batch.last_step[item] or batch.failed[item]:
            batch.state[item] = DRAWING
        else:
            batch.going[going] = item
            going += 1
    batch.size[0] = going


@inlined
def _count_frames(batch: Batch) -> None:
    """Of the items that continue, keep those that have a frame, which is to be read."""
    kept = 0
    for c in range(batch.size[0]):
        item = batch.going[c]
        if not batch.failed[item]:
            batch.unread[item] = True
            batch.frames[item] += 1
            batch.going[kept] = item
            kept += 1
    batch.size[0] = kept


@inlined
def _embed_frames(me: Member, tables: CodeTables, batch: Batch, unread: int, columns: Columns, work: Work) -> None:
    """Write this thread's part of the talker inputs to ``work.x``: a frame's embeddings plus the next piece of text."""
    width, groups = tables.width, batch.codes.shape[1]
    first, end = share(me, width // LANES)
    for c in range(unread):
        item = columns.item[c]
        text = batch.text_row[item] * width
        for i in range(first * LANES, end * LANES, LANES):
            x = load_embedding(tables, (tables.first[0] + batch.codes[item, 0]) * width + i)
            for group in range(1, groups):
                row = tables.first[group] + batch.codes[item, group]
                x = add(x, load_embedding(tables, row * width + i))
            store(work.x, c * width + i, add(x, load(batch.text, text + i)))
