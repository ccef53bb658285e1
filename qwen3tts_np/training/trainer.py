"""A checkpoint, the rows that it learns from, and the steps that it takes.

Everything random follows from the seed and the number of the epoch or the step, and from nothing that was drawn
before, so a step is the same whatever was done before it in this process.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from qwen3tts_np_kernels.system import keep_free_memory

from ..errors import QwenTTSError
from ..files.arrays import read_array
from ..files.output import check_name, npy_of, write_bytes
from ..ops import Array, Ints
from ..shown import shortened
from ..text.tokenizer import Tokenizer
from .augmentation import FramePool, exchanged
from .batch import Batch, Counts, Utterance
from .card import Trained, card_of
from .data import Clip, Reader, identity_of, new_speakers, read_clips, start_vectors
from .learner import Base, Learner
from .network import Losses
from .optimiser import AdamW, clipping, gradient_norm, not_finite
from .schedule import PAST, SHARE, Schedule, Step
from .settings import TrainingSettings
from .state import State
from .validation import SpeechJudge

NOT_OF_THE_RUN = {
    "output",
    "model",
    "data",
    "validation",
    "ref_audio",
    "codec",
    "threads",
    "dry_run",
    "upload_to_hub",
    "hub_model_id_best",
    "hub_model_id_last",
    "use_wandb",
    "wandb_project",
    "wandb_run_name",
    "wandb_entity",
}
"""Settings that may be others when a run goes on; rows and weights are known by what they hold, not by their names."""


class TrainingError(QwenTTSError, ArithmeticError):
    """A loss or a gradient is not finite, so there is nothing more to learn."""


@dataclass(frozen=True)
class Speech:
    """What is learned from, and what it is validated on."""

    train: Sequence[Clip]
    validation: Sequence[Clip]

    @cached_property
    def frames(self) -> int:
        return sum(len(clip.codes) for clip in self.train)

    @cached_property
    def pool(self) -> FramePool:
        return FramePool.of(np.concatenate([clip.codes for clip in self.train]).astype(np.int64))


def read_speech(settings: TrainingSettings, base: Base) -> Speech:
    """The rows of ``settings.data`` and of its validation, which is found beside it as ``train prepare`` names it."""
    data = Path(settings.data or "")
    train = read_clips(data, base.config, settings, settings.max_train_samples)
    beside = data.with_suffix(".validation.jsonl")
    held = Path(settings.validation) if settings.validation else beside if beside.is_file() else None
    validation = [] if held is None else read_clips(held, base.config, settings, settings.max_eval_samples)
    return Speech(train, validation)


class Trainer:
    """What a run consists of. ``run.py`` takes its steps, and writes what is written between them."""

    def __init__(self, model: Path, settings: TrainingSettings, codec: Path | None = None) -> None:
        """``model``: the folder of the checkpoint that ``settings.model`` names. Errors are those of all readers.

        ``codec``: a folder in place of the model's own speech_tokenizer.
        """
        assert settings.data is not None
        if settings.output is not None:
            check_name(settings.output)
        self.settings = settings
        self.base = Base.open(model, settings.model or model.name, settings)
        self.speech = read_speech(settings, self.base)
        everything = [*self.speech.train, *self.speech.validation]
        self.judge = SpeechJudge(
            model,
            self.base.config.tts_model_type,
            self.speech.validation,
            settings.validation_texts,
            settings.seed,
            settings.threads,
        )
        speakers = new_speakers(everything, self.base.config)
        vectors = start_vectors(
            speakers, everything, Path(settings.data), self.base.stored, self.base.config, self.judge.embed
        )
        self.learner = Learner(self.base, settings, vectors, codec)
        self.reader = Reader(self.base.config, Tokenizer.from_directory(model), self.learner.fixed_vectors)
        self.schedule = Schedule(len(self.speech.train), settings)
        keep_free_memory()
        self.optimiser = AdamW(self.learner.parameters, decay=settings.weight_decay, decay_all=settings.decay_all)
        for clip in everything:
            self.reader(clip)  # what does not fit is refused before the work

    @property
    def identity(self) -> dict[str, Any]:
        """What makes this run this run."""
        said = {f.name: getattr(self.settings, f.name) for f in fields(self.settings) if f.name not in NOT_OF_THE_RUN}
        return {
            **said,
            "rows": identity_of(self.speech.train),
            "validation_rows": identity_of(self.speech.validation),
            "base": self.base.fingerprint,
        }

    @property
    def hours(self) -> float:
        """Of speech that is learned from."""
        return self.speech.frames / self.base.frame_rate / 3600

    # --- steps ------------------------------------------------------------------------------------------------------

    def step(self, step: Step) -> tuple[list[Losses], float, float]:
        """One step of the optimiser. -> losses of its batches, the norm of the gradients, the learning rate."""
        network, official = self.learner.network, self.settings.alignment == "official"
        batches = [self._batch(step, i) for i in range(len(step.batches))]
        of = [batch.counts(network.alignment, network.share) for batch in batches]
        total = None if official else Counts.total(of)  # the official script takes the mean of means
        scale = 1 / self.settings.gradient_accumulation_steps if official else 1.0
        losses = []
        for i, batch in enumerate(batches):
            draw = self._draw(SHARE, step.number, i) if network.share < 1 else None
            frozen = self._frozen(step.batches[i])
            found = network.loss(batch, counts=total, scale=scale, draw=draw, frozen=frozen)
            if not math.isfinite(found.total):
                raise self._not_finite(step, i)
            losses.append(found)
        gradients = self.learner.parameters.gradients
        norm = gradient_norm(gradients)
        if not math.isfinite(norm):
            raise TrainingError(
                f"step {step.number}: the gradient of {shortened(not_finite(gradients)[0])} is not finite; "
                f"its clips are {', '.join(self._names(step))}"
            )
        rate = self.schedule.rate(step.number)
        self.optimiser.step(rate, clipping(norm, self.settings.max_grad_norm))
        return losses, norm, rate

    def _batch(self, step: Step, i: int) -> Batch:
        clips = [self.speech.train[clip] for clip in step.batches[i]]
        read = [self._read(clip, step.number, at) for clip, at in zip(clips, step.batches[i], strict=True)]
        utterances = [self.reader(clip, past) for clip, past in zip(clips, read, strict=True)]
        return Batch(utterances, self.base.config.talker_config)

    def _read(self, clip: Clip, number: int, at: int) -> Ints | None:
        """What the talker reads of a clip in place of its codes."""
        if not self.settings.replace_past:
            return None
        return exchanged(
            clip.codes.astype(np.int64),
            self.speech.pool,
            self._draw(PAST, number, at),
            codebook_size=self.base.config.talker_config.code_predictor_config.vocab_size,
            share=self.settings.replace_past,
        )

    def _draw(self, what: int, *where: int) -> np.random.Generator:
        return np.random.default_rng([self.settings.seed, what, *where])

    def _not_finite(self, step: Step, i: int) -> TrainingError:
        """Which clip of a batch it is, and which tensor, if one of the weights is to blame."""
        network, blamed = self.learner.network, ""
        for at in step.batches[i]:
            clip = self.speech.train[at]
            one = Batch([self.reader(clip, self._read(clip, step.number, at))], self.base.config.talker_config)
            if not math.isfinite(network.loss(one, learn=False).total):
                blamed = clip.name
                break
        wrong = not_finite(self.learner.trained)
        why = (
            f"; {shortened(wrong[0])} holds values that are not finite" if wrong else "; all trained weights are finite"
        )
        clips = blamed or ", ".join(self.speech.train[at].name for at in step.batches[i])
        return TrainingError(f"step {step.number}: the loss of clip {shortened(clips)} is not finite{why}")

    def _names(self, step: Step) -> list[str]:
        return [shortened(self.speech.train[at].name) for batch in step.batches for at in batch]

    # --- what frozen layers say ---------------------------------------------------------------------------------------

    def _frozen(self, batch: Sequence[int]) -> Array | None:
        """With ``last:N``, the output of the frozen layers for a batch, kept on disk clip by clip."""
        if not self.settings.last or self.settings.replace_past or self.settings.output is None:
            return None
        return np.concatenate([self._frozen_clip(at) for at in batch])

    def _frozen_clip(self, at: int) -> Array:
        assert self.settings.output is not None
        path = Path(self.settings.output) / "frozen" / f"{at}.npy"
        utterance = self.reader(self.speech.train[at])
        if path.is_file():
            kept: Array = read_array(path)
            if kept.shape == (len(utterance), self.base.config.talker_config.hidden_size):
                return kept
        found = self.learner.network.frozen_part(Batch([utterance], self.base.config.talker_config))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, npy_of(found))
        return found

    # --- states -------------------------------------------------------------------------------------------------------

    def arrays(self) -> dict[str, Array]:
        """All that a state consists of: weights and moments, float32."""
        optimiser = self.optimiser
        parts = {"weight": self.learner.trained, "first": optimiser.first, "second": optimiser.second}
        return {f"{part}.{name}": array for part, arrays in parts.items() for name, array in arrays.items()}

    def load(self, arrays: Mapping[str, Array], step: int) -> None:
        """Go on from the state of a step."""
        self.optimiser.steps = step
        for full, array in arrays.items():
            part, _, name = full.partition(".")
            if part == "weight":
                self.learner.parameters.arrays[name] = array
            else:
                (self.optimiser.first if part == "first" else self.optimiser.second)[name] = array

    def validation_batches(self) -> Iterator[Batch]:
        clips, size = self.speech.validation, self.settings.batch_size
        for i in range(0, len(clips), size):
            utterances: list[Utterance] = [self.reader(clip) for clip in clips[i : i + size]]
            yield Batch(utterances, self.base.config.talker_config)

    def card(self, state: State) -> str:
        """The model card of the weights as they are now."""
        trained = Trained(
            self.base.name,
            "custom_voice" if self.learner.rows else self.base.config.tts_model_type,
            self.learner.rows,
            len(self.speech.train),
            self.hours,
            state.step,
            self.schedule.steps,
            state.epoch,
            self.learner.trainable,
            {f"validation {name}": value for name, value in state.losses.items()},
        )
        return card_of(trained, self.settings)
