"""All layers of a transformer and its final norm, and the gradient down to the lowest layer that it has to reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..ops import Array, rope_angles
from ..talker.layer import LayerConfig, Rope
from . import layer
from .layer import Block, Kept, norm_backward
from .operations import rms_norm
from .parameters import Parameters


@dataclass
class Pass:
    """What a forward pass keeps for its gradient: the layers are dropped one by one on the way back."""

    blocks: Sequence[Block]
    rope: Rope
    lowest: int  # the first layer that the gradient reaches
    layers: list[Kept | Array]  # from ``lowest`` on; with recomputation the input of each only
    last: Array  # [P, H] before the final norm


@dataclass(frozen=True)
class Stack:
    """The layers ``name.layers.i`` and ``name.norm``."""

    parameters: Parameters
    name: str
    config: LayerConfig
    recompute: bool = False  # keep the input of each layer only, and compute the rest again: less memory, more time

    def lowest(self, below: bool) -> int:
        """The first layer that the gradient reaches. ``below``: whether something below the layers is trained."""
        count = self.config.num_hidden_layers
        trained = (i for i in range(count) if self.parameters.trains(f"{self.name}.layers.{i}."))
        return 0 if below else next(trained, count)

    def below(self, x: Array, blocks: Sequence[Block], end: int) -> Array:
        """The input [P, H] of layer ``end``. x [P, H]."""
        rope = self._rope(blocks)
        for i in range(end):
            x, _ = layer.forward(x, self.parameters, self._layer(i), rope, blocks, self.config)
        return x

    def forward(self, x: Array, blocks: Sequence[Block], lowest: int, keep: bool) -> tuple[Array, Pass | None]:
        """The layers from ``lowest`` on, and the norm. x: the input of layer ``lowest`` [P, H] -> [P, H].

        ``keep`` what ``backward`` needs; otherwise it is None.
        """
        rope, kept = self._rope(blocks), list[Kept | Array]()
        for i in range(lowest, self.config.num_hidden_layers):
            y, of_layer = layer.forward(x, self.parameters, self._layer(i), rope, blocks, self.config)
            if keep:
                kept.append(x if self.recompute else of_layer)
            x = y
        y = rms_norm(x, self.parameters[f"{self.name}.norm.weight"], self.config.rms_norm_eps)
        return y, Pass(blocks, rope, lowest, kept, x) if keep else None

    def backward(self, dy: Array, found: Pass) -> Array:
        """dx [P, H] of the input of layer ``found.lowest``, given dy [P, H]. Uses up ``found``."""
        w, c = self.parameters, self.config
        dx = norm_backward(dy, found.last, w, f"{self.name}.norm.weight", c.rms_norm_eps)
        for i in reversed(range(found.lowest, c.num_hidden_layers)):
            kept = found.layers.pop()
            if not isinstance(kept, Kept):
                _, kept = layer.forward(kept, w, self._layer(i), found.rope, found.blocks, c)
            dx = layer.backward(dx, kept, w, self._layer(i), found.rope, c)
        return dx

    def _layer(self, i: int) -> str:
        return f"{self.name}.layers.{i}"

    def _rope(self, blocks: Sequence[Block]) -> Rope:
        """The angles of each position: every sequence begins at 0."""
        positions = [np.tile(np.arange(b.length), (b.end - b.first) // b.length) for b in blocks]
        return rope_angles(np.concatenate(positions), self.config.head_dim, self.config.rope_theta)
