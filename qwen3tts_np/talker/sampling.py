"""Sampling of a code from logits: the official logits processors, in their order, and the choice.

Official: ``GenerationMixin._get_logits_processor`` and ``generation/logits_process.py`` of transformers, as the talker
and the code predictor of ``modeling_qwen3_tts.py`` call ``generate``. Every function takes logits or scores [V] or
[B, V] of any float type, keeps the type, and never modifies its argument. An excluded token scores -inf.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import InitVar, dataclass
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arguments import real_number, switch
from ..errors import RequestError
from ..ops import I64, Array, softmax
from ..shown import shortened
from .generator import Generator

MIN_NEW_TOKENS = 2  # the first two codes 0 are never the end of speech
MOST_TOP_K = 2**31 - 1  # more than any vocabulary, so it keeps all
CONTROL_TOKENS = 1024  # the top of the talker's vocabulary: marks, languages and speakers, never a code


@dataclass(frozen=True)
class SamplingParameters:
    """Sampling parameters of the talker or the code predictor; raises ``RequestError`` for an invalid value.

    With ``do_sample=False`` the best code is chosen, and temperature, top_k and top_p are ignored: like the official
    package, this accepts ``do_sample=False, temperature=0.0``. The official package also silently accepts
    ``top_p=1.5`` as "keep all"; here it is rejected. ``prefix`` precedes the names in an error: "subtalker_" for the
    code predictor, which has no repetition penalty.
    """

    do_sample: bool
    temperature: float  # above 0; 1 changes nothing
    top_k: int | None  # keep the k best codes; 0 or None keeps all
    top_p: float | None  # keep the best codes that together hold this much probability; 1 or None keeps all
    repetition_penalty: float = 1.0  # above 0; 1 changes nothing, larger values make repeats rarer
    prefix: InitVar[str] = ""

    def __post_init__(self, prefix: str) -> None:
        do_sample = switch(self.do_sample, f"{prefix}dosample" if prefix else "do_sample")  # the official spellings
        positive = "a finite number above 0"
        checked: dict[str, Any] = {
            "do_sample": do_sample,
            "repetition_penalty": _number(
                f"{prefix}repetition_penalty", self.repetition_penalty, lambda x: x > 0, positive
            ),
        }
        if do_sample:
            greedy = f"{positive} (do_sample=False asks for the best code)"
            top_k, top_p = 0 if self.top_k is None else self.top_k, 1 if self.top_p is None else self.top_p
            checked["temperature"] = _number(f"{prefix}temperature", self.temperature, lambda x: x > 0, greedy)
            checked["top_k"] = _whole_number(f"{prefix}top_k", top_k)
            checked["top_p"] = _number(f"{prefix}top_p", top_p, lambda x: 0 <= x <= 1, "a number from 0 to 1")
        for name, value in checked.items():
            object.__setattr__(self, name, value)


def talker_scores(logits: Array, seen: NDArray[np.bool_], step: int, eos: int, s: SamplingParameters) -> Array:
    """All the processors of the talker.

    logits [..., V]; seen [..., V], the codes 0 of this item so far (the prompt does not count); step, their number;
    eos, the id that ends speech -> [..., V].
    """
    scores = penalise_repetition(logits, seen, s.repetition_penalty)
    if step < MIN_NEW_TOKENS:
        scores = drop_end(scores, eos)
    scores = drop_control_tokens(scores, eos)
    return warp(scores, s)


def warp(scores: Array, s: SamplingParameters) -> Array:
    """Temperature, top-k, top-p: all the processors of the code predictor, the last three of the talker."""
    if not s.do_sample:
        return scores
    if s.temperature != 1:
        scores = cool(scores, s.temperature)
    if s.top_k:
        scores = keep_top_k(scores, s.top_k)
    if s.top_p is not None and s.top_p < 1:
        scores = keep_top_p(scores, s.top_p)
    return scores


def choose(scores: Array, s: SamplingParameters, generator: Generator) -> I64:
    """The code of each item: drawn from softmax(scores), or the best. scores [B, V] -> [B].

    The official package keeps drawing for items that have finished. To stay on its stream, keep their rows, with any
    finite scores. Raises RequestError if a row has no valid probabilities.
    """
    if not s.do_sample:
        return np.asarray(scores.argmax(axis=-1), dtype=np.int64)  # a tie goes to the lower id, as in torch
    with np.errstate(invalid="ignore"):
        p = softmax(scores)
    if np.isnan(p).any():
        raise RequestError(
            f"temperature={s.temperature} and repetition_penalty={s.repetition_penalty} take these logits out of the "
            f"range of {scores.dtype}; use values nearer to 1"
        )
    return generator.multinomial(p)


@np.errstate(over="ignore", divide="ignore", invalid="ignore")
def penalise_repetition(logits: Array, seen: NDArray[np.bool_], penalty: float) -> Array:
    """Penalise the codes that occurred before. Official: ``RepetitionPenaltyLogitsProcessor``."""
    if penalty == 1:
        return logits
    factor = logits.dtype.type(penalty)  # in NumPy 1 a Python number beyond float32 would widen the result
    return np.where(seen, np.where(logits < 0, logits * factor, logits / factor), logits)


def drop_end(scores: Array, eos: int) -> Array:
    """Exclude the end of speech in the first steps. Official: ``MinNewTokensLengthLogitsProcessor``."""
    out = scores.copy()
    out[..., eos] = -np.inf
    return out


def drop_control_tokens(scores: Array, eos: int) -> Array:
    """Keep only audio codes and the end of speech. Official: ``SuppressTokensLogitsProcessor`` over [V - 1024, V)."""
    out = scores.copy()
    out[..., max(scores.shape[-1] - CONTROL_TOKENS, 0) :] = -np.inf
    out[..., eos] = scores[..., eos]
    return out


@np.errstate(over="ignore", divide="ignore", invalid="ignore")
def cool(scores: Array, temperature: float) -> Array:
    """Divide by the temperature. Official: ``TemperatureLogitsWarper``."""
    return scores / scores.dtype.type(temperature)


def keep_top_k(scores: Array, k: int) -> Array:
    """Keep the k best scores, and all that tie with the last of them. Official: ``TopKLogitsWarper``."""
    place = max(scores.shape[-1] - k, 0)
    kth_best = np.partition(scores, place, axis=-1)[..., place, None]  # [..., 1]
    return _drop(scores, scores < kth_best)


def keep_top_p(scores: Array, top_p: float) -> Array:
    """Keep the best tokens that hold ``top_p`` of the probability, at least one. Official: ``TopPLogitsWarper``.

    Of equal scores at the border the higher ids are kept. (torch keeps those that its unstable sort puts last. float32
    logits hardly ever tie; those of a bfloat16 run do.)
    """
    order = scores.argsort(axis=-1, kind="stable")  # [..., V] worst first
    p = softmax(np.take_along_axis(scores, order, axis=-1))
    cumulative = p.cumsum(axis=-1, dtype=np.float64).astype(p.dtype)  # torch too adds in double and rounds each sum
    out_of_set = cumulative <= p.dtype.type(1 - top_p)
    out_of_set[..., -1] = False
    drop = np.empty_like(out_of_set)
    np.put_along_axis(drop, order, out_of_set, axis=-1)
    return _drop(scores, drop)


def _drop(scores: Array, drop: NDArray[np.bool_]) -> Array:
    out = scores.copy()
    out[drop] = -np.inf
    return out


def _number(name: str, value: Any, holds: Callable[[float], bool], rule: str) -> float:
    number = real_number(value)
    if not (math.isfinite(number) and holds(number)):
        raise RequestError(f"{name}={shortened(value)} must be {rule}")
    return number


def _whole_number(name: str, value: Any) -> int:
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 0:
        raise RequestError(f"{name}={shortened(value)} must be a whole number from 0 up (0 keeps all)")
    return min(int(value), MOST_TOP_K)
