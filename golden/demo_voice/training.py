"""One training loop for all three trainings: every choice is determined by the seed and the step number.

So an interrupted run continues as if it had not been interrupted: the state (weights, optimiser, step) is saved every
few minutes, and neither the learning rate nor the batch depends on the clock.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

SAVE_EVERY = 120  # seconds
REPORT_EVERY = 50  # steps

Losses = dict[str, torch.Tensor]  # "loss" is what is minimised, the rest is for reading


@dataclass(frozen=True)
class Schedule:
    """Learning rate schedule: warm-up, constant, and cosine decay in the last part."""

    steps: int
    rate: float
    warm_up: int = 100
    falling: float = 0.4  # of all steps
    least: float = 0.02  # of the rate

    def at(self, step: int) -> float:
        rise = min(1.0, (step + 1) / self.warm_up)
        start = self.steps * (1 - self.falling)
        fallen = max(0.0, (step - start) / (self.steps - start))
        return self.rate * rise * (self.least + (1 - self.least) * 0.5 * (1 + math.cos(math.pi * fallen)))


@dataclass
class Training:
    """``losses(draw, step)`` makes a batch with ``draw`` and returns the losses on it."""

    name: str
    state: Path
    model: torch.nn.Module
    schedule: Schedule
    losses: Callable[[np.random.Generator, int], Losses]
    betas: tuple[float, float]
    weight_decay: float
    seed: int = 0
    evaluate: Callable[[], str] | None = None  # called when the state is saved

    def run(self) -> None:
        """Train to the end of the schedule, from where an earlier run stopped. The weights end in ``NAME.pt``."""
        finished = self.state / f"{self.name}.pt"
        if finished.exists():
            return
        optimiser = self._optimiser()
        step = self._resume(optimiser)
        saved, since, sums, started = time.monotonic(), 0, {}, time.monotonic()
        self.model.train()
        while step < self.schedule.steps:
            for group in optimiser.param_groups:
                group["lr"] = self.schedule.at(step)
            torch.manual_seed(self.seed * 1_000_003 + step)
            found = self.losses(np.random.default_rng([self.seed, step]), step)
            optimiser.zero_grad()
            found["loss"].backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            optimiser.step()
            step, since = step + 1, since + 1
            for key, value in found.items():
                sums[key] = sums.get(key, 0.0) + value.item()
            if step % REPORT_EVERY == 0:
                means = ", ".join(f"{key} {total / since:.3f}" for key, total in sums.items())
                pace = (time.monotonic() - started) / since
                print(f"{self.name} {step}/{self.schedule.steps}: {means}; {pace:.2f} s a step", flush=True)
                since, sums, started = 0, {}, time.monotonic()
            if time.monotonic() - saved > SAVE_EVERY:
                self._save(optimiser, step)
                saved = time.monotonic()
        self._save(optimiser, step)
        write(self.model.state_dict(), finished)

    def _optimiser(self) -> torch.optim.Optimizer:
        learned = [p for p in self.model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in learned if p.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in learned if p.ndim <= 1], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.schedule.rate, betas=self.betas)

    def _resume(self, optimiser: torch.optim.Optimizer) -> int:
        path = self._path
        if not path.exists():
            return 0
        device = next(self.model.parameters()).device
        content: dict[str, Any] = torch.load(path, map_location=device)
        self.model.load_state_dict(content["model"])
        optimiser.load_state_dict(content["optimiser"])
        print(f"{self.name}: going on after step {content['step']}", flush=True)
        return int(content["step"])

    def _save(self, optimiser: torch.optim.Optimizer, step: int) -> None:
        write({"model": self.model.state_dict(), "optimiser": optimiser.state_dict(), "step": step}, self._path)
        if self.evaluate is not None:
            self.model.eval()
            with torch.no_grad():
                print(f"{self.name} {step}, held out: {self.evaluate()}", flush=True)
            self.model.train()

    @property
    def _path(self) -> Path:
        return self.state / f"{self.name}.state.pt"


def latest(state: Path, name: str) -> dict[str, torch.Tensor]:
    """The weights that a training ended with, or those of its last state while it runs."""
    finished = state / f"{name}.pt"
    if finished.exists():
        return torch.load(finished, map_location="cpu")
    return torch.load(state / f"{name}.state.pt", map_location="cpu")["model"]


def write(content: Any, path: Path) -> None:
    """Write atomically."""
    part = path.with_suffix(".part")
    torch.save(content, part)
    os.replace(part, path)
