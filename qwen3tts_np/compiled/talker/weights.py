"""Talker and code predictor weights for the compiled kernels: mapped, or packed when a checkpoint is loaded.

float32 and bfloat16 keep every weight of a released checkpoint exactly. int8 and int4 approximate the matrices; these
weights stay wider:

- norms are float32 everywhere: they are few, and they scale everything;
- the tables of code embeddings are bfloat16, as stored: only G rows are read per frame;
- with int4 the output heads, ``text_projection`` and ``small_to_mtp_projection`` are int8: an error in a logit affects
  the choice directly, an error in an input everything after it, and together they are 4 % of the bytes read per frame;
- the text embedding stays in the file, memory-mapped: only the rows of a prompt are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from qwen3tts_np_kernels.bfloat16 import widen_ref
from qwen3tts_np_kernels.pack import FORMATS
from qwen3tts_np_kernels.stack_jit import Affine, Stack
from qwen3tts_np_kernels.system import return_free_memory
from qwen3tts_np_kernels.transformer_jit import Transformer

from ...checkpoint.keys import Embedding, load
from ...checkpoint.safetensors import Checkpoint
from ...checkpoint.tensor import StoredTensor
from ...config import TalkerConfig
from ...errors import RequestError
from ...ops import Array, Ints
from ...talker.code_predictor import CodePredictorWeights, code_predictor_sizes
from ...talker.talker import TalkerWeights, talker_sizes
from .code_tables import CodeTables, code_tables
from .matrices import transformer
from .stacks import FLOAT32, affine, heads


class Talker(NamedTuple):
    """The talker's weights, for compiled functions."""

    layers: Transformer
    head: Stack
    vocabulary: int  # [V]
    eos: int


class Predictor(NamedTuple):
    """The code predictor's weights, for compiled functions."""

    layers: Transformer
    heads: Stack  # G - 1
    entries: int  # [C]
    projection: Affine  # small_to_mtp_projection
    projects: bool  # otherwise there is none


class Model(NamedTuple):
    """All weights that a frame reads."""

    talker: Talker
    predictor: Predictor
    tables: CodeTables


@dataclass(frozen=True)
class CompiledWeights:
    """The weights of talker and code predictor. Official: ``Qwen3TTSTalkerForConditionalGeneration``."""

    format: str
    model: Model
    text_projection: tuple[Affine, Affine]
    text_embedding: Embedding

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays, without the mapped text embedding."""
        return sum(array.nbytes for array in arrays_in((self.model, self.text_projection)))

    def code_embedding(self, group: int, codes: Ints) -> Array:
        """Rows of code table ``group`` in float32. codes [...] -> [..., H], zero-padded."""
        tables = self.model.tables
        wanted = tables.first[group] + codes
        if tables.wide.size:
            return tables.wide.reshape(-1, tables.width)[wanted]
        return widen_ref(tables.values.reshape(-1, tables.width)[wanted])


def pack_weights(checkpoint: Checkpoint, c: TalkerConfig, format_name: str) -> CompiledWeights:
    """Pack the talker and the code predictor of a checkpoint that has passed ``checkpoint.keys.check``.

    Raises RequestError unless ``format_name`` is one of ``pack.FORMATS``.
    """
    if format_name not in FORMATS:
        raise RequestError(f"format {format_name!r} is none of {', '.join(FORMATS)}")
    narrow = FORMATS[format_name]
    wide = FORMATS["int8"] if narrow.bits else narrow
    stored: Any = _AsStored(checkpoint)
    talker: TalkerWeights = load(TalkerWeights, stored, talker_sizes(c), "talker.", FLOAT32)
    predictor = load(CodePredictorWeights, stored, code_predictor_sizes(c), "talker.code_predictor.", FLOAT32)
    small, ready = c.code_predictor_config, checkpoint.arenas
    predictor_heads = [head.weight for head in predictor.lm_head]
    model = Model(
        Talker(
            transformer(talker, c, narrow, lambda name: ready.get(f"talker.{name}")),
            heads([talker.codec_head], c.vocab_size, c.hidden_size, wide, ready.get("talker.head")),
            c.vocab_size,
            c.codec_eos_token_id,
        ),
        Predictor(
            transformer(predictor, small, narrow, lambda name: ready.get(f"predictor.{name}")),
            heads(predictor_heads, small.vocab_size, small.hidden_size, wide, ready.get("predictor.heads")),
            small.vocab_size,
            affine(
                predictor.small_to_mtp_projection_weight,
                predictor.small_to_mtp_projection_bias,
                wide,
                ready.get("predictor.projection"),
            ),
            predictor.small_to_mtp_projection_weight is not None,
        ),
        code_tables(talker, predictor, format_name == "float32", ready.get("code_tables")),
    )
    text_projection = (
        affine(talker.text_projection_fc1, talker.text_projection_fc1_bias, wide, ready.get("text_projection.fc1")),
        affine(talker.text_projection_fc2, talker.text_projection_fc2_bias, wide, ready.get("text_projection.fc2")),
    )
    embedding = Embedding(checkpoint["talker.model.text_embedding.weight"], talker.text_embedding.dtype)
    return_free_memory()
    return CompiledWeights(format_name, model, text_projection, embedding)


class _Unread(NamedTuple):
    """A tensor that ``keys.load`` does not read."""

    tensor: StoredTensor

    def widen(self, dtype: np.dtype[Any]) -> StoredTensor:
        return self.tensor

    def rows(self, ids: Ints, dtype: np.dtype[Any]) -> Array:
        return self.tensor.rows(ids, dtype)


class _AsStored(Mapping[str, _Unread]):
    """A checkpoint from which ``keys.load`` reads nothing: its arrays are the tensors themselves."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint

    def __getitem__(self, name: str) -> _Unread:
        return _Unread(self._checkpoint[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._checkpoint)

    def __len__(self) -> int:
        return len(self._checkpoint)


def arrays_in(value: Any) -> Iterator[NDArray[Any]]:
    """All arrays in nested tuples."""
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from arrays_in(part)
