"""Writing files and checkpoints so that nothing half-written is ever found under its final name."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..errors import CheckpointError
from .keys import TensorSpec
from .tensor import DTYPES


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """A directory to fill in, which becomes ``path`` when the block ends well and vanishes when it does not.

    Raises CheckpointError if ``path`` is there and not an empty directory, or if the disk refuses.
    """
    target = path.resolve()
    partial = target.parent / f".{target.name}.{os.getpid()}.partial"
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise CheckpointError(f"{path} exists already and is not an empty directory")
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
        yield partial
        if target.exists():
            target.rmdir()  # empty; Windows does not rename over it
        os.replace(partial, target)
    except OSError as e:
        raise CheckpointError(f"{path} cannot be written: {e.strerror}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def complete_file(path: Path) -> Iterator[Path]:
    """A name to write to: the file becomes ``path`` when the block ends well and vanishes when it does not.

    OSError as the disk gives it.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_safetensors(
    path: Path,
    tensors: Iterable[TensorSpec],
    values: Callable[[TensorSpec], Iterable[NDArray[Any]]],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write ``tensors`` in the order of their names, each as the chunks that ``values`` yields for it, in C order.

    The chunks have the stored type (``uint16`` for BF16), so the file may be larger than memory. Raises OSError if
    the disk refuses; ``path`` is then not there.
    """
    ordered = sorted(tensors, key=lambda spec: spec.key)
    with complete_file(path) as partial, partial.open("wb") as file:
        file.write(header(ordered, metadata))
        for spec in ordered:
            for chunk in values(spec):
                file.write(chunk.tobytes())


def header(ordered: Iterable[TensorSpec], metadata: Mapping[str, str] | None = None) -> bytes:
    """Everything before the data, byte for byte as the format's own library writes it (names in order, blanks to 8)."""
    entries: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    at = 0
    for spec in ordered:
        end = at + byte_size(spec)
        entries[spec.key] = {"dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def byte_size(spec: TensorSpec) -> int:
    """Bytes of a tensor's data."""
    return spec.size * DTYPES[spec.dtype].itemsize
