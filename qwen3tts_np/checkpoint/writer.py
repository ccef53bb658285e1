"""Writes safetensors files, which may be larger than memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..files.output import output_file
from .keys import TensorSpec
from .tensor import DTYPES


def write_safetensors(
    path: Path,
    tensors: Iterable[TensorSpec],
    values: Callable[[TensorSpec], Iterable[NDArray[Any]]],
    metadata: Mapping[str, str] | None = None,
    alignment: int = 8,
) -> None:
    """Write ``tensors`` in the order of their names, each as the chunks that ``values`` yields for it, in C order.

    The chunks have the stored type (``uint16`` for BF16), so the file may be larger than memory. OutputError if
    writing fails; ``path`` is then as it was. The data begins at a multiple of ``alignment`` bytes.
    """
    ordered = sorted(tensors, key=lambda spec: spec.key)
    with output_file(path) as file:
        file.write(header(ordered, metadata, alignment))
        for spec in ordered:
            for chunk in values(spec):
                file.write(chunk.tobytes())


def header(ordered: Iterable[TensorSpec], metadata: Mapping[str, str] | None = None, alignment: int = 8) -> bytes:
    """Everything before the data, byte for byte as the format's own library writes it (names in order, blanks to 8)."""
    entries: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    at = 0
    for spec in ordered:
        end = at + byte_size(spec)
        entries[spec.key] = {"dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % alignment)
    return len(text).to_bytes(8, "little") + text


def byte_size(spec: TensorSpec) -> int:
    """Bytes of a tensor's data."""
    return spec.size * DTYPES[spec.dtype].itemsize
