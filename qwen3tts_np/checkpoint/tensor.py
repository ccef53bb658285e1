"""One tensor of a checkpoint, as stored in its file."""

from __future__ import annotations

import math
import mmap
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qwen3tts_np_kernels.bfloat16 import widen_ref
from qwen3tts_np_kernels.system import advise

from ..ops import Array

DTYPES: dict[str, np.dtype[Any]] = {
    "BF16": np.dtype("<u2"),  # NumPy has no bfloat16: the bits, widened where they are used
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "I16": np.dtype("<i2"),
    "U16": np.dtype("<u2"),
    "I32": np.dtype("<i4"),
    "U32": np.dtype("<u4"),
    "I64": np.dtype("<i8"),
    "U64": np.dtype("<u8"),
    "BOOL": np.dtype("?"),
}


@dataclass(frozen=True)
class StoredTensor:
    """One tensor as stored in the file."""

    name: str
    dtype: str  # a key of DTYPES
    data: NDArray[Any]  # read-only view of the mapped file; uint16 where dtype is "BF16"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def size(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return self.data.nbytes

    def widen(self, dtype: np.dtype[Any]) -> Array:
        """All values as ``dtype``, exactly if that is float32 or wider; a float32 tensor as float32 is not copied."""
        return _widen(self.data, self.dtype, dtype)

    def rows(self, ids: NDArray[np.integer[Any]], dtype: np.dtype[Any]) -> Array:
        """``widen(...)[ids]`` that reads those rows only."""
        return _widen(self.data[ids], self.dtype, dtype)

    def is_finite(self) -> bool:
        """Whether no value is an infinity or NaN; reads all of them."""
        if self.dtype == "BF16":
            return bool((self.data & 0x7F80 != 0x7F80).all())
        return self.data.dtype.kind != "f" or bool(np.isfinite(self.data).all())

    def release(self) -> None:
        """Drop its pages from this process; later access reads them again. A no-op where not supported."""
        owner: Any = self.data
        while owner is not None and not isinstance(owner, mmap.mmap):
            owner = owner.obj if isinstance(owner, memoryview) else getattr(owner, "base", None)
        if owner is not None:
            offset = self.data.ctypes.data - np.frombuffer(owner, np.uint8).ctypes.data
            advise(owner, "dontneed", offset, self.data.nbytes)


def _widen(data: NDArray[Any], stored: str, dtype: np.dtype[Any]) -> Array:
    return (widen_ref(data) if stored == "BF16" else data).astype(dtype, copy=False)
