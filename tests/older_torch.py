"""Writes a file as ``torch.save`` did before PyTorch 1.6, without PyTorch."""

from __future__ import annotations

import io
import pickle
import struct
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
SIZES = {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}


class _Storage:
    def __init__(self, key: str, values: Any) -> None:
        self.key, self.values = key, values


class _Tensor:
    def __init__(self, storage: _Storage, shape: tuple[int, ...]) -> None:
        self._storage, self._shape = storage, shape

    def __reduce__(self) -> Any:
        strides = tuple(int(np.prod(self._shape[i + 1 :])) for i in range(len(self._shape)))
        rebuild = sys.modules["torch._utils"]._rebuild_tensor_v2  # type: ignore[attr-defined]
        return rebuild, (self._storage, 0, self._shape, strides, False, None)


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, _Storage):
            return None
        return "storage", sys.modules["torch"].FloatStorage, obj.key, "cpu", obj.values.size, None


def torch_save(path: Path, value: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``value``: nested dicts, whose float32 arrays become tensors."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    torch.FloatStorage = type("FloatStorage", (), {"__module__": "torch"})  # type: ignore[attr-defined]

    def _rebuild_tensor_v2(*_: Any) -> None: ...

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2  # type: ignore[attr-defined]
    torch._utils = utils  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)
    storages: list[_Storage] = []

    def as_tensors(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: as_tensors(member) for name, member in value.items()}
        if not isinstance(value, np.ndarray):
            return value
        storages.append(_Storage(str(len(storages)), value))
        return _Tensor(storages[-1], value.shape)

    converted, content = as_tensors(value), io.BytesIO()
    for part in (MAGIC, PROTOCOL, SIZES):
        pickle.dump(part, content, 2)
    _Pickler(content, 2).dump(converted)
    pickle.dump([storage.key for storage in storages], content, 2)
    for storage in storages:
        content.write(struct.pack("<q", storage.values.size) + storage.values.tobytes())
    path.write_bytes(content.getvalue())
    return path
