"""A trace of constant memory: statistics of every activation go to a table on disk, selected activations to a file.

Only one running total per name is kept in memory, however long the speech.
"""

from __future__ import annotations

import csv
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays_on_disk import ArraysOnDisk
from .golden import Difference, Golden

PART = 1 << 20  # values processed at a time
COLUMNS = ("name", "call", "shape", "mean", "std", "min", "max", "rms", "seconds", "error", "relative_error", "atol")


@dataclass
class Total:
    """Statistics over all calls of one name."""

    calls: int = 0
    values: int = 0
    sum: float = 0.0
    squares: float = 0.0
    lowest: float = np.inf
    highest: float = -np.inf
    seconds: float = 0.0
    worst: Difference | None = None  # of the calls that have a golden

    @property
    def mean(self) -> float:
        return self.sum / max(self.values, 1)

    @property
    def rms(self) -> float:
        return float(np.sqrt(self.squares / max(self.values, 1)))

    @property
    def std(self) -> float:
        return float(np.sqrt(max(self.squares / max(self.values, 1) - self.mean**2, 0.0)))


@dataclass
class StreamedTrace:
    """A collector for ``trace.collect_into``; a context manager that writes into ``folder``.

    ``keep``: shell patterns of the names whose values are stored, in ``activations.safetensors``. ``buffer``: bytes of
    them buffered in memory. ``clock``: the source of time. The seconds of an activation are those since the previous
    one, without the time taken by the trace itself.
    """

    folder: Path
    keep: tuple[str, ...] = ()
    golden: Golden | None = None
    buffer: int = 1 << 20
    clock: Callable[[], float] = time.perf_counter
    totals: dict[str, Total] = field(default_factory=dict)  # in the order of first execution

    def __enter__(self) -> StreamedTrace:
        self._table = (self.folder / "statistics.csv").open("w", newline="", encoding="utf-8", buffering=self.buffer)
        self._rows = csv.writer(self._table)
        self._rows.writerow(COLUMNS)
        self.arrays: ArraysOnDisk = ArraysOnDisk(self.folder / "activations.safetensors", self.buffer)
        self.arrays.__enter__()
        self._last = self.clock()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._table.close()
        self.arrays.__exit__(kind, error, trace)

    def add(self, name: str, array: NDArray[Any]) -> None:
        seconds = self.clock() - self._last
        total = self.totals.setdefault(name, Total())
        full_name = f"{name}@{total.calls}"
        if any(fnmatchcase(name, pattern) for pattern in self.keep):
            self.arrays.add(full_name, array)
        self._count(name, full_name, total, array, seconds)
        self._last = self.clock()

    def _count(self, name: str, full_name: str, total: Total, array: NDArray[Any], seconds: float) -> None:
        row = _statistics(array)
        found = None if self.golden is None else self.golden.compare(full_name, array)
        errors: list[Any] = [] if found is None else [found.error, found.relative, found.atol]
        self._rows.writerow(
            [
                name,
                total.calls,
                "x".join(map(str, array.shape)),
                row.mean,
                row.std,
                row.lowest,
                row.highest,
                row.rms,
                f"{seconds:.6f}",
                *errors,
            ]
        )
        total.calls += 1
        total.values += row.values
        total.sum += row.sum
        total.squares += row.squares
        total.lowest, total.highest = min(total.lowest, row.lowest), max(total.highest, row.highest)
        total.seconds += seconds
        if found is not None and (total.worst is None or found.severity > total.worst.severity):
            total.worst = found


def _statistics(array: NDArray[Any]) -> Total:
    """Statistics of one call. Sums are float64, chunk by chunk: a float64 copy of a waveform block would be large."""
    row = Total(calls=1, values=array.size)
    for part in np.array_split(np.atleast_1d(array), -(-array.size // PART) or 1):
        if part.size:
            x = part.astype(np.float64).ravel()
            row.sum += float(x.sum())
            row.squares += float(x @ x)
            row.lowest, row.highest = min(row.lowest, float(x.min())), max(row.highest, float(x.max()))
    return row


def seconds_by_block(totals: dict[str, Total]) -> dict[str, float]:
    """Time by block: attention, feed-forward and the rest, over all layers of a network, the longest first."""
    found: dict[str, float] = {}
    for name, total in totals.items():
        block = block_of(name)
        found[block] = found.get(block, 0.0) + total.seconds
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def block_of(name: str) -> str:
    """``talker.model.layers.3.self_attn.q_norm`` -> ``talker.model.layers.*.self_attn``."""
    parts = [re.sub(r"^\d+$", "*", part) for part in name.split(".")]
    if "layers" in parts[:-1]:
        return ".".join(parts[: parts.index("layers") + 3])
    return ".".join(parts[:4] if parts[0] == "speech_tokenizer" else parts[:3])
