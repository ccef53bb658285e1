"""How far a recording of training is from an earlier one of the same case. Needs no torch.

Its tensors are projections and samples (``sketch.py``), which have no tolerance of their own. Bounds are those that
this package's own training is held to (tests/test_training_goldens.py): gradients and their losses were computed in
float64, steps in float32.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import sketch
from safetensors.numpy import load_file
from store import Json, Tensors

GRADIENT, STEP, MOVED = 1e-12, 1e-5, 1e-3  # relative: to a norm, a loss, the way that a weight has gone
STATED = ("texts", "settings", "alignment", "sketch")
"""Where these differ, or the checkpoint or the inputs, something else was recorded."""


class Drift(NamedTuple):
    """Something that was recorded twice."""

    kind: str  # losses, steps, gradient or moved
    what: str
    distance: float
    scale: float
    bound: float  # the share of the scale that is allowed

    @property
    def same(self) -> bool:
        return self.distance <= self.bound * self.scale

    def line(self) -> str:
        verdict = "within" if self.same else "MORE THAN"
        return f"{self.what} moved by {self.distance:.3g} of {self.scale:.3g}, {verdict} {self.bound:g} of it"


def compare(old: Path, new: Path) -> tuple[list[str], bool]:
    """The differences between two recordings, and whether they are equivalent: as ``store.compare``.

    A line for everything that is out of bounds; of what is within, one for the worst of its kind.
    """
    was, now = (json.loads((folder / "case.json").read_text(encoding="utf-8")) for folder in (old, new))
    (before, expected), (after, found) = (_arrays(folder) for folder in (old, new))
    other = [name for name in (*STATED, "checkpoint") if was[name] != now[name]]
    if before.keys() != after.keys() or any(before[name].tobytes() != after[name].tobytes() for name in before):
        other.append("inputs.safetensors")
    if was["tensors"].keys() != now["tensors"].keys() or len(was["steps"]) != len(now["steps"]):
        other.append("tensors or steps")
    if other:
        return [f"{new.name}: another recording: {', '.join(other)}"], False
    drifts = sorted([*_of_losses(was, now), *_of_tensors(was["tensors"], expected, found)], key=_share)
    worst = {drift.kind: drift for drift in drifts if drift.distance and drift.same}
    shown = [*worst.values(), *(drift for drift in drifts if not drift.same)]
    return [f"{new.name}: {drift.line()}" for drift in shown], all(drift.same for drift in drifts)


def _arrays(folder: Path) -> tuple[Tensors, Tensors]:
    inputs, expected = (load_file(folder / f"{name}.safetensors") for name in ("inputs", "expected"))
    return inputs, expected


def _share(drift: Drift) -> float:
    return drift.distance / (drift.scale or 1.0)


def _of_losses(was: Json, now: Json) -> Iterator[Drift]:
    rows = [("losses", "losses", was["losses"], now["losses"], GRADIENT)]
    pairs = zip(was["steps"], now["steps"], strict=True)
    rows += [("steps", f"step {i}", before, after, STEP) for i, (before, after) in enumerate(pairs)]
    for kind, where, before, after, bound in rows:
        for name, value in before.items():
            yield Drift(kind, f"{name} of {where}", abs(after[name] - value), abs(value), bound)


def _of_tensors(table: dict[str, Json], expected: Tensors, found: Tensors) -> Iterator[Drift]:
    for name, about in table.items():
        for kind, norm, bound in (("gradient", about["norm"], GRADIENT), ("moved", about["moved"], MOVED)):
            key = f"{kind}.{name}"
            yield Drift(kind, key, sketch.distance(found[key], expected[key]), norm, bound)
