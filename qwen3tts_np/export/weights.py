"""Arrays of a checkpoint as a graph file holds them, written piece by piece: no copy of the model is in memory.

``float32`` and ``float16`` convert values. ``int8`` and ``int4`` have levels and scales from the quantiser of this
package (``kernels/qwen3tts_np_kernels/pack.py``), one scale for each 32 inputs of a row, of the matrices that
``convert`` quantises: those of the layers in the format's own width, heads in 8 bits. Everything else is float16.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from qwen3tts_np_kernels.pack import GROUP
from qwen3tts_np_kernels.system import in_threads

from ..checkpoint.quantised import BITS, levels_of, pack_bits, stored_format
from ..checkpoint.tensor import StoredTensor
from ..errors import CheckpointError
from ..ops import AnyArray

EXPORT_FORMATS = ("float32", "float16", "int8", "int4")
_VALUES = 1 << 20  # converted at a time: 4 MB as float32


@dataclass(frozen=True)
class Source:
    """An array that is not in memory: its type, its shape, and its values in order, in pieces."""

    dtype: str  # a name of NumPy's
    shape: tuple[int, ...]
    pieces: Callable[[], Iterator[AnyArray]]

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


def of_array(values: AnyArray) -> Source:
    """An array that is in memory."""
    return Source(values.dtype.name, values.shape, lambda: iter([values]))


def floats(tensors: Sequence[StoredTensor], dtype: str, stacked: bool = False) -> Source:
    """A tensor as float32 or float16; or several of one shape, ``stacked`` along a new first axis.

    CheckpointError, when it is written, for a value beyond the range of float16.
    """
    shape = (len(tensors), *tensors[0].shape) if stacked else tensors[0].shape

    def pieces() -> Iterator[AnyArray]:
        for tensor in tensors:
            yield from _converted(tensor, np.dtype(dtype))

    return Source(dtype, shape, pieces)


def _converted(tensor: StoredTensor, dtype: np.dtype[np.floating]) -> Iterator[AnyArray]:
    rows, width = tensor.shape[0], max(int(np.prod(tensor.shape[1:])), 1)
    step = max(_VALUES // width, 1)
    for first in range(0, rows, step):
        values = tensor.rows(np.arange(first, min(first + step, rows)), np.dtype(np.float32))
        tensor.release()
        with np.errstate(over="ignore"):
            narrow = values.astype(dtype, copy=False)
        if not np.isfinite(narrow).all():
            worst = float(np.abs(values).max())
            raise CheckpointError(f"{tensor.name} holds {worst:g}, and {dtype} ends at {np.finfo(dtype).max:g}")
        yield narrow


def bits_of(key: str, model_format: str) -> int | None:
    """The bits of a level of the matrix ``key`` in ``model_format``; None for floats. As in a converted checkpoint."""
    return BITS.get(stored_format(key, model_format) or "")


def levels_and_scales(tensors: Sequence[StoredTensor], bits: int, stacked: bool = False) -> tuple[Source, Source]:
    """Matrices [rows, inputs] as ONNX Runtime's ``MatMulNBits`` has them, to be written one right after the other.

    Levels are uint8 [rows, groups, bytes] with an offset of 2^(bits - 1), the first of two in the lower half of a byte;
    what is missing of the last group is level 0. Scales are float32 [rows, groups], exact: they are float16 numbers.
    """
    rows, inputs = tensors[0].shape
    groups, offset = -(-inputs // GROUP), 1 << (bits - 1)
    steps: list[AnyArray] = []

    def quantised() -> Iterator[AnyArray]:
        for small, scales in in_threads(lambda tensor: levels_of(tensor, bits), tensors):
            steps.append(scales.astype(np.float32))
            padded = np.pad(small, ((0, 0), (0, groups * GROUP - inputs)))
            yield (padded.astype(np.int16) + offset).astype(np.uint8) if bits == 8 else pack_bits(padded, bits)
        for tensor in tensors:
            tensor.release()

    def first(*shape: int) -> tuple[int, ...]:
        return (len(tensors), *shape) if stacked else shape

    return (
        Source("uint8", first(rows, groups, GROUP * bits // 8), quantised),
        Source("float32", first(rows, groups), lambda: iter(steps)),
    )


Tensors = Mapping[str, StoredTensor]
