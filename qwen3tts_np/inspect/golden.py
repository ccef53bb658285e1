"""References for comparing a trace: a golden case, or the activations of another trace."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoint.json_file import read_json
from ..checkpoint.safetensors import Checkpoint


@dataclass(frozen=True)
class Difference:
    """Difference of one activation from its golden."""

    error: float  # greatest |difference|; inf where the shapes differ
    relative: float  # root mean square of the difference over that of the golden
    atol: float | None  # tolerance of the golden, if it has one

    @property
    def severity(self) -> float:
        """The error in units of the tolerance, or absolute if there is none; above 1 it is outside the tolerance."""
        if self.atol is None or self.error == 0:
            return self.error
        return self.error / self.atol if self.atol else np.inf

    @property
    def outside(self) -> bool:
        return self.atol is not None and self.severity > 1


class Golden:
    """Tensors by ``name@n``, each read on demand."""

    def __init__(self, path: Path) -> None:
        """``path``: a folder with ``case.json`` and ``expected.safetensors``, or a safetensors file."""
        folder = os.path.isdir(path)
        self._tensors: dict[str, Any] | None = read_json(path / "case.json").get("tensors", {}) if folder else None
        self._stored = Checkpoint.open(path / "expected.safetensors" if folder else path)

    def compare(self, name: str, array: NDArray[Any]) -> Difference | None:
        """Compare ``array`` with the golden of that name; None if there is none."""
        found = self._read(name)
        if found is None:
            return None
        expected, atol = found
        if expected.shape != array.shape:
            return Difference(np.inf, np.inf, atol)
        wide = expected.astype(np.float64)
        error = np.abs(array - wide)
        relative = float(np.sqrt(np.mean(error**2) / (np.mean(wide**2) + 1e-300))) if error.size else 0.0
        return Difference(float(error.max(initial=0.0)), relative, atol)

    def _read(self, name: str) -> tuple[NDArray[Any], float | None] | None:
        """Read a tensor. Content with several names is stored once; the others refer to it by ``same_as``."""
        if self._tensors is None:
            return (self._stored[name].data, None) if name in self._stored else None
        entry = self._tensors.get(name)
        if entry is None:
            return None
        same_as = entry.get("same_as", name)
        source = same_as.removesuffix(".T")
        value = self._stored[source].data
        value = (value.T if same_as.endswith(".T") else value).reshape(entry["shape"])
        return value, self._tensors[source].get("atol", 0.0)
