"""What a model says of given codes, at the right alignment and at its neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..config import ModelConfig
from ..ops import F64, Array
from ..talker import loss
from ..talker.loss import BEFORE, NEXT, OF, READ, Judged
from ..teacher import Teacher
from .speech import Speech

LABELS = (READ, NEXT, loss.AFTER_NEXT)
STATES = (BEFORE, OF)
FRAMES_AT_ONCE = 64  # of the code predictor: at full size 16 MB of logits in float64


@dataclass(frozen=True)
class Reading:
    """Losses of utterances with f frames in all, one below the other.

    Rows of the talker: f, and one more for each utterance, from which its end is generated.
    """

    talker: dict[int, Judged]  # label -> [rows]
    predictor: dict[tuple[int, int], Judged]  # state, label -> [f, G - 1]
    end: F64  # [rows] P(end of speech)
    last: NDArray[np.bool_]  # [rows] whether the row is the last of its utterance

    @property
    def codebooks(self) -> Judged:
        """Every code under the conditioning of generation, [f, G]."""
        first, others = self.talker[NEXT], self.predictor[BEFORE, NEXT]
        return Judged(*(np.column_stack([a[~self.last], b]) for a, b in zip(first, others, strict=True)))


@dataclass(frozen=True)
class Utterance:
    """One utterance as a model reads it. ``raw``: with its text embeddings as they are stored, without the projection;
    None where that has no meaning, or the talker is surer with the projection."""

    id: str
    frames: int
    generated: Reading
    raw: Reading | None


def read(teacher: Teacher, config: ModelConfig, speech: Speech) -> Utterance:
    """Both networks on one utterance."""
    c = config.talker_config
    generated = _read(teacher, config, speech, project_text=True)
    raw = None
    if c.text_hidden_size == c.hidden_size:
        talker = _talker(teacher, config, speech, project_text=False)
        if _least(talker[0]) < _least(generated.talker):
            raw = _complete(teacher, speech, *talker)
    return Utterance(speech.id, len(speech.codes), generated, raw)


def _least(talker: dict[int, Judged]) -> float:
    return min(loss.mean(judged.loss) for judged in talker.values())


def _read(teacher: Teacher, config: ModelConfig, speech: Speech, project_text: bool) -> Reading:
    return _complete(teacher, speech, *_talker(teacher, config, speech, project_text))


def _talker(
    teacher: Teacher, config: ModelConfig, speech: Speech, project_text: bool
) -> tuple[dict[int, Judged], F64, Array]:
    """(losses of every label, P(end) [f + 1], states [f + 1, H])"""
    end = config.talker_config.codec_eos_token_id
    hidden, logits = teacher.read(speech.request, speech.codes, project_text=project_text)
    judged = {label: loss.judge(logits, loss.talker_labels(speech.codes, end, label)) for label in LABELS}
    return judged, loss.end_probability(logits, end), hidden


def _complete(teacher: Teacher, speech: Speech, talker: dict[int, Judged], end: F64, hidden: Array) -> Reading:
    """With the losses of the code predictor, from either state."""
    predictor: dict[tuple[int, int], Judged] = {}
    for state in STATES:
        parts: dict[int, list[Judged]] = {label: [] for label in LABELS}
        states = loss.predictor_states(hidden, state)
        for first in range(0, len(speech.codes), FRAMES_AT_ONCE):
            part = slice(first, first + FRAMES_AT_ONCE)
            logits = teacher.complete(states[part], speech.codes[part])
            for label in LABELS:
                parts[label].append(loss.judge(logits, loss.predictor_labels(speech.codes[part], label)))
        predictor |= {(state, label): _below_one_another(found) for label, found in parts.items()}
    return Reading(talker, predictor, end, np.arange(len(end)) == len(speech.codes))


def pooled(readings: Sequence[Reading]) -> Reading:
    """All utterances together."""
    return Reading(
        {label: _below_one_another([r.talker[label] for r in readings]) for label in LABELS},
        {
            (state, label): _below_one_another([r.predictor[state, label] for r in readings])
            for state in STATES
            for label in LABELS
        },
        np.concatenate([r.end for r in readings]),
        np.concatenate([r.last for r in readings]),
    )


def _below_one_another(judged: Sequence[Judged]) -> Judged:
    return Judged(*(np.concatenate(arrays) for arrays in zip(*judged, strict=True)))
