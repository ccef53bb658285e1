"""A checkpoint as it would be in another weight format, for the NumPy path, with the arithmetic of the kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from qwen3tts_np_kernels.bfloat16 import round_ref
from qwen3tts_np_kernels.pack import GROUP, quantise_groups_ref

from ..checkpoint.quantised import BITS, QuantisedTensor, levels_of, pack_bits, stored_format
from ..checkpoint.safetensors import Checkpoint
from ..checkpoint.tensor import StoredTensor
from ..ops import Array


class IntegerMatrix(np.ndarray[Any, np.dtype[Any]]):
    """A matrix of integers times scales, multiplied as in the kernels: the other operand is quantised first."""

    def __rmatmul__(self, x: Any) -> Any:
        """x @ self: x [T, inputs] in groups of 32, as in ``qwen3tts_np_kernels.pack.linear_ref``."""
        rows = np.asarray(x).reshape(-1, self.shape[0])
        levels, scales = quantise_groups_ref(rows)
        y = (levels * np.repeat(scales, GROUP, axis=1)[:, : rows.shape[1]]).astype(rows.dtype) @ np.asarray(self)
        return y.reshape(*np.shape(x)[:-1], self.shape[1])


@dataclass(frozen=True)
class _Integers(StoredTensor):
    quantised: QuantisedTensor

    def widen(self, dtype: np.dtype[Any]) -> Array:
        return self.quantised.widen(dtype).view(IntegerMatrix)


class InFormat(Checkpoint):
    """A checkpoint whose tensors are those that ``convert`` would write, computed on demand."""

    def __init__(self, source: Checkpoint, model_format: str) -> None:
        super().__init__(source.path, dict(source), source.metadata)
        self._format = model_format

    def __getitem__(self, name: str) -> StoredTensor:
        tensor = super().__getitem__(name)
        small = stored_format(name, self._format)
        if small is not None and not tensor.shape[1] % 8:
            levels, scales = levels_of(tensor, BITS[small])
            stored = QuantisedTensor(name, small.upper(), pack_bits(levels, BITS[small]), scales)
            return _Integers(name, tensor.dtype, tensor.data, stored)
        if self._format == "bfloat16" and tensor.dtype != "BF16":
            return StoredTensor(name, "BF16", round_ref(tensor.widen(np.dtype(np.float32))))
        if self._format == "float16" and tensor.dtype != "F16":
            return StoredTensor(name, "F16", tensor.widen(np.dtype(np.float32)).astype(np.float16))
        return tensor
