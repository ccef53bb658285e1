"""What every attention of the model has in common: heads, rotary positions, and the mixing of values."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np

from ..target import Target, V


class Attention(Protocol):
    """What a configuration says of its attention."""

    @property
    def num_attention_heads(self) -> int: ...
    @property
    def num_key_value_heads(self) -> int: ...
    @property
    def head_dim(self) -> int: ...
    @property
    def rope_theta(self) -> float: ...


def rope_angles(t: Target[V], positions: V, c: Attention, name: str) -> tuple[V, V]:
    """cos and sin [T, 1, D/2] of every position's angles. positions [T], integers."""
    exponents = np.arange(0, c.head_dim, 2, dtype=np.float32) / np.float32(c.head_dim)
    powers = np.power(np.float64(np.float32(c.rope_theta)), exponents.astype(np.float64)).astype(np.float32)
    rotary = f"{name}.rotary_emb"
    cos, sin = t.cos_sin(positions, np.float32(1.0) / powers, rotary)  # [T, D/2]
    return t.expand_dims(cos, 1, f"{rotary}/cos_of_heads"), t.expand_dims(sin, 1, f"{rotary}/sin_of_heads")


def heads_of(t: Target[V], x: V, heads: int, c: Attention, name: str) -> V:
    """x [T, heads * D] -> [T, heads, D]."""
    return t.reshape(x, [-1, heads, c.head_dim], f"{name}/heads")


def rotated(t: Target[V], x: V, rope: tuple[V, V], c: Attention, name: str) -> V:
    """The pair (j, j + D/2) of every head turned by its angle. x [T, heads, D]."""
    (cos, sin), half = rope, c.head_dim // 2
    low, high = t.slice(x, 2, 0, half, f"{name}/low"), t.slice(x, 2, half, None, f"{name}/high")
    first = t.sub(t.mul(low, cos, f"{name}/low_cos"), t.mul(high, sin, f"{name}/high_sin"), f"{name}/first")
    second = t.add(t.mul(high, cos, f"{name}/high_cos"), t.mul(low, sin, f"{name}/low_sin"), f"{name}/second")
    return t.concat([first, second], 2, name)


def by_head(t: Target[V], x: V, name: str) -> V:
    """[T, heads, D] -> [heads, T, D], as keys and values are carried."""
    return t.transpose(x, [1, 0, 2], f"{name}/by_head")


def context(t: Target[V], q: V, keys: V, values: V, mask: V, c: Attention, name: str) -> V:
    """Grouped-query attention: the N / K query heads of a key/value head stand side by side.

    q [T, N, D], keys and values [K, S, D], mask [T, S], which is added to the scores -> ``name.context`` [T, N * D].
    """
    n, k_heads, d = c.num_attention_heads, c.num_key_value_heads, c.head_dim
    q = t.mul(q, 1 / math.sqrt(d), f"{name}/scaled")
    q = t.transpose(t.reshape(q, [-1, k_heads, n // k_heads, d], f"{name}/grouped"), [1, 2, 0, 3], f"{name}/queries")
    turned = t.expand_dims(t.transpose(keys, [0, 2, 1], f"{name}/keys"), 1, f"{name}/keys_of_group")  # [K, 1, D, S]
    scores = t.add(t.matmul(q, turned, f"{name}/products"), mask, f"{name}/scores")  # [K, N/K, T, S]
    p = t.softmax(scores, f"{name}/weights")
    mixed = t.matmul(p, t.expand_dims(values, 1, f"{name}/values_of_group"), f"{name}/mixed")  # [K, N/K, T, D]
    return t.reshape(t.transpose(mixed, [2, 0, 1, 3], f"{name}/by_position"), [-1, n * d], f"{name}.context")
