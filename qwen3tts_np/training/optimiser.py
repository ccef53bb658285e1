"""AdamW, the norm of all gradients, and the learning rate of each step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from qwen3tts_np_kernels.adamw import AdamWStep
from qwen3tts_np_kernels.adamw_jit import adamw, sum_of_squares
from qwen3tts_np_kernels.system import usable_cores

from ..ops import Array
from .parameters import Parameters

T = TypeVar("T")
R = TypeVar("R")


def gradient_norm(gradients: Mapping[str, Array]) -> float:
    """The Euclidean norm of all gradients together; NaN or infinite if a value is."""
    return math.sqrt(sum(side_by_side(sum_of_squares, gradients.values())))


def side_by_side(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """``function`` of each, on as many threads as there are cores: for kernels of one tensor, bound by memory."""
    with ThreadPoolExecutor(usable_cores()) as pool:
        return list(pool.map(function, items))


def clipping(norm: float, most: float) -> float:
    """What gradients of this norm are multiplied by so that it is at most ``most`` (``clip_grad_norm_``)."""
    return min(1.0, most / (norm + 1e-6))


def not_finite(arrays: Mapping[str, Array]) -> list[str]:
    """The names of the arrays that hold a NaN or an infinity."""
    return [name for name, array in arrays.items() if not np.isfinite(array).all()]


def decays(name: str, array: Array) -> bool:
    """Whether weight decay is for it by default: for the matrices of linear layers.

    Norms and biases are no matrices. A row of a table that no text uses has no gradient, and would fade away.
    """
    return array.ndim == 2 and "embedding" not in name


@dataclass
class AdamW:
    """Loshchilov and Hutter, 2019, as ``torch.optim.AdamW`` computes it.

    ``decay_all``: the official script's decay, which is for every weight, norms and embeddings included.
    """

    parameters: Parameters
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    decay: float = 0.01
    decay_all: bool = False
    steps: int = 0
    first: dict[str, Array] = field(default_factory=dict)  # moments by name: the optimiser's state, with ``steps``
    second: dict[str, Array] = field(default_factory=dict)

    def step(self, rate: float, scale: float = 1.0) -> None:
        """One step along ``scale`` times the gradients, which are 0 afterwards."""
        self.steps += 1
        (beta1, beta2), arrays = self.betas, self.parameters.arrays
        size, correction = rate / (1 - beta1**self.steps), math.sqrt(1 - beta2**self.steps)

        def update(name: str) -> None:
            weight = arrays[name]
            assert isinstance(weight, np.ndarray)
            first, second = (of.setdefault(name, np.zeros_like(weight)) for of in (self.first, self.second))
            keep = 1 - rate * self.decay if self.decay_all or decays(name, weight) else 1.0
            step = AdamWStep(keep, size, correction, beta1, beta2, self.eps, scale)
            adamw(weight, self.parameters.gradients[name], first, second, step)

        side_by_side(update, self.parameters.gradients)


def cosine(step: int, steps: int, warm_up: int) -> float:
    """The share of the learning rate in step ``step`` of ``steps``, from 0: a linear warm-up, then half a cosine to 0.

    As ``transformers.get_cosine_schedule_with_warmup``: the first step of a warm-up has rate 0.
    """
    if step < warm_up:
        return step / warm_up
    return max(0.0, (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up))) / 2)


def constant(step: int, warm_up: int) -> float:
    """The share of the learning rate in step ``step``, from 0: a linear warm-up, then 1."""
    return step / warm_up if step < warm_up else 1.0
