"""From a kernel's Python source to machine code: the only file that imports Numba, when something must be compiled.

Numba infers types and emits LLVM IR. A kernel becomes one object file with one visible function, its entry, which reads
the arguments from a block (``arguments.py``) and calls the compiled function. All it calls in turn is inside.

Kernels call functions written in Python (``callee.py``) and operations on vectors (``simd/llvm.py``). Numba asks for
the type of each when it meets one, and from then on knows how to call it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.compiler_lock import global_compiler_lock
from numba.core.dispatcher import _FunctionCompiler  # type: ignore[attr-defined]
from numba.core.registry import cpu_target
from numba.core.typing.templates import make_intrinsic_template
from numba.core.typing.typeof import typeof_impl
from numba.extending import models, register_model
from numba.np.arrayobj import make_array, populate_array
from numba.np.numpy_support import from_dtype

from .arguments import NUMBER, TRUTH, ArrayKind, Kind, TupleKind
from .callee import Callee
from .machine_code import Code, target, target_machine
from .simd.llvm import ARRAY, ARRAYS, COUNT, FLOAT_ARRAY, FLOATS, INTS, TILE, WEIGHTS, Operation

numba.config.CPU_NAME, numba.config.CPU_FEATURES = target().cpu, target().features  # that of the cache's names


class Vector(types.Type):  # type: ignore[misc]  # Numba has no types
    """A vector of 16 lanes; values live in registers only."""

    def __init__(self, name: str, llvm_type: ir.VectorType) -> None:
        self.llvm_type = llvm_type
        super().__init__(name)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, vector.llvm_type)


_VECTORS = {"f32x16": Vector("f32x16", FLOATS), "i32x16": Vector("i32x16", INTS)}


# ---- kernels ----


class _Compiler(_FunctionCompiler):  # type: ignore[misc]
    def _customize_flags(self, flags: Any) -> Any:
        flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
        flags.no_compile = True  # not yet: the entry is added first
        flags.enable_pyobject = False
        return flags


def compile_kernel(function: Callable[..., None], options: dict[str, Any], kinds: tuple[Kind, ...], entry: str) -> Code:
    """Machine code of ``function`` for arguments of these kinds, under the name ``entry``."""
    with global_compiler_lock:
        module = kernel_module(function, options, kinds, entry)
        needs = {f.name for f in module.functions if f.is_declaration and not f.name.startswith("llvm.")}
        return Code(entry, tuple(sorted(needs)), target_machine().emit_object(module))


def kernel_module(function: Callable[..., None], options: dict[str, Any], kinds: tuple[Kind, ...], entry: str) -> Any:
    """The optimised LLVM module that becomes this machine code."""
    arguments = tuple(map(_type_of, kinds))
    with global_compiler_lock:
        for context in (cpu_target.typing_context, cpu_target.target_context):
            context.refresh()
        result = _Compiler(function, cpu_target, options, {}, numba.core.compiler.Compiler).compile(arguments, None)
        return _linked(result, kinds, entry)


def _linked(result: Any, kinds: tuple[Kind, ...], entry: str) -> Any:
    """The optimised LLVM module of a kernel and everything it calls, all private except its entry."""
    library = result.library
    library.add_ir_module(_entry(result, kinds, entry))
    module = library._final_module
    for called in dict.fromkeys(library._linking_libraries):
        module.link_in(called._get_module_for_linking(), preserve=True)
    for value in (*module.functions, *module.global_variables):
        if not value.is_declaration and value.name != entry:
            value.linkage = "internal"
    library._optimize_final_module()
    module = library._final_module
    module.verify()
    return module


def _entry(result: Any, kinds: tuple[Kind, ...], name: str) -> Any:
    """A module with the function ``name``, which reads a block and calls the kernel."""
    context, signature = result.target_context, result.fndesc
    module = result.library.create_ir_module(name)
    word = ir.IntType(64)
    function = ir.Function(module, ir.FunctionType(word, [word.as_pointer()]), name)
    builder = ir.IRBuilder(function.append_basic_block())
    words = _words(builder, function.args[0])
    values = [_read(context, builder, kind, words) for kind in kinds]
    called = context.declare_function(module, signature)
    _, value = context.call_conv.call_function(builder, called, signature.restype, signature.argtypes, values)
    if signature.restype not in (types.none, types.int64):
        raise TypeError(f"{name} returns {signature.restype}; a kernel returns an integer or nothing")
    builder.ret(ir.Constant(word, 0) if signature.restype is types.none else value)
    return module


def _words(builder: Any, block: Any) -> Iterator[Any]:
    """Pointers to the words of a block."""
    i = 0
    while True:
        yield builder.gep(block, [ir.Constant(ir.IntType(64), i)])
        i += 1


def _read(context: Any, builder: Any, kind: Kind, words: Iterator[Any]) -> Any:
    """A value as Numba represents it, from its words."""
    if isinstance(kind, TupleKind):
        return context.make_tuple(builder, _type_of(kind), [_read(context, builder, k, words) for k in kind.parts])
    if not isinstance(kind, ArrayKind):
        pointer = next(words)
        if kind == NUMBER:
            return builder.load(builder.bitcast(pointer, ir.DoubleType().as_pointer()))
        word = builder.load(pointer)
        return builder.icmp_signed("!=", word, ir.Constant(word.type, 0)) if kind == TRUTH else word
    array_type = _type_of(kind)
    array = make_array(array_type)(context, builder)
    address, *shape = (builder.load(next(words)) for _ in range(1 + kind.axes))
    size = ir.Constant(address.type, kind.dtype.itemsize)
    strides = [size]
    for length in reversed(shape[1:]):
        strides.insert(0, builder.mul(length, strides[0]))
    data = builder.inttoptr(address, context.get_data_type(array_type.dtype).as_pointer())
    populate_array(array, data=data, shape=shape, strides=strides, itemsize=size, meminfo=None)
    return array._getvalue()


def _type_of(kind: Kind) -> Any:
    if isinstance(kind, ArrayKind):
        return types.Array(from_dtype(kind.dtype), kind.axes, "C")
    if isinstance(kind, TupleKind):
        parts = tuple(map(_type_of, kind.parts))
        return types.BaseTuple.from_types(parts, None if kind.cls is tuple else kind.cls)
    return types.boolean if kind == TRUTH else getattr(types, kind)


# ---- functions that kernels call ----


@typeof_impl.register(Callee)  # type: ignore[untyped-decorator]
def _type_of_callee(callee: Callee, _: Any) -> Any:
    return _dispatcher(callee)._numba_type_


@functools.cache
def _dispatcher(callee: Callee) -> Any:
    """Numba's own object for a function; its type refers to it weakly."""
    return numba.njit(**callee.targetoptions)(callee.py_func)


@typeof_impl.register(Operation)  # type: ignore[untyped-decorator]
def _type_of_operation(operation: Operation, _: Any) -> Any:
    return types.Function(_template(operation))


@functools.cache
def _template(operation: Operation) -> Any:
    """How Numba calls an operation on vectors."""
    name, prefer_literal = operation.body.__name__, COUNT in operation.operands

    @functools.wraps(operation.body)  # Numba asks for its parameters
    def typed(_context: Any, *actual: Any) -> Any:
        if len(actual) != len(operation.operands) or not all(map(_accepts, operation.operands, actual)):
            return None
        result = operation.result
        out = _resolved(result(*actual) if callable(result) else result)
        pairs = zip(operation.operands, actual, strict=True)
        kept = [a if o in (*ARRAYS, TILE, COUNT) else _resolved(o) for o, a in pairs]

        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            each = zip(operation.operands, signature.args, values, strict=True)
            value = operation.body(builder, *(_lowered(context, builder, *one) for one in each))
            if out is types.void:
                return context.get_dummy_value()
            return cgutils.pack_array(builder, value) if isinstance(out, types.UniTuple) else value

        return out(*kept), generate

    return make_intrinsic_template(operation, typed, name, prefer_literal=prefer_literal, kwargs={})


def _resolved(result: Any) -> Any:
    """A Numba type; a name, or a pair of a name and a count, is resolved."""
    if isinstance(result, tuple):
        return types.UniTuple(_resolved(result[0]), result[1])
    return _VECTORS.get(result) or getattr(types, result) if isinstance(result, str) else result


def _accepts(operand: Any, actual: Any) -> bool:
    if operand in ARRAYS:
        fits = isinstance(actual, types.Array) and actual.layout in "CF" and actual.ndim == 1
        return fits and (operand is not FLOAT_ARRAY or actual.dtype == types.float32)
    if operand is TILE:
        return isinstance(actual, types.UniTuple) and isinstance(actual.dtype, Vector)
    return operand is not COUNT or isinstance(actual, types.IntegerLiteral)


def _lowered(context: Any, builder: Any, operand: Any, actual: Any, value: Any) -> Any:
    """An operand as the body of an operation receives it."""
    if operand in (ARRAY, FLOAT_ARRAY, WEIGHTS):
        pointer = make_array(actual)(context, builder, value).data
        return (pointer, actual.dtype.name) if operand is WEIGHTS else pointer
    if operand is TILE:
        return cgutils.unpack_tuple(builder, value)
    return actual.literal_value if operand is COUNT else value
