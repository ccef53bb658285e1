"""A fixture on disk: expected tensors in the order of execution, and their inputs.

A folder as in ``golden/cases`` (golden/README.md, "Format of a case"): ``case.json`` and ``expected.safetensors``, and
``inputs.safetensors`` where there are inputs. Two other tensor formats of both: a folder of ``.npy`` files, and one raw
little-endian file with offsets in case.json, for readers without any library. The results of another implementation
may be in any of these, or in a bare ``.safetensors`` file or folder of ``.npy`` files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..checkpoint.json_file import read_json
from ..errors import QwenTTSError, RequestError
from ..files.arrays import read_array
from ..files.name import fault_of_name, shown_name
from ..files.output import output_folder
from ..inspect.stored_tensors import is_stored, read_safetensors, read_tensors, write_tensors
from ..ops import AnyArray
from ..shown import shortened

Json = dict[str, Any]
MANIFEST = "case.json"
_FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class Fixture:
    """Named tensors, and the manifest where there is one."""

    path: Path
    tensors: Mapping[str, AnyArray]  # in the order of execution where there is a manifest
    manifest: Json = field(default_factory=dict)
    inputs: Mapping[str, AnyArray] = field(default_factory=dict)

    def atol(self, name: str) -> float | None:
        """The tolerance of a tensor, 0 for integers, None where none is known."""
        if self.tensors[name].dtype.kind in "iub":
            return 0.0
        table = self.manifest.get("tensors", {})
        entry = table.get(name, {})
        source = entry.get("same_as", name).removesuffix(".T")
        value = table.get(source, {}).get("atol")
        return None if value is None else float(value)

    def checked(self, name: str) -> bool:
        """Whether the tensor is compared; ranks are informative only."""
        return bool(self.manifest.get("tensors", {}).get(name, {}).get("check", True))


def write_fixture(
    target: Path, manifest: Json, inputs: Mapping[str, AnyArray], tensors: Mapping[str, AnyArray]
) -> None:
    """Write a folder that must not exist, or be empty; ``manifest["storage"]`` is one of ``TENSOR_FORMATS``."""
    with output_folder(target) as folder:
        if inputs:
            write_tensors(folder, "inputs", manifest["storage"], inputs, manifest["inputs"])
        write_tensors(folder, "expected", manifest["storage"], tensors, manifest["tensors"])
        (folder / MANIFEST).write_text(dump(manifest), encoding="utf-8", newline="\n")


def read_fixture(path: Path) -> Fixture:
    """Read a fixture in any of these formats. Raises RequestError if ``path`` is none of them."""
    if fault := fault_of_name(path):
        raise RequestError(f"{shown_name(path)} is not a fixture: {fault}")
    try:
        if os.path.isfile(path / MANIFEST):
            return _read_case(path)
        if path.suffix == ".safetensors" and os.path.isfile(path):
            return Fixture(path, read_safetensors(path))
        arrays = sorted(path.glob("*.npy"))
        if arrays:
            return Fixture(path, {p.name.removesuffix(".npy"): read_array(p) for p in arrays})
    except QwenTTSError:
        raise
    except (OSError, ValueError, OverflowError, SyntaxError, KeyError, TypeError) as e:  # of NumPy: no type, no shape
        raise RequestError(f"{path} cannot be read as a fixture: {e}") from None
    raise RequestError(
        f"{path} is not a fixture: give a folder with {MANIFEST}, a folder of .npy files or .safetensors"
    )


def _read_case(path: Path) -> Fixture:
    manifest: Json = read_json(path / MANIFEST, "fixture")
    table = _table(path, manifest)
    storage = manifest.get("storage", "safetensors")
    stored = read_tensors(path, "expected", storage, table)
    inputs: Mapping[str, AnyArray] = {}
    if is_stored(path, "inputs"):
        inputs = read_tensors(path, "inputs", storage, _table(path, manifest, "inputs"))
    tensors = {name: _resolved(name, entry, stored) for name, entry in table.items()}
    return Fixture(path, tensors, manifest, inputs)


def _table(path: Path, manifest: Json, part: str = "tensors") -> dict[str, Json]:
    """The tensors of a manifest, or its inputs. RequestError where its form is another."""
    table = manifest.get(part)
    if not isinstance(table, dict):
        raise RequestError(f"{path / MANIFEST}: {part} is {shortened(table)}, expected an object")
    for name, entry in table.items():
        shape = entry.get("shape") if isinstance(entry, dict) else None
        if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
            raise RequestError(f"{path / MANIFEST}: {name} is {shortened(entry)}, expected an object with a shape")
        if not isinstance(entry.get("same_as", name), str):
            raise RequestError(f"{path / MANIFEST}: same_as of {name} is {shortened(entry['same_as'])}, no name")
    return table


def _resolved(name: str, entry: Json, stored: Mapping[str, AnyArray]) -> AnyArray:
    """A tensor of a case, where a content that has several names is stored once."""
    same = entry.get("same_as", name)
    value = stored[same.removesuffix(".T")]
    return (value.T if same.endswith(".T") else value).reshape(entry["shape"])


def dump(manifest: Json) -> str:
    """JSON in which every entry of a table has a line of its own, as in golden/cases."""
    parts = []
    for key, value in manifest.items():
        text = json.dumps(value, ensure_ascii=False)
        if isinstance(value, dict) and value and all(isinstance(v, dict | list) for v in value.values()):
            rows = (f"  {json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in value.items())
            text = "{\n" + ",\n".join(rows) + "\n }"
        parts.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def renamed(theirs: Fixture, names: Mapping[str, str], ours: Iterable[str]) -> dict[str, AnyArray]:
    """Their tensors under our names.

    ``names`` maps their names to ours, with ``*`` as a wildcard in both; a name without an entry is kept, and one
    without ``@n`` is the first call.
    """
    known = set(ours)
    found = {}
    for name, tensor in theirs.tensors.items():
        mapped = next((to for to in (_mapped(name, a, b) for a, b in names.items()) if to is not None), name)
        found[mapped if mapped in known or f"{mapped}@0" not in known else f"{mapped}@0"] = tensor
    return found


def _mapped(name: str, pattern: str, target: str) -> str | None:
    """``target`` with its stars filled in from ``name``, or None where ``pattern`` does not fit."""
    rest, stars = name, []
    pieces = pattern.split("*")
    if not rest.startswith(pieces[0]):
        return None
    rest = rest[len(pieces[0]) :]
    for i, piece in enumerate(pieces[1:], start=1):
        end = rest.rfind(piece) if i == len(pieces) - 1 else rest.find(piece)
        if end < 0 or (i == len(pieces) - 1 and end + len(piece) != len(rest)):
            return None
        stars.append(rest[:end])
        rest = rest[end + len(piece) :]
    if rest:
        return None
    for star in stars:
        target = target.replace("*", star, 1)
    return target
