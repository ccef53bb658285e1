"""Writes the low-rank additions that training has made, in PEFT's files (see ``checkpoint/adapter.py``)."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint.adapter import CODEC_EMBEDDING, CONFIG, PREFIX, ROWS, SPEAKERS, WEIGHTS, A, Adapter, B
from ..checkpoint.keys import TensorSpec
from ..checkpoint.writer import write_safetensors
from ..files.output import write_text
from ..ops import Array

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Of every layer of talker and code predictor."""
LAYERS_OF = ("talker.model.layers.", "talker.code_predictor.model.layers.")


def adapted_modules(names: Iterable[str]) -> list[str]:
    """The modules that get additions: every projection of every layer. ``names``: those of the checkpoint."""
    found = [name.removesuffix(".weight") for name in names if name.startswith(LAYERS_OF)]
    return sorted(module for module in found if module.endswith(PROJECTIONS))


def new_addition(module: str, shape: tuple[int, ...], rank: int, seed: int) -> tuple[Array, Array]:
    """A [r, in], uniform within 1 / sqrt(in), and B [out, r] of zeros, so that nothing is added yet; as PEFT."""
    draw = np.random.default_rng([seed, zlib.crc32(module.encode())])
    most = 1 / math.sqrt(shape[1])
    return draw.uniform(-most, most, (rank, shape[1])).astype(np.float32), np.zeros((shape[0], rank), np.float32)


def write_adapter(folder: Path, adapter: Adapter, base: str, width: int) -> None:
    """Fill ``folder``, which exists: three files. ``base``: the model it belongs to; ``width``: of a voice's row."""
    rows = sorted(adapter.rows)
    arrays: dict[str, Array] = {}
    for module, (a, b) in adapter.additions.items():
        arrays[f"{PREFIX}{module}{A}"], arrays[f"{PREFIX}{module}{B}"] = a, b
    if rows:
        arrays[f"{PREFIX}{CODEC_EMBEDDING}{ROWS}"] = np.stack([adapter.rows[i] for i in rows])
    write_json(folder / CONFIG, _config(adapter, rows, base))
    write_json(folder / SPEAKERS, speaker_config(adapter.speakers, width))
    write_arrays(folder / WEIGHTS, arrays, {"format": "pt"})  # without which PEFT's reader refuses the file


def _config(adapter: Adapter, rows: list[int], base: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "peft_type": "LORA",
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "lora_alpha": adapter.alpha,
        "lora_dropout": 0.0,
        "r": adapter.rank,
        "target_modules": sorted(adapter.additions),
        "task_type": None,
    }
    return found | ({"trainable_token_indices": {CODEC_EMBEDDING: rows}} if rows else {})


def speaker_config(speakers: Mapping[str, int], width: int) -> dict[str, Any]:
    """``speaker_config.json``: the voices that were learned, and the width of their rows."""
    first = next(iter(speakers), None)
    return {
        "model_type": "qwen3_tts_speaker_encoder",
        "speaker_name": first,
        "speaker_embedding_dim": width,
        "speakers": dict(speakers),
    }


def write_arrays(path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> None:
    """float32 arrays by name, as a safetensors file."""
    table = [TensorSpec(name, values.shape, "", "F32") for name, values in arrays.items()]
    write_safetensors(path, table, lambda spec: [np.asarray(arrays[spec.key], "<f4")], metadata)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(content, ensure_ascii=False, indent=2) + "\n")
