"""Files of ``torch.save``, read without PyTorch and without executing anything.

Both layouts: a zip (since PyTorch 1.6), whose ``data.pkl`` describes the object and names the storages, each a member
of raw values; and before it one pickle after the other, with the storages behind them. A pickle can call anything that
it names, so this reader allows the few names that tensors need and refuses all others.

Official: ``torch/serialization.py``, ``torch/_utils.py``.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError
from ..files.input import read_bytes

_MOST = 1 << 24  # bytes of data.pkl; those of voices have a few hundred
_STORED = {
    "BFloat16Storage": "<u2",
    "HalfStorage": "<f2",
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "IntStorage": "<i4",
    "LongStorage": "<i8",
}
_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of the older layout

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

# (type of a storage, its key, its device, number of values, a part of it that older files name) -> its values
_Load = Callable[..., NDArray[Any]]


class _StorageType(NamedTuple):
    """Placeholder for ``torch.FloatStorage`` and similar classes."""

    name: str


class _Refused(Exception):
    """The pickle names something that tensors do not need."""


def read_torch(path: Path, purpose: str) -> Any:
    """The object in the file, tensors as arrays; dicts, lists, numbers and text are themselves.

    CheckpointError for a file that is damaged, or holds anything else; its sentence says that it is no ``purpose``
    ("saved voice").
    """
    try:
        return _read_zip(path) if zipfile.is_zipfile(path) else _read_older(path)
    except _Refused as e:
        raise CheckpointError(f"{path} is a PyTorch file, but no {purpose}: it holds {e}") from None
    except _DAMAGED as e:
        raise CheckpointError(f"{path} is a PyTorch file that cannot be read as a {purpose}: {e}") from None


def _read_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        (description,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        folder = description.removesuffix("data.pkl")

        def member(name: str, most: int) -> bytes:
            """Trap: a compressed member could be larger than memory. ``torch.save`` compresses none."""
            entry = archive.getinfo(folder + name)
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > most:
                raise _Refused(f"{name} of {entry.file_size} bytes")
            return archive.read(entry)

        def load(kind: _StorageType, key: str, device: str, count: int) -> NDArray[Any]:
            size = np.dtype(_STORED[kind.name]).itemsize
            return _values(member(f"data/{key}", count * size), kind)

        return _Unpickler(io.BytesIO(member("data.pkl", _MOST)), load).load()


def _read_older(path: Path) -> Any:
    """The description comes before the values it names, so it is read twice: for their types, and with them."""
    file = io.BytesIO(read_bytes(path))
    if _Unpickler(file, _none).load() != _MAGIC:
        raise ValueError("it begins like no file of torch.save")
    for _ in range(2):  # the version of the layout; sizes of the types of C
        _Unpickler(file, _none).load()
    start = file.tell()
    kinds: dict[str, _StorageType] = {}

    def note(kind: _StorageType, key: str, device: str, count: int, part: None) -> NDArray[Any]:
        if part is not None:
            raise _Refused("a view of a storage")
        kinds[key] = kind
        return np.zeros(0)

    _Unpickler(file, note, lambda *_: None).load()
    loaded = {}
    for key in _Unpickler(file, _none).load():
        (count,) = struct.unpack("<q", file.read(8))
        size = np.dtype(_STORED[kinds[key].name]).itemsize
        content = file.read(max(0, count) * size)
        if len(content) != count * size:
            raise EOFError("it ends within its values")
        loaded[key] = _values(content, kinds[key])
    file.seek(start)
    return _Unpickler(file, lambda kind, key, *_: loaded[key]).load()


def _none(*_: Any) -> NDArray[Any]:
    raise _Refused("a storage outside its description")


def _values(content: bytes, kind: _StorageType) -> NDArray[Any]:
    values = np.frombuffer(content, _STORED[kind.name])
    if kind.name == "BFloat16Storage":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, load: _Load, tensor: Callable[..., Any] | None = None) -> None:
        self._load_storage, self._make_tensor = load, tensor or _tensor
        super().__init__(file)

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._make_tensor
        if module == "torch" and name in _STORED:
            return _StorageType(name)
        raise _Refused(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> NDArray[Any]:
        """A storage: ("storage", type, key, device, number of values), and in the older layout a part of it."""
        return self._load_storage(*pid[1:])


def _tensor(values: NDArray[Any], offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> NDArray[Any]:
    """A copy of the part of a storage that a tensor views; ValueError if the view exceeds the storage."""
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if not all(type(n) is int and n >= 0 for n in (offset, *size, *stride)) or (0 not in size and last >= len(values)):
        raise ValueError("a tensor is larger than what is stored of it")
    steps = [step * values.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(values[offset:], size, steps, writeable=False).copy()
