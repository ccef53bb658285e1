"""Graphs in Core ML: ML Programs for iOS 18 and macOS 15, written with the builder of coremltools, which runs anywhere.

What a call carries is a state of the program, which stays in the runtime. Lengths are numbers: an ML Program that is to
run on every compute unit has none to choose. Arithmetic is float16, in the sums of norms and the angles of positions
float32, or float32 throughout. Trap: names are the official ones with ``_`` for what Core ML does not allow in a name.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

import numpy as np
from qwen3tts_np_kernels.pack import GROUP

from ..checkpoint.quantised import levels_of
from ..checkpoint.tensor import StoredTensor
from ..extras import imported, install
from ..ops import AnyArray
from .target import PAST, DType, Shape
from .weights import Tensors, bits_of, floats

STATE = ".state"  # behind the name of what is carried
LARGE = 1 << 16  # bytes
HIDDEN = -3e4  # in place of -inf, whose differences are not numbers; exp of it is 0
_TYPES = {"float64": "fp32", "int64": "int32", "bool": "bool"}  # float32 is what the graph computes in

Op = Any  # a value of coremltools' builder
Build = Callable[["CoreMLTarget"], None]


class Declarations:
    """What enters a graph, found by running its piece once without making anything: the builder wants it first."""

    def __init__(self, lengths: Mapping[str, int]) -> None:
        self.lengths = lengths
        self.inputs: dict[str, tuple[tuple[int, ...], DType]] = {}
        self.states: dict[str, tuple[int, ...]] = {}

    def input(self, name: str, shape: Shape, dtype: DType = "float32") -> object:
        self.inputs[name] = sizes(shape, self.lengths), dtype
        return self

    def state(self, name: str, shape: Shape, dtype: DType = "float32") -> object:
        self.states[name] = sizes(shape, self.lengths)
        return self

    def cached(self, new: object, positions: object, name: str, heads: int, width: int) -> object:
        return self.state(name, [heads, "places", width])

    def cos_sin(self, positions: object, frequencies: AnyArray, name: str) -> tuple[object, object]:
        return self, self

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        return lambda *args, **more: self


def coremltools(module: str = "") -> Any:
    """The package, or a module of it; off a Mac it says of each part that runs models that it is missing: not here."""
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    return imported(f"coremltools{module}", "export coreml", install("coreml"))


def sizes(shape: Shape, lengths: Mapping[str, int]) -> tuple[int, ...]:
    """A shape in numbers."""
    return tuple(lengths[size] if isinstance(size, str) else size for size in shape)


def allowed(name: str) -> str:
    """``name`` as Core ML takes it: letters, digits and underscores, no digit first."""
    plain = re.sub(r"\W", "_", name, flags=re.ASCII)
    return f"_{plain}" if plain[:1].isdigit() else plain


class Uncopied(np.ndarray[Any, np.dtype[Any]]):
    """A contiguous array that coremltools writes as it is: these two are what it makes copies with on the way.

    Only for arrays of more than ``LARGE``: small ones stand in the program itself, as bytes.
    """

    def flatten(self, order: Any = "C") -> Any:
        return self.reshape(-1)

    def tobytes(self, order: Any = "C") -> Any:
        return memoryview(cast(Any, self)).cast("B")


class CoreMLTarget:
    """One graph under construction, a ``Target[Op]``.

    ``lengths`` has a number for every length; ``narrow``: float16, or else float32 throughout. ``arrays`` has the
    weights by name: graphs of one package that are given the same one have them in common.
    """

    def __init__(
        self,
        tensors: Tensors,
        model_format: str,
        lengths: Mapping[str, int],
        narrow: bool = True,
        arrays: dict[str, AnyArray] | None = None,
    ) -> None:
        self._ct, self._mil = coremltools(), coremltools(".converters.mil.mil")
        self._mb = self._mil.Builder
        self._tensors, self._format, self._lengths = tensors, model_format, dict(lengths)
        self._float = "fp16" if narrow else "fp32"
        self._np: type[np.floating] = np.float16 if narrow else np.float32
        self._names: dict[str, str] = {}
        self._weights: dict[str, Op] = {}
        self._arrays = {} if arrays is None else arrays
        self._outputs: list[Op] = []
        self._inputs: dict[str, Op] = {}

    def function(self, build: Build, declared: Declarations) -> Any:
        """The function of a program that ``build`` writes, with what it declared."""
        types, placeholder = self._mil.types, self._mil.program.Placeholder
        floats_or_ints = {"float32": types.fp32, "int64": types.int32}
        given = {
            self._new(name): placeholder(shape, dtype=floats_or_ints[dtype])
            for name, (shape, dtype) in declared.inputs.items()
        }
        state = self._mil.program.StateTensorPlaceholder
        given |= {self._new(name + STATE): state(shape, dtype=types.fp16) for name, shape in declared.states.items()}
        with self._mil.Function(given, opset_version=self._target) as function:
            self._inputs = dict(function.inputs)
            build(self)
            function.set_outputs(self._outputs)
        return function

    @property
    def _target(self) -> Any:
        return self._ct.target.iOS18

    # --- what enters and leaves -------------------------------------------------------------------

    def input(self, name: str, shape: Shape, dtype: DType = "float32") -> Op:
        x = self._inputs[allowed(name)]
        return x if dtype != "float32" else self.cast(x, dtype, f"{name}/input")

    def output(self, x: Op, name: str, shape: Shape, dtype: DType = "float32") -> None:
        kind = "fp32" if dtype == "float32" else _TYPES[dtype]
        self._outputs.append(self._mb.cast(x=x, dtype=kind, name=allowed(f"{name}.output")))

    def state(self, name: str, shape: Shape, dtype: DType = "float32") -> Op:
        return self._mb.read_state(input=self._inputs[allowed(name + STATE)], name=self._new(f"{name}{PAST}"))

    def next_state(self, x: Op, name: str, shape: Shape, dtype: DType = "float32") -> None:
        self._update(x, name)

    def cached(self, new: Op, positions: Op, name: str, heads: int, width: int) -> Op:
        past = self.state(name, [heads, "places", width])
        first = self.slice(positions, 0, 0, 1, f"{name}/first")
        begin = self.concat([np.zeros(1, np.int32), first, np.zeros(1, np.int32)], 0, f"{name}/begin")
        end = self.add(begin, np.array(new.shape, np.int32), f"{name}/end")
        written = self._mb.slice_update(x=past, update=new, begin=begin, end=end, name=self._new(f"{name}/written"))
        return self._update(written, name)

    def _update(self, x: Op, name: str) -> Op:
        state = self._inputs[allowed(name + STATE)]
        return self._mb.coreml_update_state(state=state, value=x, name=self._new(f"{name}.present"))

    def places(self, cache: Op, name: str) -> Op:
        return self.indices(cache, 1, name)

    def indices(self, x: Op, axis: int, name: str) -> Op:
        return self._const(np.arange(x.shape[axis], dtype=np.int32), name)

    # --- weights ----------------------------------------------------------------------------------

    def weight(self, key: str) -> Op:
        if key not in self._weights:
            self._weights[key] = self._stored(key, lambda: self._floats([self._tensors[key]])[0])
        return self._weights[key]

    def constant(self, values: AnyArray, name: str) -> Op:
        kind = {"f": np.float32 if values.dtype == np.float64 else self._np, "b": np.bool_}.get(
            values.dtype.kind, np.int32
        )
        return self._const(values.astype(kind), name)

    def linear(self, x: Op, name: str, *, bias: bool = False) -> Op:
        after = {"bias": self.weight(f"{name}.bias")} if bias else {}
        return self._mb.linear(x=x, weight=self._matrix(f"{name}.weight"), name=self._new(name), **after)

    def one_of_linear(self, x: Op, names: Sequence[str], which: Op, name: str) -> Op:
        tensors = [self._tensors[f"{part}.weight"] for part in names]
        stack = self._matrices(tensors, f"{name}.weight")
        chosen = self.squeeze(self.gather(stack, which, 0, f"{name}/rows"), 0, f"{name}/chosen")
        return self._mb.matmul(x=x, y=chosen, transpose_y=True, name=self._new(name))

    def rows(self, ids: Op, key: str, name: str) -> Op:
        return self.gather(self.weight(key), ids, 0, name)

    def _matrix(self, key: str) -> Op:
        """A matrix that is multiplied, in the format of the graph."""
        if key not in self._weights:
            bits = bits_of(key, self._format)
            fits = bits is not None and self._tensors[key].shape[1] % GROUP == 0
            self._weights[key] = self._levels([self._tensors[key]], bits or 0, key) if fits else self.weight(key)
        return self._weights[key]

    def _matrices(self, tensors: Sequence[StoredTensor], name: str) -> Op:
        """Several of one shape, one behind the other [n, out, in]."""
        bits = bits_of(tensors[0].name, self._format)
        if bits is not None and tensors[0].shape[1] % GROUP == 0:
            return self._levels(tensors, bits, name)
        return self._stored(name, lambda: self._floats(tensors))

    def _levels(self, tensors: Sequence[StoredTensor], bits: int, name: str) -> Op:
        """Levels times scales, one for each 32 inputs, those that every format of this package has."""
        if f"{name}/scales" not in self._arrays:
            self._quantise(tensors, bits, name)
        data, scale = self._stored(f"{name}/integers"), self._stored(f"{name}/scales")
        if bits == 6:  # no number type: a table of all levels, of which these are the places
            table = np.arange(-32, 32, dtype=np.int8).reshape([1] * len(data.shape) + [64, 1])
            data = self._mb.constexpr_lut_to_dense(indices=data, lut=table, name=self._new(f"{name}/levels"))
        return self._mb.constexpr_blockwise_shift_scale(data=data, scale=scale, name=self._new(name))

    def _quantise(self, tensors: Sequence[StoredTensor], bits: int, name: str) -> None:
        types = self._mil.types
        levels, scales = (np.stack(parts) for parts in zip(*(levels_of(x, bits) for x in tensors), strict=True))
        if len(tensors) == 1:
            levels, scales = levels[0], scales[0]
        for tensor in tensors:
            tensor.release()
        stored = {8: np.int8, 4: types.np_int4_dtype, 6: types.np_uint6_dtype}[bits]
        self._arrays[f"{name}/integers"] = (levels + 32 if bits == 6 else levels).astype(stored)
        self._arrays[f"{name}/scales"] = scales.astype(self._np)

    def _floats(self, tensors: Sequence[StoredTensor]) -> AnyArray:
        """Tensors of one shape as floats [n, ...]. CheckpointError for a value beyond the range of float16."""
        dtype = np.dtype(self._np).name
        found = np.empty((len(tensors), *tensors[0].shape), self._np)
        for i, tensor in enumerate(tensors):
            place = 0
            for piece in floats([tensor], dtype).pieces():
                found[i, place : place + len(piece)] = piece
                place += len(piece)
        return found

    def _stored(self, name: str, make: Callable[[], AnyArray] | None = None) -> Op:
        """A weight, made where no graph of the package has it yet, and written once for all of them."""
        if make is not None and name not in self._arrays:
            self._arrays[name] = make()
        values = np.ascontiguousarray(self._arrays[name])
        found = self._const(values.view(Uncopied) if values.nbytes > LARGE else values, name)
        found.op.weight_id = name
        return found

    def _const(self, values: AnyArray, name: str) -> Op:
        return self._mb.const(val=values, name=self._new(name))

    # --- arithmetic -------------------------------------------------------------------------------

    def add(self, x: Op, y: Op | float, name: str) -> Op:
        return self._pair(self._mb.add, x, y, name)

    def sub(self, x: Op, y: Op | float, name: str) -> Op:
        return self._pair(self._mb.sub, x, y, name)

    def mul(self, x: Op, y: Op | float, name: str) -> Op:
        return self._pair(self._mb.mul, x, y, name)

    def div(self, x: Op, y: Op | float, name: str) -> Op:
        return self._pair(self._mb.real_div, x, y, name)

    def maximum(self, x: Op, y: Op | float, name: str) -> Op:
        return self._pair(self._mb.maximum, x, y, name)

    def minimum(self, x: Op, y: Op | float, name: str) -> Op:
        return self._pair(self._mb.minimum, x, y, name)

    def less_equal(self, x: Op, y: Op, name: str) -> Op:
        return self._pair(self._mb.less_equal, x, y, name)

    def exp(self, x: Op, name: str) -> Op:
        return self._mb.exp(x=x, name=self._new(name))

    def log(self, x: Op, name: str) -> Op:
        return self._mb.log(x=x, name=self._new(name))

    def sqrt(self, x: Op, name: str) -> Op:
        return self._mb.sqrt(x=x, name=self._new(name))

    def sin(self, x: Op, name: str) -> Op:
        return self._mb.sin(x=x, name=self._new(name))

    def cos(self, x: Op, name: str) -> Op:
        return self._mb.cos(x=x, name=self._new(name))

    def tanh(self, x: Op, name: str) -> Op:
        return self._mb.tanh(x=x, name=self._new(name))

    def sigmoid(self, x: Op, name: str) -> Op:
        return self._mb.sigmoid(x=x, name=self._new(name))

    def relu(self, x: Op, name: str) -> Op:
        return self._mb.relu(x=x, name=self._new(name))

    def elu(self, x: Op, name: str) -> Op:
        return self._mb.elu(x=x, alpha=self._np(1), name=self._new(name))

    def erf(self, x: Op, name: str) -> Op:
        return self._mb.erf(x=x, name=self._new(name))

    def where(self, condition: Op, x: Op | float, y: Op | float, name: str) -> Op:
        # Trap: coremltools takes the shape of a selection from the two values, whatever that of the condition is.
        a, b = (np.full(condition.shape, max(v, HIDDEN), self._np) if isinstance(v, float) else v for v in (x, y))
        return self._mb.select(cond=condition, a=a, b=b, name=self._new(name))

    def cast(self, x: Op, dtype: DType, name: str) -> Op:
        return self._mb.cast(x=x, dtype=_TYPES.get(dtype, self._float), name=self._new(name))

    def matmul(self, x: Op, y: Op, name: str) -> Op:
        return self._mb.matmul(x=x, y=y, name=self._new(name))

    def softmax(self, x: Op, name: str) -> Op:
        return self._mb.softmax(x=x, axis=-1, name=self._new(name))

    def mean(self, x: Op, axis: int, name: str) -> Op:
        return self._mb.reduce_mean(x=x, axes=[axis], keep_dims=True, name=self._new(name))

    def sum(self, x: Op, axis: int, name: str) -> Op:
        return self._mb.reduce_sum(x=x, axes=[axis], keep_dims=True, name=self._new(name))

    def argmax(self, x: Op, axis: int, name: str) -> Op:
        return self._mb.reduce_argmax(x=x, axis=axis, keep_dims=False, name=self._new(name))

    def silu(self, x: Op, name: str) -> Op:
        return self._mb.silu(x=x, name=self._new(name))

    def gelu(self, x: Op, name: str) -> Op:
        return self._mb.gelu(x=x, mode="EXACT", name=self._new(name))

    def cos_sin(self, positions: Op, frequencies: AnyArray, name: str) -> tuple[Op, Op]:
        column = self.expand_dims(self.cast(positions, "float64", f"{name}/positions"), 1, f"{name}/column")
        angles = self.mul(column, self._const(frequencies, f"{name}.inv_freq"), f"{name}/angles")
        cos, sin = self.cos(angles, f"{name}/wide_cos"), self.sin(angles, f"{name}/wide_sin")
        return self.cast(cos, "float32", f"{name}/cos"), self.cast(sin, "float32", f"{name}/sin")

    def rms_norm(self, x: Op, name: str, eps: float) -> Op:
        # The squares of large activations are beyond float16.
        wide = self.cast(x, "float64", f"{name}/wide")
        mean = self.mean(self.mul(wide, wide, f"{name}/square"), -1, f"{name}/mean_square")
        scale = self._mb.rsqrt(x=mean, epsilon=np.float32(eps), name=self._new(f"{name}/scale"))
        normal = self.cast(self.mul(wide, scale, f"{name}/wide_normalised"), "float32", f"{name}/normalised")
        return self.mul(normal, self.weight(f"{name}.weight"), name)

    def layer_norm(self, x: Op, name: str, eps: float) -> Op:
        gamma, beta = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self._mb.layer_norm(x=x, axes=[-1], gamma=gamma, beta=beta, epsilon=self._np(eps), name=self._new(name))

    # --- convolutions -----------------------------------------------------------------------------

    def conv1d(
        self,
        x: Op,
        weight: Op,
        bias: Op | None,
        name: str,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
    ) -> Op:
        more = {} if bias is None else {"bias": bias}
        steps = {"strides": [stride], "dilations": [dilation], "groups": groups, "pad_type": "valid"}
        return self._mb.conv(x=x, weight=weight, name=self._new(name), **steps, **more)

    def conv_transpose1d(
        self, x: Op, weight: Op, bias: Op | None, name: str, *, stride: int = 1, groups: int = 1
    ) -> Op:
        more = {} if bias is None else {"bias": bias}
        steps = {"strides": [stride], "groups": groups, "pad_type": "valid"}
        return self._mb.conv_transpose(x=x, weight=weight, name=self._new(name), **steps, **more)

    # --- shapes -----------------------------------------------------------------------------------

    def reshape(self, x: Op, shape: Sequence[int], name: str) -> Op:
        return self._mb.reshape(x=x, shape=list(shape), name=self._new(name))

    def transpose(self, x: Op, axes: Sequence[int], name: str) -> Op:
        return self._mb.transpose(x=x, perm=list(axes), name=self._new(name))

    def expand_dims(self, x: Op, axis: int, name: str) -> Op:
        return self._mb.expand_dims(x=x, axes=[axis], name=self._new(name))

    def squeeze(self, x: Op, axis: int, name: str) -> Op:
        return self._mb.squeeze(x=x, axes=[axis], name=self._new(name))

    def concat(self, parts: Sequence[Op], axis: int, name: str) -> Op:
        return self._mb.concat(values=list(parts), axis=axis, name=self._new(name))

    def slice(self, x: Op, axis: int, start: int, stop: int | None, name: str, *, step: int = 1) -> Op:
        first, last, steps = [0] * x.rank, [0] * x.rank, [1] * x.rank
        kept = [True] * x.rank
        first[axis], last[axis], steps[axis], kept[axis] = start, stop or 0, step, stop is None
        begins = [i != axis for i in range(x.rank)]
        return self._mb.slice_by_index(
            x=x, begin=first, end=last, stride=steps, begin_mask=begins, end_mask=kept, name=self._new(name)
        )

    def pad(
        self, x: Op, axis: int, before: int, after: int, name: str, *, mode: Literal["constant", "edge", "reflect"]
    ) -> Op:
        widths = [0] * (2 * (x.rank - axis))
        widths[:2] = before, after
        kind = "replicate" if mode == "edge" else mode
        return self._mb.pad(x=x, pad=widths, mode=kind, constant_val=self._np(0), name=self._new(name))

    def gather(self, x: Op, ids: Op, axis: int, name: str) -> Op:
        return self._mb.gather(x=x, indices=ids, axis=axis, name=self._new(name))

    # --- parts ------------------------------------------------------------------------------------

    def _new(self, name: str) -> str:
        """``name`` as Core ML takes it; ValueError where the graph has it already."""
        plain = allowed(name)
        if plain in self._names:
            raise ValueError(f"the names {self._names[plain]} and {name} are the same in Core ML: {plain}")
        self._names[plain] = name
        return plain

    def _pair(self, operation: Callable[..., Op], x: Op, y: Op | float, name: str) -> Op:
        if isinstance(y, int | float):
            y = self._mil.types.nptype_from_builtin(x.dtype)(y)
        return operation(x=x, y=y, name=self._new(name))
