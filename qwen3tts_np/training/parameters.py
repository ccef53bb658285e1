"""The weights of talker and code predictor by official name, low-rank additions to them, and gradients.

What is trained is what has a gradient. It is held in the dtype of the computation, float32 in practice: in bfloat16
most steps would be rounded away. What is frozen may stay as stored, and is widened where it is used.

A low-rank addition (LoRA; Hu et al., 2021) to a linear layer is two matrices beside it, named as PEFT names them:
``NAME.lora_A.weight`` [r, in] and ``NAME.lora_B.weight`` [out, r]. The layer computes x Wᵀ + scale (x Aᵀ) Bᵀ.

A speaker that the model is to learn is a vector of the talker's width, ``speaker.NAME``. It stands where the embedding
of a speaker's id stands in a prompt, and becomes a row of ``talker.model.codec_embedding`` when the model is written.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from qwen3tts_np_kernels.embedding import embedding_backward_ref

from ..checkpoint.adapter import A, B
from ..checkpoint.safetensors import Checkpoint
from ..checkpoint.tensor import StoredTensor
from ..ops import Array, Ints
from .adapters import new_addition
from .threads import parts, side_by_side

TALKER = "talker."
TEXT_EMBEDDING = "talker.model.text_embedding.weight"
SPEAKER = "speaker."


class Parameters:
    """Arrays by name; ``gradients`` has an entry for each that is trained, which ``learn`` adds to."""

    def __init__(self, arrays: dict[str, Array | StoredTensor], dtype: Any = np.float32) -> None:
        self.arrays = arrays
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.gradients: dict[str, Array] = {}
        self.scales: dict[str, float] = {}  # of low-rank additions, by the name of their layer
        self._memory: Array = np.empty(0, self.dtype)

    @classmethod
    def load(cls, checkpoint: Checkpoint, *, dtype: Any = np.float32, as_stored: bool = False) -> Parameters:
        """All weights of talker and code predictor.

        ``as_stored`` leaves them in the mapped file: half the memory where that is bfloat16, and about a tenth more
        time. The text embedding, of which a clip needs some rows, is left there always.
        """
        arrays: dict[str, Array | StoredTensor] = {}
        for name, stored in checkpoint.items():
            if name.startswith(TALKER):
                if as_stored or name == TEXT_EMBEDDING:
                    arrays[name] = stored
                else:
                    arrays[name] = np.array(stored.widen(np.dtype(dtype)))
                    stored.release()  # or the file would be in memory a second time
        return cls(arrays, dtype)

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def __getitem__(self, name: str) -> Array:
        array = self.arrays[name]
        return array.widen(self.dtype) if isinstance(array, StoredTensor) else array

    def rows(self, name: str, ids: Ints) -> Array:
        """Rows of a table. ids [n] -> [n, H]."""
        table = self.arrays[name]
        return table.rows(ids, self.dtype) if isinstance(table, StoredTensor) else table[ids]

    def train(self, names: Iterable[str]) -> None:
        """From now on these are trained."""
        for name in names:
            array = self[name]
            if not array.flags.writeable or not array.flags.c_contiguous:
                array = np.array(array, order="C")
            self.arrays[name] = array
            self.gradients[name] = np.zeros_like(array)

    def add_low_rank(self, layers: Iterable[str], rank: int, alpha: float, seed: int = 0) -> None:
        """Train a low-rank addition to each of these linear layers, of scale ``alpha / rank``.

        The model begins as it was (``adapters.new_addition``). By default they are for ``adapters.adapted_modules``.
        """
        for layer in layers:
            a, b = new_addition(layer, self.arrays[f"{layer}.weight"].shape, rank, seed)
            self.arrays[layer + A], self.arrays[layer + B] = a.astype(self.dtype), b.astype(self.dtype)
            self.scales[layer] = alpha / rank
            self.train([layer + A, layer + B])

    def add_speaker(self, name: str, vector: Array) -> None:
        """Train a speaker, from this vector [H] on."""
        self.arrays[SPEAKER + name] = np.array(vector, self.dtype)
        self.train([SPEAKER + name])

    def merged(self, layer: str) -> Array:
        """The weight of a linear layer [out, in] with its low-rank addition, if it has one: W + scale B A."""
        weight = self[f"{layer}.weight"]
        if layer not in self.scales:
            return weight
        return weight + self.dtype.type(self.scales[layer]) * (self[layer + B] @ self[layer + A])

    def trains(self, *prefixes: str) -> bool:
        """Whether anything is trained whose name begins with one of these."""
        return any(name.startswith(prefixes) for name in self.gradients)

    def learn(self, name: str, gradient: Array) -> None:
        """Add to the gradient of ``name``, if it is trained."""
        if name in self.gradients:
            self.gradients[name] += gradient

    def learn_rows(self, name: str, ids: Ints, gradient: Array) -> None:
        """Add to the gradients of the rows of a table, if it is trained. ids [n], gradient [n, H]."""
        if name in self.gradients:
            embedding_backward_ref(gradient, ids, self.gradients[name])

    def linear(self, x: Array, name: str) -> Array:
        """x Wᵀ + b, and scale (x Aᵀ) Bᵀ where the layer has a low-rank addition. x [n, in] -> [n, out]."""
        y = x @ self._matrix(f"{name}.weight").T
        if f"{name}.bias" in self:
            y += self[f"{name}.bias"]
        if name in self.scales:
            y += ((x @ self[name + A].T) * self.dtype.type(self.scales[name])) @ self[name + B].T
        return y

    def linear_backward(self, dy: Array, x: Array, name: str) -> Array:
        """dx [n, in], given dy [n, out] and the input x [n, in]. Adds to the gradients of what is trained.

            dx = dy W + dl A,    dW = dyᵀ x,    db = sum of dy,    dB = scale dyᵀ (x Aᵀ),    dA = dlᵀ x

        with dl = scale dy B, the gradient [n, r] of x Aᵀ.
        """
        weight, bias = f"{name}.weight", f"{name}.bias"
        if weight in self.gradients:
            self._add(self.gradients[weight], np.matmul(dy.T, x, out=self._scratch(self.gradients[weight].shape)))
        if bias in self.gradients:
            self.gradients[bias] += dy.sum(0)
        dx = dy @ self._matrix(weight)
        if name in self.scales:
            a, b, scale = self[name + A], self[name + B], self.dtype.type(self.scales[name])
            dl = (dy @ b) * scale
            self.learn(name + B, dy.T @ ((x @ a.T) * scale))
            self.learn(name + A, dl.T @ x)
            dx += dl @ a
        return dx

    def _add(self, gradient: Array, more: Array) -> None:
        def add(rows: slice) -> None:
            gradient[rows] += more[rows]

        side_by_side(add, parts(len(gradient), gradient.size))

    def _matrix(self, name: str) -> Array:
        """``self[name]``; one that is stored in bfloat16 is valid until the next call of ``_scratch``."""
        array = self.arrays[name]
        if not isinstance(array, StoredTensor) or array.dtype != "BF16" or self.dtype != np.float32:
            return self[name]
        widened = self._scratch(array.shape)
        np.left_shift(array.data, 16, out=widened.view(np.uint32), dtype=np.uint32)
        return widened

    def _scratch(self, shape: tuple[int, ...]) -> Array:
        """Memory for one matrix, the same again and again: the system need not fetch and clear it every time."""
        size = math.prod(shape)
        if self._memory.size < size:
            self._memory = np.empty(size, self.dtype)
        return self._memory[:size].reshape(shape)
