"""What a graph is written with: the operations that every runtime has, under the names of their result.

A piece is one function of a ``Target``. It is run once and leaves a graph behind, in whatever form the target has:
ONNX (``onnx_target.py``) or another. ``V`` is the target's handle of a value in the graph.

``name`` is the official path of a module (``talker.model.layers.0.mlp.up_proj``) where the result is that module's
output, and a path of our own below one (``talker.model.layers.0.self_attn/heads``) elsewhere. No name occurs twice in a
graph. Sizes are integers; a string is a length that the caller of the graph chooses, and a target that needs fixed
lengths has a number for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, TypeVar

from ..ops import AnyArray

V = TypeVar("V")
Shape = Sequence[int | str]
DType = Literal[
    "float32", "float64", "int64", "bool"
]  # a target may compute narrower, and its integers may have 32 bits

LENGTHS = {
    "prompt": (64, "positions of a call of the talker's graph for prompts; all other calls read one"),
    "places": (2048, "places in the talker's cache: the most positions there can be"),
    "tokens": (16, "tokens of a call of text"),
    "frames": (1, "frames of a call of frame_embedding or codec_decoder"),
    "samples": (72000, "samples of a clip"),
}
"""Lengths that the caller of a graph chooses: by name, the number in a graph of fixed lengths, and what it counts."""

PAST, PRESENT = ".past", ".present"  # behind the name of a state: as it enters a call, and as it leaves it


class Target(Protocol[V]):
    """A graph under construction."""

    # --- what enters and leaves -------------------------------------------------------------------

    def input(self, name: str, shape: Shape, dtype: DType = "float32") -> V:
        """An input of the graph."""
        ...

    def output(self, x: V, name: str, shape: Shape, dtype: DType = "float32") -> None:
        """Make ``x`` an output of the graph, called ``name``."""
        ...

    def state(self, name: str, shape: Shape, dtype: DType = "float32") -> V:
        """What a call carries to the next one, zeros before the first: input ``name + PAST``."""
        ...

    def next_state(self, x: V, name: str, shape: Shape, dtype: DType = "float32") -> None:
        """What the state ``name`` is after this call: output ``name + PRESENT``."""
        ...

    def cached(self, new: V, positions: V, name: str, heads: int, width: int) -> V:
        """Keys or values of this call behind those of earlier ones. new [heads, T, width] -> [heads, S, width].

        The value of position p is at place p of S. S is the number of positions so far, or, in a target with fixed
        lengths, the most there can be: places after the last of ``positions`` [T] then hold nothing of meaning.
        """
        ...

    def places(self, cache: V, name: str) -> V:
        """0, 1, ... S - 1 as integers [S], for what :meth:`cached` has returned."""
        ...

    def indices(self, x: V, axis: int, name: str) -> V:
        """0, 1, ... n - 1 as integers [n], for the n places of ``x`` along ``axis``."""
        ...

    # --- weights ----------------------------------------------------------------------------------

    def weight(self, key: str) -> V:
        """The tensor ``key`` of the checkpoint."""
        ...

    def constant(self, values: AnyArray, name: str) -> V:
        """An array that is not in the checkpoint as it stands. Floats keep their width, integers are int64."""
        ...

    def linear(self, x: V, name: str, *, bias: bool = False) -> V:
        """x wᵀ + b, with the tensors ``name.weight`` [out, in] and ``name.bias``. x [T, in] -> [T, out]."""
        ...

    def one_of_linear(self, x: V, names: Sequence[str], which: V, name: str) -> V:
        """:meth:`linear` with number ``which`` [1] of several matrices of one shape. x [1, in] -> [1, out]."""
        ...

    def rows(self, ids: V, key: str, name: str) -> V:
        """Rows ``ids`` [...] of the table ``key`` [n, width] -> [..., width]."""
        ...

    # --- arithmetic; a float in place of a value is a float32 constant, an int an int64 one -------

    def add(self, x: V, y: V | float, name: str) -> V: ...
    def sub(self, x: V, y: V | float, name: str) -> V: ...
    def mul(self, x: V, y: V | float, name: str) -> V: ...
    def div(self, x: V, y: V | float, name: str) -> V: ...
    def maximum(self, x: V, y: V | float, name: str) -> V: ...
    def minimum(self, x: V, y: V | float, name: str) -> V: ...
    def less_equal(self, x: V, y: V, name: str) -> V: ...
    def exp(self, x: V, name: str) -> V: ...
    def log(self, x: V, name: str) -> V: ...
    def sqrt(self, x: V, name: str) -> V: ...
    def sin(self, x: V, name: str) -> V: ...
    def cos(self, x: V, name: str) -> V: ...
    def tanh(self, x: V, name: str) -> V: ...
    def sigmoid(self, x: V, name: str) -> V: ...
    def relu(self, x: V, name: str) -> V: ...
    def elu(self, x: V, name: str) -> V: ...
    def erf(self, x: V, name: str) -> V: ...

    def where(self, condition: V, x: V | float, y: V | float, name: str) -> V:
        """x where the condition holds, else y."""
        ...

    def cast(self, x: V, dtype: DType, name: str) -> V: ...

    def matmul(self, x: V, y: V, name: str) -> V:
        """The matrix product of the last two axes; the others are broadcast."""
        ...

    def softmax(self, x: V, name: str) -> V:
        """Over the last axis."""
        ...

    def mean(self, x: V, axis: int, name: str) -> V:
        """The axis is kept, with size 1."""
        ...

    def sum(self, x: V, axis: int, name: str) -> V:
        """The axis is kept, with size 1."""
        ...

    def argmax(self, x: V, axis: int, name: str) -> V:
        """The first place of the greatest value along ``axis``, as an integer; the axis is dropped."""
        ...

    def silu(self, x: V, name: str) -> V:
        """x sigmoid(x)."""
        ...

    def gelu(self, x: V, name: str) -> V:
        """x (1 + erf(x / √2)) / 2."""
        ...

    def cos_sin(self, positions: V, frequencies: AnyArray, name: str) -> tuple[V, V]:
        """cos and sin of every position times every frequency, angles in float32. [T], [n] -> [T, n] each."""
        ...

    def rms_norm(self, x: V, name: str, eps: float) -> V:
        """x / rms(x) * ``name.weight`` over the last axis."""
        ...

    def layer_norm(self, x: V, name: str, eps: float) -> V:
        """LayerNorm over the last axis, with ``name.weight`` and ``name.bias``."""
        ...

    # --- convolutions, channels first -------------------------------------------------------------

    def conv1d(
        self,
        x: V,
        weight: V,
        bias: V | None,
        name: str,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
    ) -> V:
        """Without padding. x [1, in, T], weight [out, in / groups, kernel], bias [out]."""
        ...

    def conv_transpose1d(self, x: V, weight: V, bias: V | None, name: str, *, stride: int = 1, groups: int = 1) -> V:
        """x [1, in, T], weight [in, out / groups, kernel] -> [1, out, (T - 1) stride + kernel]."""
        ...

    # --- shapes -----------------------------------------------------------------------------------

    def reshape(self, x: V, shape: Sequence[int], name: str) -> V:
        """One size may be -1, which is then what is left."""
        ...

    def transpose(self, x: V, axes: Sequence[int], name: str) -> V: ...
    def expand_dims(self, x: V, axis: int, name: str) -> V: ...
    def squeeze(self, x: V, axis: int, name: str) -> V: ...
    def concat(self, parts: Sequence[V], axis: int, name: str) -> V: ...

    def slice(self, x: V, axis: int, start: int, stop: int | None, name: str, *, step: int = 1) -> V:
        """``x[start:stop:step]`` along ``axis``, as Python counts."""
        ...

    def pad(
        self, x: V, axis: int, before: int, after: int, name: str, *, mode: Literal["constant", "edge", "reflect"]
    ) -> V:
        """Zeros, or the border values, or a reflection without the border, along one axis."""
        ...

    def gather(self, x: V, ids: V, axis: int, name: str) -> V:
        """``x`` at ``ids`` along ``axis``."""
        ...
