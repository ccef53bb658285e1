"""Causal self-attention of whole sequences, many of one length at a time, and its gradient.

What ``attention_ref`` and ``attention_backward_ref`` compute of each sequence, with the probabilities kept from the
forward pass for the backward one. Matrix products are NumPy's, of all heads and sequences in one call.
"""

from __future__ import annotations

import math

import numpy as np

from .arrays import Array

TINY = 1e-30  # smaller values count as 0 in what enters a matrix product


def flush(x: Array) -> Array:
    """Set values below ``TINY`` to 0, in place, and return x.

    Trap: a confident softmax leaves values below 1e-38, which float32 keeps as denormals, and a matrix product with
    them is 50 times slower. Their products with gradients would be denormal from some 1e-30 on.
    """
    x[np.abs(x) < TINY] = 0
    return x


def self_attention(q: Array, k: Array, v: Array) -> tuple[Array, Array]:
    """softmax(q kᵀ / √D) v, each position attending to itself and the past.

    q [B, T, N, D], k and v [B, T, K, D] -> context [B, T, N, D], and the probabilities [B, K, N/K, T, T].
    """
    heads = k.shape[2]
    p = _grouped(q, heads) @ _grouped(k, heads).swapaxes(-1, -2)  # [B, K, N/K, T, T]
    p *= p.dtype.type(1 / math.sqrt(q.shape[-1]))
    p += np.triu(np.full(p.shape[-2:], -np.inf, p.dtype), 1)
    p -= p.max(axis=-1, keepdims=True)
    np.exp(p, out=p)
    p /= p.sum(axis=-1, keepdims=True)
    flush(p)
    return _ungrouped(p @ _grouped(v, heads)), p


def self_attention_backward(dy: Array, q: Array, k: Array, v: Array, p: Array) -> tuple[Array, Array, Array]:
    """The gradients dq [B, T, N, D], dk and dv [B, T, K, D]: the equations of ``attention_backward_ref``."""
    heads = k.shape[2]
    q, dy = _grouped(q, heads), _grouped(dy, heads)  # [B, K, N/K, T, D]
    dv = (p.swapaxes(-1, -2) @ dy).sum(2)  # [B, K, T, D]
    ds = dy @ _grouped(v, heads).swapaxes(-1, -2)  # dP
    ds -= np.sum(ds * p, axis=-1, keepdims=True)
    ds *= p
    ds *= ds.dtype.type(1 / math.sqrt(q.shape[-1]))
    flush(ds)
    dk = (ds.swapaxes(-1, -2) @ q).sum(2)  # [B, K, T, D]
    return _ungrouped(ds @ _grouped(k, heads)), dk.swapaxes(1, 2), dv.swapaxes(1, 2)


def _grouped(x: Array, heads: int) -> Array:
    """[B, T, n, D] -> [B, K, n/K, T, D], a view: query head i reads key/value head i // (N / K)."""
    b, t, n, d = x.shape
    return x.reshape(b, t, heads, n // heads, d).transpose(0, 2, 3, 1, 4)


def _ungrouped(x: Array) -> Array:
    """[B, K, n/K, T, D] -> [B, T, n, D]."""
    b, heads, group, t, d = x.shape
    return x.transpose(0, 3, 1, 2, 4).reshape(b, t, heads * group, d)
