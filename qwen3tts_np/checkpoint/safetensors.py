"""safetensors files as memory-mapped NumPy arrays, without a copy.

Format: 8 bytes little-endian header length, a JSON header ``{name: {dtype, shape, data_offsets}}``, the data.
The header is not trusted: lengths and offsets are compared with the file before anything is allocated.
https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import math
import mmap
import os
import reprlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from qwen3tts_np_kernels.pack import Packed
from qwen3tts_np_kernels.system import return_free_memory

from ..errors import CheckpointError, ConfigError, MissingFileError
from ..files.input import open_input
from ..shown import shortened
from .foreign import CURE, files_of, quantised_by
from .json_file import RepeatedName, parse_json, read_json, without_repeats
from .packed import unfold
from .quantised import fold
from .tensor import DTYPES, StoredTensor

_LFS_POINTER = b"version https://git-lfs"  # what 'git clone' leaves where Git LFS is not installed
_MAX_HEADER = 100_000_000  # bytes, the limit of the format's own library
_SMALL_FLOATS = ("F8_", "F6_", "F4")
_GGUF = b"GGUF"
_MAX_DIMS = 32  # what every NumPy can hold


class Checkpoint(Mapping[str, StoredTensor]):
    """The tensors of one checkpoint, by name, in file order. Nothing is read before it is used."""

    def __init__(
        self,
        path: Path,
        tensors: dict[str, StoredTensor],
        metadata: dict[str, str],
        arenas: Mapping[str, Packed] | None = None,
    ) -> None:
        self.path = path
        # Packed matrices as kernels read them, by the names of ``layout/packed.py``.
        self.arenas: Mapping[str, Packed] = arenas or {}
        self.metadata = metadata  # the header's __metadata__, {} where there is none
        self._tensors = tensors

    @classmethod
    def open(cls, path: Path) -> Checkpoint:
        """Map a ``.safetensors`` file, or a directory that holds ``model.safetensors`` or its sharded form.

        Raises ``CheckpointError`` where a file is missing, truncated, or its header does not describe it.
        """
        if not os.path.isdir(path):
            return cls._folded(path, *map_file(path))
        single, index = path / "model.safetensors", path / "model.safetensors.index.json"
        if single.exists():
            return cls._folded(single, *map_file(single))
        if index.exists():
            return cls._folded(index, *_map_shards(index))
        if other := files_of(path):
            raise MissingFileError(f"{path} holds no model.safetensors but {other}")
        raise MissingFileError(f"{path} holds neither model.safetensors nor model.safetensors.index.json")

    @classmethod
    def _folded(cls, path: Path, tensors: dict[str, StoredTensor], metadata: dict[str, str]) -> Checkpoint:
        official, arenas = unfold(fold(tensors, path), metadata, path)
        return cls(path, official, metadata, arenas)

    def __getitem__(self, name: str) -> StoredTensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def release(self) -> None:
        """``StoredTensor.release`` of all tensors, and of what packing them left free."""
        for tensor in self._tensors.values():
            tensor.release()
        return_free_memory()

    def __len__(self) -> int:
        return len(self._tensors)


def map_file(path: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """The tensors of one file by name, in the order of their data, which is mapped; and its metadata.

    CheckpointError where the file is none, is damaged, or cannot be mapped.
    """
    with open_input(path) as file:
        size = file.seek(0, 2)
        if size < 8:
            raise CheckpointError(f"{path}: {size} bytes, too short for a safetensors file")
        try:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as e:  # a limit on address space; a file system that maps nothing
            raise CheckpointError(f"{path}: its {size} bytes cannot be mapped: {e.strerror}") from None
    if mapped[: len(_LFS_POINTER)] == _LFS_POINTER:
        raise CheckpointError(f"{path} is a pointer of Git LFS, not the weights; run 'git lfs pull' in that folder")
    if mapped[: len(_GGUF)] == _GGUF:
        raise CheckpointError(f"{path} is a GGUF file; {CURE}")
    length = int.from_bytes(mapped[:8], "little")
    if length > min(_MAX_HEADER, size - 8):
        raise CheckpointError(f"{path}: the header claims {length} of {size} bytes; the file is damaged or cut short")
    header = _parse_header(mapped[8 : 8 + length], path)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError(f"{path}: __metadata__ must be an object of strings, found {reprlib.repr(metadata)}")
    spans = {name: _span(entry, f"{path}: {name}", size - 8 - length) for name, entry in header.items()}
    _check_packing(spans, size - 8 - length, path)
    tensors: dict[str, StoredTensor] = {}
    for name, (dtype, shape, start, _) in sorted(spans.items(), key=lambda item: item[1][2]):
        flat = np.frombuffer(mapped, DTYPES[dtype], math.prod(shape), 8 + length + start)
        try:
            tensors[name] = StoredTensor(name, dtype, flat.reshape(shape))
        except ValueError:  # no values, but other sizes beyond what NumPy can count
            raise CheckpointError(f"{path}: {name}: no array can have the shape {list(shape)}") from None
    return tensors, metadata


def _parse_header(raw: bytes, path: Path) -> dict[str, Any]:
    try:
        header = parse_json(raw.decode("utf-8"), without_repeats)
    except RepeatedName as e:
        raise CheckpointError(f"{path}: the header names {shortened(e.name)} twice") from None
    except ValueError as e:
        raise CheckpointError(f"{path}: the header is not valid JSON ({e})") from None
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: the header is {type(header).__name__}, expected an object")
    return header


def _span(entry: Any, where: str, data_bytes: int) -> tuple[str, tuple[int, ...], int, int]:
    """(dtype, shape, start, end) of one header entry, after checking that they agree with each other and the file."""
    if not isinstance(entry, dict):
        raise CheckpointError(f"{where}: the header entry is {type(entry).__name__}, expected an object")
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if isinstance(dtype, str) and dtype.startswith(_SMALL_FLOATS):
        raise CheckpointError(f"{where}: type {dtype}: {quantised_by('a program that writes such floats')}")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise CheckpointError(f"{where}: type {reprlib.repr(dtype)} is none of {', '.join(DTYPES)}")
    if not _are_sizes(shape) or len(shape) > _MAX_DIMS:
        raise CheckpointError(f"{where}: shape {reprlib.repr(shape)} is not a list of at most {_MAX_DIMS} sizes")
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise CheckpointError(f"{where}: data_offsets {reprlib.repr(offsets)} is not [start, end]")
    start, end = offsets
    if not start <= end <= data_bytes:
        raise CheckpointError(f"{where}: bytes {start} to {end} lie outside the {data_bytes} bytes of data")
    needed = math.prod(shape) * DTYPES[dtype].itemsize
    if end - start != needed:
        raise CheckpointError(f"{where}: {dtype} {shape} needs {needed} bytes, data_offsets give {end - start}")
    return dtype, tuple(shape), start, end


def _are_sizes(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(v) is int and 0 <= v < 2**63 for v in value)


def _check_packing(spans: dict[str, tuple[str, tuple[int, ...], int, int]], data_bytes: int, path: Path) -> None:
    """The format packs tensors without a gap: a gap or an overlap means that the header is wrong."""
    at, before = 0, "the header"
    for name, (_, _, start, end) in sorted(spans.items(), key=lambda item: item[1][2:]):
        if start != at:
            what = "overlaps" if start < at else f"leaves {start - at} bytes unclaimed after"
            raise CheckpointError(f"{path}: {name} {what} {before}")
        at, before = end, name
    if at != data_bytes:
        raise CheckpointError(f"{path}: {data_bytes - at} bytes after the last tensor belong to none")


def _map_shards(index: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    try:
        weight_map = read_json(index).get("weight_map")
    except ConfigError as e:
        raise CheckpointError(str(e)) from None
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise CheckpointError(f"{index}: weight_map must name a file for each tensor")
    tensors: dict[str, StoredTensor] = {}
    metadata: dict[str, str] = {}
    for shard in sorted(set(weight_map.values())):
        if Path(shard).name != shard or not (index.parent / shard).is_file():
            raise CheckpointError(f"{index}: shard {shortened(shard)} is not a file in the same directory")
        found, extra = map_file(index.parent / shard)
        for name in found:
            if weight_map.get(name) != shard:
                raise CheckpointError(
                    f"{index}: {name} is in {shard}, but the index says {shortened(weight_map.get(name))}"
                )
        tensors |= found
        metadata |= extra
    for name, shard in weight_map.items():
        if name not in tensors:
            raise CheckpointError(f"{index}: {name} is not in {shard}")
    return tensors, metadata
