"""SwiGLU, the feed-forward of the talker, the code predictor and the codec decoder (Shazeer, 2020).

Official: ``Qwen3TTSTalkerTextMLP``, ``Qwen3TTSTokenizerV2DecoderMlp``.
"""

from __future__ import annotations

from dataclasses import dataclass

from .checkpoint.keys import tensor
from .ops import Array, linear, silu
from .trace import record


@dataclass(frozen=True)
class GatedMLP:
    official = ("Qwen3TTSTalkerTextMLP",)

    gate_proj: Array = tensor("gate_proj.weight", "F H")
    up_proj: Array = tensor("up_proj.weight", "F H")
    down_proj: Array = tensor("down_proj.weight", "H F")


def mlp(x: Array, w: GatedMLP, name: str) -> Array:
    """down(silu(gate(x)) * up(x)). x [T, H] -> [T, H]."""
    gate = linear(x, w.gate_proj)  # [T, F]
    record(f"{name}.gate_proj", gate)
    gate = silu(gate)
    record(f"{name}.act_fn", gate)
    up = linear(x, w.up_proj)  # [T, F]
    record(f"{name}.up_proj", up)
    gated = gate * up
    record(f"{name}.down_proj.input", gated)
    y = linear(gated, w.down_proj)
    record(f"{name}.down_proj", y)
    return y
