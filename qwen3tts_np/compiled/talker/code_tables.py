"""The embeddings of all code tables, concatenated: each row is the embedding of a code of one codebook."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from qwen3tts_np_kernels.bfloat16 import round_ref
from qwen3tts_np_kernels.cpu import inlined
from qwen3tts_np_kernels.pack import Packed
from qwen3tts_np_kernels.simd.ops import load, load_bf16

from ...checkpoint.tensor import StoredTensor
from ...talker.code_predictor import CodePredictorWeights
from ...talker.talker import TalkerWeights
from .stacks import FLOAT32, padded

NO_VALUES, NO_WIDE = np.zeros(0, np.uint16), np.zeros(0, np.float32)


class CodeTables(NamedTuple):
    """The embeddings of all G code tables, concatenated: rows of the talker's width, flat.

    They are in one of two arrays, and the other is empty: with one array of either type, the kernels would be compiled
    for each.
    """

    values: NDArray[np.uint16]  # bfloat16
    wide: NDArray[np.float32]
    first: NDArray[np.int64]  # [G] the first row of each table
    width: int


def code_tables(
    talker: TalkerWeights, predictor: CodePredictorWeights, keep_wide: bool, ready: Packed | None
) -> CodeTables:
    """All tables in one: ``ready`` if the checkpoint has it. In bfloat16; as stored if wider and ``keep_wide``."""
    embeddings: list[Any] = [talker.codec_embedding, *(part.weight for part in predictor.codec_embedding)]
    tensors: list[StoredTensor] = [embedding.tensor.tensor for embedding in embeddings]
    wide = keep_wide and any(tensor.dtype != "BF16" for tensor in tensors)
    lengths = [tensor.shape[0] for tensor in tensors]
    width = padded(tensors[0].shape[1])
    first = np.cumsum([0, *lengths[:-1]])
    if ready is not None:
        return CodeTables(ready.values.reshape(-1), NO_WIDE, first, width)
    values = np.zeros((sum(lengths), width), np.float32 if wide else np.uint16)
    for tensor, at in zip(tensors, first, strict=True):
        rows = values[at : at + tensor.shape[0], : tensor.shape[1]]
        if tensor.dtype == "BF16" and not wide:
            rows[:] = tensor.data
        else:
            rows[:] = tensor.widen(FLOAT32) if wide else round_ref(tensor.widen(FLOAT32))
        tensor.release()
    flat = values.reshape(-1)
    return CodeTables(NO_VALUES, flat, first, width) if wide else CodeTables(flat, NO_WIDE, first, width)


@inlined
def load_embedding(tables: CodeTables, at: int) -> Any:
    """16 values of a row in float32, in compiled code."""
    return load(tables.wide, at) if tables.wide.size else load_bf16(tables.values, at)
