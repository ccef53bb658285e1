"""AdamW, the norm of all gradients, and the learning rate of each step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from qwen3tts_np_kernels.adamw import AdamWStep
from qwen3tts_np_kernels.adamw_jit import adamw, sum_of_squares

from ..ops import Array
from .parameters import Parameters
from .threads import side_by_side

PART = 1 << 22  # values that a thread does at a time: a table of words would keep one busy while the others wait


def gradient_norm(gradients: Mapping[str, Array]) -> float:
    """The Euclidean norm of all gradients together; NaN or infinite if a value is. Any threads give the same."""
    parts = (gradient.reshape(-1)[part] for gradient in gradients.values() for part in _parts(gradient.size))
    return math.sqrt(sum(side_by_side(sum_of_squares, parts)))


def _parts(size: int) -> list[slice]:
    return [slice(first, first + PART) for first in range(0, size, PART)]


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

        def update(part: tuple[str, slice]) -> None:
            name, values = part
            weight = arrays[name]
            assert isinstance(weight, np.ndarray)
            keep = 1 - rate * self.decay if self.decay_all or decays(name, weight) else 1.0
            step = AdamWStep(keep, size, correction, beta1, beta2, self.eps, scale)
            w, g, m, v = (
                array.reshape(-1)[values]
                for array in (weight, self.parameters.gradients[name], self.first[name], self.second[name])
            )
            adamw(w, g, m, v, step)

        for name, gradient in self.parameters.gradients.items():
            for moments in (self.first, self.second):
                if name not in moments:
                    moments[name] = np.zeros_like(gradient)
        parts = [(name, values) for name, g in self.parameters.gradients.items() for values in _parts(g.size)]
        side_by_side(update, parts)


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
