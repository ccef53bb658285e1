"""Models that count, made by hand: every training fault of an alignment as weights that have exactly that fault.

Speech counts up and ends: code 0 of a frame is one more than in the frame before, the last is ``CODES`` - 1. So what a
network predicts is a matter of which row of its head answers to which code, and a training that was off by one place is
a head that is off by one. All layers add nothing, but for one of the code predictor where it has to look at its state.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from qwen3tts_np.checkpoint.safetensors import Checkpoint
from qwen3tts_np.talker.loss import NEXT

CODES = 20  # that are used
VARIANTS = 10  # of the codes 1 to 15, where they do not follow from code 0
GROUPS, SHARP = 16, 2.0
Array = NDArray[np.float32]


@dataclass(frozen=True)
class Counting:
    """Labels that the heads were trained with, and whether the predictor reads codes 1 to 15 out of its state."""

    talker: int = NEXT
    predictor: int = NEXT
    reads_state: bool = False

    def codes(self, first: int, seed: int) -> list[list[int]]:
        """Speech that counts from ``first`` on."""
        variants = np.random.default_rng(seed).integers(0, VARIANTS, CODES).tolist()
        if self.reads_state:
            return [[k, *[variants[k]] * (GROUPS - 1)] for k in range(first, CODES)]
        return [_frame(k) for k in range(first, CODES)]

    def write(self, tiny: Path, folder: Path) -> Path:
        """The checkpoint. ``tiny``: a synthetic one, whose talker and code predictor have one width."""
        shutil.copytree(tiny, folder)
        stored = Checkpoint.open(tiny)
        w = {name: stored[name].widen(np.dtype(np.float32)) for name in stored}
        for name, tensor in w.items():
            if name.startswith("talker.") and name.endswith(("o_proj.weight", "down_proj.weight")):
                tensor[:] = 0
            if "text_projection.linear_fc2" in name:
                tensor[:] = 0
            if name.startswith("talker.") and name.endswith("norm.weight"):
                tensor[:] = 1
        tables = self._tables(w)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))["talker_config"]
        self._talker_head(w, tables, config["codec_eos_token_id"])
        if self.reads_state:
            _heads_of_states(w, tables)
        else:
            self._heads(w, tables)
        save_file(w, folder / "model.safetensors")
        return folder

    def _tables(self, w: dict[str, Array]) -> list[Array]:
        """Embeddings of the codes, of which the predictor sees the last. They are stored, and returned [CODES, H]."""
        names = ["talker.model.codec_embedding.weight"]
        names += [f"talker.code_predictor.model.codec_embedding.{g}.weight" for g in range(GROUPS - 1)]
        draw = np.random.default_rng(0)
        for g, name in enumerate(names):
            rows = draw.standard_normal((CODES, w[name].shape[1])).astype(np.float32)
            if self.reads_state:  # code 0 in one half, code 1 in the other, and the others, which repeat it, nowhere
                half = rows.shape[1] // 2
                rows[:, half:] *= g == 1
                rows[:, :half] *= g == 0
            w[name][:CODES] = rows
        return [w[name][:CODES] for name in names]

    def _talker_head(self, w: dict[str, Array], tables: list[Array], end: int) -> None:
        head, half = w["talker.codec_head.weight"], tables[0].shape[1] // 2
        head[:] = 0
        for k in range(CODES):
            read = sum(table[code] for table, code in zip(tables, _frame(k), strict=True))
            if self.reads_state:
                read = np.concatenate([tables[0][k, :half], np.zeros(half)])
            if (label := k + self.talker) <= CODES:
                head[end if label == CODES else label] = SHARP * read / np.linalg.norm(read)

    def _heads(self, w: dict[str, Array], tables: list[Array]) -> None:
        for g in range(GROUPS - 1):
            head = w[f"talker.code_predictor.lm_head.{g}.weight"]
            head[:] = 0
            if g + self.predictor < GROUPS:  # otherwise there was no label
                for k in range(CODES):
                    head[(k + self.predictor) % CODES] = SHARP * tables[g][k] / np.linalg.norm(tables[g][k])


def _heads_of_states(w: dict[str, Array], tables: list[Array]) -> None:
    """The first layer carries what the state has of code 1 to every position, and all heads read it."""
    layer, draw = "talker.code_predictor.model.layers.0.self_attn", np.random.default_rng(1)
    q, v, o = (w[f"{layer}.{name}.weight"] for name in ("q_proj", "v_proj", "o_proj"))
    half = v.shape[1] // 2
    q[:] = 0  # attention to all positions alike
    v[:] = draw.standard_normal(v.shape)
    v[:, :half] = 0
    o[:] = draw.standard_normal(o.shape)
    o[:half] = 0
    values = v.reshape(-1, w[f"{layer}.k_norm.weight"].size, v.shape[1])  # [K, D, H]
    values = np.repeat(values, o.shape[1] // v.shape[0], axis=0).reshape(-1, v.shape[1])  # [N D, H]
    for g in range(GROUPS - 1):
        head = w[f"talker.code_predictor.lm_head.{g}.weight"]
        head[:] = 0
        for k in range(VARIANTS):
            carried = o @ values @ tables[1][k]
            head[k] = 2 * SHARP * carried / np.linalg.norm(carried)


def _frame(k: int) -> list[int]:
    return [(k + g) % CODES for g in range(GROUPS)]
