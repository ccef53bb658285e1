"""Causal self-attention of whole sequences, many of one length at a time, and its gradient.

What ``attention_ref`` and ``attention_backward_ref`` compute of each sequence, with the probabilities kept from the
forward pass for the backward one. Matrix products are NumPy's, of all heads and sequences in one call.
"""

from __future__ import annotations

import math

import numpy as np

from .arrays import Array

TINY = 1e-30  # smaller values count as 0 in what enters a matrix product
QUERIES = 96  # positions whose scores are computed at a time, with those before them alone


def flush(x: Array) -> Array:
    """Set values below ``TINY`` to 0, in place, and return x.

    Trap: a confident softmax leaves values below 1e-38, which float32 keeps as denormals, and a matrix product with
    them is 50 times slower. Their products with gradients would be denormal from some 1e-30 on.
    """
    x[np.abs(x) < TINY] = 0
    return x


def self_attention(q: Array, k: Array, v: Array) -> tuple[Array, list[Array]]:
    """softmax(q kᵀ / √D) v, each position attending to itself and the past.

    q [B, T, N, D], k and v [B, T, K, D] -> context [B, T, N, D], and the probabilities of every ``QUERIES`` positions
    [B, K, N/K, queries, S], S the number of positions up to the last of them: what is later is not computed.
    """
    heads, kept = k.shape[2], list[Array]()
    q, k, v = _grouped(q, heads), _grouped(k, heads), _grouped(v, heads)  # [B, K, N/K, T, D]
    context = np.empty(q.shape, q.dtype)
    for first, end in _steps(q.shape[3]):
        p = q[..., first:end, :] @ k[..., :end, :].swapaxes(-1, -2)
        p *= p.dtype.type(1 / math.sqrt(q.shape[-1]))
        p[..., first:] += np.triu(np.full((end - first,) * 2, -np.inf, p.dtype), 1)
        p -= p.max(axis=-1, keepdims=True)
        np.exp(p, out=p)
        p /= p.sum(axis=-1, keepdims=True)
        context[..., first:end, :] = flush(p) @ v[..., :end, :]
        kept.append(p)
    return _ungrouped(context), kept


def self_attention_backward(dy: Array, q: Array, k: Array, v: Array, kept: list[Array]) -> tuple[Array, Array, Array]:
    """The gradients dq [B, T, N, D], dk and dv [B, T, K, D]: the equations of ``attention_backward_ref``."""
    heads, scale = k.shape[2], q.dtype.type(1 / math.sqrt(q.shape[-1]))
    q, k, v, dy = (_grouped(x, heads) for x in (q, k, v, dy))  # [B, K, N/K, T, D]
    dq, dk, dv = np.empty(q.shape, q.dtype), np.zeros(k[:, :, 0].shape, q.dtype), np.zeros(k[:, :, 0].shape, q.dtype)
    for (first, end), p in zip(_steps(q.shape[3]), kept, strict=True):
        own = dy[..., first:end, :]
        dv[:, :, :end] += (p.swapaxes(-1, -2) @ own).sum(2)
        ds = own @ v[..., :end, :].swapaxes(-1, -2)  # dP
        ds -= np.sum(ds * p, axis=-1, keepdims=True)
        ds *= p
        ds *= scale
        flush(ds)
        dk[:, :, :end] += (ds.swapaxes(-1, -2) @ q[..., first:end, :]).sum(2)
        dq[..., first:end, :] = ds @ k[..., :end, :]
    return _ungrouped(dq), dk.swapaxes(1, 2), dv.swapaxes(1, 2)


def _steps(positions: int) -> list[tuple[int, int]]:
    return [(first, min(first + QUERIES, positions)) for first in range(0, positions, QUERIES)]


def _grouped(x: Array, heads: int) -> Array:
    """[B, T, n, D] -> [B, K, n/K, T, D], a view: query head i reads key/value head i // (N / K)."""
    b, t, n, d = x.shape
    return x.reshape(b, t, heads, n // heads, d).transpose(0, 2, 3, 1, 4)


def _ungrouped(x: Array) -> Array:
    """[B, K, n/K, T, D] -> [B, T, n, D]."""
    b, heads, group, t, d = x.shape
    return x.transpose(0, 3, 1, 2, 4).reshape(b, t, heads * group, d)
