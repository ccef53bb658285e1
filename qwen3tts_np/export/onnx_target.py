"""Graphs in ONNX: operators of opset 18, and ``MatMulNBits`` of ONNX Runtime for int8 and int4.

Every value has the name that the piece gave it, so an activation can be fetched, or compared, under its official name.
What an operator needs besides, such as the shape of a ``Reshape``, is named after it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from qwen3tts_np_kernels.pack import GROUP, TINY

from ..extras import imported, install
from ..ops import AnyArray
from .target import PAST, PRESENT, DType, Shape
from .weights import Source, Tensors, bits_of, floats, levels_and_scales, of_array

MODEL = "model.onnx"
PROMPT = "prompt.onnx"  # where lengths are fixed, the graph of the talker that reads many positions
OPSET, IR_VERSION = 18, 8
RUNTIME_DOMAIN = "com.microsoft"  # where ONNX Runtime has its own operators
INTEGER_PRODUCTS = 4  # its accuracy level that rounds inputs to 8 bits in groups, as our kernels do
LARGEST_FILE = 2**31 - 1  # bytes; what protobuf, and several file systems, take
_INLINE = 1024  # bytes; smaller constants are in the graph itself
_ALIGNED = 4096  # bytes: every array begins at a page, so that it can be mapped

Arrays = Mapping[str, Any]  # TensorProto of each array of a graph, by its name


class OnnxTarget:
    """One graph under construction, a ``Target[str]``. Values are their names.

    ``lengths`` has a number for each length that is not to be symbolic; ``tensors`` is the checkpoint.
    """

    def __init__(self, tensors: Tensors, model_format: str, lengths: Mapping[str, int] | None = None) -> None:
        self._onnx = imported("onnx", "export onnx", install("onnx"))
        self._tensors, self._format, self._lengths = tensors, model_format, dict(lengths or {})
        self._arrays: dict[str, Source] = {}
        self._nodes: list[Any] = []
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._names: set[str] = set()
        self._domains: set[str] = set()

    # --- what enters and leaves -------------------------------------------------------------------

    def input(self, name: str, shape: Shape, dtype: DType = "float32") -> str:
        self._inputs.append(self._info(self._new(name), shape, dtype))
        return name

    def output(self, x: str, name: str, shape: Shape, dtype: DType = "float32") -> None:
        if x != name:
            self._node("Identity", [x], name)
        self._outputs.append(self._info(name, shape, dtype))

    def state(self, name: str, shape: Shape, dtype: DType = "float32") -> str:
        return self.input(name + PAST, shape, dtype)

    def next_state(self, x: str, name: str, shape: Shape, dtype: DType = "float32") -> None:
        self.output(x, name + PRESENT, shape, dtype)

    def cached(self, new: str, positions: str, name: str, heads: int, width: int) -> str:
        most = self._lengths.get("places")
        if most is None:
            past = self.input(name + PAST, [heads, "past", width])
            everything = self.concat([past, new], 1, name + PRESENT)
            self.output(everything, everything, [heads, "past + positions", width])
            return everything
        past = self.input(name + PAST, [heads, most, width])
        here, rows = self._at_their_places(new, positions, name)
        written = self.where(self.expand_dims(here, 1, f"{name}/row"), rows, past, name + PRESENT)
        self.output(written, written, [heads, most, width])
        return written

    def _at_their_places(self, new: str, positions: str, name: str) -> tuple[str, str]:
        """Which of all places [S] are those of ``positions``, and what stands there [heads, S or 1, width]."""
        count = self._lengths["positions"]
        if count == 1:
            return self._node("Equal", [self._all_places(), positions], f"{name}/here"), new
        if "cache/here" not in self._names:  # once for all layers
            first = self.slice(positions, 0, 0, 1, "cache/first")
            behind = self.sub(self._all_places(), first, "cache/behind_first")
            which = self.minimum(self.maximum(behind, 0, "cache/not_before"), count - 1, "cache/which")
            self._node("Equal", [which, behind], "cache/here")
        return "cache/here", self.gather(new, "cache/which", 1, f"{name}/rows")

    def places(self, cache: str, name: str) -> str:
        return self._all_places() if "places" in self._lengths else self.indices(cache, 1, name)

    def _all_places(self) -> str:
        most = self._lengths["places"]
        return self._once(f"constants/0 to {most - 1}", np.arange(most))

    def indices(self, x: str, axis: int, name: str) -> str:
        shape = self._node("Shape", [x], f"{name}/shape")
        count = self._node("Gather", [shape, self._integer(axis)], f"{name}/count", axis=0)
        return self._node("Range", [self._integer(0), count, self._integer(1)], name)

    # --- weights ----------------------------------------------------------------------------------

    def weight(self, key: str) -> str:
        if key in self._names:
            return f"{key}/float32" if f"{key}/float32" in self._names else key
        tensor = self._tensors[key]
        if self._format == "float32" or len(tensor.shape) < 2:
            return self._array(key, floats([tensor], "float32"))
        return self.cast(self._array(key, floats([tensor], "float16")), "float32", f"{key}/float32")

    def constant(self, values: AnyArray, name: str) -> str:
        kept = values.dtype.kind == "b" or values.dtype in (np.float32, np.float64)
        return self._array(name, of_array(np.ascontiguousarray(values, values.dtype if kept else np.int64)))

    def linear(self, x: str, name: str, *, bias: bool = False) -> str:
        key = f"{name}.weight"
        after = [self.weight(f"{name}.bias")] if bias else []
        bits = bits_of(key, self._format)
        if bits is None:
            return self._node("Gemm", [x, self.weight(key), *after], name, transB=1)
        matrix = [self._tensors[key]]
        small, steps = self._levels(f"{key}.int{bits}", *levels_and_scales(matrix, bits))
        product = f"{name}/product" if bias else name
        y = self._quantised(x, small, steps, matrix[0].shape, bits, product)
        return self.add(y, after[0], name) if bias else y

    def one_of_linear(self, x: str, names: Sequence[str], which: str, name: str) -> str:
        keys = [f"{part}.weight" for part in names]
        matrices = [self._tensors[key] for key in keys]
        rows, inputs = matrices[0].shape
        bits = bits_of(keys[0], self._format)
        if bits is None:
            dtype = "float32" if self._format == "float32" else "float16"
            stack = self._array(f"{name}.weight", floats(matrices, dtype, stacked=True))
            chosen = self.squeeze(self.gather(stack, which, 0, f"{name}/rows"), 0, f"{name}/chosen")
            if dtype == "float16":
                chosen = self.cast(chosen, "float32", f"{name}/float32")
            return self._node("Gemm", [x, chosen], name, transB=1)
        # Trap: MatMulNBits of a matrix that is not an initializer takes twenty times as long as this.
        small, steps = self._levels(f"{name}.weight.int{bits}", *levels_and_scales(matrices, bits, stacked=True))
        small = self.squeeze(self.gather(small, which, 0, f"{name}/levels"), 0, f"{name}/chosen_levels")
        steps = self.squeeze(self.gather(steps, which, 0, f"{name}/scales"), 0, f"{name}/chosen_scales")
        signed = self.sub(self.cast(small, "float32", f"{name}/unsigned"), 2.0 ** (bits - 1), f"{name}/signed")
        groups = self.mul(signed, self.expand_dims(steps, -1, f"{name}/scale_of_group"), f"{name}/groups")
        chosen = self.reshape(groups, [rows, -1], f"{name}/padded")
        return self._node("Gemm", [self._in_8_bits(x, inputs, f"{name}/input"), chosen], name, transB=1)

    def _in_8_bits(self, x: str, width: int, name: str) -> str:
        """x [T, width] rounded to 8 bits in groups, as ``quantise_groups_ref`` and MatMulNBits round it, and as long as
        whole groups are [T, 32 n]."""
        if width % GROUP:
            x = self.pad(x, 1, 0, -width % GROUP, f"{name}/padded", mode="constant")
        groups = self.reshape(x, [-1, -(-width // GROUP), GROUP], f"{name}/groups")
        magnitude = self._node("Abs", [groups], f"{name}/magnitude")
        peak = self._node("ReduceMax", [magnitude, self._integers([-1])], f"{name}/peak", keepdims=1)
        inverse = self._pair("Div", self._number(127.0), self.maximum(peak, TINY, f"{name}/floor"), f"{name}/inverse")
        levels = self._node("Round", [self.mul(groups, inverse, f"{name}/exact")], f"{name}/levels")
        rounded = self.mul(levels, self.div(peak, 127.0, f"{name}/scale"), f"{name}/rounded")
        return self.reshape(rounded, [-1, -(-width // GROUP) * GROUP], name)

    def _levels(self, name: str, levels: Source, scales: Source) -> tuple[str, str]:
        return self._array(name, levels), self._array(f"{name}.scales", scales)

    def _quantised(self, x: str, small: str, steps: str, shape: tuple[int, ...], bits: int, name: str) -> str:
        rows, inputs = shape
        self._domains.add(RUNTIME_DOMAIN)
        sizes = {"N": rows, "K": inputs, "bits": bits, "block_size": GROUP, "accuracy_level": INTEGER_PRODUCTS}
        return self._node("MatMulNBits", [x, small, steps], name, domain=RUNTIME_DOMAIN, **sizes)

    def rows(self, ids: str, key: str, name: str) -> str:
        if self._format == "float32":
            return self.gather(self.weight(key), ids, 0, name)
        table = key if key in self._names else self._array(key, floats([self._tensors[key]], "float16"))
        return self.cast(self.gather(table, ids, 0, f"{name}/float16"), "float32", name)

    # --- arithmetic -------------------------------------------------------------------------------

    def add(self, x: str, y: str | float, name: str) -> str:
        return self._pair("Add", x, y, name)

    def sub(self, x: str, y: str | float, name: str) -> str:
        return self._pair("Sub", x, y, name)

    def mul(self, x: str, y: str | float, name: str) -> str:
        return self._pair("Mul", x, y, name)

    def div(self, x: str, y: str | float, name: str) -> str:
        return self._pair("Div", x, y, name)

    def maximum(self, x: str, y: str | float, name: str) -> str:
        return self._pair("Max", x, y, name)

    def minimum(self, x: str, y: str | float, name: str) -> str:
        return self._pair("Min", x, y, name)

    def less_equal(self, x: str, y: str, name: str) -> str:
        return self._node("LessOrEqual", [x, y], name)

    def exp(self, x: str, name: str) -> str:
        return self._node("Exp", [x], name)

    def log(self, x: str, name: str) -> str:
        return self._node("Log", [x], name)

    def sqrt(self, x: str, name: str) -> str:
        return self._node("Sqrt", [x], name)

    def sin(self, x: str, name: str) -> str:
        return self._node("Sin", [x], name)

    def cos(self, x: str, name: str) -> str:
        return self._node("Cos", [x], name)

    def tanh(self, x: str, name: str) -> str:
        return self._node("Tanh", [x], name)

    def sigmoid(self, x: str, name: str) -> str:
        return self._node("Sigmoid", [x], name)

    def relu(self, x: str, name: str) -> str:
        return self._node("Relu", [x], name)

    def elu(self, x: str, name: str) -> str:
        return self._node("Elu", [x], name)

    def erf(self, x: str, name: str) -> str:
        return self._node("Erf", [x], name)

    def where(self, condition: str, x: str | float, y: str | float, name: str) -> str:
        return self._node("Where", [condition, self._value(x), self._value(y)], name)

    def cast(self, x: str, dtype: DType, name: str) -> str:
        return self._node("Cast", [x], name, to=self._type(dtype))

    def matmul(self, x: str, y: str, name: str) -> str:
        return self._node("MatMul", [x, y], name)

    def softmax(self, x: str, name: str) -> str:
        return self._node("Softmax", [x], name, axis=-1)

    def mean(self, x: str, axis: int, name: str) -> str:
        return self._node("ReduceMean", [x, self._integers([axis])], name, keepdims=1)

    def sum(self, x: str, axis: int, name: str) -> str:
        return self._node("ReduceSum", [x, self._integers([axis])], name, keepdims=1)

    def argmax(self, x: str, axis: int, name: str) -> str:
        return self._node("ArgMax", [x], name, axis=axis, keepdims=0)

    def silu(self, x: str, name: str) -> str:
        return self.mul(x, self.sigmoid(x, f"{name}/sigmoid"), name)

    def gelu(self, x: str, name: str) -> str:
        erf = self.erf(self.div(x, math.sqrt(2), f"{name}/scaled"), f"{name}/erf")
        return self.mul(self.mul(x, self.add(erf, 1.0, f"{name}/plus_one"), f"{name}/doubled"), 0.5, name)

    def cos_sin(self, positions: str, frequencies: AnyArray, name: str) -> tuple[str, str]:
        column = self.expand_dims(self.cast(positions, "float32", f"{name}/positions"), 1, f"{name}/column")
        angles = self.mul(column, self.constant(frequencies, f"{name}.inv_freq"), f"{name}/angles")
        return self.cos(angles, f"{name}/cos"), self.sin(angles, f"{name}/sin")

    def rms_norm(self, x: str, name: str, eps: float) -> str:
        # As PyTorch exporters spell it, which is what runtimes recognise and fuse.
        square = self._node("Pow", [x, self._number(2.0)], f"{name}/square")
        mean = self.add(self.mean(square, -1, f"{name}/mean_square"), eps, f"{name}/with_eps")
        normal = self.div(x, self.sqrt(mean, f"{name}/rms"), f"{name}/normalised")
        return self.mul(normal, self.weight(f"{name}.weight"), name)

    def layer_norm(self, x: str, name: str, eps: float) -> str:
        weights = [self.weight(f"{name}.weight"), self.weight(f"{name}.bias")]
        return self._node("LayerNormalization", [x, *weights], name, axis=-1, epsilon=eps)

    # --- convolutions -----------------------------------------------------------------------------

    def conv1d(
        self,
        x: str,
        weight: str,
        bias: str | None,
        name: str,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
    ) -> str:
        after = [] if bias is None else [bias]
        return self._node("Conv", [x, weight, *after], name, strides=[stride], dilations=[dilation], group=groups)

    def conv_transpose1d(
        self, x: str, weight: str, bias: str | None, name: str, *, stride: int = 1, groups: int = 1
    ) -> str:
        after = [] if bias is None else [bias]
        return self._node("ConvTranspose", [x, weight, *after], name, strides=[stride], group=groups)

    # --- shapes -----------------------------------------------------------------------------------

    def reshape(self, x: str, shape: Sequence[int], name: str) -> str:
        return self._node("Reshape", [x, self._integers(shape)], name)

    def transpose(self, x: str, axes: Sequence[int], name: str) -> str:
        return self._node("Transpose", [x], name, perm=list(axes))

    def expand_dims(self, x: str, axis: int, name: str) -> str:
        return self._node("Unsqueeze", [x, self._integers([axis])], name)

    def squeeze(self, x: str, axis: int, name: str) -> str:
        return self._node("Squeeze", [x, self._integers([axis])], name)

    def concat(self, parts: Sequence[str], axis: int, name: str) -> str:
        return self._node("Concat", list(parts), name, axis=axis)

    def slice(self, x: str, axis: int, start: int, stop: int | None, name: str, *, step: int = 1) -> str:
        end = np.iinfo(np.int64).max if stop is None else stop
        return self._node("Slice", [x, *(self._integers([n]) for n in (start, end, axis, step))], name)

    def pad(
        self, x: str, axis: int, before: int, after: int, name: str, *, mode: Literal["constant", "edge", "reflect"]
    ) -> str:
        zero = self._number(0.0)
        return self._node("Pad", [x, self._integers([before, after]), zero, self._integers([axis])], name, mode=mode)

    def gather(self, x: str, ids: str, axis: int, name: str) -> str:
        return self._node("Gather", [x, ids], name, axis=axis)

    # --- the file ---------------------------------------------------------------------------------

    def save(self, folder: Path, title: str, file: str = MODEL, written: Arrays | None = None) -> Arrays:
        """Write ``file`` and its arrays beside it, ``model.onnx.data`` and further files, into ``folder``.

        ``written``: what another graph in ``folder`` has written, whose arrays of the same names are used again.
        Returns what this one has.
        """
        helper = self._onnx.helper
        initializers = self._write_arrays(_DataFiles(folder, file), written or {})
        graph = helper.make_graph(self._nodes, title, self._inputs, self._outputs, initializers)
        domains = [helper.make_opsetid("", OPSET), *(helper.make_opsetid(domain, 1) for domain in self._domains)]
        model = helper.make_model(graph, opset_imports=domains, ir_version=IR_VERSION, producer_name="qwen3tts-np")
        (folder / file).write_bytes(model.SerializeToString())
        return {array.name: array for array in initializers}

    def _write_arrays(self, data: _DataFiles, written: Arrays) -> list[Any]:
        found = []
        try:
            for name, source in self._arrays.items():
                if name in written:
                    found.append(written[name])
                    continue
                proto = self._onnx.TensorProto(name=name, dims=source.shape, data_type=self._type(source.dtype))
                if source.nbytes <= _INLINE:
                    proto.raw_data = b"".join(piece.tobytes() for piece in source.pieces())
                else:
                    proto.data_location = self._onnx.TensorProto.EXTERNAL
                    for key, value in data.append(source).items():
                        proto.external_data.add(key=key, value=value)
                found.append(proto)
        finally:
            data.close()
        return found

    # --- parts ------------------------------------------------------------------------------------

    def _new(self, name: str) -> str:
        if name in self._names:
            raise ValueError(f"the name {name} occurs twice in the graph")
        self._names.add(name)
        return name

    def _node(self, operator: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        node = self._onnx.helper.make_node(operator, list(inputs), [self._new(name)], name=name, **attributes)
        self._nodes.append(node)
        return name

    def _array(self, name: str, source: Source) -> str:
        self._arrays[self._new(name)] = source
        return name

    def _pair(self, operator: str, x: str, y: str | float, name: str) -> str:
        return self._node(operator, [x, self._value(y)], name)

    def _value(self, x: str | float) -> str:
        if isinstance(x, str):
            return x
        return self._integer(x) if isinstance(x, int) else self._number(x)

    def _number(self, value: float) -> str:
        return self._once(f"constants/{value!r}", np.array(value, np.float32))

    def _integer(self, value: int) -> str:
        return self._once(f"constants/{value}", np.array(value, np.int64))

    def _integers(self, values: Sequence[int]) -> str:
        return self._once(f"constants/{list(values)}", np.array(values, np.int64))

    def _once(self, name: str, values: AnyArray) -> str:
        return name if name in self._names else self._array(name, of_array(values))

    def _type(self, dtype: str) -> int:
        return int(self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def _info(self, name: str, shape: Shape, dtype: DType) -> Any:
        sizes = [self._lengths.get(size, size) if isinstance(size, str) else size for size in shape]
        return self._onnx.helper.make_tensor_value_info(name, self._type(dtype), sizes)


class _DataFiles:
    """The files behind a graph: arrays one after the other, each file as large as files may be."""

    def __init__(self, folder: Path, graph: str) -> None:
        self._folder, self._graph, self._count, self._place = folder, graph, 0, 0
        self._file: BinaryIO | None = None

    def append(self, source: Source) -> dict[str, str]:
        """Write an array; where it is, as ONNX says it."""
        start = -(-self._place // _ALIGNED) * _ALIGNED
        if self._file is None or start + source.nbytes > LARGEST_FILE:
            self.close()
            self._file = (self._folder / self._name(self._count)).open("xb")
            self._count, self._place, start = self._count + 1, 0, 0
        self._file.write(bytes(start - self._place))
        for piece in source.pieces():
            self._file.write(np.ascontiguousarray(piece).data)
        self._place = start + source.nbytes
        if self._file.tell() != self._place:
            raise ValueError(f"{source} has other values than its shape says")
        return {"location": self._name(self._count - 1), "offset": str(start), "length": str(source.nbytes)}

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _name(self, number: int) -> str:
        return f"{self._graph}.data" if number == 0 else f"{self._graph}.data.{number}"
