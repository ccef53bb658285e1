"""The embeddings of a frame's codes, summed: what the talker reads of a frame besides text.

As ``generate.py`` ``embed_frame``. In: ``codes`` [F, G], where -1 stands for none. Out: ``frame_embedding`` [F, H]. So
one graph serves three uses: a frame (all G codes), an id of the codec vocabulary in a prompt (in column 0, the others
-1), and the next input of the code predictor (code g in column g, the others -1).
"""

from __future__ import annotations

import numpy as np

from ...config import TalkerConfig
from ..target import Target, V


def build(t: Target[V], c: TalkerConfig) -> None:
    codes = t.input("codes", ["frames", c.num_code_groups], "int64")
    tables = ["talker.model.codec_embedding"]
    tables += [f"talker.code_predictor.model.codec_embedding.{g}" for g in range(c.num_code_groups - 1)]
    rows = t.maximum(codes, 0, "codes/rows")
    there = t.cast(
        t.less_equal(t.constant(np.array(0), "codes/zero"), codes, "codes/there"), "float32", "codes/factors"
    )
    total: V | None = None
    for g, table in enumerate(tables):
        ids = t.squeeze(t.slice(rows, 1, g, g + 1, f"{table}/column"), 1, f"{table}/ids")  # [F]
        row = t.rows(ids, f"{table}.weight", f"{table}/row")
        row = t.mul(row, t.slice(there, 1, g, g + 1, f"{table}/factor"), table)  # [F, H]
        total = row if total is None else t.add(total, row, f"frame_embedding/{g}")
    assert total is not None
    t.output(total, "frame_embedding", ["frames", c.hidden_size])
