"""Packed matrices in a safetensors file: the arrays that the kernels multiply by, mapped and used in place.

An arena holds consecutive matrices of one shape and one format, in the order of
``qwen3tts_np_kernels/pack.py``. It is two tensors, which begin at a multiple of 64 bytes of the file:

- ``packed.NAME`` (U8): the levels;
- ``packed.NAME.scales`` (U16): the bits of the float16 scales, zeros behind them up to a multiple of 64 bytes.

``packed.code_tables`` (BF16 [rows, width]) holds all code embeddings, one table below the other.

The header's metadata says which official matrix is where (``ARENAS_KEY``, with a version), so every reader has them
under their official names, as :class:`PackedTensor`; nothing depends on the CPU that wrote the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qwen3tts_np_kernels.pack import BLOCK, FORMATS, GROUP, Format, Packed, unpack_levels

from ..errors import CheckpointError
from ..ops import Array
from .header_entry import read_entry
from .quantised import QuantisedTensor, weights_of
from .tensor import StoredTensor

ARENAS_KEY = "qwen3tts_np.packed"
VERSION = 1
PREFIX = "packed."
SCALES = ".scales"
CODE_TABLES = f"{PREFIX}code_tables"
REMEDY = "convert the original checkpoint again"
LINE = 64  # bytes of a cache line, to which arenas are aligned


@dataclass(frozen=True)
class Part:
    """The place of official matrices [rows, inputs] in the matrices of an arena.

    ``key`` names the one in matrix i with ``{}`` for i. Its row r is row first + r // run * step + r % run there.
    """

    key: str
    rows: int
    inputs: int
    first: int
    run: int
    step: int

    def order(self) -> NDArray[np.intp]:
        """[rows] the row of the packed matrix for each official row."""
        r = np.arange(self.rows)
        return self.first + r // self.run * self.step + r % self.run


@dataclass(frozen=True)
class Arena:
    """``matrices`` packed matrices [rows, inputs] of one format. Without parts, those of another form of a tensor."""

    name: str
    format: str
    matrices: int
    rows: int
    inputs: int
    parts: tuple[Part, ...] = field(default=())

    @property
    def form(self) -> Format:
        return FORMATS[self.format]

    @property
    def count(self) -> int:
        """Weights of one matrix, padding included."""
        return self.form.count(self.rows, self.inputs)

    @property
    def scales(self) -> int:
        """Scales of all matrices, with those that fill up the last line."""
        line = LINE // 2
        return -(-self.matrices * self.count // GROUP // line) * line

    @property
    def nbytes(self) -> int:
        """Bytes of the levels."""
        return self.matrices * self.count // self.form.per_value


@dataclass(frozen=True)
class PackedTensor(QuantisedTensor):
    """An official matrix inside an arena. ``data`` and ``scales`` are those of the complete packed matrix, flat."""

    form: Format
    part: Part

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.part.rows, self.part.inputs)

    @property
    def nbytes(self) -> int:
        rows, inputs = self.shape
        return rows * (self.form.padded(inputs) * self.bits // 8 + self.form.padded(inputs) // GROUP * 2)

    def unpacked(self) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
        return self._rows(self.part.order())

    def rows(self, ids: NDArray[np.integer[Any]], dtype: np.dtype[Any]) -> Array:
        rows = weights_of(*self._rows(self.part.order()[ids.ravel()]), dtype)
        return rows.reshape(*ids.shape, self.part.inputs)

    def _rows(self, order: NDArray[np.intp]) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
        """Levels and scales of some rows of the packed matrix; only their blocks are read."""
        blocks, which = np.unique(order // BLOCK, return_inverse=True)
        per_block = self.form.count(BLOCK, self.part.inputs)
        values = self.data.reshape(-1, per_block // self.form.per_value)[blocks].ravel()
        scales = self.scales.view(np.uint16).reshape(-1, per_block // GROUP)[blocks].ravel()
        levels, steps = unpack_levels(Packed(self.form, values, scales), len(blocks) * BLOCK, self.part.inputs)
        rows = which.reshape(-1) * BLOCK + order % BLOCK
        return levels[rows], steps[rows]


def metadata_of(arenas: Sequence[Arena], tables: Mapping[str, int]) -> dict[str, str]:
    """The entries of a header about arenas and the rows of the code tables, in their order."""
    stated = {"version": VERSION, "arenas": [asdict(arena) for arena in arenas], "code_tables": dict(tables)}
    return {ARENAS_KEY: json.dumps(stated, separators=(",", ":"))}


def unfold(
    tensors: dict[str, StoredTensor], metadata: Mapping[str, str], path: Path
) -> tuple[dict[str, StoredTensor], dict[str, Packed]]:
    """The official tensors of a file, and its arenas by name. A file without arenas is as it was."""
    if ARENAS_KEY not in metadata:
        return tensors, {}
    arenas, tables = read_entry(metadata, ARENAS_KEY, VERSION, path, _read_stated, REMEDY)
    found = {name: tensor for name, tensor in tensors.items() if not name.startswith(PREFIX)}
    packed = {arena.name: _arena(arena, tensors, path) for arena in arenas}
    for arena in arenas:
        for i in range(arena.matrices):
            matrix = packed[arena.name].part(i * arena.count, arena.count)
            scales = matrix.scales.view(np.float16)
            for part in arena.parts:
                key = part.key.format(i)
                found[key] = PackedTensor(key, arena.format.upper(), matrix.values, scales, arena.form, part)
    if tables:
        found |= _code_tables(tables, tensors, path)
        packed["code_tables"] = Packed(FORMATS["bfloat16"], tensors[CODE_TABLES].data, np.zeros(0, np.uint16))
    return found, packed


def _read_stated(stated: Any) -> tuple[list[Arena], dict[str, int]]:
    arenas = [Arena(**{**a, "parts": tuple(Part(**part) for part in a["parts"])}) for a in stated["arenas"]]
    for arena in arenas:
        _check(arena)
    return arenas, {str(name): int(rows) for name, rows in stated["code_tables"].items()}


def _check(arena: Arena) -> None:
    """ValueError for an arena whose numbers do not fit together."""
    sizes = [arena.matrices, arena.rows, arena.inputs]
    sizes += [n for p in arena.parts for n in (p.rows, p.inputs, p.run, p.step, p.first + 1)]
    if arena.form.bits not in (4, 8) or any(type(n) is not int or not 0 < n < 2**31 for n in sizes):
        raise ValueError(f"{arena.name}: {arena.format} {sizes}")
    for p in arena.parts:
        last = p.first + (p.rows - 1) // p.run * p.step + (p.rows - 1) % p.run
        if last >= arena.rows or arena.form.padded(p.inputs) != arena.inputs or p.step < p.run:
            raise ValueError(f"{p.key} lies outside {arena.name}")


def _arena(arena: Arena, tensors: Mapping[str, StoredTensor], path: Path) -> Packed:
    values = _flat(tensors, f"{PREFIX}{arena.name}", "U8", arena.nbytes, path)
    scales = _flat(tensors, f"{PREFIX}{arena.name}{SCALES}", "U16", arena.scales, path)
    return Packed(arena.form, values, scales)


def _flat(tensors: Mapping[str, StoredTensor], name: str, dtype: str, size: int, path: Path) -> NDArray[Any]:
    tensor = tensors.get(name)
    if tensor is None:
        raise CheckpointError(f"{path}: {name} is missing, which {ARENAS_KEY} in the header names")
    if tensor.dtype != dtype or tensor.shape != (size,):
        raise CheckpointError(f"{path}: {name} is {tensor.dtype} {list(tensor.shape)}, expected {dtype} [{size}]")
    return tensor.data


def _code_tables(tables: Mapping[str, int], tensors: Mapping[str, StoredTensor], path: Path) -> dict[str, StoredTensor]:
    stored = tensors.get(CODE_TABLES)
    if stored is None or stored.dtype != "BF16" or len(stored.shape) != 2 or stored.shape[0] != sum(tables.values()):
        raise CheckpointError(f"{path}: {CODE_TABLES} is not BF16 [{sum(tables.values())}, width]")
    ends = np.cumsum(list(tables.values()))
    return {
        name: StoredTensor(name, "BF16", stored.data[end - rows : end])
        for (name, rows), end in zip(tables.items(), ends, strict=True)
    }
