"""Text tokens as talker inputs, as ``talker/talker.py`` ``text_projection``.

In: ``talker.model.text_embedding.input_ids`` [T]. Out: ``talker.text_projection`` [T, H].
"""

from __future__ import annotations

from ...config import TalkerConfig
from ..target import Target, V


def build(t: Target[V], c: TalkerConfig) -> None:
    name = "talker.text_projection"
    ids = t.input("talker.model.text_embedding.input_ids", ["tokens"], "int64")
    x = t.rows(ids, "talker.model.text_embedding.weight", "talker.model.text_embedding")  # [T, X]
    x = t.silu(t.linear(x, f"{name}.linear_fc1", bias=True), f"{name}.act_fn")
    y = t.linear(x, f"{name}.linear_fc2", bias=True)
    t.output(y, name, ["tokens", c.hidden_size])
