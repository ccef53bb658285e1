"""Talker and code predictor in the form the compiled kernels read: packed once, when a checkpoint is loaded.

float32 and bfloat16 keep every weight of a released checkpoint exactly. int8 and int4 approximate the matrices; what
stays wider there, and why:

- norms are float32 everywhere: they are few, and they scale everything;
- the tables of code embeddings are bfloat16, as stored: only G rows are read a frame;
- with int4 the output heads, ``text_projection`` and ``small_to_mtp_projection`` are int8: an error in a logit goes
  straight into the choice, an error in an input into all that follows, and together they are 4 % of what a frame reads;
- the text embedding stays in the file, memory-mapped: only the rows of a prompt are ever read.

Matrices are packed one by one and their pages of the file given back, so loading needs little more memory than the
packed weights. A checkpoint that is quantised already keeps its levels, where the format asked for has room for them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from qwen3tts_np_kernels import decode_jit as kernels
from qwen3tts_np_kernels.bfloat16 import round_ref, widen_ref
from qwen3tts_np_kernels.pack import BLOCK, FORMATS, Format, empty, pack, pack_levels
from qwen3tts_np_kernels.stack_jit import Stack, new_stack
from qwen3tts_np_kernels.system import return_free_memory
from qwen3tts_np_kernels.transformer_jit import STEP, Sizes, Transformer

from ...checkpoint.keys import Embedding, load
from ...checkpoint.quantised import QuantisedTensor
from ...checkpoint.safetensors import Checkpoint
from ...checkpoint.tensor import StoredTensor
from ...config import CodePredictorConfig, TalkerConfig
from ...errors import RequestError
from ...ops import Array, Ints
from ...talker.code_predictor import CodePredictorWeights, code_predictor_sizes
from ...talker.layer import Qwen3Layer
from ...talker.talker import TalkerWeights, talker_sizes

_FLOAT32 = np.dtype(np.float32)

Rows = NDArray[Any]  # [rows, ...]
Matrix = tuple[Rows, ...]  # weights [rows, inputs] as stored; or levels [rows, inputs] and scales [rows, groups]


@dataclass(frozen=True)
class CompiledWeights:
    """Everything that writes codes, packed. Official: ``Qwen3TTSTalkerForConditionalGeneration``."""

    format: str
    model: kernels.Model
    text_projection: tuple[kernels.Affine, kernels.Affine]
    text_embedding: Embedding

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays, the mapped text embedding not counted."""
        return sum(array.nbytes for array in _arrays((self.model, self.text_projection)))

    def code_embedding(self, group: int, codes: Ints) -> Array:
        """Rows of code table ``group`` in float32. codes [...] -> [..., H], filled up to whole vectors."""
        tables = self.model.tables
        rows = tables.values.reshape(-1, tables.width)[tables.first[group] + codes]
        return widen_ref(rows) if rows.dtype == np.uint16 else rows


def pack_weights(checkpoint: Checkpoint, c: TalkerConfig, format_name: str) -> CompiledWeights:
    """Pack the talker and the code predictor of a checkpoint that has passed ``checkpoint.keys.check``.

    RequestError unless ``format_name`` is one of ``pack.FORMATS``.
    """
    if format_name not in FORMATS:
        raise RequestError(f"format {format_name!r} is none of {', '.join(FORMATS)}")
    narrow = FORMATS[format_name]
    wide = FORMATS["int8"] if narrow.bits else narrow
    stored: Any = _AsStored(checkpoint)
    talker: TalkerWeights = load(TalkerWeights, stored, talker_sizes(c), "talker.", _FLOAT32)
    predictor = load(CodePredictorWeights, stored, code_predictor_sizes(c), "talker.code_predictor.", _FLOAT32)
    small = c.code_predictor_config
    model = kernels.Model(
        kernels.Talker(
            _transformer(talker, c, narrow),
            _heads([talker.codec_head], c.vocab_size, c.hidden_size, wide),
            c.vocab_size,
            c.codec_eos_token_id,
        ),
        kernels.Predictor(
            _transformer(predictor, small, narrow),
            _heads([head.weight for head in predictor.lm_head], small.vocab_size, small.hidden_size, wide),
            small.vocab_size,
            _affine(predictor.small_to_mtp_projection_weight, predictor.small_to_mtp_projection_bias, wide),
            predictor.small_to_mtp_projection_weight is not None,
        ),
        _code_tables(talker, predictor, keep_wide=format_name == "float32"),
    )
    text_projection = (
        _affine(talker.text_projection_fc1, talker.text_projection_fc1_bias, wide),
        _affine(talker.text_projection_fc2, talker.text_projection_fc2_bias, wide),
    )
    embedding = Embedding(checkpoint["talker.model.text_embedding.weight"], talker.text_embedding.dtype)
    return_free_memory()
    return CompiledWeights(format_name, model, text_projection, embedding)


class _Unread(NamedTuple):
    """A tensor that ``keys.load`` leaves in its file."""

    tensor: StoredTensor

    def widen(self, dtype: np.dtype[Any]) -> StoredTensor:
        return self.tensor

    def rows(self, ids: Ints, dtype: np.dtype[Any]) -> Array:
        return self.tensor.rows(ids, dtype)


class _AsStored(Mapping[str, _Unread]):
    """A checkpoint of which ``keys.load`` reads nothing: its arrays are the tensors themselves."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint

    def __getitem__(self, name: str) -> _Unread:
        return _Unread(self._checkpoint[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._checkpoint)

    def __len__(self) -> int:
        return len(self._checkpoint)


# ---- what lies where: see transformer_jit.py ----


def _transformer(
    w: TalkerWeights | CodePredictorWeights, c: TalkerConfig | CodePredictorConfig, form: Format
) -> Transformer:
    sizes = Sizes(
        layers=c.num_hidden_layers,
        width=_padded(c.hidden_size),
        hidden_size=c.hidden_size,
        feed_forward=_padded(c.intermediate_size),
        heads=c.num_attention_heads,
        kv_heads=c.num_key_value_heads,
        half=_padded(c.head_dim) // 2,
        head_dim=c.head_dim,
        eps=c.rms_norm_eps,
    )
    head, layers = 2 * sizes.half, w.layers
    heads = sizes.heads + 2 * sizes.kv_heads  # of queries, keys and values
    return Transformer(
        sizes,
        qkv=_stack([partial(_qkv, w, sizes, form) for w in layers], heads * head, sizes.width, form),
        o_proj=_stack([partial(_o_proj, w, sizes, form) for w in layers], sizes.width, sizes.heads * head, form),
        gate_up=_stack([partial(_gate_up, w, sizes, form) for w in layers], 2 * sizes.feed_forward, sizes.width, form),
        down_proj=_stack(
            [partial(_take, w.mlp.down_proj, form) for w in layers], sizes.width, sizes.feed_forward, form
        ),
        input_norm=_vectors([w.input_layernorm for w in layers]),
        post_norm=_vectors([w.post_attention_layernorm for w in layers]),
        q_norm=_vectors([w.self_attn.q_norm for w in layers], halves=2),
        k_norm=_vectors([w.self_attn.k_norm for w in layers], halves=2),
        norm=_vectors([w.norm])[0],
    )


def _qkv(w: Qwen3Layer, sizes: Sizes, form: Format) -> Matrix:
    """Rows by key/value head: its queries, its key, its value. [K * (queries + 2) * head, H]"""

    def arrange(q: Rows, k: Rows, v: Rows) -> Rows:
        q, k, v = (_split_heads(rows, sizes) for rows in (q, k, v))  # [N or K, head, ...]
        queries = q.reshape(sizes.kv_heads, -1, *q.shape[1:])  # [K, queries, head, ...]
        return np.concatenate([queries, k[:, None], v[:, None]], axis=1).reshape(-1, q.shape[2])

    return _together(arrange, [w.self_attn.q_proj, w.self_attn.k_proj, w.self_attn.v_proj], form)


def _split_heads(rows: Rows, sizes: Sizes) -> Rows:
    """[N * D, ...] -> [N, head, ...]: each half of a head filled up with rows of zeros."""
    halves = rows.reshape(-1, 2, sizes.head_dim // 2, rows.shape[1])
    return _fill(halves, {2: sizes.half}).reshape(-1, 2 * sizes.half, rows.shape[1])


def _o_proj(w: Qwen3Layer, sizes: Sizes, form: Format) -> Matrix:
    """[H, N * head]: the inputs in the order of the padded heads."""
    if 2 * sizes.half == sizes.head_dim:
        return _take(w.self_attn.o_proj, form)
    (matrix,) = _take(w.self_attn.o_proj, None)  # [H, N * D]
    halves = matrix.reshape(len(matrix), -1, sizes.head_dim // 2)
    return (_fill(halves, {2: sizes.half}).reshape(len(matrix), -1),)


def _gate_up(w: Qwen3Layer, sizes: Sizes, form: Format) -> Matrix:
    """[2 F, H]: 16 rows of gate, the same 16 of up, the next of gate ..."""

    def arrange(gate: Rows, up: Rows) -> Rows:
        blocks = [_fill(rows, {0: sizes.feed_forward}).reshape(-1, 1, BLOCK, rows.shape[1]) for rows in (gate, up)]
        return np.concatenate(blocks, axis=1).reshape(-1, gate.shape[1])

    return _together(arrange, [w.mlp.gate_proj, w.mlp.up_proj], form)


def _together(arrange: Callable[..., Rows], tensors: Sequence[Any], form: Format) -> Matrix:
    """Join the rows of several matrices: weights with weights, or levels with levels and scales with scales."""
    matrices = [_take(tensor, form) for tensor in tensors]
    if len({len(matrix) for matrix in matrices}) > 1:  # only some of them are quantised as they should be
        matrices = [_take(tensor, None) for tensor in tensors]
    return tuple(arrange(*parts) for parts in zip(*matrices, strict=True))


def _heads(tensors: Sequence[Any], rows: int, inputs: int, form: Format) -> Stack:
    return _stack([partial(_take, tensor, form) for tensor in tensors], rows, _padded(inputs), form)


def _affine(weight: Any, bias: Any, form: Format) -> kernels.Affine:
    """A linear layer; where the checkpoint has none, one without rows, for its type."""
    if weight is None:
        return kernels.Affine(_stack([], 0, STEP, form), np.zeros(0, np.float32))
    rows, inputs = map(_padded, weight.shape)
    return kernels.Affine(_stack([partial(_take, weight, form)], rows, inputs, form), _vectors([bias])[0])


def _code_tables(talker: TalkerWeights, predictor: CodePredictorWeights, keep_wide: bool) -> kernels.CodeTables:
    """All tables in one. bfloat16, but for a checkpoint that stores them wider if ``keep_wide``."""
    embeddings: list[Any] = [talker.codec_embedding, *(part.weight for part in predictor.codec_embedding)]
    tensors: list[StoredTensor] = [embedding.tensor.tensor for embedding in embeddings]
    wide = keep_wide and any(tensor.dtype != "BF16" for tensor in tensors)
    lengths = [tensor.shape[0] for tensor in tensors]
    width = _padded(tensors[0].shape[1])
    values = np.zeros((sum(lengths), width), np.float32 if wide else np.uint16)
    first = np.cumsum([0, *lengths[:-1]])
    for tensor, at in zip(tensors, first, strict=True):
        rows = values[at : at + tensor.shape[0], : tensor.shape[1]]
        if tensor.dtype == "BF16" and not wide:
            rows[:] = tensor.data
        else:
            rows[:] = tensor.widen(_FLOAT32) if wide else round_ref(tensor.widen(_FLOAT32))
        tensor.release()
    return kernels.CodeTables(values.reshape(-1), first, width)


# ---- arrays ----


def _stack(matrices: Sequence[Callable[[], Matrix]], rows: int, inputs: int, form: Format) -> Stack:
    """Pack matrices, each filled up with zeros to [rows, inputs], one behind the other."""
    size = form.count(rows, inputs)
    arena = empty(form.name, len(matrices) * size)

    def fill_in(i: int) -> None:
        place, matrix = arena.part(i * size, size), matrices[i]()
        if len(matrix) == 1:
            pack(_fill(matrix[0], {0: rows, 1: inputs}), form.name, place)
        else:
            levels, scales = (_fill(part, {0: rows}) for part in matrix)
            packed = pack_levels(levels, scales, form.name)
            place.values[:], place.scales[:] = packed.values, packed.scales

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # NumPy works outside the GIL
        list(pool.map(fill_in, range(len(matrices))))
    return new_stack(arena, size, inputs)


def _take(tensor: Any, form: Format | None) -> Matrix:
    """A matrix out of its file, whose pages go back to the system.

    Levels and scales, if it is quantised and ``form`` has room for its levels; otherwise its weights.
    """
    matrix: Matrix
    if not isinstance(tensor, QuantisedTensor):
        matrix = (tensor.data.copy(),)
    elif form is not None and tensor.bits <= (form.bits or 0) and tensor.shape[1] % STEP == 0:
        matrix = (tensor.levels(), tensor.scales.copy())
    else:
        matrix = (tensor.widen(_FLOAT32),)
    tensor.release()
    return matrix


def _vectors(tensors: Sequence[Any], halves: int = 1) -> NDArray[np.float32]:
    """Vectors as float32 [n, size], each half (or whole) of them filled up."""
    parts = np.stack([tensor.widen(_FLOAT32).reshape(halves, -1) for tensor in tensors])  # [n, halves, values]
    return _fill(parts, {2: _padded(halves * parts.shape[2]) // halves}).reshape(len(tensors), -1)


def _padded(count: int) -> int:
    return -(-count // STEP) * STEP


def _fill(array: NDArray[Any], sizes: Mapping[int, int]) -> NDArray[Any]:
    """Zeros behind the end of some axes. sizes: axis -> size."""
    return np.pad(array, [(0, sizes.get(axis, size) - size) for axis, size in enumerate(array.shape)])


def _arrays(value: Any) -> Iterator[NDArray[Any]]:
    """All arrays in nested tuples."""
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from _arrays(part)
