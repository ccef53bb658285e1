"""The talker: hidden states and code-0 logits for any number of new positions.

As ``talker/talker.py``. In: ``talker.model.inputs_embeds`` [T, H], ``talker.model.position_ids`` [T], and of every
layer the keys and values so far. Out: ``talker.model.norm`` [T, H], ``talker.codec_head`` [1, V] of the last position,
and the caches with the new positions.
"""

from __future__ import annotations

from ...config import TalkerConfig
from ..target import Target, V
from .qwen3 import transformer


def build(t: Target[V], c: TalkerConfig) -> None:
    x = t.input("talker.model.inputs_embeds", ["positions", c.hidden_size])
    positions = t.input("talker.model.position_ids", ["positions"], "int64")
    hidden = transformer(t, x, positions, c, "talker.model")
    last = t.slice(hidden, 0, -1, None, "talker.codec_head.input")
    logits = t.linear(last, "talker.codec_head")
    t.output(hidden, "talker.model.norm", ["positions", c.hidden_size])
    t.output(logits, "talker.codec_head", [1, c.vocab_size])
