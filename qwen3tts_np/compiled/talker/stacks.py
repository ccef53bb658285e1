"""Packing of checkpoint tensors into stacks of matrices and zero-padded vectors.

The arenas of a packed checkpoint are used in place, memory-mapped. Otherwise matrices are packed one by one and their
pages of the file released, so loading needs little more memory than the packed weights. A checkpoint that is already
quantised keeps its levels, where the requested format has enough bits for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qwen3tts_np_kernels.pack import Format, Packed, empty, pack, pack_levels
from qwen3tts_np_kernels.stack_jit import Affine, Stack, new_stack
from qwen3tts_np_kernels.system import in_threads
from qwen3tts_np_kernels.transformer_jit import STEP

from ...checkpoint.quantised import QuantisedTensor

FLOAT32 = np.dtype(np.float32)

Rows = NDArray[Any]  # [rows, ...]
Matrix = tuple[Rows, ...]  # weights [rows, inputs] as stored; or levels [rows, inputs] and scales [rows, groups]


def heads(tensors: Sequence[Any], rows: int, inputs: int, form: Format, ready: Packed | None) -> Stack:
    """Output heads of one shape."""
    return stack([partial(take, tensor, form) for tensor in tensors], rows, padded(inputs), form, ready)


def affine(weight: Any, bias: Any, form: Format, ready: Packed | None) -> Affine:
    """A linear layer; where the checkpoint has none, one without rows, to keep the type."""
    if weight is None:
        return Affine(stack([], 0, STEP, form, None), np.zeros(0, np.float32))
    rows, inputs = map(padded, weight.shape)
    return Affine(stack([partial(take, weight, form)], rows, inputs, form, ready), vectors([bias])[0])


def stack(
    matrices: Sequence[Callable[[], Matrix]], rows: int, inputs: int, form: Format, ready: Packed | None
) -> Stack:
    """Matrices packed consecutively, each zero-padded to [rows, inputs].

    ``ready``: these matrices in an arena of the checkpoint, which is used as is if its format is ``form``.
    """
    size = form.count(rows, inputs)
    if ready is not None and ready.format == form:
        return new_stack(ready, size, inputs)
    arena = empty(form.name, len(matrices) * size)

    def fill_in(i: int) -> None:
        place, matrix = arena.part(i * size, size), matrices[i]()
        if len(matrix) == 1:
            pack(fill(matrix[0], {0: rows, 1: inputs}), form.name, place)
        else:
            levels, scales = (fill(part, {0: rows}) for part in matrix)
            packed = pack_levels(levels, scales, form.name)
            place.values[:], place.scales[:] = packed.values, packed.scales

    list(in_threads(fill_in, range(len(matrices))))  # NumPy works outside the GIL
    return new_stack(arena, size, inputs)


def take(tensor: Any, form: Format | None) -> Matrix:
    """Read a matrix from its file and release the pages.

    Returns levels and scales if it is quantised and ``form`` has enough bits for its levels; otherwise its weights.
    """
    matrix: Matrix
    if not isinstance(tensor, QuantisedTensor):
        matrix = (tensor.data.copy(),)
    elif form is not None and tensor.bits <= (form.bits or 0) and tensor.shape[1] % STEP == 0:
        matrix = tensor.unpacked()
    else:
        matrix = (tensor.widen(FLOAT32),)
    tensor.release()
    return matrix


def vectors(tensors: Sequence[Any], halves: int = 1) -> NDArray[np.float32]:
    """Vectors as float32 [n, size], each of their ``halves`` parts zero-padded."""
    parts = np.stack([tensor.widen(FLOAT32).reshape(halves, -1) for tensor in tensors])  # [n, halves, values]
    return fill(parts, {2: padded(halves * parts.shape[2]) // halves}).reshape(len(tensors), -1)


def padded(count: int) -> int:
    """``count`` rounded up to a multiple of ``STEP``."""
    return -(-count // STEP) * STEP


def fill(array: NDArray[Any], sizes: Mapping[int, int]) -> NDArray[Any]:
    """Zero-pad some axes at the end. sizes: axis -> size."""
    return np.pad(array, [(0, sizes.get(axis, size) - size) for axis, size in enumerate(array.shape)])
