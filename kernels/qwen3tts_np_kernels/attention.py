"""Grouped-query attention over a key/value cache, causal, with or without a sliding window."""

import math

import numpy as np

from .arrays import Array
from .softmax import softmax_ref


def attention_ref(q: Array, k: Array, v: Array, window: int | None = None) -> Array:
    """softmax(q kᵀ / √D) v; the T queries are the last T of the S positions and attend to themselves and the past.

    q [T, N, D], k and v [S, K, D] -> [T, N, D]. Query head n reads key/value head n // (N / K).
    ``window`` limits a query to that many positions, its own included.
    """
    n = q.shape[1]
    p = _probabilities(q, _repeat_heads(k, n), window)  # [N, T, S]
    return (p @ _repeat_heads(v, n).transpose(1, 0, 2)).transpose(1, 0, 2)  # [T, N, D]


def attention_backward_ref(
    dy: Array, q: Array, k: Array, v: Array, window: int | None = None
) -> tuple[Array, Array, Array]:
    """The gradients dq [T, N, D], dk and dv [S, K, D] of ``attention_ref``, given dy [T, N, D].

    For one head, with P the probabilities [T, S] and S = q kᵀ / √D the scores:

        dv = Pᵀ dy,    dP = dy vᵀ,    dS = P (dP - sum over S of P dP)
        dq = dS k / √D,    dk = dSᵀ q / √D

    A key/value head has the sum over the query heads that read it.
    """
    (n, d), n_kv = q.shape[1:], k.shape[1]
    q, dy = q.transpose(1, 0, 2), dy.transpose(1, 0, 2)  # [N, T, D]
    p = _probabilities(q.transpose(1, 0, 2), _repeat_heads(k, n), window)  # [N, T, S]
    dp = dy @ _repeat_heads(v, n).transpose(1, 2, 0)  # [N, T, S]
    ds = p * (dp - (p * dp).sum(-1, keepdims=True)) / math.sqrt(d)
    dq = ds @ _repeat_heads(k, n).transpose(1, 0, 2)  # [N, T, D]
    dk, dv = (_sum_of_groups(part.transpose(0, 2, 1) @ of, n_kv) for part, of in ((ds, q), (p, dy)))
    return dq.transpose(1, 0, 2), dk, dv


def _repeat_heads(x: Array, heads: int) -> Array:
    """Key/value heads as the query heads read them. x [S, K, D] -> [S, N, D]."""
    return np.repeat(x, heads // x.shape[1], axis=1)


def _probabilities(q: Array, k: Array, window: int | None) -> Array:
    """q [T, N, D], k [S, N, D] -> [N, T, S]."""
    (t, _, d), s = q.shape, len(k)
    scores = q.transpose(1, 0, 2) @ k.transpose(1, 2, 0) / math.sqrt(d)  # [N, T, S]
    age = np.arange(s - t, s)[:, None] - np.arange(s)  # [T, S] how many positions back a key is
    visible = (age >= 0) & (age < (window or s))
    return softmax_ref(np.where(visible, scores, np.asarray(-np.inf, scores.dtype)))


def _sum_of_groups(x: Array, n_kv: int) -> Array:
    """x [N, S, D] of the query heads -> [S, K, D]."""
    return x.reshape(n_kv, -1, *x.shape[1:]).sum(1).transpose(1, 0, 2)
