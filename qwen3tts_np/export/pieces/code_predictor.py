"""The code predictor: logits of code g + 1 of a frame, for one or more new positions of its sequence.

As ``talker/code_predictor.py``. The sequence of a frame is the talker's hidden state, then the embedding of code 0,
then those of the codes as they are chosen; its cache starts empty for each frame. In:
``talker.code_predictor.inputs_embeds`` [T, TH], ``talker.code_predictor.model.position_ids`` [T],
``talker.code_predictor.lm_head.index`` [1], which is g, and the caches. Out: ``talker.code_predictor.lm_head`` [1, C]
of the last position, and the caches.
"""

from __future__ import annotations

from ...config import TalkerConfig
from ..target import Target, V
from .qwen3 import transformer

NAME = "talker.code_predictor"


def build(t: Target[V], c: TalkerConfig) -> None:
    small = c.code_predictor_config
    x = t.input(f"{NAME}.inputs_embeds", ["positions", c.hidden_size])
    positions = t.input(f"{NAME}.model.position_ids", ["positions"], "int64")
    which = t.input(f"{NAME}.lm_head.index", [1], "int64")
    if small.hidden_size != c.hidden_size:
        x = t.linear(x, f"{NAME}.small_to_mtp_projection", bias=True)
    hidden = transformer(t, x, positions, small, f"{NAME}.model")
    last = t.slice(hidden, 0, -1, None, f"{NAME}.lm_head.input")
    heads = [f"{NAME}.lm_head.{g}" for g in range(c.num_code_groups - 1)]
    logits = t.one_of_linear(last, heads, which, f"{NAME}.lm_head")
    t.output(logits, f"{NAME}.lm_head", [1, small.vocab_size])
