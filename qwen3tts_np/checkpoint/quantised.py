"""Quantised matrices in a safetensors file, one by one, as ``qwen3tts-np convert`` writes int6 and int5.

int8 and int4, which kernels multiply by, are stored in their order instead (``packed.py``); files in which they are as
here, of version 0.1 and of other sizes than the released ones, are read as before.

A matrix ``NAME`` [rows, inputs] of ``b`` bits is stored as two tensors:

- ``NAME.intB`` (U8 [rows, inputs * b / 8]): each row a stream of b-bit numbers, the lowest bits first; a number is
  the level plus 2^(b-1), so levels reach from -2^(b-1) to 2^(b-1) - 1;
- ``NAME.intB.scales`` (F16 [rows, ceil(inputs / 32)]): one scale for each 32 inputs of a row.

weight = scale * level. All other tensors are as in the official file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qwen3tts_np_kernels.pack import GROUP, quantise

from ..errors import CheckpointError
from ..ops import Array
from .tensor import StoredTensor

BITS = {"int8": 8, "int6": 6, "int5": 5, "int4": 4}

# The matrices that are multiplied every frame. Embeddings are looked up, not multiplied: they cost one row per frame
# and stay as they are, like the norms, the text projection (used once per text) and the speaker encoder.
_LAYERS = re.compile(r"talker\.(code_predictor\.)?model\.layers\.\d+\.(self_attn|mlp)\.\w+_proj\.weight")
# Heads choose the code: an error there is not averaged out by a layer above, so they keep at least 8 bits.
_HEADS = re.compile(r"talker\.(codec_head|code_predictor\.lm_head\.\d+)\.weight")


def stored_format(key: str, model_format: str) -> str | None:
    """The format of the matrix ``key`` in a model of ``model_format``; None for a tensor that is not quantised."""
    if model_format not in BITS:
        return None
    if _HEADS.fullmatch(key):
        return "int8"
    return model_format if _LAYERS.fullmatch(key) else None


@dataclass(frozen=True)
class QuantisedTensor(StoredTensor):
    """A quantised matrix. ``data`` is the bit stream of its levels, ``dtype`` is "INT8", "INT6", "INT5" or "INT4"."""

    scales: NDArray[np.float16]  # [rows, ceil(inputs / 32)]

    @property
    def bits(self) -> int:
        return int(self.dtype[3:])

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.data), self.data.shape[1] * 8 // self.bits)

    @property
    def nbytes(self) -> int:
        return self.data.nbytes + self.scales.nbytes

    def unpacked(self) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
        """Levels [rows, inputs] and scales [rows, ceil(inputs / 32)], in memory."""
        return unpack_bits(self.data, self.bits), self.scales.copy()

    def widen(self, dtype: np.dtype[Any]) -> Array:
        return weights_of(*self.unpacked(), dtype)

    def rows(self, ids: NDArray[np.integer[Any]], dtype: np.dtype[Any]) -> Array:
        return weights_of(unpack_bits(self.data[ids], self.bits), self.scales[ids], dtype)


def is_quantised(tensors: Mapping[str, StoredTensor]) -> bool:
    """Whether any matrix is."""
    return any(isinstance(tensor, QuantisedTensor) for tensor in tensors.values())


def levels_of(tensor: StoredTensor, bits: int) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    """A matrix as integers: levels [rows, inputs], scales [rows, ceil(inputs / 32)]; as they are where it has them."""
    if isinstance(tensor, QuantisedTensor) and tensor.bits == bits:
        return tensor.unpacked()
    return quantise(tensor.data if tensor.dtype == "BF16" else tensor.widen(np.dtype(np.float32)), bits)


def fold(tensors: dict[str, StoredTensor], path: Path) -> dict[str, StoredTensor]:
    """Join the two halves of every quantised matrix under its official name."""
    folded: dict[str, StoredTensor] = {}
    for name, tensor in tensors.items():
        quantised = re.fullmatch(r"(.+\.weight)\.int([4568])(\.scales)?", name)
        if quantised is None:
            folded[name] = tensor
        elif quantised[3] is None:
            scales = tensors.get(f"{name}.scales")
            if scales is None:
                raise CheckpointError(f"{path}: {name} has no {name}.scales")
            folded[quantised[1]] = _joined(quantised[1], int(quantised[2]), tensor, scales, path)
    return folded


def _joined(name: str, bits: int, levels: StoredTensor, scales: StoredTensor, path: Path) -> QuantisedTensor:
    if levels.dtype != "U8" or scales.dtype != "F16" or len(levels.shape) != 2 or levels.shape[1] % bits:
        raise CheckpointError(
            f"{path}: {levels.name} is {levels.dtype} {list(levels.shape)} with {scales.dtype} scales, "
            f"expected U8 [rows, a multiple of {bits}] with F16 scales"
        )
    joined = QuantisedTensor(name, f"INT{bits}", levels.data, scales.data)
    expected = (joined.shape[0], -(-joined.shape[1] // GROUP))
    if scales.shape != expected:
        raise CheckpointError(f"{path}: {scales.name} is {list(scales.shape)}, expected {list(expected)}")
    return joined


def pack_bits(levels: NDArray[np.int8], bits: int) -> NDArray[np.uint8]:
    """[rows, inputs] -> [rows, inputs * bits / 8]; inputs must be a multiple of 8, so that rows end at bytes."""
    numbers = (levels.astype(np.int16) + (1 << (bits - 1))).astype(np.uint64).reshape(len(levels), -1, 8)
    shifts = np.arange(8, dtype=np.uint64) * np.uint64(bits)
    words = np.bitwise_or.reduce(numbers << shifts, axis=2)  # [rows, inputs / 8] 8 numbers each
    return words.astype("<u8").view(np.uint8).reshape(len(levels), -1, 8)[..., :bits].reshape(len(levels), -1)


def unpack_bits(stream: NDArray[np.uint8], bits: int) -> NDArray[np.int8]:
    """The inverse of :func:`pack_bits`. stream [..., bytes] -> [..., bytes * 8 / bits]."""
    words = np.zeros((*stream.shape[:-1], stream.shape[-1] // bits, 8), np.uint8)
    words[..., :bits] = stream.reshape(*stream.shape[:-1], -1, bits)
    shifts = np.arange(8, dtype=np.uint64) * np.uint64(bits)
    numbers = (words.view("<u8") >> shifts) & np.uint64((1 << bits) - 1)  # [..., inputs / 8, 8]
    levels = numbers.astype(np.int16) - (1 << (bits - 1))
    return levels.astype(np.int8).reshape(*stream.shape[:-1], -1)


def weights_of(levels: NDArray[np.int8], scales: NDArray[np.float16], dtype: np.dtype[Any]) -> Array:
    """scale * level: levels [rows, inputs], scales [rows, ceil(inputs / 32)] -> [rows, inputs]."""
    return levels.astype(dtype) * np.repeat(scales.astype(dtype), GROUP, axis=-1)[..., : levels.shape[-1]]
