"""Losses of teacher forcing, and their alignments: what networks that read given codes say of each one.

An utterance has f frames of G codes, c[t, g], t = 0..f - 1. The talker reads the prompt and then frame after frame.
Row t of its output, t = 0..f, is what it says after t frames: the last frame that row t has read is t - 1.

    generated from                                       loss
    code 0 of frame t    row t                           -log p(c[t, 0])
    end of speech        row f                           -log p(end)
    code g of frame t    head g - 1 of the predictor,    -log p(c[t, g])
                         which has read the state of
                         row t and c[t, 0..g - 1]

This is the ``NEXT`` alignment of both networks, with the state ``BEFORE`` the frame. A training script that is off by
one place trains one of its neighbours, and the weights show it: the loss is least there.

    READ          the code that was read last: labels that were not shifted
    AFTER_NEXT    the one after the next: labels that were shifted twice
    OF            the state of the frame itself, row t + 1: it has read all codes that are to be predicted from it

Losses are natural logarithms, summed up in float64. The talker's are over its complete vocabulary, as in training.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..ops import F64, AnyArray, Array, Ints, cross_entropy, log_softmax

READ, NEXT, AFTER_NEXT = 0, 1, 2  # which label: places behind the code that was read last
BEFORE, OF = 0, 1  # which state the code predictor starts from
NO_LABEL = -1


class Judged(NamedTuple):
    """What logits say of labels; NaN where there is no label."""

    loss: F64  # [...] -log p of the label, in nats
    right: F64  # [...] 1 where the label is the best code, else 0


def judge(logits: Array, labels: Ints) -> Judged:
    """Cross-entropy of each label, and whether it is the best. logits [..., V], labels [...] or ``NO_LABEL``."""
    known = labels != NO_LABEL
    taken = np.where(known, labels, 0)[..., None]
    loss = cross_entropy(logits, taken[..., 0])
    right = logits.argmax(axis=-1) == taken[..., 0]
    return Judged(np.where(known, loss, np.nan), np.where(known, right, np.nan))


def talker_labels(codes: Ints, end: int, alignment: int = NEXT) -> Ints:
    """The labels of the talker's rows. codes [f, G]; ``end``: the id that ends speech -> [f + 1], or ``NO_LABEL``."""
    sequence = np.concatenate([[NO_LABEL], codes[:, 0], [end, NO_LABEL]])  # row t read entry t, its next is t + 1
    return sequence[alignment : alignment + len(codes) + 1]


def talker_rows(frames: int, alignment: int = NEXT) -> Ints:
    """The rows that predict code 0 of each frame, and then the end of speech: ``talker_labels``, read the other way.

    frames f -> [f + 1]. Row -1, which ``AFTER_NEXT`` begins with, is the last but one position of the prompt.
    """
    return np.arange(frames + 1) + NEXT - alignment


def predictor_labels(codes: Ints, alignment: int = NEXT) -> Ints:
    """The labels of the predictor's heads. codes [f, G] -> [f, G - 1], or ``NO_LABEL``."""
    sequence = np.pad(codes, ((0, 0), (0, 1)), constant_values=NO_LABEL)  # head h has read code h last
    return sequence[:, alignment : alignment + codes.shape[1] - 1]


def predictor_states(hidden: Array, state: int = BEFORE) -> Array:
    """What the predictor starts each frame from. hidden [f + 1, H] of the talker's rows -> [f, H]."""
    return hidden[state : len(hidden) - 1 + state]


def end_probability(logits: Array, end: int) -> F64:
    """P(end of speech) among all the talker's tokens, before any sampling rule. logits [..., V] -> [...]."""
    probability: F64 = np.exp(log_softmax(logits.astype(np.float64))[..., end])
    return probability


def mean(values: AnyArray) -> float:
    """The mean of those that have a label; NaN if none has."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
