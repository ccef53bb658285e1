"""Score a model on speech that is given: what it says of every code, and what that says of the model.

    manifest --(``speech.py``)--> requests and codes --(``teacher.py``, on either path)--> logits
        --(``readings.py``, ``talker/loss.py``)--> losses of every alignment --(``diagnosis.py``)--> faults

The conditioning is that of generation, to the last position: the model's own prompts, in their layout, and its own sums
of frames and text. Only the choice is left out: every frame is followed by the true one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from ..arguments import callback, require_type, switch, whole_number
from ..compiled.frame_loop import FrameLoop
from ..errors import RequestError, RequestTypeError
from ..manifest import Manifest
from ..model import Qwen3TTSModel
from ..ops import F64
from ..talker import loss
from .diagnosis import Diagnosis, diagnose
from .readings import LABELS, STATES, Reading, Utterance, pooled, read
from .speech import Speech, all_speech, speech_of


@dataclass(frozen=True)
class Score:
    """The losses of a model, utterance by utterance and together."""

    utterances: tuple[Utterance, ...]
    together: Reading
    entries: int  # codes of a codebook [C]
    diagnosis: Diagnosis

    @property
    def codebooks(self) -> list[CodebookScore]:
        """Of every codebook, under the conditioning of generation."""
        return codebook_scores(self.together)

    @property
    def talker(self) -> dict[int, float]:
        """Mean loss of the talker for each label."""
        return {label: loss.mean(self.together.talker[label].loss) for label in LABELS}

    @property
    def predictor(self) -> dict[tuple[int, int], float]:
        """Mean loss of the code predictor for each state and label."""
        cells = [(state, label) for state in STATES for label in LABELS]
        return {cell: loss.mean(self.together.predictor[cell].loss) for cell in cells}


@dataclass(frozen=True)
class CodebookScore:
    """Mean over frames."""

    cross_entropy: float  # nats
    accuracy: float  # how often the true code is the best

    @property
    def perplexity(self) -> float:
        return float(np.exp(self.cross_entropy))


def codebook_scores(reading: Reading) -> list[CodebookScore]:
    """Of codebooks 0 to G - 1."""
    judged = reading.codebooks
    return [
        CodebookScore(loss.mean(losses), loss.mean(right))
        for losses, right in zip(judged.loss.T, judged.right.T, strict=True)
    ]


def score(
    model: Qwen3TTSModel,
    speech: str | os.PathLike[str] | Manifest | Iterable[Speech],
    *,
    streaming: bool | None = None,
    limit: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> Score:
    """Teacher-forced cross-entropy, perplexity and accuracy of every codebook, and the known faults they prove.

    ``speech``: a manifest (text, and ``audio`` or ``audio_codes``), by its path or opened; or :class:`Speech` made of
    ``model.prepare`` and codes. ``streaming``: the layout of all prompts; None is the row's, or that of ``generate_*``.
    ``limit``: the first so many rows. ``progress`` is called with the number of utterances so far. RequestError for
    rows that the model cannot read, and where there are none.
    """
    require_type(model, Qwen3TTSModel, "model")
    if not isinstance(model.frame_loop, FrameLoop):
        raise RequestError("this model does not read codes: it writes given ones")
    streaming = None if streaming is None else switch(streaming, "streaming")
    limit = None if limit is None else whole_number(limit, "limit")
    report = callback(progress, "progress")
    if isinstance(speech, str | os.PathLike | Manifest):
        speech = speech_of(model, speech, streaming)
    if not isinstance(speech, Iterable):
        raise RequestTypeError(f"speech is {type(speech).__name__}, expected a manifest, or a list of Speech")
    teacher, utterances = model.frame_loop.teacher(), []
    for one in all_speech(speech, limit):
        with model.engine.limited():
            utterances.append(read(teacher, model.config, one))
        if report is not None:
            report(len(utterances))
    entries = model.config.talker_config.code_predictor_config.vocab_size
    together = pooled([u.generated for u in utterances])
    return Score(tuple(utterances), together, entries, diagnose(utterances, entries))


def end_profile(utterances: Iterable[Utterance], rows: int) -> F64:
    """P(end of speech) [utterances, rows] at the last rows of each, the true end last; NaN before a short one."""
    ends = [u.generated.end[-rows:] for u in utterances]
    return np.array([np.pad(end, (rows - len(end), 0), constant_values=np.nan) for end in ends])
