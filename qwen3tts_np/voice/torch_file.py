"""Voices that the official demo has saved (``torch.save``), read without PyTorch and without executing anything.

Such a file is a zip: ``data.pkl`` describes the items and names the storages, each a member of raw values. A pickle can
call anything that it names, so this reader allows the few names that tensors need and refuses all others.

Official: ``qwen_tts/cli/demo.py``, whose file is ``{"items": [VoiceClonePromptItem as a dict, ...]}``.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError

_MOST = 1 << 24  # bytes of data.pkl; those of voices have a few hundred
_STORED = {
    "BFloat16Storage": "<u2",
    "HalfStorage": "<f2",
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "IntStorage": "<i4",
    "LongStorage": "<i8",
}


# What the unpickler and the zip reader raise for files that are damaged, or were tampered with.
_DAMAGED = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    OSError,
    EOFError,
    ValueError,
    LookupError,
    ArithmeticError,
    AttributeError,
    TypeError,
    ImportError,
    MemoryError,
    RecursionError,
    AssertionError,
    NotImplementedError,
)


class _StorageType(NamedTuple):
    """Placeholder for ``torch.FloatStorage`` and similar classes."""

    name: str


class _Refused(Exception):
    """The pickle names something that a voice does not need."""


def read_torch_items(path: Path) -> list[dict[str, Any]]:
    """The items of the file, tensors as arrays. CheckpointError for a file that is damaged, or holds anything else."""
    try:
        with zipfile.ZipFile(path) as archive:
            (description,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            folder = description.removesuffix("data.pkl")
            found = _Unpickler(archive, folder).load()
    except _Refused as e:
        raise CheckpointError(f"{path} is a PyTorch file, but no saved voice: it holds {e}") from None
    except _DAMAGED as e:
        raise CheckpointError(f"{path} is a PyTorch file that cannot be read as a voice: {e}") from None
    items = found.get("items") if isinstance(found, dict) else None
    if not isinstance(items, list) or not items or not all(isinstance(item, dict) for item in items):
        raise CheckpointError(f"{path} is a PyTorch file, but no voice of the official demo: there is no list 'items'")
    return items


class _Unpickler(pickle.Unpickler):
    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        self._archive, self._folder = archive, folder
        super().__init__(io.BytesIO(self._member("data.pkl", _MOST)))

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if module == "torch" and name in _STORED:
            return _StorageType(name)
        raise _Refused(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> NDArray[Any]:
        """A storage: ("storage", type, key, device, number of values)."""
        _, kind, key, _, count = pid
        dtype = np.dtype(_STORED[kind.name])
        values = np.frombuffer(self._member(f"data/{key}", count * dtype.itemsize), dtype)
        if kind.name == "BFloat16Storage":
            return (values.astype(np.uint32) << 16).view(np.float32)
        return values

    def _member(self, name: str, most: int) -> bytes:
        """Trap: a compressed member could be larger than memory. ``torch.save`` compresses none."""
        entry = self._archive.getinfo(self._folder + name)
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > most:
            raise _Refused(f"{name} of {entry.file_size} bytes")
        return self._archive.read(entry)


def _tensor(values: NDArray[Any], offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> NDArray[Any]:
    """A copy of the part of a storage that a tensor views; ValueError if the view exceeds the storage."""
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if not all(type(n) is int and n >= 0 for n in (offset, *size, *stride)) or (0 not in size and last >= len(values)):
        raise ValueError("a tensor is larger than what is stored of it")
    steps = [step * values.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(values[offset:], size, steps, writeable=False).copy()
