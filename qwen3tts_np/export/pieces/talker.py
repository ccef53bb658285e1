"""The talker: hidden states and code-0 logits for any number of new positions.

As ``talker/talker.py``. In: ``talker.model.inputs_embeds`` [T, H], ``talker.model.position_ids`` [T], and of every
layer the keys and values so far. Out: ``talker.model.norm`` [T, H], ``talker.codec_head`` [1, V] of the last position,
and the caches with the new positions.

``build_prompt`` is the graph for prompts where lengths are fixed: as many positions as it has, one after the other, of
which those behind the prompt are padding; ``talker.codec_head.index`` [1] is the one that the logits are wanted of.
Padding needs no mask: a position sees none behind it, and later calls write their own position before they read it.
"""

from __future__ import annotations

from ...config import TalkerConfig
from ..target import Target, V
from .qwen3 import transformer


def build(t: Target[V], c: TalkerConfig) -> None:
    hidden = _hidden_states(t, c)
    _finish(t, hidden, t.slice(hidden, 0, -1, None, "talker.codec_head.input"), c)


def build_prompt(t: Target[V], c: TalkerConfig) -> None:
    which = t.input("talker.codec_head.index", [1], "int64")
    hidden = _hidden_states(t, c)
    _finish(t, hidden, t.gather(hidden, which, 0, "talker.codec_head.input"), c)


def _hidden_states(t: Target[V], c: TalkerConfig) -> V:
    x = t.input("talker.model.inputs_embeds", ["positions", c.hidden_size])
    positions = t.input("talker.model.position_ids", ["positions"], "int64")
    return transformer(t, x, positions, c, "talker.model")


def _finish(t: Target[V], hidden: V, last: V, c: TalkerConfig) -> None:
    logits = t.linear(last, "talker.codec_head")
    t.output(hidden, "talker.model.norm", ["positions", c.hidden_size])
    t.output(logits, "talker.codec_head", [1, c.vocab_size])
