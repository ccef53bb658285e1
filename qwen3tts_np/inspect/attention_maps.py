"""Attention maps of selected heads of the talker, from the queries and keys that a trace stored on disk."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoint.safetensors import Checkpoint
from ..config import TalkerConfig
from ..errors import RequestError
from ..ops import softmax
from ..shown import shortened


@dataclass(frozen=True)
class Head:
    """A query head of a talker layer."""

    layer: int
    head: int

    def __str__(self) -> str:
        return f"layer {self.layer}, head {self.head}"


def heads_of(text: str | None, c: TalkerConfig) -> list[Head]:
    """``"0:0,14:3"`` -> heads; None: head 0 of the first, middle and last layer. Raises RequestError otherwise."""
    if text is None:
        layers = dict.fromkeys((0, c.num_hidden_layers // 2, c.num_hidden_layers - 1))
        return [Head(layer, 0) for layer in layers]
    heads = []
    for item in text.split(","):
        layer, _, head = item.partition(":")
        if not (layer.strip().isdecimal() and head.strip().isdecimal()):
            raise RequestError(f"{shortened(item)} is not LAYER:HEAD, such as 0:3")
        heads.append(Head(int(layer), int(head)))
        if heads[-1].layer >= c.num_hidden_layers or heads[-1].head >= c.num_attention_heads:
            last = f"layer {c.num_hidden_layers - 1}, head {c.num_attention_heads - 1}"
            raise RequestError(f"{shortened(item)} is not a head of this talker, whose last is {last}")
    return heads


def patterns(heads: list[Head]) -> tuple[str, ...]:
    """The activations needed for the maps."""
    layers = dict.fromkeys(head.layer for head in heads)
    return tuple(f"talker.model.layers.{layer}.self_attn.{part}_rot" for layer in layers for part in "qk")


def write_map(path: Path, arrays: Checkpoint, head: Head, c: TalkerConfig) -> NDArray[np.float32]:
    """Write the map [S, S] of one head as a .npy file, rows are query positions; returns it memory-mapped.

    Computed row by row, so that only one row and the keys of this head [S, D] are in memory.
    """
    name = f"talker.model.layers.{head.layer}.self_attn"
    queries = _whole(arrays, f"{name}.q_rot", head.head)
    keys = _whole(arrays, f"{name}.k_rot", head.head // (c.num_attention_heads // c.num_key_value_heads))
    size = len(queries)
    found: np.memmap[Any, np.dtype[np.float32]] = np.lib.format.open_memmap(
        path, mode="w+", dtype=np.float32, shape=(size, size)
    )
    for t, query in enumerate(queries):
        found[t, : t + 1] = softmax(keys[: t + 1] @ query / math.sqrt(c.head_dim))
    found.flush()
    return found


def _whole(arrays: Checkpoint, name: str, head: int) -> NDArray[np.float64]:
    """One head of all calls of an activation [T, heads, D], concatenated: [S, D]."""
    calls: list[NDArray[np.float64]] = []
    while f"{name}@{len(calls)}" in arrays:
        calls.append(arrays[f"{name}@{len(calls)}"].data[:, head].astype(np.float64))
    return np.concatenate(calls)
