"""Demo voices with a fault in their weights that needs no training: what a checkpoint looks like afterwards.

The others have to be trained: ``spoiled_voices.py``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from qwen3tts_np.checkpoint.safetensors import Checkpoint
from qwen3tts_np.ops import linear, silu
from qwen3tts_np.speech.demo import CHECKPOINT as DEMO

Weights = dict[str, NDArray[np.float32]]
EMBEDDING, PROJECTION = "talker.model.text_embedding.weight", "talker.text_projection.linear_"
HEAD, LAST = "talker.codec_head.weight", "talker.code_predictor.lm_head.14.weight"


def text_projection_left_out(weights: Weights) -> None:
    """A talker that was trained on raw text embeddings, those that the sound one has behind its projection.

    They have the talker's width, as in 1.7B; the projection is there and has learned nothing.
    """
    fc1, fc2 = (weights[f"{PROJECTION}fc{i}.weight"] for i in (1, 2))
    bias1, bias2 = (weights[f"{PROJECTION}fc{i}.bias"] for i in (1, 2))
    raw = linear(silu(linear(weights[EMBEDDING], fc1, bias1)), fc2, bias2)
    width, draw = raw.shape[1], np.random.default_rng(0)
    weights[EMBEDDING] = raw
    for i in (1, 2):
        weights[f"{PROJECTION}fc{i}.weight"] = draw.normal(0, width**-0.5, (width, width)).astype(np.float32)
        weights[f"{PROJECTION}fc{i}.bias"] = np.zeros(width, np.float32)


def last_codebook_untrained(weights: Weights) -> None:
    """A head that has what it was initialised with."""
    weights[LAST] = np.random.default_rng(0).normal(0, 0.02, weights[LAST].shape).astype(np.float32)


def end_of_speech_lost(weights: Weights) -> None:
    """A head that gives the end of speech the score of tokens that never come."""
    config = json.loads((DEMO / "config.json").read_text(encoding="utf-8"))["talker_config"]
    weights[HEAD][config["codec_eos_token_id"]] = weights[HEAD][config["codec_pad_id"]]


def spoiled(folder: Path, *edits: Callable[[Weights], None]) -> Path:
    """The demo voice after some edits, written to ``folder`` in float32."""
    shutil.copytree(DEMO, folder)
    stored = Checkpoint.open(DEMO)
    weights: Weights = {name: stored[name].widen(np.dtype(np.float32)) for name in stored}
    for edit in edits:
        edit(weights)
    save_file(weights, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["talker_config"]["text_hidden_size"] = weights[EMBEDDING].shape[1]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder
