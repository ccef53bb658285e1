"""``fixtures compare``: their tensors against ours in the order of execution, and the first that differs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint.safetensors import Checkpoint
from ..errors import RequestError
from ..ops import AnyArray
from .causes import diagnose
from .diagnosis import Context, Finding, Weights
from .export import WITHOUT_FLOAT64
from .fixture import Fixture, renamed
from .measure import Error, measure, require_numbers, same_shape


@dataclass(frozen=True)
class Row:
    """One tensor of ours and the result for its counterpart."""

    name: str
    shape: tuple[int, ...]
    status: str  # equal, close, differs, shape, missing
    dtype: str = ""  # of theirs
    theirs: tuple[int, ...] = ()  # their shape
    atol: float = 0.0
    error: Error | None = None

    @property
    def wrong(self) -> bool:
        return self.status in ("differs", "shape")


@dataclass(frozen=True)
class Comparison:
    """All rows in the order of execution, and a diagnosis of the first wrong one."""

    ours: str
    theirs: str
    rows: list[Row]
    findings: list[Finding]
    unknown: list[str]  # names of theirs that ours do not have

    @property
    def first(self) -> Row | None:
        """The first tensor that differs; later differences may follow from it."""
        return next((row for row in self.rows if row.wrong), None)

    @property
    def compared(self) -> list[Row]:
        return [row for row in self.rows if row.status != "missing"]

    def as_json(self) -> dict[str, Any]:
        first = self.first
        return {
            "ours": self.ours,
            "theirs": self.theirs,
            "compared": len(self.compared),
            "missing": [row.name for row in self.rows if row.status == "missing"],
            "unknown": self.unknown,
            "first": first.name if first else None,
            "causes": [asdict(f) for f in self.findings],
            "tensors": [asdict(row) for row in self.compared],
        }


def compare(
    ours: Fixture,
    theirs: Fixture,
    names: Mapping[str, str] | None = None,
    weights: Weights | None = None,
    times: float = 1.0,
) -> Comparison:
    """Compare ``theirs`` with ``ours``. ``names``: their names to ours; ``times``: factor on every tolerance.

    With ``weights`` more causes can be distinguished. Raises RequestError if they have no tensor in common.
    """
    found = renamed(theirs, names or {}, ours.tensors)
    rows = [_row(name, ours, found.get(name), times) for name in ours.tensors if ours.checked(name)]
    unknown = [name for name in found if name not in ours.tensors]
    if all(row.status == "missing" for row in rows):
        shown = ", ".join(list(found)[:3])
        raise RequestError(f"{theirs.path} has no tensor of {ours.path}; it has {shown}: give the names with --names")
    result = Comparison(str(ours.path), str(theirs.path), rows, [], unknown)
    first = result.first
    if first is None:
        return result
    context = Context(first.name, ours.tensors, first.atol, weights)
    right = ours.tensors[first.name]
    shaped = same_shape(found[first.name], right)
    findings = diagnose(right, found[first.name] if shaped is None else shaped, context)
    return Comparison(result.ours, result.theirs, rows, findings, unknown)


def _row(name: str, ours: Fixture, theirs: AnyArray | None, times: float) -> Row:
    right = ours.tensors[name]
    if theirs is None:
        return Row(name, right.shape, "missing")
    shaped = same_shape(require_numbers(name, theirs), right)
    stated = ours.atol(name)
    peak = np.abs(right[np.isfinite(right)]).max(initial=0) if stated is None else 0.0
    atol = times * (float(WITHOUT_FLOAT64 * peak) if stated is None else stated)
    if shaped is None or not right.size:
        status = "equal" if shaped is not None else "shape"
        return Row(name, right.shape, status, theirs.dtype.name, theirs.shape, atol)
    error = measure(shaped, right)
    status = "equal" if error.greatest == 0 else "differs" if error.greatest > atol else "close"
    return Row(name, right.shape, status, theirs.dtype.name, theirs.shape, atol, error)


def weights_of(folder: Path) -> Weights:
    """The parameters of a checkpoint directory, read on demand."""
    return Weights(Checkpoint.open(folder), Checkpoint.open(folder / "speech_tokenizer"))
