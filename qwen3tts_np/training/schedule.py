"""Which clips each step learns from, and at which rate: all of it follows from the seed and the number of the step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .optimiser import constant, cosine
from .settings import TrainingSettings

ORDER, SHARE, PAST = 1, 2, 3  # what is drawn, behind the seed
WARM_UP = 10  # at most one in so many steps


@dataclass(frozen=True)
class Step:
    """One step: its number, from 1, its epoch, from 0, and the clips of its batches."""

    number: int
    epoch: int
    batches: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Schedule:
    """Which clips each step learns from, and at which rate."""

    clips: int
    settings: TrainingSettings

    @property
    def steps(self) -> int:
        return self.per_epoch * self.settings.num_epochs

    @property
    def per_epoch(self) -> int:
        """The rest of an epoch makes a step too."""
        return math.ceil(math.ceil(self.clips / self.settings.batch_size) / self.settings.gradient_accumulation_steps)

    def after(self, step: int) -> Iterator[Step]:
        """The steps behind ``step``, which may be 0."""
        for number in range(step + 1, self.steps + 1):
            epoch, place = divmod(number - 1, self.per_epoch)
            size, together = self.settings.batch_size, self.settings.gradient_accumulation_steps
            order = self._order(epoch)
            batches = [tuple(order[i : i + size]) for i in range(0, self.clips, size)]
            yield Step(number, epoch, tuple(batches[place * together : (place + 1) * together]))

    def _order(self, epoch: int) -> list[int]:
        return np.random.default_rng([self.settings.seed, ORDER, epoch]).permutation(self.clips).tolist()

    def rate(self, number: int) -> float:
        """The learning rate of a step, whose number is from 1."""
        warm_up = min(self.settings.warmup_steps, self.steps // WARM_UP)
        if self.settings.schedule == "constant":
            return self.settings.rate * constant(number - 1, warm_up)
        return self.settings.rate * cosine(number - 1, self.steps, warm_up)
