"""The tensors of one part of a case, inputs or expected, in each of the three ways in which they are stored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from ..checkpoint.safetensors import Checkpoint
from ..files.arrays import read_array
from ..files.input import read_bytes
from ..ops import AnyArray

TENSOR_FORMATS = ("safetensors", "npy", "raw")
Table = Mapping[str, dict[str, Any]]  # name -> its entry in case.json


def write_tensors(folder: Path, part: str, storage: str, tensors: Mapping[str, AnyArray], table: Table) -> None:
    """``part``.safetensors, ``part``.bin (its offsets go into ``table``), or the folder ``part`` of .npy files."""
    if storage == "safetensors":
        (folder / f"{part}.safetensors").write_bytes(save({name: _little(x) for name, x in tensors.items()}))
    elif storage == "npy":
        (folder / part).mkdir()
        for name, tensor in tensors.items():
            np.save(folder / part / f"{name}.npy", _little(tensor))
    else:
        _write_raw(folder / f"{part}.bin", table, tensors)


def read_tensors(folder: Path, part: str, storage: str, table: Table) -> Mapping[str, AnyArray]:
    """What ``write_tensors`` wrote; errors of the system and of a damaged table as they come (``ValueError`` ...).

    Older cases have their inputs in safetensors whatever the format, so a file of these comes first.
    """
    if (folder / f"{part}.safetensors").exists():
        return read_safetensors(folder / f"{part}.safetensors")
    if storage == "npy":
        return {name: read_array(folder / part / f"{name}.npy") for name in table}
    if storage == "raw":
        return _read_raw(folder / f"{part}.bin", table)
    return read_safetensors(folder / f"{part}.safetensors")


def is_stored(folder: Path, part: str) -> bool:
    """Whether there is such a part."""
    return any((folder / f"{part}{suffix}").exists() for suffix in (".safetensors", ".bin", ""))


def read_safetensors(path: Path) -> dict[str, AnyArray]:
    """Read tensors; bfloat16 is widened to float32, exactly."""
    found = Checkpoint.open(path)
    single = np.dtype(np.float32)
    return {n: t.widen(single) if t.dtype == "BF16" else np.array(t.data) for n, t in found.items()}


def _write_raw(path: Path, table: Table, tensors: Mapping[str, AnyArray]) -> None:
    at = 0
    with path.open("wb") as file:
        for name, tensor in tensors.items():
            data = _little(tensor).tobytes()
            table[name].update({"offset": at, "bytes": len(data)})
            file.write(data)
            at += len(data)


def _read_raw(path: Path, table: Table) -> dict[str, AnyArray]:
    data = read_bytes(path)
    found = {}
    for name, entry in table.items():
        count = math.prod(entry["shape"])
        kind = np.dtype(entry["dtype"]).newbyteorder("<")
        found[name] = np.frombuffer(data, kind, count, entry["offset"]).reshape(entry["shape"])
    return found


def _little(tensor: AnyArray) -> AnyArray:
    return np.ascontiguousarray(tensor, dtype=tensor.dtype.newbyteorder("<")).reshape(tensor.shape)
