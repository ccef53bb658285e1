"""Between the two layouts of activations: rows for matrix products, channels first for convolutions."""

from __future__ import annotations

from ..target import Target, V


def rows_of(t: Target[V], x: V, name: str) -> V:
    """[1, C, T] -> [T, C]."""
    return t.transpose(t.squeeze(x, 0, f"{name}/one"), [1, 0], f"{name}/rows")


def channels_of(t: Target[V], x: V, name: str) -> V:
    """[T, C] -> [1, C, T]."""
    return t.expand_dims(t.transpose(x, [1, 0], f"{name}/turned"), 0, f"{name}/channels")
