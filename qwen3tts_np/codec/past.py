"""What the causal layers of the decoder keep of a stream, so that its next frames may come in another call.

Source: the streaming states of Moshi's codec (Défossez et al., 2024); here one object holds those of all layers.
"""

from __future__ import annotations

import numpy as np

from ..ops import Array


class Past:
    """The last inputs of every layer of one stream, by the layer's name. It does not grow with the stream."""

    def __init__(self) -> None:
        self.frames = 0  # decoded so far
        self._kept: dict[str, Array] = {}

    def before(self, layer: str, x: Array, count: int) -> Array:
        """x behind the last inputs of ``layer``, ``count`` or as many as there have been; keeps them for the next call.

        x [..., T] -> [..., S + T].
        """
        if layer in self._kept:
            x = np.concatenate([self._kept[layer], x], axis=-1)
        self._kept[layer] = x[..., max(x.shape[-1] - count, 0) :].copy()
        return x

    def padded(self, layer: str, x: Array, count: int) -> Array:
        """The same behind exactly ``count`` inputs, zeros before the first. x [C, T] -> [C, count + T]."""
        t = x.shape[1]
        x = self.before(layer, x, count)
        return np.pad(x, ((0, 0), (count + t - x.shape[1], 0)))
