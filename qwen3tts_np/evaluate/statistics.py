"""From values of utterances to statements: means with intervals, and the difference of two runs, pair by pair.

An error rate is that of all words together, so each utterance counts by its words. Intervals are of the bootstrap over
utterances (for error rates Bisani and Ney, 2004, "Bootstrap estimates for confidence intervals in ASR performance
evaluation"); tests permute which run an utterance's value is of; both by ``scipy.stats``, from a fixed seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .measures import Measure

CONFIDENCE = 0.95
RESAMPLES = 2000
PERMUTATIONS = 4999
LEAST = 2  # utterances, for an interval


@dataclass(frozen=True)
class Value:
    """What was measured of one utterance, and its weight in the mean: of an error rate, the words to be said."""

    value: float
    weight: float = 1.0


@dataclass(frozen=True)
class Mean:
    """Over ``count`` utterances, with an interval of 95 %; (mean, mean) where there is one utterance."""

    value: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Difference:
    """Of run B from run A over the ``count`` utterances that both have; ``p``: that chance alone makes so much."""

    a: float
    b: float
    value: float
    low: float
    high: float
    p: float
    count: int

    def verdict(self, measure: Measure, margin: float) -> str:
        """``same`` (nothing differs), ``better``, ``worse``, ``as good`` or ``undecided``, seen from B.

        Better: the interval excludes 0. As good: it excludes that B is worse by ``margin``. Worse: it does not, and
        excludes 0.
        For a measure without a better side: ``different`` or ``undecided``.
        """
        if self.value == self.low == self.high == 0:
            return "same"
        if not measure.better:
            return "different" if self.low > 0 or self.high < 0 else "undecided"
        low, high = sorted((measure.better * self.low, measure.better * self.high))
        if low > 0:
            return "better"
        if low > -margin:
            return "as good"
        return "worse" if high < 0 else "undecided"


def mean(values: Sequence[Value]) -> Mean | None:
    """The weighted mean and its interval. None if nothing has a weight."""
    value, weight = _arrays([v for v in values if v.weight])
    if not len(value):
        return None
    found = float((value * weight).sum() / weight.sum())
    low, high = _interval(value * weight, weight)
    return Mean(found, low, high, len(value))


def difference(a: Sequence[Value], b: Sequence[Value]) -> Difference | None:
    """Of two runs over the same utterances in the same order, weighted as in ``a``. None if nothing has a weight."""
    kept = [(one, other) for one, other in zip(a, b, strict=True) if one.weight]
    if not kept:
        return None
    (value_a, weight), (value_b, _) = _arrays([one for one, _ in kept]), _arrays([other for _, other in kept])
    mean_a, mean_b = (float((value * weight).sum() / weight.sum()) for value in (value_a, value_b))
    off = (value_b - value_a) * weight
    low, high = _interval(off, weight)
    return Difference(mean_a, mean_b, mean_b - mean_a, low, high, _chance(off), len(off))


def _arrays(values: Sequence[Value]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.array([v.value for v in values], np.float64), np.array([v.weight for v in values], np.float64)


def _interval(sums: NDArray[np.float64], weights: NDArray[np.float64]) -> tuple[float, float]:
    """Of the ratio of both totals [utterances]."""
    ratio = float(sums.sum() / weights.sum())
    if len(sums) < LEAST or np.ptp(sums) == np.ptp(weights) == 0:
        return ratio, ratio
    from scipy.stats import bootstrap

    def total(a: Any, b: Any, axis: int = -1) -> Any:
        return a.sum(axis=axis) / b.sum(axis=axis)

    found = bootstrap(
        (sums, weights),
        total,
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=100,
        confidence_level=CONFIDENCE,
        method="percentile",
        random_state=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)


def _chance(off: NDArray[np.float64]) -> float:
    """The two-sided p of a sum this far from 0 if the sign of each [utterances] were random."""
    off = off[off != 0]
    if len(off) < LEAST:  # one alone is as far from 0 with either sign
        return 1.0
    from scipy.stats import permutation_test

    def total(x: Any, axis: int = -1) -> Any:
        return x.sum(axis=axis)

    tested = permutation_test(
        (off,),
        total,
        permutation_type="samples",
        vectorized=True,
        n_resamples=PERMUTATIONS,
        batch=500,
        random_state=np.random.default_rng(0),
    )
    return float(tested.pvalue)
