"""Converts a checkpoint directory to another weight format. The codec is unchanged.

float32, bfloat16 and float16 convert every tensor of ``model.safetensors``; int8 to int4 quantise the matrices listed
in ``checkpoint/quantised.py`` and keep the rest. int8 and int4 are packed in the layout of the kernels
(``checkpoint/packed.py``); int6 and int5, which kernels compute as int8, are stored at their own size. The codec is
float32 in every format: at lower precision the later codebooks of its encoder diverge. What ``finish`` adds for the
kernels has formats of its own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qwen3tts_np_kernels.bfloat16 import round_ref
from qwen3tts_np_kernels.pack import GROUP

from ..checkpoint.config_file import read_model_config
from ..checkpoint.keys import TensorSpec, check
from ..checkpoint.packed import ARENAS_KEY, LINE, PREFIX, SCALES, Arena, metadata_of
from ..checkpoint.quantised import BITS, is_quantised, levels_of, pack_bits, stored_format
from ..checkpoint.safetensors import Checkpoint
from ..checkpoint.tensor import StoredTensor
from ..checkpoint.writer import write_safetensors
from ..errors import CheckpointError, OutputError
from ..files.output import output_folder
from ..notices import notify
from .packed import arenas_of, code_tables_of, pack_arena, stored_specs
from .specs import model_specs

FLOATS = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
STORED_FORMATS = (*FLOATS, *BITS)
FORMAT_KEY = "qwen3tts_np.format"
_ROWS = 4096  # rows converted at a time


def convert(
    source: Path,
    target: Path,
    model_format: str,
    finish: Callable[[Path], object] | None = None,
    rounded: Callable[[Checkpoint], Checkpoint] | None = None,
) -> None:
    """Write ``source`` as ``target`` in one of ``STORED_FORMATS``; ``finish`` adds to it before it gets its name.

    ``rounded``: the checkpoint with levels of its own for some matrices (``calibration.py``).

    Warns of a ``source`` that is quantised already; its matrices stay as they are if the format is theirs. Raises
    CheckpointError if ``source`` is incomplete, if ``target`` exists, or if a weight would overflow in float16.
    """
    if Path(os.path.realpath(target)).is_relative_to(os.path.realpath(source)):
        raise OutputError(f"{target} cannot be written: it is inside {source}, which is read")
    checkpoint = Checkpoint.open(source)
    config = read_model_config(source)
    specs, c = list(model_specs(config)), config.talker_config
    check(checkpoint, specs)
    if is_quantised(checkpoint):
        notify(f"{source} is quantised already: what its weights have lost stays lost; better convert the original")
    if rounded is not None:
        checkpoint = rounded(checkpoint)
    with output_folder(target) as folder:
        shutil.copytree(source, folder, dirs_exist_ok=True, ignore=_weights_in(source), copy_function=_copy)
        kept = {key: value for key, value in checkpoint.metadata.items() if key != ARENAS_KEY}
        metadata = {**kept, FORMAT_KEY: model_format}
        arenas = arenas_of(c, model_format)
        tables = code_tables_of(c, checkpoint) if arenas else {}
        if arenas:
            metadata |= metadata_of(arenas, tables)
        inside = {part.key.format(i) for arena in arenas for part in arena.parts for i in range(arena.matrices)}
        values = _Values(checkpoint, model_format, arenas, tables)
        stored = [part for spec in specs if spec.key not in inside | tables.keys() for part in values.stored(spec)]
        stored += stored_specs(arenas, tables, c.hidden_size)
        write_safetensors(folder / "model.safetensors", stored, values, metadata, LINE if arenas else 8)
        if finish is not None:
            finish(folder)


def _copy(source: str, target: str) -> None:
    """Copy one file. Trap: copytree continues after an OSError and raises a list of all of them at the end."""
    try:
        shutil.copy2(source, target)
    except OSError as e:
        raise OutputError(f"{source} cannot be copied: {e.strerror or e}") from None


def _weights_in(source: Path) -> Any:
    """Names to skip: the weights of the model, single or sharded, but nothing of the codec."""

    def ignored(folder: str, names: list[str]) -> list[str]:
        return [n for n in names if Path(folder) == source and n.endswith((".safetensors", ".safetensors.index.json"))]

    return ignored


class _Values:
    """The contents of the new file: its tensors and their values."""

    def __init__(
        self, checkpoint: Checkpoint, model_format: str, arenas: Sequence[Arena], tables: Mapping[str, int]
    ) -> None:
        self._checkpoint, self._format = checkpoint, model_format
        self._arenas, self._tables = {f"{PREFIX}{arena.name}": arena for arena in arenas}, tables
        self._scales: list[NDArray[np.uint16]] = []  # of the arena whose levels were written last
        self._last: tuple[str, NDArray[np.int8], NDArray[np.float16]] | None = None

    def stored(self, spec: TensorSpec) -> list[TensorSpec]:
        """The tensors that represent ``spec`` in the new file."""
        small = stored_format(spec.key, self._format)
        if small is None or spec.shape[1] % 8:  # a row must end at a byte boundary
            return [replace(spec, dtype=FLOATS.get(self._format, self._checkpoint[spec.key].dtype))]
        rows, inputs = spec.shape
        name = f"{spec.key}.{small}"
        return [
            TensorSpec(name, (rows, inputs * BITS[small] // 8), "", "U8"),
            TensorSpec(f"{name}.scales", (rows, -(-inputs // GROUP)), "", "F16"),
        ]

    def __call__(self, spec: TensorSpec) -> Iterator[NDArray[Any]]:
        if spec.key.startswith(PREFIX):
            yield from self._packed(spec)
        elif spec.dtype == "U8":
            levels, _ = self._quantised(spec.key)
            yield pack_bits(levels, BITS[spec.key.rpartition(".")[2]])
        elif spec.key.endswith(".scales"):
            yield self._quantised(spec.key.removesuffix(".scales"))[1]
        else:
            tensor = self._checkpoint[spec.key]
            for start in range(0, tensor.shape[0], _ROWS):
                yield _converted(tensor, slice(start, start + _ROWS), spec.dtype)

    def _packed(self, spec: TensorSpec) -> Iterator[NDArray[Any]]:
        """An arena's levels; then its scales, filled up with zeros; or the code tables."""
        if spec.key in self._arenas:
            self._scales = []
            for matrix in pack_arena(self._arenas[spec.key], self._checkpoint):
                self._scales.append(matrix.scales)
                yield matrix.values
        elif spec.key.endswith(SCALES):
            scales = np.concatenate(self._scales)
            yield np.pad(scales, (0, spec.size - scales.size))
        else:
            yield from (self._checkpoint[name].data for name in self._tables)

    def _quantised(self, name: str) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
        """Levels and scales of a matrix; the writer requests them consecutively."""
        if self._last is None or self._last[0] != name:
            key, _, small = name.rpartition(".")
            self._last = (name, *levels_of(self._checkpoint[key], BITS[small]))
        return self._last[1:]


def _converted(tensor: StoredTensor, rows: slice, dtype: str) -> NDArray[Any]:
    if tensor.dtype == dtype:
        return tensor.data[rows]
    values = tensor.rows(np.arange(*rows.indices(tensor.shape[0])), np.dtype(np.float32))
    if dtype == "BF16":
        return round_ref(values)
    with np.errstate(over="ignore"):
        narrow = values.astype("<f2" if dtype == "F16" else "<f4")
    if not np.isfinite(narrow).all():
        worst = float(np.abs(values).max())
        raise CheckpointError(f"{tensor.name} holds {worst:g}, and float16 ends at 65504; use bfloat16")
    return narrow
