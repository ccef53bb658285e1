"""The state of a batch between frames, and the working buffers of a session."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from qwen3tts_np_kernels.transformer_jit import Cache, Columns, TransformerSizes, Work

from ...ops import F32, I64, Array, rope_angles
from .generator import STATE
from .sampling import Rules, Scratch, new_rules, new_scratch
from .weights import Model

ROOM_STEP = 16  # positions
IDLE, SPEAKING, DRAWING = 0, 1, 2  # the state of a place in a frame; DRAWING: ended, in a joint draw that goes on


class Batch(NamedTuple):
    """The state of the items at B places between frames."""

    logits: F32  # [B, V], rows zero-padded, flat: of the next code 0
    hidden: F32  # [B, width], flat: of the last position read
    seen: NDArray[np.bool_]  # [B, V] codes 0 so far
    state: I64  # [B]
    frames: I64  # [B] so far
    last_step: I64  # [B] the number of frames after which an item ends
    unread: NDArray[np.bool_]  # [B] whether the talker has to read the last frame before the next one
    position: I64  # [B] that the talker reads next
    text: F32  # [rows, width], flat: text embeddings
    text_row: I64  # [B] the one added to the frame that is read
    stream: NDArray[np.uint32]  # [B, STATE + 1], see ``generator.py``
    stream_of: I64  # [B] the stream that an item draws from
    codes: I64  # [B, G] of the last frame
    going: I64  # [B] the items that continue
    size: I64  # [2] their number, and how many were unread
    failed: NDArray[np.bool_]  # [B] whether a choice was impossible because logits were not finite


class Choosing(NamedTuple):
    """The sampling rules of the items, and working buffers for them."""

    talker: Rules
    subtalker: Rules
    scratch: Scratch


def new_batch(model: Model, items: int, text: F32) -> Batch:
    """Places without items. text: [rows, width]."""
    width, vocabulary = model.tables.width, model.talker.vocabulary

    def numbers() -> I64:
        return np.zeros(items, np.int64)

    return Batch(
        logits=np.zeros(items * -(-vocabulary // 16) * 16, np.float32),
        hidden=np.zeros(items * width, np.float32),
        seen=np.zeros((items, vocabulary), np.bool_),
        state=numbers(),
        frames=numbers(),
        last_step=numbers(),
        unread=np.zeros(items, np.bool_),
        position=numbers(),
        text=text.reshape(-1),
        text_row=numbers(),
        stream=np.zeros((items, STATE + 1), np.uint32),
        stream_of=numbers(),
        codes=np.zeros((items, len(model.tables.first)), np.int64),
        going=numbers(),
        size=np.zeros(2, np.int64),
        failed=np.zeros(items, np.bool_),
    )


def new_choosing(model: Model, items: int) -> Choosing:
    """Rules to be set, and the buffers."""
    return Choosing(
        new_rules(items), new_rules(items), new_scratch(max(model.talker.vocabulary, model.predictor.entries))
    )


def new_cache(sizes: TransformerSizes, items: int, room: int, theta: float) -> Cache:
    """An empty cache of at least ``room`` positions per item: attention reads and writes whole steps."""
    room = -(-room // ROOM_STEP) * ROOM_STEP
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
