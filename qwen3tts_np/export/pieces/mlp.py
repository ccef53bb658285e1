"""The gated feed-forward (SwiGLU) of talker, code predictor and codec decoder."""

from __future__ import annotations

from ..target import Target, V


def gated_mlp(t: Target[V], x: V, name: str) -> V:
    """x [T, H] -> [T, H]."""
    gate = t.silu(t.linear(x, f"{name}.gate_proj"), f"{name}.act_fn")  # [T, F]
    inner = t.mul(gate, t.linear(x, f"{name}.up_proj"), f"{name}.down_proj.input")
    return t.linear(inner, f"{name}.down_proj")
