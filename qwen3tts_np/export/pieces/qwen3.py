"""The Qwen3 layers that talker and code predictor share, with their caches in and out.

As ``talker/layer.py`` has them. Causal mask and rotary tables are computed from the positions, so a call may have any
number of them, after any number of earlier ones.
"""

from __future__ import annotations

import math

from ...talker.layer import LayerConfig
from ..target import Target, V
from .attention import by_head, context, heads_of, rope_angles, rotated
from .mlp import gated_mlp


def transformer(t: Target[V], x: V, positions: V, c: LayerConfig, name: str) -> V:
    """All layers and the final norm. x [T, H], positions [T] -> [T, H]."""
    rope = rope_angles(t, positions, c, name)
    visible: V | None = None
    for i in range(c.num_hidden_layers):
        x, visible = _layer(t, x, positions, rope, visible, c, f"{name}.layers.{i}")
    return t.rms_norm(x, f"{name}.norm", c.rms_norm_eps)


def _layer(
    t: Target[V], x: V, positions: V, rope: tuple[V, V], mask: V | None, c: LayerConfig, name: str
) -> tuple[V, V]:
    h = t.rms_norm(x, f"{name}.input_layernorm", c.rms_norm_eps)
    attended, mask = _self_attention(t, h, positions, rope, mask, c, f"{name}.self_attn")
    x = t.add(x, attended, f"{name}.post_attention_layernorm.input")
    h = t.rms_norm(x, f"{name}.post_attention_layernorm", c.rms_norm_eps)
    return t.add(x, gated_mlp(t, h, f"{name}.mlp"), name), mask


def _self_attention(
    t: Target[V], x: V, positions: V, rope: tuple[V, V], mask: V | None, c: LayerConfig, name: str
) -> tuple[V, V]:
    """Grouped-query attention: the N / K query heads of a key/value head side by side. Also returns the mask."""
    k_heads, d = c.num_key_value_heads, c.head_dim
    q = heads_of(t, t.linear(x, f"{name}.q_proj"), c.num_attention_heads, c, f"{name}.q_proj")  # [T, N, D]
    k = heads_of(t, t.linear(x, f"{name}.k_proj"), k_heads, c, f"{name}.k_proj")  # [T, K, D]
    v = heads_of(t, t.linear(x, f"{name}.v_proj"), k_heads, c, f"{name}.v_proj")
    q = rotated(t, t.rms_norm(q, f"{name}.q_norm", c.rms_norm_eps), rope, c, f"{name}.q_rot")
    k = rotated(t, t.rms_norm(k, f"{name}.k_norm", c.rms_norm_eps), rope, c, f"{name}.k_rot")
    keys = t.cached(by_head(t, k, f"{name}.k_rot"), positions, f"{name}.key", k_heads, d)
    values = t.cached(by_head(t, v, f"{name}.v_proj"), positions, f"{name}.value", k_heads, d)
    if mask is None:
        mask = _causal_mask(t, keys, positions, name.partition(".layers.")[0])
    return t.linear(context(t, q, keys, values, mask, c, name), f"{name}.o_proj"), mask


def _causal_mask(t: Target[V], keys: V, positions: V, name: str) -> V:
    """0 where a query sees a key, -inf elsewhere: [T, S]."""
    places = t.expand_dims(t.places(keys, f"{name}/places"), 0, f"{name}/row_of_places")  # [1, S]
    queries = t.expand_dims(positions, 1, f"{name}/column_of_positions")  # [T, 1]
    visible = t.less_equal(places, queries, f"{name}/visible")
    return t.where(visible, 0.0, -math.inf, f"{name}/causal_mask")
