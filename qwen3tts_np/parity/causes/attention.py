"""Typical mistakes in attention."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ...ops import AnyArray, attention, softmax
from ..diagnosis import Context, Finding, best, finding
from ..measure import outside

WINDOWS = (None, 72, 24, 250, 12)  # of both halves of the codec, released and tiny


def attention_variants(ours: AnyArray, theirs: AnyArray, context: Context) -> Finding | None:
    """Wrong scale, wrong mask, wrong window, query heads on the wrong key heads."""
    q = context.sibling("q_rot")
    if context.leaf != "context" or q is None or ours.size != theirs.size:
        return None
    found = _cache(q, ours, context)
    return best(_attempts(ours, theirs, context, q, *found)) if found else None


def _attempts(
    ours: AnyArray, theirs: AnyArray, context: Context, q: AnyArray, k: AnyArray, v: AnyArray, window: int | None
) -> Iterator[Finding | None]:
    def of(cause: str, message: str, candidate: AnyArray) -> Finding | None:
        return finding(cause, message, ours, theirs, candidate, context)

    d, n, heads = q.shape[-1], q.shape[1], k.shape[1]
    root = math.sqrt(d)
    for name, factor in (("1", root), (f"1 / {d}", 1 / root), (f"1 / sqrt({n * d})", 1 / math.sqrt(n))):
        message = f"the scores are multiplied by {name}; here by 1 / sqrt({d})"
        yield of("attention scale", message, attention(q * factor, k, v, window))
    if n != heads:
        tiled = [np.tile(x, (1, n // heads, 1)) for x in (k, v)]
        message = "query head n reads key head n mod K; here n // (N / K): each key head is repeated, not the whole row"
        yield of("grouped heads", message, attention(q, tiled[0], tiled[1], window))
    yield of("attention mask", "every position sees the later ones too: no causal mask", _unmasked(q, k, v))
    if len(k) > 1:
        yield of("attention mask", "no position sees itself", _strict(q, k, v))
    for other in {None, *WINDOWS, *((window - 1, window + 1) if window else ())} - {window}:
        message = f"a window of {other or 'all'} positions in place of {window or 'all'}"
        yield of("attention window", message, attention(q, k, v, other))
    if len(k) > len(q):
        message = "only the positions of this call are seen: the cache is empty"
        yield of("attention cache", message, attention(q, k[-len(q) :], v[-len(q) :], window))
    yield of(
        "attention values",
        "the values of each position itself: not mixed at all",
        np.repeat(v, n // heads, axis=1)[-len(q) :],
    )


def _unmasked(q: AnyArray, k: AnyArray, v: AnyArray) -> AnyArray:
    return _mixed(q, k, v, np.ones((len(q), len(k)), np.bool_))


def _strict(q: AnyArray, k: AnyArray, v: AnyArray) -> AnyArray:
    age = np.arange(len(k) - len(q), len(k))[:, None] - np.arange(len(k))
    return _mixed(q, k, v, age > 0)


def _mixed(q: AnyArray, k: AnyArray, v: AnyArray, visible: AnyArray) -> AnyArray:
    """Attention with any mask [T, S]."""
    groups = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, groups, axis=1), np.repeat(v, groups, axis=1)
    scores = q.transpose(1, 0, 2) @ k.transpose(1, 2, 0) / math.sqrt(q.shape[-1])
    p = softmax(np.where(visible, scores, np.asarray(-1e30, scores.dtype)))
    return (p @ v.transpose(1, 0, 2)).transpose(1, 0, 2)


def _cache(q: AnyArray, ours: AnyArray, context: Context) -> tuple[AnyArray, AnyArray, int | None] | None:
    """(keys, values, window) that reproduce our tensor: of this call and as many earlier calls as needed."""
    keys: list[AnyArray] = []
    values: list[AnyArray] = []
    for call in range(context.call, -1, -1):
        k, v = context.sibling("k_rot", call), context.sibling("v_proj", call)
        if k is None or v is None:
            return None
        keys.insert(0, k)
        values.insert(0, v.reshape(k.shape))
        joined = np.concatenate(keys), np.concatenate(values)
        for window in WINDOWS:
            if not outside(attention(q, *joined, window).reshape(ours.shape), ours, 8 * context.atol):
                return *joined, window
    return None
