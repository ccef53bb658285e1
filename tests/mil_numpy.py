"""A saved Core ML package, read back and computed in NumPy, operation by operation as the MIL reference describes them.

Core ML itself runs on a Mac only. This is not Core ML: it says what a program means, not what a runtime makes of it.
Sums are float32, and the result of each operation is rounded to its own type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qwen3tts_np import ops

Array = NDArray[Any]
TYPES = {"fp16": np.float16, "fp32": np.float32, "int32": np.int32, "bool": np.bool_}


def program_of(package: Path) -> Any:
    """The program of a package with its weights, both as they were written."""
    from coremltools.converters.mil.frontend.milproto.load import load
    from coremltools.models.utils import load_spec

    spec = load_spec(str(package))
    return load(spec, spec.specificationVersion, str(package / "Data/com.apple.CoreML/weights"))


def operations(program: Any, function: str = "main") -> Iterator[Any]:
    """All operations of a function without blocks inside."""
    for operation in program.functions[function].operations:
        assert not operation.blocks, "no control flow"
        yield operation


class Run:
    """A function with its states, which begin as zeros or are those of another; called with arrays by the names of
    its inputs."""

    def __init__(self, program: Any, function: str = "main", states: dict[str, Any] | None = None) -> None:
        self.function = program.functions[function]
        self.states = states or {name: np.zeros(var.shape, np.float16) for name, var in self.function.inputs.items()
                       if "state" in str(var.sym_type)}  # fmt: skip

    def __call__(self, **given: Array) -> dict[str, Array]:
        values: dict[str, Any] = dict(given)
        for op in self.function.operations:
            arguments = {name: self._value(var, values) for name, var in op.inputs.items() if var is not None}
            if op.op_type == "read_state":
                result = self.states[op.inputs["input"].name]
            elif op.op_type == "coreml_update_state":
                result = self.states[op.inputs["state"].name] = arguments["value"]
            elif op.op_type == "const":
                result = op.outputs[0].val
            else:
                result = OPERATIONS[op.op_type](**arguments)
            out = op.outputs[0]
            kind = str(out.sym_type) if out.val is None else ""
            if isinstance(result, np.ndarray) and result.dtype.kind == "f" and "fp16" in kind:
                result = result.astype(np.float16)
            values[out.name] = result
            if isinstance(result, np.ndarray) and out.val is None:
                assert tuple(out.shape) == result.shape, (op.op_type, out.name, out.shape, result.shape)
        return {var.name: values[var.name] for var in self.function.outputs}

    def _value(self, var: Any, values: dict[str, Any]) -> Any:
        if isinstance(var, list | tuple):
            return [self._value(v, values) for v in var]
        if var.name in values:
            return values[var.name]
        return self.states.get(var.name) if var.val is None else var.val


def wide(x: Any) -> Any:
    return x.astype(np.float32) if isinstance(x, np.ndarray | np.floating) and x.dtype == np.float16 else x


def pair(f: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    return lambda x, y, **_: np.asarray(f(wide(x), wide(y)))


def one(f: Callable[[Any], Any]) -> Callable[..., Any]:
    return lambda x, **_: np.asarray(f(wide(x)))


def conv(x, weight, strides, dilations, groups, pad_type, bias=None, **_):
    x, weight = wide(x)[0], wide(weight)
    assert pad_type == "valid"
    if groups > 1:
        return ops.depthwise_conv1d(x, weight, wide(bias))[None]
    return ops.conv1d(x, weight, None if bias is None else wide(bias), int(strides[0]), int(dilations[0]))[None]


def conv_transpose(x, weight, strides, pad_type, bias=None, **_):
    assert pad_type == "valid"
    return ops.conv_transpose1d(wide(x)[0], wide(weight), wide(bias), int(strides[0]))[None]


def linear(x, weight, bias=None, **_):
    y = wide(x) @ wide(weight).T
    return y if bias is None else y + wide(bias)


def matmul(x, y, transpose_x=False, transpose_y=False, **_):
    return wide(x) @ (wide(y).swapaxes(-1, -2) if transpose_y else wide(y))


def slice_by_index(x, begin, end, stride, begin_mask, end_mask, **_):
    bounds = zip(begin, end, stride, begin_mask, end_mask, strict=True)
    return x[tuple(slice(None if bm else int(b), None if em else int(e), int(s)) for b, e, s, bm, em in bounds)]


def slice_update(x, update, begin, end, **_):
    written = x.copy()
    written[tuple(slice(int(b), int(e)) for b, e in zip(begin, end, strict=True))] = update
    return written


def pad(x, pad, mode, **_):
    pairs = np.asarray(pad).reshape(-1, 2)
    widths = [(0, 0)] * (x.ndim - len(pairs)) + [tuple(map(int, p)) for p in pairs]
    if mode != "constant":  # of the last two dimensions only
        widths = [(0, 0)] * (x.ndim - len(pairs)) + [tuple(map(int, p)) for p in pairs]
    return np.pad(x, widths, mode={"replicate": "edge"}.get(mode, mode))


def layer_norm(x, axes, gamma, beta, epsilon, **_):
    return ops.layer_norm(wide(x), wide(gamma), wide(beta), float(epsilon))


def blockwise(data, scale, **_):
    block = data.shape[-1] // scale.shape[-1]
    return np.asarray(data, np.float32) * np.repeat(scale.astype(np.float32), block, axis=-1)


def table(indices, lut, **_):
    return lut.reshape(-1)[np.asarray(indices, np.int64)]


def softmax(x, axis, **_):
    assert axis == -1
    return ops.softmax(wide(x))


OPERATIONS: dict[str, Callable[..., Any]] = {
    "add": pair(np.add), "sub": pair(np.subtract), "mul": pair(np.multiply), "real_div": pair(np.divide),
    "maximum": pair(np.maximum), "minimum": pair(np.minimum), "less_equal": pair(np.less_equal),
    "log": one(np.log), "sqrt": one(np.sqrt), "sin": one(np.sin), "cos": one(np.cos), "tanh": one(np.tanh),
    "sigmoid": one(ops.sigmoid), "silu": one(ops.silu), "elu": one(ops.elu), "relu": one(lambda x: np.maximum(x, 0)),
    "gelu": lambda x, mode: ops.gelu(wide(x)),
    "rsqrt": lambda x, epsilon: 1 / np.sqrt(x + epsilon),
    "reduce_mean": lambda x, axes, keep_dims: wide(x).mean(axis=tuple(axes), keepdims=bool(keep_dims)),
    "reduce_sum": lambda x, axes, keep_dims: wide(x).sum(axis=tuple(axes), keepdims=bool(keep_dims)),
    "reduce_argmax": lambda x, axis, keep_dims, **_: x.argmax(axis=int(axis)).astype(np.int32),
    "select": lambda cond, a, b: np.where(cond, a, b),
    "cast": lambda x, dtype: np.asarray(x).astype(TYPES[str(dtype)]),
    "reshape": lambda x, shape: x.reshape([int(n) for n in shape]),
    "transpose": lambda x, perm: x.transpose([int(n) for n in perm]),
    "expand_dims": lambda x, axes: np.expand_dims(x, tuple(int(n) for n in axes)),
    "squeeze": lambda x, axes: np.squeeze(x, tuple(int(n) for n in axes)),
    "concat": lambda values, axis, **_: np.concatenate(values, axis=int(axis)),
    "gather": lambda x, indices, axis, **_: np.take(x, indices, axis=int(axis)),
    "conv": conv, "conv_transpose": conv_transpose, "linear": linear, "matmul": matmul, "softmax": softmax,
    "slice_by_index": slice_by_index, "slice_update": slice_update, "pad": pad, "layer_norm": layer_norm,
    "constexpr_blockwise_shift_scale": blockwise, "constexpr_lut_to_dense": table,
}  # fmt: skip
"""Every operation that the packages have, besides constants and states."""
