"""SwiGLU, the feed-forward of the talker, the code predictor and the codec decoder (Shazeer, 2020).

Official: ``Qwen3TTSTalkerTextMLP``, ``Qwen3TTSTokenizerV2DecoderMlp``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .checkpoint.keys import Names, tensor
from .ops import Array, linear, silu
from .trace import Scope


@dataclass(frozen=True)
class GatedMLP:
    official: ClassVar[Names] = ("Qwen3TTSTalkerTextMLP",)

    gate_proj: Array = tensor("gate_proj.weight", "F H")
    up_proj: Array = tensor("up_proj.weight", "F H")
    down_proj: Array = tensor("down_proj.weight", "H F")


def mlp(x: Array, w: GatedMLP, name: str) -> Array:
    """down(silu(gate(x)) * up(x)). x [T, H] -> [T, H]."""
    t = Scope(name)
    gate = t("gate_proj", linear(x, w.gate_proj))  # [T, F]
    gate = t("act_fn", silu(gate))
    up = t("up_proj", linear(x, w.up_proj))  # [T, F]
    return t("down_proj", linear(t("down_proj.input", gate * up), w.down_proj))
