"""Which matrices of talker and code predictor go where in the arenas of a packed checkpoint, and how they are made.

The orders are those of ``compiled/talker/matrices.py``, for heads that fill whole vectors: of a key/value head its
queries, its key and its value; 16 rows of gate, the same 16 of up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from qwen3tts_np_kernels.pack import BLOCK, GROUP, Packed, pack_levels
from qwen3tts_np_kernels.system import in_threads

from ..checkpoint.keys import TensorSpec
from ..checkpoint.packed import CODE_TABLES, PREFIX, SCALES, Arena, Part
from ..checkpoint.quantised import levels_of
from ..checkpoint.tensor import StoredTensor
from ..config import CodePredictorConfig, TalkerConfig

_PREDICTOR = "talker.code_predictor."


def arenas_of(c: TalkerConfig, model_format: str) -> list[Arena]:
    """The arenas of a model in ``model_format``; none where kernels compute in another, or heads have odd sizes."""
    small = c.code_predictor_config
    if model_format not in ("int8", "int4") or c.head_dim % GROUP or small.head_dim % GROUP:
        return []
    width, text = c.hidden_size, c.text_hidden_size
    found = [
        *_layers("talker", "talker.", c, model_format),
        _arena("talker.head", "int8", 1, [("talker.codec_head.weight", c.vocab_size, width)], c.vocab_size),
        *_layers("predictor", _PREDICTOR, small, model_format),
        _arena(
            "predictor.heads",
            "int8",
            c.num_code_groups - 1,
            [(f"{_PREDICTOR}lm_head.{{}}.weight", small.vocab_size, small.hidden_size)],
            small.vocab_size,
        ),
        Arena("text_projection.fc1", "int8", 1, _padded(text), _padded(text)),
        Arena("text_projection.fc2", "int8", 1, _padded(width), _padded(text)),
    ]
    if small.hidden_size != width:
        found.append(Arena("predictor.projection", "int8", 1, _padded(small.hidden_size), _padded(width)))
    return found


TWINS = {
    "text_projection.fc1": "talker.text_projection.linear_fc1.weight",
    "text_projection.fc2": "talker.text_projection.linear_fc2.weight",
    "predictor.projection": f"{_PREDICTOR}small_to_mtp_projection.weight",
}
"""Arenas that hold an official tensor once more, in int8 as kernels read it: the tensor itself stays as it is."""


def code_tables_of(c: TalkerConfig, tensors: Mapping[str, StoredTensor]) -> dict[str, int]:
    """Rows of the code tables that can be one below the other in the file; none where they are not bfloat16."""
    names = ["talker.model.codec_embedding.weight"]
    names += [f"{_PREDICTOR}model.codec_embedding.{i}.weight" for i in range(c.num_code_groups - 1)]
    if c.hidden_size % GROUP or any(tensors[name].dtype != "BF16" for name in names):
        return {}
    return {name: tensors[name].shape[0] for name in names}


def _layers(name: str, prefix: str, c: TalkerConfig | CodePredictorConfig, form: str) -> Iterator[Arena]:
    layer, head, width = f"{prefix}model.layers.{{}}.", c.head_dim, c.hidden_size
    heads, kv_heads = c.num_attention_heads, c.num_key_value_heads
    queries, together = heads // kv_heads * head, (heads // kv_heads + 2) * head
    qkv = [
        Part(f"{layer}self_attn.q_proj.weight", heads * head, width, 0, queries, together),
        Part(f"{layer}self_attn.k_proj.weight", kv_heads * head, width, queries, head, together),
        Part(f"{layer}self_attn.v_proj.weight", kv_heads * head, width, queries + head, head, together),
    ]
    gate_up = [
        Part(f"{layer}mlp.{which}_proj.weight", c.intermediate_size, width, first, BLOCK, 2 * BLOCK)
        for which, first in (("gate", 0), ("up", BLOCK))
    ]
    n, inside = c.num_hidden_layers, _padded(width)
    yield Arena(f"{name}.qkv", form, n, kv_heads * together, inside, tuple(qkv))
    yield _arena(f"{name}.o_proj", form, n, [(f"{layer}self_attn.o_proj.weight", width, heads * head)], inside)
    yield Arena(f"{name}.gate_up", form, n, 2 * _padded(c.intermediate_size), inside, tuple(gate_up))
    yield _arena(f"{name}.down_proj", form, n, [(f"{layer}mlp.down_proj.weight", width, c.intermediate_size)], inside)


def _arena(name: str, form: str, matrices: int, plain: list[tuple[str, int, int]], rows: int) -> Arena:
    """One official matrix each, its rows in their order."""
    ((key, official, inputs),) = plain
    return Arena(name, form, matrices, rows, _padded(inputs), (Part(key, official, inputs, 0, official, official),))


def _padded(count: int) -> int:
    return -(-count // GROUP) * GROUP


def stored_specs(arenas: list[Arena], tables: Mapping[str, int], width: int) -> Iterator[TensorSpec]:
    """The tensors of the file that hold arenas and code tables."""
    for arena in arenas:
        yield TensorSpec(f"{PREFIX}{arena.name}", (arena.nbytes,), "", "U8")
        yield TensorSpec(f"{PREFIX}{arena.name}{SCALES}", (arena.scales,), "", "U16")
    if tables:
        yield TensorSpec(CODE_TABLES, (sum(tables.values()), width), "", "BF16")


def pack_arena(arena: Arena, tensors: Mapping[str, StoredTensor]) -> Iterator[Packed]:
    """The matrices of an arena, one after the other."""

    def matrix(i: int) -> Packed:
        levels = np.zeros((arena.rows, arena.inputs), np.int8)
        scales = np.zeros((arena.rows, arena.inputs // GROUP), np.float16)
        for part in arena.parts or (_twin(arena, tensors),):
            order = part.order()
            small, steps = levels_of(tensors[part.key.format(i)], arena.form.bits or 0)
            levels[order, : part.inputs], scales[order] = small, steps
        return pack_levels(levels, scales, arena.form.name)

    yield from in_threads(matrix, range(arena.matrices))  # NumPy works outside the GIL


def _twin(arena: Arena, tensors: Mapping[str, StoredTensor]) -> Part:
    rows, inputs = tensors[TWINS[arena.name]].shape
    return Part(TWINS[arena.name], rows, inputs, 0, rows, rows)
