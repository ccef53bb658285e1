"""Compiled choice of a code from logits: the official logits processors and PyTorch's draws.

Defined by ``talker/sampling.py`` and ``talker/generator.py``: same processors, same order, same words of the Mersenne
Twister for the same token. Work that no choice depends on is skipped: only the remaining tokens need the logarithm of
their draw, though the stream advances by two words for every token.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from qwen3tts_np_kernels.cpu import inlined, inner

from ...ops import F32, I64
from ...talker.sampling import SamplingParameters
from .generator import U32, exponential, skip

NOT_A_NUMBER = -1  # returned by `choose` where the scores have no probabilities

_OUT = np.float32(-np.inf)  # the score of an excluded token


class Rule(NamedTuple):
    """The sampling rule of one code: ``SamplingParameters`` for compiled functions."""

    do_sample: bool  # otherwise the best code; temperature, top_k and top_p are ignored
    temperature: float
    top_k: int  # 0 keeps all
    top_p: float  # 1 keeps all
    repetition_penalty: float


def rule_of(s: SamplingParameters) -> Rule:
    """The rule of checked parameters."""
    if not s.do_sample:
        return Rule(False, 1.0, 0, 1.0, float(s.repetition_penalty))
    top_p = 1.0 if s.top_p is None else float(s.top_p)
    return Rule(True, float(s.temperature), int(s.top_k or 0), top_p, float(s.repetition_penalty))


class Rules(NamedTuple):
    """The rules of B items."""

    do_sample: NDArray[np.bool_]
    temperature: NDArray[np.float64]
    top_k: I64
    top_p: NDArray[np.float64]
    repetition_penalty: NDArray[np.float64]


def new_rules(items: int) -> Rules:
    """Rules of so many items, to be set."""
    kinds = (np.bool_, np.float64, np.int64, np.float64, np.float64)
    return Rules(*(np.zeros(items, kind) for kind in kinds))


def set_rule(rules: Rules, item: int, rule: Rule) -> None:
    """Give an item a rule."""
    for values, value in zip(rules, rule, strict=True):
        values[item] = value


@inlined
def rule_at(rules: Rules, item: int) -> Rule:
    """The rule of an item."""
    return Rule(
        rules.do_sample[item],
        rules.temperature[item],
        rules.top_k[item],
        rules.top_p[item],
        rules.repetition_penalty[item],
    )


class Scratch(NamedTuple):
    """Working buffers for one choice among V codes."""

    scores: F32  # [V]
    ids: I64  # [V] the remaining tokens
    heap: I64  # [V]


def new_scratch(vocabulary: int) -> Scratch:
    """Working buffers for choices among at most ``vocabulary`` codes."""
    return Scratch(np.empty(vocabulary, np.float32), np.empty(vocabulary, np.int64), np.empty(vocabulary, np.int64))


# ---- processors ----


@inner
def talker_scores(
    logits: F32, at: int, count: int, seen: NDArray[np.bool_], audio: int, eos: int, may_end: bool, rule: Rule, y: F32
) -> None:
    """y[:count] = the scores of the talker, before top-k and top-p, of the ``count`` logits at logits[at].

    ``seen`` [count]: codes that this item has had. Only ids below ``audio`` and, if it ``may_end``, ``eos`` are kept.
    """
    penalty = np.float32(rule.repetition_penalty)
    temperature = np.float32(rule.temperature if rule.do_sample else 1.0)
    for i in range(count):
        score = logits[at + i]
        if seen[i]:
            score = score * penalty if score < 0 else score / penalty
        y[i] = score / temperature
    end = y[eos]
    for i in range(audio, count):
        y[i] = _OUT
    y[eos] = end if may_end else _OUT


@inner
def predictor_scores(logits: F32, at: int, count: int, rule: Rule, y: F32) -> None:
    """y[:count] = the scores of the code predictor, before top-k and top-p."""
    temperature = np.float32(rule.temperature if rule.do_sample else 1.0)
    for i in range(count):
        y[i] = logits[at + i] / temperature


# ---- the choice ----


@inner
def choose(count: int, rule: Rule, stream: U32, scratch: Scratch) -> int:
    """The code chosen from ``count`` scores in ``scratch``: drawn after top-k and top-p, or the best.

    Scores are overwritten. Returns ``NOT_A_NUMBER`` where softmax would not give probabilities.
    """
    if not rule.do_sample:
        return _best(scratch.scores, count)
    scores, ids = scratch.scores, scratch.ids
    impossible = 0
    for i in range(count):
        impossible += not scores[i] < np.inf
    if impossible:
        return NOT_A_NUMBER
    bar = _bar(scores, count, rule.top_k) if 0 < rule.top_k < count else _OUT
    kept = _gather(scores, count, bar, ids)
    if kept == 0:
        return NOT_A_NUMBER
    if rule.top_p < 1:
        _drop_worst(scores, ids, kept, np.float32(1 - rule.top_p), scratch.heap)
        kept = _gather(scores, count, bar, ids)
    return _race(scores, ids, kept, count, stream)


@inner
def _best(scores: F32, count: int) -> int:
    """The id of the best score; of a tie, the lower id."""
    best = 0
    for i in range(1, count):
        if scores[i] > scores[best]:
            best = i
    return best


@inner
def _bar(scores: F32, count: int, k: int) -> np.float32:
    """A score that the k best reach, and of the others only those that tie with the last of these.

    Found by halving what is between -inf and inf, in the order of floating-point numbers. Vectors count all scores some
    twenty times in a quarter of the time that a heap of the best takes, whose branches no CPU foresees.
    """
    low, high = -_INFINITY, _INFINITY  # k reach low, or more; fewer reach high
    while high - low > 1:
        middle = (low + high) >> 1
        bar, reached = _float_at(middle), 0
        for i in range(count):
            reached += scores[i] >= bar
        if reached == k:
            return bar
        if reached > k:
            low = middle
        else:
            high = middle
    return _float_at(low)


_INFINITY = 0x7F800000  # the bits of inf, and its place among float32 numbers in ascending order, 0 at 0


@inner
def _float_at(place: int) -> np.float32:
    return np.int32(place if place >= 0 else -0x80000000 - place).view(np.float32)


@inner
def _gather(scores: F32, count: int, bar: np.float32, ids: I64) -> int:
    """Write the ids of tokens that are not excluded and score at least ``bar``, ascending; returns their number."""
    kept = 0
    for i in range(count):
        if scores[i] >= bar and scores[i] > _OUT:
            ids[kept] = i
            kept += 1
    return kept


@inner
def _drop_worst(scores: F32, ids: I64, kept: int, drop_mass: np.float32, heap: I64) -> None:
    """Top-p: exclude the worst tokens that together hold at most ``drop_mass``, but never the best."""
    for i in range(kept):
        heap[i] = ids[i]
    _order(heap, scores, kept)
    peak = _highest(scores, ids, kept)
    weights = 0.0
    for i in range(kept):
        weights += np.exp(scores[ids[i]] - peak)
    weights = np.float32(weights)
    mass = 0.0  # torch too adds in double and rounds each sum
    for left in range(kept - 1, 0, -1):
        worst = heap[0]
        mass += np.exp(scores[worst] - peak) / weights
        if np.float32(mass) > drop_mass:
            return
        scores[worst] = _OUT
        heap[0] = heap[left]
        _sink(heap, scores, 0, left)


@inner
def _race(scores: F32, ids: I64, kept: int, count: int, stream: U32) -> int:
    """``torch.multinomial``: each token draws a time, and the largest probability / time wins, the lower id in a tie.

    The stream advances by the words of all ``count`` tokens.
    """
    peak = _highest(scores, ids, kept)
    weights = 0.0
    for i in range(kept):
        weights += np.exp(scores[ids[i]] - peak)
    weights = np.float32(weights)
    winner, lead, drawn = ids[0], np.float32(-1.0), 0
    for i in range(kept):
        token = ids[i]
        skip(stream, 2 * (token - drawn))
        drawn = token + 1
        speed = np.exp(scores[token] - peak) / weights / exponential(stream)
        if speed > lead:
            winner, lead = token, speed
    skip(stream, 2 * (count - drawn))
    return winner


@inner
def _highest(scores: F32, ids: I64, kept: int) -> np.float32:
    highest = scores[ids[0]]
    for i in range(1, kept):
        highest = max(highest, scores[ids[i]])
    return highest


@inner
def skip_choice(count: int, rule: Rule, stream: U32) -> None:
    """Advance the stream as a choice among ``count`` tokens does."""
    if rule.do_sample:
        skip(stream, 2 * count)


# ---- a heap of token ids: the worst score on top, of equal scores the lower id ----


@inner
def _order(heap: I64, scores: F32, size: int) -> None:
    for root in range(size // 2 - 1, -1, -1):
        _sink(heap, scores, root, size)


@inner
def _sink(heap: I64, scores: F32, root: int, size: int) -> None:
    """Move heap[root] down until neither child is worse."""
    token = heap[root]
    while True:
        child = 2 * root + 1
        if child >= size:
            break
        if child + 1 < size and _worse(scores, heap[child + 1], heap[child]):
            child += 1
        if not _worse(scores, heap[child], token):
            break
        heap[root] = heap[child]
        root = child
    heap[root] = token


@inner
def _worse(scores: F32, a: int, b: int) -> bool:
    return scores[a] < scores[b] or (scores[a] == scores[b] and a < b)
