"""The compiled passes of teacher forcing: every column gives its state and the logits of one head."""

from __future__ import annotations

from qwen3tts_np_kernels.simd.llvm import LANES
from qwen3tts_np_kernels.simd.ops import load, store
from qwen3tts_np_kernels.stack_jit import Affine, Stack, affine
from qwen3tts_np_kernels.threads_jit import Member, team_kernel
from qwen3tts_np_kernels.transformer_jit import Cache, Columns, Transformer, Work, levels_of, normalise, transform

from ...ops import F32
from .talker import read_head


@team_kernel
def read_columns(
    me: Member,
    layers: Transformer,
    head: Stack,
    index: int,
    entries: int,
    count: int,
    cache: Cache,
    columns: Columns,
    work: Work,
    hidden: F32,
) -> None:
    """Read ``count`` columns, whose inputs are in ``work.x``.

    ``hidden`` [count, width] becomes their states after the final norm, ``work.product`` the logits of matrix ``index``
    of ``head``, with ``entries`` of them rounded up to blocks in a row.
    """
    transform(me, layers, columns, count, count, cache, work)
    h, width = work.normed[me.index], layers.sizes.width
    normalise(work.x, count, layers.norm, layers.sizes, h)
    if me.index == 0:
        for i in range(0, count * width, LANES):
            store(hidden, i, load(h, i))
    read_head(me, head, index, h, count, entries, work)


@team_kernel
def project_columns(me: Member, projection: Affine, x: F32, count: int, work: Work) -> None:
    """Write ``small_to_mtp_projection`` of ``count`` columns x, flat and zero-padded, to ``work.x``."""
    affine(me, projection, x, count, work.x, levels_of(me, work))
