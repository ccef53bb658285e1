"""The loop: the steps of a trainer, and what is written between them.

A run that was interrupted goes on as if it had not been: with the same number of threads it writes the same bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .checkpoints import link_folder
from .logs import PLOT, TRAINING, VALIDATION, Log, plot
from .network import Losses, mean_losses
from .schedule import Step
from .state import BEST, LAST, RunFolder, State
from .threads import training_threads
from .trainer import Trainer
from .validation import validation_losses

Report = Callable[[Mapping[str, Any]], None]
"""Called with every line of either log as it is written."""


def run(trainer: Trainer, report: Report = lambda line: None) -> State:
    """Train to the end, from where the folder is, and return the last state.

    TrainingError at the first loss that is not finite; OutputError where the folder holds another run, or another
    process trains in it.
    """
    settings = trainer.settings
    assert settings.output is not None
    folder = RunFolder(Path(settings.output))
    with folder.opened(trainer.identity) as found, training_threads(settings.threads):
        state = found or State()
        if found is not None:
            trainer.load(folder.arrays(state.step), state.step)
            folder.prune(state)
        writer = _Writer(trainer, folder, state, report)
        for step in trainer.schedule.after(state.step):
            writer.took(step, *trainer.step(step))
    return state


@dataclass
class _Writer:
    """What is written between the steps of a run."""

    trainer: Trainer
    folder: RunFolder
    state: State
    report: Report
    training: Log = field(init=False)
    validation: Log = field(init=False)
    _since: list[Losses] = field(default_factory=list)  # the last line of the log
    _latest: Sequence[Losses] = ()  # of the last step
    _clock: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.training = Log(self.folder.path / TRAINING, self.state.step)
        self.validation = Log(self.folder.path / VALIDATION, self.state.step)

    def took(self, step: Step, losses: Sequence[Losses], norm: float, rate: float) -> None:
        """After a step: log, validate, and keep, as the settings have it; at the last step all of it."""
        settings, last = self.trainer.settings, step.number == self.trainer.schedule.steps
        self._since += losses
        self._latest = losses
        self.state.step, self.state.epoch = step.number, step.epoch
        if step.number % settings.logging_steps == 0 or last:
            self._log(step, norm, rate)
        saves = step.number % settings.save_steps == 0 or last
        validates = step.number % settings.eval_steps == 0 or saves
        if validates:
            self._validate()
        if saves:
            self._save(step)
        if validates:
            self._log_validation(step, saves)
        if saves:
            self._keep(step)

    def _log(self, step: Step, norm: float, rate: float) -> None:
        found, now = mean_losses(self._since), time.monotonic()
        frames = sum(losses.counts.talker for losses in self._since)
        self.training.add(
            step=step.number,
            epoch=step.epoch,
            loss=found["loss"],
            learning_rate=rate,
            talker=found["talker"],
            sub_talker=found["sub_talker"],
            gradient_norm=norm,
            frames_per_second=round(frames / max(now - self._clock, 1e-9), 1),
        )
        self._since, self._clock = [], now
        self._plot()
        self.report(self.training.lines[-1])

    def _plot(self) -> None:
        steps = self.trainer.schedule.steps
        plot(self.folder.path / PLOT, self.training.lines, self.validation.lines, steps)

    def _validate(self) -> None:
        if self.trainer.speech.validation:
            self.state.losses = validation_losses(self.trainer.learner.network, self.trainer.validation_batches())

    def _save(self, step: Step) -> None:
        """The checkpoint of a step, and ``last``."""
        target = self.folder.checkpoint(step.number)
        self.trainer.learner.write(target, self.trainer.card(self.state))
        link_folder(target, self.folder.path / LAST)

    def _log_validation(self, step: Step, saved: bool) -> None:
        if not self.trainer.speech.validation:
            return
        measured = self._measured(step) if saved else {}
        losses = self.state.losses
        metrics = {name: value for name, value in losses.items() if name != "loss"}
        self.validation.add(step=step.number, epoch=step.epoch, loss=losses["loss"], metrics={**metrics, **measured})
        self._plot()
        self.report(self.validation.lines[-1])

    def _measured(self, step: Step) -> dict[str, float]:
        target, learner = self.folder.checkpoint(step.number), self.trainer.learner
        if learner.adapter is not None and learner.settings.adapter == "separate":
            return self.trainer.judge.measure(learner.base.folder, target)
        return self.trainer.judge.measure(target)

    def _keep(self, step: Step) -> None:
        """``best``, and the state; with it the step is done."""
        state, loss = self.state, self.state.losses.get("loss", mean_losses(self._latest)["loss"])
        if state.best_loss is None or loss < state.best_loss:
            state.best_loss, state.best_step = loss, step.number
            link_folder(self.folder.checkpoint(step.number), self.folder.path / BEST)
        kept = self.trainer.settings.save_total_limit
        state.checkpoints = [*(n for n in state.checkpoints if n != step.number), step.number][-kept:]
        self.folder.keep(state, self.trainer.arrays())
