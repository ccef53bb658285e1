"""The compiled passes of the talker: prompts, the logits of the next code 0, the projection of text.

Twin of ``talker/talker.py``; the layers of both transformers are ``transformer_jit.py`` of the kernels.

All threads of a team run all of this. Serial parts (lists) run on the first thread; values written by another thread
are read after a barrier.
"""

from __future__ import annotations

from qwen3tts_np_kernels.cpu import inlined, inner
from qwen3tts_np_kernels.pack import BLOCK
from qwen3tts_np_kernels.simd.functions import silu
from qwen3tts_np_kernels.simd.llvm import LANES
from qwen3tts_np_kernels.simd.ops import load, store
from qwen3tts_np_kernels.stack_jit import Affine, Stack, affine, multiply
from qwen3tts_np_kernels.threads_jit import Member, barrier, share, team_kernel
from qwen3tts_np_kernels.transformer_jit import Cache, Columns, Work, levels_of, normalise, transform

from ...ops import F32
from .batch import Batch
from .weights import Talker


@team_kernel
def read_prompt(
    me: Member, talker: Talker, batch: Batch, count: int, ends: int, cache: Cache, columns: Columns, work: Work
) -> None:
    """Read ``count`` columns of prompts, whose inputs are in ``work.x``. The first ``ends`` are the last of theirs."""
    transform(me, talker.layers, columns, count, ends, cache, work)
    if ends > 0:
        read_logits(me, talker, batch, ends, columns, work)


@inner
def read_logits(me: Member, talker: Talker, batch: Batch, count: int, columns: Columns, work: Work) -> None:
    """Store hidden states and logits of the items of the first ``count`` columns of ``work.x``."""
    width = talker.layers.sizes.width
    h = work.normed[me.index]
    normalise(work.x, count, talker.layers.norm, talker.layers.sizes, h)
    if me.index == 0:
        for c in range(count):
            for i in range(0, width, LANES):
                store(batch.hidden, columns.item[c] * width + i, load(h, c * width + i))
    row = read_head(me, talker.head, 0, h, count, talker.vocabulary, work)
    begin, end = share(me, row // LANES)
    for c in range(count):
        for i in range(begin * LANES, end * LANES, LANES):
            store(batch.logits, columns.item[c] * row + i, load(work.product, c * row + i))


@inlined
def read_head(me: Member, head: Stack, index: int, h: F32, count: int, entries: int, work: Work) -> int:
    """Write this thread's part of the logits [count, entries], rows zero-padded, to ``work.product``.

    Returns the length of a row.
    """
    blocks = -(-entries // BLOCK)
    first, end = share(me, blocks)
    multiply(head, index, h, count, work.product, blocks * BLOCK, first, end, levels_of(me, work), True)
    return blocks * BLOCK


@team_kernel
def project_text(me: Member, fc1: Affine, fc2: Affine, x: F32, count: int, hidden: F32, y: F32, work: Work) -> None:
    """``text_projection``: fc2(silu(fc1(x))) of ``count`` columns, all flat and zero-padded."""
    width = fc1.bias.size
    affine(me, fc1, x, count, hidden, levels_of(me, work))
    first, end = share(me, width // BLOCK)
    for c in range(count):
        for i in range(c * width + first * BLOCK, c * width + end * BLOCK, LANES):
            store(hidden, i, silu(load(hidden, i)))
    barrier(me)
    affine(me, fc2, hidden, count, y, levels_of(me, work))
