"""Softmax over the last axis, its logarithm, and the cross-entropy of labels."""

import numpy as np

from .arrays import F64, Array, Ints


def softmax_ref(x: Array) -> Array:
    """exp(x - max) / sum over the last axis; -inf gives exactly 0. x [..., S] -> [..., S]."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))  # [..., S]
    return e / e.sum(axis=-1, keepdims=True)


def log_softmax_ref(x: Array) -> Array:
    """x - max - log(sum of exp(x - max)) over the last axis. x [..., S] -> [..., S]."""
    shifted = x - x.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def cross_entropy_ref(logits: Array, labels: Ints) -> F64:
    """-log softmax(logits) of each label, in nats, float64. logits [..., V], labels [...] -> [...]."""
    logarithms = log_softmax_ref(logits.astype(np.float64))
    return -np.take_along_axis(logarithms, labels[..., None], axis=-1)[..., 0].astype(np.float64)


def cross_entropy_backward_ref(logits: Array, labels: Ints) -> Array:
    """The gradient dlogits [..., V] of the sum of ``cross_entropy_ref``: softmax(logits), minus one at the label."""
    dlogits = softmax_ref(logits)
    at = labels[..., None]
    np.put_along_axis(dlogits, at, np.take_along_axis(dlogits, at, axis=-1) - 1, axis=-1)
    return dlogits
