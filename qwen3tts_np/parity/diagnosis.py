"""Diagnosis of a wrong tensor.

A cause is a small function ``(ours, theirs, context) -> Finding | None`` with a name and one sentence. It applies a
known mistake to our tensors and compares the result with theirs; nothing is guessed. A finding counts if it explains
the difference: at most a twentieth of it remains, or it is within the tolerance. Findings are sorted by the remainder;
of those with a negligible one, the first in the table wins, where the specific come before the general.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..checkpoint.safetensors import Checkpoint
from ..ops import AnyArray, Array, codebook_entries
from .measure import difference

EXPLAINED = 0.05  # of the difference that a cause may leave unexplained
NEIGHBOURS = 24  # tensors before the wrong one that may have been its inputs


@dataclass(frozen=True)
class Finding:
    """A cause, in one sentence, and the share of the difference that it leaves (0: none, 1: all)."""

    cause: str
    message: str
    left: float


@dataclass(frozen=True)
class Context:
    """The position of the wrong tensor, and everything else that is known."""

    name: str  # module@call
    tensors: Mapping[str, AnyArray]  # all of ours, in the order of execution
    atol: float
    weights: Weights | None = None
    clips: tuple[Array, ...] = ()  # those of the request [samples], 24 kHz

    @property
    def module(self) -> str:
        return self.name.rpartition("@")[0] or self.name

    @property
    def call(self) -> int:
        number = self.name.rpartition("@")[2]
        return int(number) if number.isdigit() else 0

    @property
    def leaf(self) -> str:
        return self.module.rpartition(".")[2]

    def sibling(self, leaf: str, call: int | None = None) -> AnyArray | None:
        """Another tensor of the same module, at the same call."""
        call = self.call if call is None else call
        return self.tensors.get(f"{self.module.rpartition('.')[0]}.{leaf}@{call}")

    @cached_property
    def order(self) -> list[str]:
        return list(self.tensors)

    def before(self, count: int = NEIGHBOURS) -> Iterator[tuple[str, AnyArray]]:
        """Our tensors before this one, the nearest first."""
        place = self.order.index(self.name)
        for name in reversed(self.order[max(0, place - count) : place]):
            yield name, self.tensors[name]

    def weight(self, part: str = "weight") -> AnyArray | None:
        """A parameter of this module, if a checkpoint is available."""
        return self.weights.of(self.module, part) if self.weights else None

    def codebooks(self) -> list[AnyArray]:
        """The entries [C, E] of the codebooks of the codec's decoder, if a checkpoint is available."""
        return self.weights.codebooks() if self.weights else []


@dataclass(frozen=True)
class Weights:
    """The parameters of a checkpoint, by the names that activations have."""

    model: Checkpoint
    codec: Checkpoint
    _kept: dict[str, AnyArray] = field(default_factory=dict)

    def of(self, module: str, part: str = "weight") -> AnyArray | None:
        """``part`` (weight, bias, scale, alpha ...) of ``module``, float32; None if it has none."""
        file, key = self.model, module
        if module.startswith("speech_tokenizer."):
            file, key = self.codec, module.removeprefix("speech_tokenizer.")
        for stem in (key, f"{key}.conv"):
            if (name := f"{stem}.{part}") in file:
                if name not in self._kept:
                    self._kept[name] = file[name].widen(np.dtype(np.float32))
                return self._kept[name]
        return None

    def like(self, module: str, shape: tuple[int, ...]) -> Iterator[tuple[str, AnyArray]]:
        """Other matrices of this shape in the same part of the model, which may have been used by mistake."""
        file, top = self.model, ".".join(module.split(".")[:2])
        if module.startswith("speech_tokenizer."):
            file, top = self.codec, module.split(".")[1]
        for key in file:
            if key.startswith(top) and file[key].shape == shape:
                yield key, file[key].widen(np.dtype(np.float32))

    def codebooks(self) -> list[AnyArray]:
        """The entries [C, E] of every codebook of the codec's decoder, in the order of the codes."""
        stems = [key.removesuffix(".embedding_sum") for key in self.codec if key.endswith(".embedding_sum")]
        stems.sort(key=lambda stem: (".rvq_rest." in stem, int(stem.split(".")[-2])))

        def stored(key: str) -> AnyArray:
            return self.codec[key].widen(np.dtype(np.float32))

        return [codebook_entries(stored(f"{stem}.embedding_sum"), stored(f"{stem}.cluster_usage")) for stem in stems]


Cause = Callable[[AnyArray, AnyArray, Context], "Finding | None"]


def finding(
    cause: str, message: str, ours: AnyArray, theirs: AnyArray, candidate: AnyArray, context: Context
) -> Finding | None:
    """A finding, if ``candidate``, in any shape, is what theirs are."""
    if candidate.size != theirs.size:
        return None
    candidate = candidate.reshape(theirs.shape)
    rest = difference(candidate, theirs)
    whole = difference(ours, theirs) if ours.shape == theirs.shape else theirs.astype(np.float64)
    if not np.isfinite(rest).all():
        return None
    before = _rms(whole)
    left = _rms(rest) / before if before else 1.0
    within = np.abs(rest).max(initial=0) <= 2 * context.atol
    return Finding(cause, message, min(left, EXPLAINED) if within else left) if left <= EXPLAINED or within else None


def _rms(x: AnyArray) -> float:
    """RMS over finite and infinite values: a value that should be finite but is not is a large error."""
    return float(np.sqrt(np.mean(np.nan_to_num(x, posinf=1e6, neginf=-1e6) ** 2))) if x.size else 0.0


def best(found: Iterator[Finding | None]) -> Finding | None:
    """The finding with the smallest remainder."""
    return min((f for f in found if f), key=lambda f: f.left, default=None)
