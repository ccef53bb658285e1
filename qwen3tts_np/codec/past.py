"""The inputs that the causal layers of the decoder keep of a stream, so that the next call can continue it.

Source: the streaming states of Moshi's codec (Défossez et al., 2024); here one object holds those of all layers.
"""

from __future__ import annotations

import numpy as np

from ..ops import Array


class Past:
    """The last inputs of every layer of one stream, by layer name. Its size does not grow with the stream."""

    def __init__(self) -> None:
        self.frames = 0  # decoded so far
        self._kept: dict[str, Array] = {}

    @property
    def lengths(self) -> dict[str, int]:
        """The number of inputs kept, by layer."""
        return {layer: kept.shape[-1] for layer, kept in self._kept.items()}

    def before(self, layer: str, x: Array, count: int) -> Array:
        """x after the last ``count`` inputs of ``layer``, fewer at the start of a stream; keeps them for the next call.

        x [..., T] -> [..., S + T].
        """
        if layer in self._kept:
            x = np.concatenate([self._kept[layer], x], axis=-1)
        self._kept[layer] = x[..., max(x.shape[-1] - count, 0) :].copy()
        return x

    def padded(self, layer: str, x: Array, count: int) -> Array:
        """The same after exactly ``count`` inputs, zero-padded before the first one. x [C, T] -> [C, count + T]."""
        length = count + x.shape[1]
        x = self.before(layer, x, count)
        missing = length - x.shape[1]
        return np.pad(x, ((0, 0), (missing, 0))) if missing else x
