"""Writes arrays to disk as they arrive, and finally into one safetensors file."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoint.keys import TensorSpec
from ..checkpoint.tensor import DTYPES
from ..checkpoint.writer import header
from ..files.output import output_file

_NAMES = {dtype: name for name, dtype in DTYPES.items() if name != "BF16"}


class ArraysOnDisk:
    """Collects named arrays in ``path``; at most ``buffer`` bytes are buffered in memory.

    A context manager: if the block succeeds, the file is complete and readable by any safetensors library.
    """

    def __init__(self, path: Path, buffer: int = 1 << 20) -> None:
        self._path, self._buffer = path, buffer
        self._specs: list[TensorSpec] = []
        self._waiting: list[bytes] = []
        self._bytes = 0

    def __enter__(self) -> ArraysOnDisk:
        self._file = tempfile.TemporaryFile(dir=self._path.parent)
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        with self._file:
            if failed is None:
                self._flush()
                self._finish()

    @property
    def waiting(self) -> int:
        """Buffered bytes."""
        return self._bytes

    def add(self, name: str, array: NDArray[Any]) -> None:
        dtype = _NAMES[np.dtype(array.dtype).newbyteorder("<")]
        self._specs.append(TensorSpec(name, array.shape, "", dtype))
        if array.nbytes > self._buffer - self._bytes:
            self._flush()
        if array.nbytes > self._buffer:
            self._file.write(np.ascontiguousarray(array).data)
        else:
            self._waiting.append(array.tobytes())
            self._bytes += array.nbytes

    def _flush(self) -> None:
        self._file.writelines(self._waiting)
        self._waiting, self._bytes = [], 0

    def _finish(self) -> None:
        """Write the header, which the format requires first, and copy the data after it in chunks."""
        self._file.seek(0)
        with output_file(self._path) as complete:
            complete.write(header(self._specs))
            shutil.copyfileobj(self._file, complete)
