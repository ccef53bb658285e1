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
    (t, n, d), (s, n_kv, _) = q.shape, k.shape
    k, v = np.repeat(k, n // n_kv, axis=1), np.repeat(v, n // n_kv, axis=1)  # [S, N, D]
    scores = q.transpose(1, 0, 2) @ k.transpose(1, 2, 0) / math.sqrt(d)  # [N, T, S]
    age = np.arange(s - t, s)[:, None] - np.arange(s)  # [T, S] how many positions back a key is
    visible = (age >= 0) & (age < (window or s))
    p = softmax_ref(np.where(visible, scores, np.asarray(-np.inf, scores.dtype)))  # [N, T, S]
    return (p @ v.transpose(1, 0, 2)).transpose(1, 0, 2)  # [T, N, D]
