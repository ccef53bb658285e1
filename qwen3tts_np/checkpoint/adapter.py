"""Low-rank additions to a checkpoint (LoRA; Hu et al., 2021), in the files of the PEFT library.

    adapter_config.json         rank r, lora_alpha, the modules that have additions
    adapter_model.safetensors   base_model.model.NAME.lora_A.weight [r, in] and .lora_B.weight [out, r], float32
    speaker_config.json         the voices that were learned with them: name -> row; PEFT does not read it

golden/record_peft.py has PEFT read what is written here, and write what is read here.

A matrix with an addition is W + alpha / r * B A. It is added in float32 and rounded once, to the type in which W is
stored, by one function: what a model speaks with an adapter is what it speaks when the adapter is merged.

Rows of voices are kept as PEFT keeps trainable tokens: ``NAME.token_adapter.trainable_tokens_delta`` [rows, width],
which are the rows themselves, and their numbers in ``trainable_token_indices``.

Trap: for these PEFT asks the model for its table, by a method that the official class lacks:
``model.get_input_embeddings = model.talker.get_input_embeddings`` before ``PeftModel.from_pretrained(model, FOLDER)``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from qwen3tts_np_kernels.bfloat16 import round_ref

from ..errors import CheckpointError, MissingFileError, RequestError
from ..files.name import shown_name
from ..ops import Array
from ..shown import shortened
from .json_file import read_json
from .safetensors import Checkpoint, map_file
from .tensor import StoredTensor

CONFIG, WEIGHTS, SPEAKERS = "adapter_config.json", "adapter_model.safetensors", "speaker_config.json"
PREFIX = "base_model.model."
A, B = ".lora_A.weight", ".lora_B.weight"
ROWS = ".token_adapter.trainable_tokens_delta"
CODEC_EMBEDDING = "talker.model.codec_embedding"
_FLOATS = ("F32", "BF16", "F16")
_NOT_HERE = (
    "use_dora",
    "use_rslora",
    "use_qalora",
    "use_bdlora",
    "lora_bias",
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "layer_replication",
    "target_parameters",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "velora_config",
)
_INITS = (None, True, False, "gaussian", "eva", "orthogonal")  # others change the weights that are added to


@dataclass(frozen=True)
class Adapter:
    """The additions of one adapter, float32."""

    additions: Mapping[str, tuple[Array, Array]]  # module -> A [r, in], B [out, r]
    rank: int
    alpha: float
    rows: Mapping[int, Array] = field(default_factory=dict)  # of the code embedding: row -> [H]
    speakers: Mapping[str, int] = field(default_factory=dict)  # name -> its row

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    @property
    def only_weights(self) -> Adapter:
        """The same without its voices: what a base model clones with."""
        return replace(self, rows={}, speakers={})

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Adapter:
        """Read an adapter's folder. CheckpointError, or RequestError, for what is not one of linear layers."""
        folder = Path(path)
        if not os.path.isfile(folder / CONFIG):  # trap: Path.is_file raises where the name is too long
            raise MissingFileError(f"{shown_name(folder)} holds no {CONFIG}; an adapter is a folder with one")
        config = read_json(folder / CONFIG)
        if config.get("peft_type") != "LORA":
            raise CheckpointError(
                f"{folder / CONFIG}: peft_type is {shortened(config.get('peft_type'))}; LORA is read here"
            )
        if asked := next((name for name in _NOT_HERE if config.get(name)), None):
            raise CheckpointError(
                f"{folder / CONFIG}: {asked} is {shortened(config[asked])}, which is not implemented here"
            )
        if (init := config.get("init_lora_weights")) not in _INITS:
            raise CheckpointError(
                f"{folder / CONFIG}: init_lora_weights is {shortened(init)}, which changes the model's own weights; "
                "save it with PEFT's path_initial_model_for_weight_conversion"
            )
        rank, alpha = config.get("r"), config.get("lora_alpha")
        if type(rank) is not int or not 1 <= rank < 2**31 or type(alpha) not in (int, float) or not 0 < alpha < 1e6:  # type: ignore[operator]
            raise CheckpointError(
                f"{folder / CONFIG}: r is {shortened(rank)} and lora_alpha {shortened(alpha)}, expected two numbers"
            )
        tensors, _ = map_file(folder / WEIGHTS)
        if not tensors:  # PEFT writes such files where it did not find the trained weights
            raise CheckpointError(
                f"{shown_name(folder / WEIGHTS)} holds no addition; train the adapter, or save it, anew"
            )
        return cls(
            _additions(tensors, rank, folder / WEIGHTS),
            rank,
            float(alpha),  # type: ignore[arg-type]
            _rows(tensors, config, folder / WEIGHTS),
            _speakers(folder / SPEAKERS),
        )

    def merged(self, checkpoint: Checkpoint) -> Checkpoint:
        """``checkpoint`` with the additions in its matrices, made now. CheckpointError where they do not fit.

        RequestError for a checkpoint that is quantised: what it has lost would be lost in the sum as well.
        """
        return Checkpoint(checkpoint.path, {**checkpoint, **self._changed(checkpoint)}, checkpoint.metadata)

    def _changed(self, checkpoint: Checkpoint) -> dict[str, StoredTensor]:
        found = {}
        for module, (a, b) in self.additions.items():
            stored = _matrix(checkpoint, f"{module}.weight", (len(b), a.shape[1]))
            found[stored.name] = added(stored, a, b, self.scale)
        if self.rows:
            width = len(next(iter(self.rows.values())))
            stored = _matrix(checkpoint, f"{CODEC_EMBEDDING}.weight", (None, width))
            found[stored.name] = with_rows(stored, self.rows)
        return found

    def config(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """``config.json`` of the model with the adapter: one with voices is a custom-voice model."""
        return with_speakers(raw, self.speakers) if self.speakers else dict(raw)


def added(stored: StoredTensor, a: Array, b: Array, scale: float) -> StoredTensor:
    """W + scale * B A, in float32, rounded to the type of ``stored``. a [r, in], b [out, r]."""
    sum_ = stored.widen(np.dtype(np.float32)) + np.float32(scale) * (b @ a)
    return as_stored(stored.name, sum_, stored.dtype)


def with_rows(stored: StoredTensor, rows: Mapping[int, Array]) -> StoredTensor:
    """A table with some rows replaced. CheckpointError for a row that it does not have."""
    data = stored.data.copy()
    for i, row in rows.items():
        if not 0 <= i < len(data):
            raise CheckpointError(f"row {i} is outside of {stored.name}, which has {len(data)}")
        data[i] = as_stored(stored.name, row, stored.dtype).data
    return StoredTensor(stored.name, stored.dtype, data)


def as_stored(name: str, values: Array, dtype: str) -> StoredTensor:
    """Values rounded to ``dtype``: BF16, F16 or F32."""
    if dtype == "BF16":
        return StoredTensor(name, dtype, round_ref(values))
    return StoredTensor(name, dtype, values.astype("<f2" if dtype == "F16" else "<f4"))


def with_speakers(raw: Mapping[str, Any], speakers: Mapping[str, int]) -> dict[str, Any]:
    """``config.json`` of a custom-voice model that has these voices besides its own; names in lower case."""
    talker = dict(raw["talker_config"])
    named = {name.lower(): row for name, row in speakers.items()}
    talker["spk_id"] = {**(talker.get("spk_id") or {}), **named}
    talker["spk_is_dialect"] = {**(talker.get("spk_is_dialect") or {}), **dict.fromkeys(named, False)}
    return {**raw, "tts_model_type": "custom_voice", "talker_config": talker}


def _additions(tensors: Mapping[str, StoredTensor], rank: int, path: Path) -> dict[str, tuple[Array, Array]]:
    found = {}
    for name, first in tensors.items():
        if name.startswith(PREFIX) and name.endswith(A):
            module = name.removeprefix(PREFIX).removesuffix(A)
            second = tensors.get(f"{PREFIX}{module}{B}")
            if second is None:
                raise CheckpointError(f"{path}: {module} has a lora_A and no lora_B")
            shapes = first.shape, second.shape
            fits = len(shapes[0]) == len(shapes[1]) == 2 and shapes[0][0] == shapes[1][1] == rank
            if not fits or first.dtype not in _FLOATS or second.dtype not in _FLOATS:
                shown = f"A {list(shapes[0])} and B {list(shapes[1])}"
                raise CheckpointError(f"{path}: {module}: {shown} are not of rank {rank}")
            found[module] = _values(first), _values(second)
        elif not _belongs(name, tensors):
            raise CheckpointError(f"{path}: {name} is no part of a low-rank addition")
    return found


def _belongs(name: str, tensors: Mapping[str, StoredTensor]) -> bool:
    """Whether a tensor is the second half of an addition, or the rows that are read here."""
    return f"{name.removesuffix(B)}{A}" in tensors if name.endswith(B) else name == f"{PREFIX}{CODEC_EMBEDDING}{ROWS}"


def _values(tensor: StoredTensor) -> Array:
    if not tensor.is_finite():
        raise CheckpointError(f"{tensor.name} holds values that are not finite")
    return tensor.widen(np.dtype(np.float32))


def _rows(tensors: Mapping[str, StoredTensor], config: Mapping[str, Any], path: Path) -> dict[int, Array]:
    stored = tensors.get(f"{PREFIX}{CODEC_EMBEDDING}{ROWS}")
    if stored is None:
        return {}
    stated = config.get("trainable_token_indices")
    ids = stated.get(CODEC_EMBEDDING) if isinstance(stated, dict) else None
    if not isinstance(ids, list) or not all(type(i) is int for i in ids) or not _is_table(stored, len(ids)):
        raise CheckpointError(f"{path}: its rows of {CODEC_EMBEDDING} are not those of trainable_token_indices")
    return dict(zip(ids, _values(stored), strict=True))


def _is_table(tensor: StoredTensor, rows: int) -> bool:
    return len(tensor.shape) == 2 and len(tensor.data) == rows and tensor.dtype in _FLOATS


def _speakers(path: Path) -> dict[str, int]:
    speakers = read_json(path).get("speakers", {}) if path.is_file() else {}
    if not isinstance(speakers, dict) or not all(type(row) is int for row in speakers.values()):
        raise CheckpointError(f"{path}: speakers must be an object of names and rows")
    return speakers


def _matrix(checkpoint: Checkpoint, name: str, shape: tuple[int | None, int]) -> StoredTensor:
    """A matrix of the checkpoint that has the shape of its addition, and is not quantised."""
    stored = checkpoint.get(name)
    if stored is None:
        raise CheckpointError(f"the adapter adds to {name}, which {shown_name(checkpoint.path)} does not have")
    if stored.dtype not in _FLOATS:
        raise RequestError(f"{shown_name(checkpoint.path)} is quantised; an adapter needs the model it was trained on")
    if len(stored.shape) != 2 or stored.shape[1] != shape[1] or shape[0] not in (None, stored.shape[0]):
        raise CheckpointError(f"the adapter's addition to {name} is {list(shape)}, the model's is {list(stored.shape)}")
    return stored
