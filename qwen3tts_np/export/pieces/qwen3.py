"""The Qwen3 layers that talker and code predictor share, with their caches in and out.

As ``talker/layer.py`` has them. Causal mask and rotary tables are computed from the positions, so a call may have any
number of them, after any number of earlier ones.
"""

from __future__ import annotations

import math

import numpy as np

from ...talker.layer import LayerConfig
from ..target import Target, V


def transformer(t: Target[V], x: V, positions: V, c: LayerConfig, name: str) -> V:
    """All layers and the final norm. x [T, H], positions [T] -> [T, H]."""
    rope = rope_angles(t, positions, c, name)
    visible: V | None = None
    for i in range(c.num_hidden_layers):
        x, visible = _layer(t, x, positions, rope, visible, c, f"{name}.layers.{i}")
    return t.rms_norm(x, f"{name}.norm", c.rms_norm_eps)


def rope_angles(t: Target[V], positions: V, c: LayerConfig, name: str) -> tuple[V, V]:
    """cos and sin [T, 1, D/2] of every position's angles."""
    exponents = np.arange(0, c.head_dim, 2, dtype=np.float32) / np.float32(c.head_dim)
    powers = np.power(np.float64(np.float32(c.rope_theta)), exponents.astype(np.float64)).astype(np.float32)
    frequencies = t.constant(np.float32(1.0) / powers, f"{name}.rotary_emb.inv_freq")  # [D/2]
    rotary = f"{name}.rotary_emb"
    column = t.expand_dims(t.cast(positions, "float32", f"{rotary}/positions"), 1, f"{rotary}/column")
    angles = t.expand_dims(t.mul(column, frequencies, f"{rotary}/angles"), 1, f"{rotary}/for_heads")  # [T, 1, D/2]
    return t.cos(angles, f"{rotary}/cos"), t.sin(angles, f"{rotary}/sin")


def _layer(
    t: Target[V], x: V, positions: V, rope: tuple[V, V], mask: V | None, c: LayerConfig, name: str
) -> tuple[V, V]:
    h = t.rms_norm(x, f"{name}.input_layernorm", c.rms_norm_eps)
    attended, mask = _self_attention(t, h, positions, rope, mask, c, f"{name}.self_attn")
    x = t.add(x, attended, f"{name}.post_attention_layernorm.input")
    h = t.rms_norm(x, f"{name}.post_attention_layernorm", c.rms_norm_eps)
    return t.add(x, _mlp(t, h, f"{name}.mlp"), name), mask


def _mlp(t: Target[V], x: V, name: str) -> V:
    gate = t.silu(t.linear(x, f"{name}.gate_proj"), f"{name}.act_fn")  # [T, F]
    inner = t.mul(gate, t.linear(x, f"{name}.up_proj"), f"{name}.down_proj.input")
    return t.linear(inner, f"{name}.down_proj")


def _self_attention(
    t: Target[V], x: V, positions: V, rope: tuple[V, V], mask: V | None, c: LayerConfig, name: str
) -> tuple[V, V]:
    """Grouped-query attention: the N / K query heads of a key/value head side by side. Also returns the mask."""
    n, k_heads, d = c.num_attention_heads, c.num_key_value_heads, c.head_dim
    q = _heads(t, t.linear(x, f"{name}.q_proj"), n, d, f"{name}.q_proj")  # [T, N, D]
    k = _heads(t, t.linear(x, f"{name}.k_proj"), k_heads, d, f"{name}.k_proj")  # [T, K, D]
    v = _heads(t, t.linear(x, f"{name}.v_proj"), k_heads, d, f"{name}.v_proj")
    q = _rotated(t, t.rms_norm(q, f"{name}.q_norm", c.rms_norm_eps), rope, d, f"{name}.q_rot")
    k = _rotated(t, t.rms_norm(k, f"{name}.k_norm", c.rms_norm_eps), rope, d, f"{name}.k_rot")

    keys = t.cached(t.transpose(k, [1, 0, 2], f"{name}.k_rot/by_head"), positions, f"{name}.key", k_heads, d)
    values = t.cached(t.transpose(v, [1, 0, 2], f"{name}.v_proj/by_head"), positions, f"{name}.value", k_heads, d)
    if mask is None:
        mask = _causal_mask(t, keys, positions, name.partition(".layers.")[0])

    q = t.mul(q, 1 / math.sqrt(d), f"{name}/scaled")
    q = t.transpose(t.reshape(q, [-1, k_heads, n // k_heads, d], f"{name}/grouped"), [1, 2, 0, 3], f"{name}/queries")
    turned = t.expand_dims(t.transpose(keys, [0, 2, 1], f"{name}/keys"), 1, f"{name}/keys_of_group")  # [K, 1, D, S]
    scores = t.add(t.matmul(q, turned, f"{name}/products"), mask, f"{name}/scores")  # [K, N/K, T, S]
    p = t.softmax(scores, f"{name}/weights")
    mixed = t.matmul(p, t.expand_dims(values, 1, f"{name}/values_of_group"), f"{name}/mixed")  # [K, N/K, T, D]
    context = t.reshape(t.transpose(mixed, [2, 0, 1, 3], f"{name}/by_position"), [-1, n * d], f"{name}.context")
    return t.linear(context, f"{name}.o_proj"), mask


def _heads(t: Target[V], x: V, heads: int, width: int, name: str) -> V:
    return t.reshape(x, [-1, heads, width], f"{name}/heads")


def _rotated(t: Target[V], x: V, rope: tuple[V, V], d: int, name: str) -> V:
    """The pair (j, j + D/2) of every head turned by its angle. x [T, heads, D]."""
    cos, sin = rope
    low, high = t.slice(x, 2, 0, d // 2, f"{name}/low"), t.slice(x, 2, d // 2, None, f"{name}/high")
    first = t.sub(t.mul(low, cos, f"{name}/low_cos"), t.mul(high, sin, f"{name}/high_sin"), f"{name}/first")
    second = t.add(t.mul(high, cos, f"{name}/high_cos"), t.mul(low, sin, f"{name}/low_sin"), f"{name}/second")
    return t.concat([first, second], 2, name)


def _causal_mask(t: Target[V], keys: V, positions: V, name: str) -> V:
    """0 where a query sees a key, -inf elsewhere: [T, S]."""
    places = t.expand_dims(t.places(keys, f"{name}/places"), 0, f"{name}/row_of_places")  # [1, S]
    queries = t.expand_dims(positions, 1, f"{name}/column_of_positions")  # [T, 1]
    visible = t.less_equal(places, queries, f"{name}/visible")
    return t.where(visible, 0.0, -math.inf, f"{name}/causal_mask")
