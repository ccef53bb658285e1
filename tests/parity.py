"""Load a golden case, make its checkpoint, compare with a message that says where and how badly.

``load_case("custom_voice_plain")``, a model from ``checkpoint_of(case.json, folder)``, its method with
``**case.arguments()`` and ``case.json["call"]["seed"]``, then ``case.check("codes.0", codes[0])``.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from qwen3tts_np.checkpoint.published import sha256_of
from qwen3tts_np.speech import demo
from qwen3tts_np.synthetic.weights import write_checkpoint

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = GOLDEN / "cases"
FULL = GOLDEN / "full"

Array = NDArray[Any]


@dataclass(frozen=True)
class Case:
    """A folder of golden/cases that golden/record.py made."""

    name: str
    json: dict[str, Any]
    inputs: Mapping[str, Array]
    stored: Mapping[str, Array]  # each content once

    @property
    def names(self) -> list[str]:
        """Every tensor, in the order of execution, under every name it has."""
        return list(self.json["tensors"])

    def __contains__(self, name: str) -> bool:
        return name in self.json["tensors"]

    def __getitem__(self, name: str) -> Array:
        entry = self.json["tensors"][name]
        source = self.source(name)
        value = self.stored[source]
        return (value.T if entry.get("same_as", "").endswith(".T") else value).reshape(entry["shape"])

    def source(self, name: str) -> str:
        """The name under which the content of ``name`` is stored."""
        return self.json["tensors"][name].get("same_as", name).removesuffix(".T")

    def atol(self, name: str) -> float:
        """0 for integers."""
        return self.json["tensors"][self.source(name)].get("atol", 0.0)

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of the call; audio as ``(samples, rate)``, or as samples for ``encode``."""
        return self._filled(self.json["call"]["arguments"])

    def _filled(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._filled(v) for v in value]
        if not isinstance(value, dict):
            return value
        if "audio" in value:
            samples = self.inputs[value["audio"]] / np.float32(32768)
            return samples if self.json["call"]["method"] == "encode" else (samples, value["sample_rate"])
        if "codes" in value:
            return self.inputs[value["codes"]]
        return {k: self._filled(v) for k, v in value.items()}

    def check(self, name: str, actual: Array) -> None:
        """AssertionError unless ``actual`` is the recorded tensor, within its tolerance."""
        __tracebackhide__ = True
        assert_matches(f"{self.name}: {name}", actual, self[name], atol=self.atol(name))

    def check_trace(self, trace: Mapping[str, Array]) -> list[str]:
        """Compare whatever both sides have, in the order of execution; the names compared.

        AssertionError names the first tensor that differs: what comes after it may only follow from it.
        """
        __tracebackhide__ = True
        shared = [name for name in self.names if name in trace]
        for name in shared:
            self.check(name, trace[name])
        return shared

    def missing(self, trace: Mapping[str, Array]) -> list[str]:
        """Recorded activations that ``trace`` has under none of their names, but for the ids that are looked up."""
        seen = {self.source(name) for name in self.names if name in trace}
        ids = {name for name, value in self.stored.items() if value.dtype.kind == "i" and ".input@" in name}
        return [name for name in self.stored_in_order() if "@" in name and name not in seen | ids]

    def stored_in_order(self) -> list[str]:
        return [name for name in self.names if name == self.source(name)]


def load_case(name: str) -> Case:
    folder = CASES / name
    inputs = folder / "inputs.safetensors"
    return Case(
        name,
        json.loads((folder / "case.json").read_text(encoding="utf-8")),
        load_file(inputs) if inputs.exists() else {},
        load_file(folder / "expected.safetensors"),
    )


def case_names(prefix: str = "") -> Iterator[str]:
    """The cases that golden/record.py made, by the beginning of their names."""
    for path in sorted(CASES.glob(f"{prefix}*/case.json")):
        if json.loads(path.read_text(encoding="utf-8"))["made_by"] == "golden/record.py":
            yield path.parent.name


def checkpoint_of(content: Mapping[str, Any], folder: Path) -> Path:
    """The checkpoint that a case.json (or a file of golden/full) was recorded with: the demo voice of the package, or
    a synthetic one, made in ``folder`` once.

    AssertionError if ``synth`` writes other weights today, or the demo voice is another one.
    """
    wanted = content["checkpoint"]
    if wanted["like"] == "demo":
        directory = demo.CHECKPOINT
    else:
        directory = folder / f"{wanted['like']}-{wanted['type']}-{wanted['seed']}"
        if directory.exists():
            return directory
        write_checkpoint(directory, wanted["like"], wanted["type"], wanted["seed"])
    for name, digest in wanted["sha256"].items():
        assert sha256_of(directory / name) == digest, f"{directory / name} is not what the goldens were recorded with"
    return directory


def load_full(name: str) -> tuple[dict[str, Any], dict[str, Array]]:
    """A file of golden/full, and the clips it refers to."""
    clips = FULL / f"{name}.safetensors"
    content = json.loads((FULL / f"{name}.json").read_text(encoding="utf-8"))
    return content, load_file(clips) if clips.exists() else {}


def assert_fingerprint(name: str, actual: Array, wanted: Mapping[str, Any]) -> None:
    """``actual`` against an entry of golden/full: first values, mean, standard deviation, norm; integers whole."""
    __tracebackhide__ = True
    assert list(actual.shape) == wanted["shape"], f"{name}: shape {actual.shape}, expected {wanted['shape']}"
    if "values" in wanted:
        assert_matches(name, actual, np.array(wanted["values"], dtype=actual.dtype).reshape(actual.shape), atol=0)
        return
    atol = wanted["atol"]
    first = np.array(wanted["first"], dtype=actual.dtype)
    assert_matches(f"{name}, first values", actual.ravel()[: len(first)], first, atol=atol)
    wide = actual.astype(np.float64)
    found = {"mean": wide.mean(), "std": wide.std(), "norm": np.linalg.norm(wide)}
    # If no value is off by more than atol, neither is the mean nor the deviation, nor the norm by atol * sqrt(n).
    for statistic, value in found.items():
        allowed = atol * (np.sqrt(wide.size) if statistic == "norm" else 1)
        off = abs(float(value) - wanted[statistic])
        assert off <= allowed, f"{name}, {statistic}: {value:.9g}, expected {wanted[statistic]:.9g} +- {allowed:.2g}"


def assert_matches(name: str, actual: Array, expected: Array, *, atol: float, rtol: float = 0.0) -> None:
    """Same shape and kind of number; float64 may be compared with a float32 golden."""
    __tracebackhide__ = True
    assert actual.shape == expected.shape, f"{name}: shape {actual.shape}, expected {expected.shape}"
    assert actual.dtype.kind == expected.dtype.kind, f"{name}: dtype {actual.dtype}, expected {expected.dtype}"
    if expected.dtype.kind == "i":
        rtol = atol = 0.0  # codes and tokens match exactly or not at all
    if not expected.size:
        return
    error = np.abs(actual.astype(np.float64) - expected)
    excess = error - (atol + rtol * np.abs(expected))
    if np.isnan(error).any() or (excess > 0).any():
        at = np.unravel_index(np.argmax(np.nan_to_num(excess, nan=np.inf)), error.shape)
        rms = np.sqrt(np.mean(error**2) / (np.mean(expected.astype(np.float64) ** 2) + 1e-30))
        raise AssertionError(
            f"{name}: worst at {tuple(map(int, at))}: got {actual[at]!r}, expected {expected[at]!r}, "
            f"|difference| {error[at]:.3g} > {atol:g} + {rtol:g}*|expected|; "
            f"{np.mean(excess > 0):.1%} of {error.size} values outside; relative RMS {rms:.2g}"
        )


def changed(part: Any, path: str, change: Callable[[Any], Any]) -> Any:
    """A copy of nested dataclasses and tuples with the value at ``path`` changed."""
    field, _, rest = path.partition(".")
    value = part[int(field)] if field.isdigit() else getattr(part, field)
    value = changed(value, rest, change) if rest else change(value)
    if field.isdigit():
        return (*part[: int(field)], value, *part[int(field) + 1 :])
    if field in {f.name for f in fields(part)}:
        return replace(part, **{field: value})
    altered = copy.copy(part)
    vars(altered)[field] = value  # where a cached property keeps its value
    return altered
