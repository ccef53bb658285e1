"""Files of ``torch.save`` without PyTorch, as it writes them and as it wrote them before PyTorch 1.6."""

from __future__ import annotations

import io
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
SIZES = {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}


class Rebuilt:
    """A tensor to be pickled: the arguments of ``torch._utils._rebuild_tensor_v2``."""

    def __init__(self, storage: str, values: np.ndarray, size: tuple[int, ...], stride: tuple[int, ...]) -> None:
        self.storage, self.values, self.size, self.stride = storage, values, size, stride


class Storage:
    def __init__(self, kind: str, key: str, count: int) -> None:
        self.kind, self.key, self.count = kind, key, count


class TorchPickler(pickle.Pickler):
    """Writes what ``torch.save`` writes, with stand-ins for the names that it refers to."""

    def __init__(self, file: io.BytesIO, older: bool = False) -> None:
        super().__init__(file, protocol=2)
        self.storages: list[np.ndarray] = []
        self._view = (None,) if older else ()

    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, Storage):
            return None
        return ("storage", getattr(sys.modules["torch"], obj.kind), obj.key, "cpu", obj.count, *self._view)

    def reducer_override(self, obj: Any) -> Any:
        if not isinstance(obj, Rebuilt):
            return NotImplemented
        self.storages.append(obj.values)
        storage = Storage(obj.storage, str(len(self.storages) - 1), obj.values.size)
        rebuild = sys.modules["torch._utils"]._rebuild_tensor_v2
        return rebuild, (storage, 0, obj.size, obj.stride, False, OrderedDict())


def fake_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names that a pickle of tensors needs, as modules."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in ("FloatStorage", "LongStorage", "BFloat16Storage"):
        setattr(torch, name, type(name, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2(*_: Any) -> None: ...

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2  # type: ignore[attr-defined]
    torch._utils = utils  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)


def torch_save(path: Path, value: Any, compression: int = zipfile.ZIP_STORED) -> Path:
    content = io.BytesIO()
    pickler = TorchPickler(content)
    pickler.dump(value)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("voice/data.pkl", content.getvalue())
        for key, storage in enumerate(pickler.storages):
            archive.writestr(f"voice/data/{key}", storage.tobytes())
    return path


def older_torch_save(path: Path, value: Any) -> Path:
    content = io.BytesIO()
    for part in (MAGIC, PROTOCOL, SIZES):
        pickle.dump(part, content, 2)
    pickler = TorchPickler(content, older=True)
    pickler.dump(value)
    pickle.dump([str(key) for key in range(len(pickler.storages))], content, 2)
    for storage in pickler.storages:
        content.write(struct.pack("<q", storage.size) + storage.tobytes())
    path.write_bytes(content.getvalue())
    return path
