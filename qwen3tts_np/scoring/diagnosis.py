"""What is wrong with a checkpoint, from its losses alone: a training that was off by one place fits that place best.

A fault is named where the losses prove it, each on its own, so two at once are both named:

    talker_labels_twice         the talker predicts the frame after the next one better than the next
    talker_labels_unshifted     ... the frame that it has just read
    sub_talker_labels_twice     head g of the code predictor predicts code g + 2 better than code g + 1
    sub_talker_labels_unshifted ... code g, which it has just read
    state_of_frame              the code predictor does better from a state that has read the frame it predicts
    text_projection_left_out    the talker does better on text embeddings without the projection (where widths allow it)
    last_codebook_untrained     the last head is no better than chance, and all the others are
    end_of_speech_lost          at the true ends the model does not end, though it predicts the frames before; or the
                                end is equally probable everywhere, whatever the model has read

"Better" is by ``MARGIN`` nats and ``SURE`` standard errors, position by position, and the better one must beat chance:
of a model that predicts nothing, such as one with random weights, nothing is said.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..ops import F64
from ..talker.loss import AFTER_NEXT, BEFORE, NEXT, OF, READ, mean
from .readings import Reading, Utterance, pooled

MARGIN = 0.05  # nats
SURE = 4.0  # standard errors of the mean difference
BEATS_CHANCE = 0.5  # nats below that of equal probabilities
UNTRAINED = 0.95  # of the loss of chance: a head that knows no more
ENDING = 12  # rows up to the true end, about a second, in which a model may end
LOST = 0.05  # probability of an end in all of them; the median of the utterances
TINY = 1e-30  # of a probability whose logarithm is taken
FLAT = 0.5  # standard deviation of log P(end) over all rows, of a model that nothing tells the end

DOES = {READ: "the code it has just read", NEXT: "the next code", AFTER_NEXT: "the code after the next"}


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong, and the losses that prove it."""

    name: str
    sentence: str


@dataclass(frozen=True)
class Diagnosis:
    """``faults`` may be empty: then no known one was found, which does not say that a model is good."""

    faults: tuple[Fault, ...]
    beats_chance: bool  # whether any alignment of the talker does

    @property
    def verdict(self) -> str:
        """One sentence."""
        if self.faults:
            return "; ".join(fault.name for fault in self.faults)
        if self.beats_chance:
            return "no known fault"
        return "no known fault, but code 0 is predicted no better than by chance at any alignment"


def diagnose(utterances: Sequence[Utterance], entries: int) -> Diagnosis:
    """``entries``: how many codes a codebook has [C]."""
    chance = math.log(entries)
    generated, raw = pooled([u.generated for u in utterances]), _raw(utterances)
    faults = []
    if raw is not None and _is_better(_best_talker(raw), _best_talker(generated), chance):
        faults.append(_projection(raw, generated))
    read = [u.raw or u.generated for u in utterances] if faults else [u.generated for u in utterances]
    reading = pooled(read)
    faults += [*_talker(reading, chance), *_predictor(reading, chance), *_last_codebook(reading, chance)]
    beats_chance = mean(_best_talker(reading)) < chance - BEATS_CHANCE
    faults += _end(read, beats_chance)
    return Diagnosis(tuple(faults), beats_chance)


def _raw(utterances: Sequence[Utterance]) -> Reading | None:
    """All of them without the text projection, where most are better so."""
    better = [u.raw or u.generated for u in utterances]
    return pooled(better) if sum(u.raw is not None for u in utterances) > len(utterances) / 2 else None


def _is_better(one: F64, other: F64, chance: float) -> bool:
    """Whether the losses ``one`` are surely below the losses ``other`` of the same positions, and below chance."""
    known = ~(np.isnan(one) | np.isnan(other))
    gain = (other - one)[known]
    if gain.size < 2:
        return False
    least = max(MARGIN, SURE * float(gain.std(ddof=1)) / math.sqrt(gain.size))
    return float(gain.mean()) > least and float(one[known].mean()) < chance - BEATS_CHANCE


def _best_talker(reading: Reading) -> F64:
    return min((judged.loss for judged in reading.talker.values()), key=mean)


def _projection(raw: Reading, generated: Reading) -> Fault:
    found, expected = mean(_best_talker(raw)), mean(_best_talker(generated))
    return Fault(
        "text_projection_left_out",
        f"on text embeddings without text_projection the talker's loss is {found:.2f} instead of {expected:.2f}",
    )


def _talker(reading: Reading, chance: float) -> Iterator[Fault]:
    right = reading.talker[NEXT].loss
    for label, name in ((AFTER_NEXT, "talker_labels_twice"), (READ, "talker_labels_unshifted")):
        if _is_better(reading.talker[label].loss, right, chance):
            yield Fault(
                name,
                f"the talker predicts {DOES[label]} (loss {mean(reading.talker[label].loss):.2f}), "
                f"not {DOES[NEXT]} ({mean(right):.2f})",
            )


def _predictor(reading: Reading, chance: float) -> Iterator[Fault]:
    """Both axes, each where the other one fits best."""
    losses = {cell: judged.loss for cell, judged in reading.predictor.items()}
    state, label = min(losses, key=lambda cell: mean(losses[cell]))
    best, aligned, before = losses[state, label], losses[state, NEXT], losses[BEFORE, label]
    for wrong, name in ((AFTER_NEXT, "sub_talker_labels_twice"), (READ, "sub_talker_labels_unshifted")):
        if label == wrong and _is_better(best, aligned, chance):
            yield Fault(
                name,
                f"the code predictor predicts {DOES[label]} (loss {mean(best):.2f}), "
                f"not {DOES[NEXT]} ({mean(aligned):.2f})",
            )
    if state == OF and _is_better(best, before, chance):
        yield Fault(
            "state_of_frame",
            f"the code predictor does better from the state that has read the frame (loss {mean(best):.2f}) than from "
            f"the one before it ({mean(before):.2f}), from which speech is generated",
        )


def _last_codebook(reading: Reading, chance: float) -> Iterator[Fault]:
    """The last head against the others, each at the alignment that fits it best."""
    *others, last = _best_of_heads(reading)
    if others and last > UNTRAINED * chance and max(others) < min(chance, last) - BEATS_CHANCE:
        yield Fault(
            "last_codebook_untrained",
            f"the last codebook is predicted no better than by chance (loss {last:.2f}, chance {chance:.2f}), the "
            f"others are (at most {max(others):.2f})",
        )


def _best_of_heads(reading: Reading) -> list[float]:
    """The loss of every head of the code predictor at the alignment that fits it best."""
    cells = [[mean(head) for head in judged.loss.T] for judged in reading.predictor.values()]
    return [float(np.nanmin(losses)) for losses in zip(*cells, strict=True)]


def _end(readings: Sequence[Reading], beats_chance: bool) -> Iterator[Fault]:
    """A rate that is too high leaves a model that predicts and does not end, or one that says the same everywhere."""
    rows = np.concatenate([reading.end for reading in readings])
    found = float(np.median([end_within(reading.end) for reading in readings]))
    if float(np.log(np.maximum(rows, TINY)).std()) < FLAT:
        yield Fault(
            "end_of_speech_lost",
            f"the end of speech has the same probability at every frame, about {np.median(rows):.1e}: nothing that the "
            "model has read tells it that a text is over",
        )
    elif beats_chance and found < LOST:
        yield Fault(
            "end_of_speech_lost",
            f"in the last {ENDING} places before the true end and at it, the speech ends with a probability of "
            f"{found:.1e} (median of the utterances): if their audio is complete, the model has lost the end",
        )


def end_within(end: F64, rows: int = ENDING) -> float:
    """The probability that speech ends at one of the last ``rows``. end [f + 1] of one utterance."""
    return float(1 - np.prod(1 - end[-rows:]))
