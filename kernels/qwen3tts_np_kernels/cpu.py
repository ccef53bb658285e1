"""The CPU that Numba compiles for, and the decorators that compile kernels.

``CPU`` is the matching entry of ``simd/instruction_sets.py``, chosen once at import. It follows the target of Numba,
not the host, so ``NUMBA_CPU_NAME`` and ``NUMBA_CPU_FEATURES`` can select an older CPU.
"""

from __future__ import annotations

import platform
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from llvmlite import binding
from numba import config, njit
from numba.core.ccallback import CFunc
from numba.core.codegen import get_host_cpu_features

from .cache import KernelCache, folder, sources_of
from .simd.instruction_sets import INSTRUCTION_SETS, InstructionSet

P = ParamSpec("P")
R = TypeVar("R")


def compiled() -> bool:
    """Whether kernels run compiled. With ``NUMBA_DISABLE_JIT=1`` the public functions return their oracle's result."""
    return not config.DISABLE_JIT


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile at the first call, without the GIL, and cache the machine code on disk. x / 0 does not raise."""
    return compile_function(function, cache=True)


def inner(function: Callable[P, R]) -> Callable[P, R]:
    """Compile as part of the kernels that call it, and cache it with them; it cannot be called from Python.

    Unlike a kernel it may close over other compiled functions, which would change a cache key every time.
    """
    return compile_function(function, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """Like a kernel, but inlined into other compiled code, which compiles faster.

    Compiled code cannot call it with ``*arguments``.
    """
    return compile_function(function, cache=True, inline="always")


def compile_function(function: Callable[P, R], *, cache: bool = False, **options: Any) -> Callable[P, R]:
    """``function`` compiled by Numba, without the GIL; the other decorators use this.

    Trap: the linker identifies a function by its qualified name, and picks one of two with the same name and argument
    types, even when they come from the caches of different processes. So closures get names made from their contents.
    """
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    if cells:
        function.__qualname__ += f"({', '.join(getattr(cell, '__qualname__', repr(cell)) for cell in cells)})"
    compiled_function: Any = njit(nogil=True, error_model="numpy", **options)(function)
    if cache and compiled():
        compiled_function._cache = KernelCache(function)
    return compiled_function


def c_function(signature: Any, function: Callable[..., Any]) -> Any:
    """``function`` compiled for these types as a C function with an ``address``; cached on disk like kernels."""
    made: Any = CFunc(function, (signature.args, signature.return_type), {}, {"error_model": "numpy"})
    made._cache = KernelCache(function, "c")
    made.compile()
    return made


def cache_folder() -> Path | None:
    """The folder of the kernels' machine code; None where they are compiled in memory, or not at all."""
    return folder(sources_of(Path(__file__))) if compiled() else None


def _target_features() -> frozenset[str]:
    """The enabled LLVM features, without their plus sign."""
    flags: str = config.CPU_FEATURES if config.CPU_FEATURES is not None else get_host_cpu_features()
    return frozenset(flag[1:] for flag in flags.split(",") if flag.startswith("+"))


def _knows(declaration: str) -> bool:
    """Whether this LLVM has the intrinsic: it adds attributes to those it knows and takes others for C functions."""
    try:
        module = binding.parse_assembly(f"declare {declaration}")
        module.verify()
    except RuntimeError:
        return False
    return "attributes #0" in str(module)


def instruction_set(machine: str, features: frozenset[str]) -> InstructionSet:
    """The first matching entry of the table; warns (UserWarning) of an entry skipped for lack of LLVM intrinsics."""
    for candidate in INSTRUCTION_SETS:
        if candidate.runs_on(machine, features):
            if all(map(_knows, candidate.intrinsics)):
                return candidate
            version = ".".join(map(str, binding.llvm_version_info))
            warnings.warn(
                f"LLVM {version} lacks the integer products of this CPU: int8 and int4 run slower", stacklevel=2
            )
    raise AssertionError("the last entry of the table fits every machine")


CPU = instruction_set(platform.machine(), _target_features())
