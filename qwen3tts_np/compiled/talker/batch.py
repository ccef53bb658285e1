"""The state of a batch between frames, and the working buffers of a session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from qwen3tts_np_kernels.transformer_jit import Cache, Columns, TransformerSizes, Work

from ...ops import F32, I64, Array, rope_angles
from .generator import Streams
from .sampling import Rule, Scratch
from .weights import Model


class Batch(NamedTuple):
    """The state of B items between frames."""

    logits: F32  # [B, V], rows zero-padded, flat: of the next code 0
    hidden: F32  # [B, width], flat: of the last position read
    seen: NDArray[np.bool_]  # [B, V] codes 0 so far
    finished: NDArray[np.bool_]  # [B]
    length: I64  # [B] positions of the prompt
    text: F32  # [rows, width], flat: the text embeddings added to the frames of the items
    text_first: I64  # [B] the row of an item's first frame
    text_last: I64  # [B] the last row, which all further frames reuse
    stream: NDArray[np.uint32]  # [streams, STATE + 1], see ``generator.py``
    stream_of: I64  # [B]
    codes: I64  # [B, G] of this frame
    going: I64  # [B] the items that continue
    status: I64  # [2] their number; 1 if a choice failed because logits were not finite


class Choosing(NamedTuple):
    """The sampling rules, and working buffers for them."""

    talker: Rule
    subtalker: Rule
    scratch: Scratch


def new_batch(model: Model, lengths: NDArray[np.int64], texts: Sequence[Array], streams: Streams) -> Batch:
    """A batch before its prompts are read. lengths [B], texts: [T', width] each."""
    items, width, vocabulary = len(lengths), model.tables.width, model.talker.vocabulary
    bounds = np.cumsum([0, *(len(text) for text in texts)])
    return Batch(
        logits=np.zeros(items * -(-vocabulary // 16) * 16, np.float32),
        hidden=np.zeros(items * width, np.float32),
        seen=np.zeros((items, vocabulary), np.bool_),
        finished=np.zeros(items, np.bool_),
        length=lengths,
        text=np.concatenate(texts).reshape(-1),
        text_first=bounds[:-1],
        text_last=bounds[1:] - 1,
        stream=streams.states,
        stream_of=streams.stream_of,
        codes=np.zeros((items, len(model.tables.first)), np.int64),
        going=np.zeros(items, np.int64),
        status=np.zeros(2, np.int64),
    )


def new_cache(sizes: TransformerSizes, items: int, room: int, theta: float) -> Cache:
    """An empty cache of ``room`` positions per item."""
    shape = items * sizes.layers * sizes.kv_heads * room * 2 * sizes.half
    angles = rope_angles(np.arange(room), sizes.head_dim, theta)  # each [room, D/2]
    cos, sin = (np.pad(a, ((0, 0), (0, sizes.half - a.shape[1]))).reshape(-1) for a in angles)
    return Cache(np.empty(shape, np.float32), np.empty(shape, np.float32), room, cos, sin)


def new_columns(count: int) -> Columns:
    """Columns for passes over up to so many columns."""
    return Columns(np.zeros(count, np.int64), np.zeros(count, np.int64))


def new_work(model: Model, columns: int, threads: int, text_width: int) -> Work:
    """Buffers for passes of either transformer over up to so many columns, and for text of ``text_width``."""
    both = [model.talker.layers.sizes, model.predictor.layers.sizes]
    width = max(s.width for s in both)
    context = max(s.heads * 2 * s.half for s in both)
    qkv = max((s.heads + 2 * s.kv_heads) * 2 * s.half for s in both)
    gated = max(s.feed_forward for s in both)
    product = max(2 * gated, width, model.talker.vocabulary + 15, model.predictor.entries + 15)
    widest = max(width, context, gated, text_width)  # input of a matrix

    def shared(size: int) -> Array:
        return np.zeros(columns * size, np.float32)

    def own(size: int, dtype: Any) -> NDArray[Any]:
        return np.zeros((threads, columns * size), dtype)

    return Work(
        x=shared(width),
        qkv=shared(qkv),
        context=shared(context),
        gated=shared(gated),
        product=shared(product),
        normed=own(width, np.float32),
        scores=np.zeros((threads, model.predictor.layers.sizes.heads), np.float32),
        levels=own(widest, np.int8),
        scales=own(widest // 32, np.float32),
        zeros=own(widest // 32, np.int32),
    )
