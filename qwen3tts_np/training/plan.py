"""What a run would take: one step computed, nothing written."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from qwen3tts_np_kernels.system import peak_memory

from .schedule import Step
from .threads import training_threads
from .trainer import Trainer


@dataclass(frozen=True)
class Plan:
    """In units of the command line's report; bytes as numbers."""

    mode: str
    trainable: int  # weights
    frozen: int
    clips: int
    hours_of_speech: float
    steps: int
    seconds_per_step: float
    hours: float
    memory: int | None  # the process's peak, with the step that was computed
    disk: int  # checkpoints and the state
    voices: tuple[str, ...]
    left_out: tuple[str, ...]  # measures of validation that are impossible here


def plan(trainer: Trainer) -> Plan:
    """Compute a step of the middle length twice, and say what all of them would take.

    The first one compiles kernels, and touches memory for the first time; the second is measured. The trainer has made
    two steps then, and is of no further use.
    """
    settings = trainer.settings
    step = _typical(trainer)
    with training_threads(settings.threads):
        trainer.step(step)
        start = time.monotonic()
        trainer.step(step)
        took = time.monotonic() - start
    frames = sum(len(trainer.speech.train[at].codes) for batch in step.batches for at in batch)
    seconds = took * trainer.speech.frames * settings.num_epochs / frames
    steps = trainer.schedule.steps
    return Plan(
        mode=settings.mode,
        trainable=trainer.learner.trainable,
        frozen=trainer.learner.frozen,
        clips=len(trainer.speech.train),
        hours_of_speech=trainer.hours,
        steps=steps,
        seconds_per_step=seconds / steps,
        hours=seconds / 3600,
        memory=peak_memory(),
        disk=_disk(trainer),
        voices=tuple(trainer.learner.rows),
        left_out=trainer.judge.impossible,
    )


def _typical(trainer: Trainer) -> Step:
    """The step of the first epoch whose number of frames is the middle one."""
    steps = list(trainer.schedule.after(0))[: trainer.schedule.per_epoch]
    clips = trainer.speech.train
    return sorted(steps, key=lambda s: sum(len(clips[at].codes) for batch in s.batches for at in batch))[
        len(steps) // 2
    ]


def _disk(trainer: Trainer) -> int:
    """Checkpoints that are kept, and one more while it is written; weights and moments twice, for the same reason.

    ``best`` and ``last`` are links, and so is the codec; ``best`` may be a checkpoint that is kept no longer.
    """
    settings, learner = trainer.settings, trainer.learner
    state = 12 * learner.trainable
    if learner.adapter is not None and settings.adapter == "separate":
        checkpoint = 4 * learner.trainable
    else:
        weights = Path(trainer.base.stored.path).stat().st_size
        added = sum(2 * array.size for array in trainer.base.new_layers.values())
        checkpoint = weights + added + (4 * learner.trainable if learner.adapter is not None else 0)
    frozen = 4 * trainer.base.config.talker_config.hidden_size * trainer.speech.frames if settings.last else 0
    return (settings.save_total_limit + 2) * checkpoint + 2 * state + frozen
