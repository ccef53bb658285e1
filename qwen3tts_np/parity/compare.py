"""``fixtures compare``: their tensors against ours in the order of execution, and the first that differs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..audio.files import resample
from ..checkpoint.safetensors import Checkpoint
from ..errors import RequestError
from ..files.fields import WHOLE
from ..inspect.request import is_reference
from ..ops import AnyArray, Array
from ..speaker.mel import SAMPLE_RATE
from .causes import diagnose
from .diagnosis import Context, Finding, Weights
from .export import WITHOUT_FLOAT64
from .fixture import Fixture, renamed
from .ladder import limit
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
    limit: float | None = None  # of error.rms, where theirs are in another weight format; atol does not count then

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
    weights_format: str | None = None,
) -> Comparison:
    """Compare ``theirs`` with ``ours``. ``names``: their names to ours; ``times``: factor on every tolerance.

    ``weights_format``: what theirs are computed in, one of ``ladder.LIMITS``; None: in the same as ours.

    With ``weights`` more causes can be distinguished. Raises RequestError if they have no tensor in common.
    """
    found = renamed(theirs, names or {}, ours.tensors)
    limits = {name: _limit(ours.tensors[name], name, weights_format, times) for name in ours.tensors}
    rows = [_row(name, ours, found.get(name), times, limits[name]) for name in ours.tensors if ours.checked(name)]
    unknown = [name for name in found if name not in ours.tensors]
    if all(row.status == "missing" for row in rows):
        shown = ", ".join(list(found)[:3])
        raise RequestError(f"{theirs.path} has no tensor of {ours.path}; it has {shown}: give the names with --names")
    result = Comparison(str(ours.path), str(theirs.path), rows, [], unknown)
    first = result.first
    if first is None:
        return result
    context = Context(first.name, ours.tensors, first.atol, weights, clips_of(ours))
    right = ours.tensors[first.name]
    shaped = same_shape(found[first.name], right)
    findings = diagnose(right, found[first.name] if shaped is None else shaped, context)
    return Comparison(result.ours, result.theirs, rows, findings, unknown)


def _limit(ours: AnyArray, name: str, weights_format: str | None, times: float) -> float | None:
    return None if weights_format is None or ours.dtype.kind != "f" else times * limit(weights_format, name)


def _row(name: str, ours: Fixture, theirs: AnyArray | None, times: float, allowed: float | None) -> Row:
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
    beyond = error.greatest > atol if allowed is None else error.rms > allowed
    status = "equal" if error.greatest == 0 else "differs" if beyond else "close"
    return Row(name, right.shape, status, theirs.dtype.name, theirs.shape, atol, error, allowed)


def clips_of(ours: Fixture) -> tuple[Array, ...]:
    """The clips [samples] that the request of a fixture refers to, at the rate of the speaker encoder."""
    call = ours.manifest.get("call")
    arguments = call.get("arguments", {}) if isinstance(call, dict) else {}
    found = []
    for value in arguments.values() if isinstance(arguments, dict) else ():
        for clip in value if isinstance(value, list) else [value]:
            if is_reference(clip, "audio") and clip["audio"] in ours.inputs and WHOLE[0](clip.get("sample_rate")):
                samples = ours.inputs[clip["audio"]]
                wave = samples / np.float32(32768) if samples.dtype == np.int16 else samples
                found.append(resample(wave.astype(np.float32), clip["sample_rate"], SAMPLE_RATE))
    return tuple(found)


def weights_of(folder: Path) -> Weights:
    """The parameters of a checkpoint directory, read on demand."""
    return Weights(Checkpoint.open(folder), Checkpoint.open(folder / "speech_tokenizer"))
