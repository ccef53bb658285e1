"""The CPU that Numba compiles for, and the decorators that compile kernels.

``CPU`` is the entry of ``simd/instruction_sets.py`` that fits it, chosen here, once, at import. It follows the target
of Numba, not the host, so ``NUMBA_CPU_NAME`` and ``NUMBA_CPU_FEATURES`` switch a machine down to an older one.
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
    """Whether kernels run compiled. With ``NUMBA_DISABLE_JIT=1`` the public functions give their oracle's result."""
    return not config.DISABLE_JIT


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile at the first call, to run without the GIL, and keep the machine code on disk. x / 0 is not an error."""
    return compile_function(function, cache=True)


def inner(function: Callable[P, R]) -> Callable[P, R]:
    """Compile as a part of the kernels that call it, which keep it: it cannot be called from Python.

    Unlike a kernel it may close over other compiled functions, which would change the key of a cache every time.
    """
    return compile_function(function, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """Like a kernel, but in other compiled code its statements stand in for the call, which compiles faster.

    It cannot be called with ``*arguments`` there.
    """
    return compile_function(function, cache=True, inline="always")


def compile_function(function: Callable[P, R], *, cache: bool = False, **options: Any) -> Callable[P, R]:
    """``function`` compiled by Numba, without the GIL; the other decorators are made of this.

    Trap: the linker knows a function by its qualified name, and takes one of two of the same name and argument
    types, even when they come from the caches of different processes. So closures are told apart by their contents.
    """
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    if cells:
        function.__qualname__ += f"({', '.join(getattr(cell, '__qualname__', repr(cell)) for cell in cells)})"
    compiled_function: Any = njit(nogil=True, error_model="numpy", **options)(function)
    if cache and compiled():
        compiled_function._cache = KernelCache(function)
    return compiled_function


def c_function(signature: Any, function: Callable[..., Any]) -> Any:
    """``function`` compiled for these types as a function of C, which has an ``address``; kept on disk like kernels."""
    made: Any = CFunc(function, (signature.args, signature.return_type), {}, {"error_model": "numpy"})
    made._cache = KernelCache(function, "c")
    made.compile()
    return made


def cache_folder() -> Path | None:
    """Where the machine code of these kernels is kept; None where they are compiled in memory, or not at all."""
    return folder(sources_of(Path(__file__))) if compiled() else None


def _target_features() -> frozenset[str]:
    """The LLVM features that are switched on, without their plus."""
    flags: str = config.CPU_FEATURES if config.CPU_FEATURES is not None else get_host_cpu_features()
    return frozenset(flag[1:] for flag in flags.split(",") if flag.startswith("+"))


def _knows(declaration: str) -> bool:
    """Whether this LLVM has the intrinsic: it gives attributes to those it knows, and takes others for C functions."""
    try:
        module = binding.parse_assembly(f"declare {declaration}")
        module.verify()
    except RuntimeError:
        return False
    return "attributes #0" in str(module)


def instruction_set(machine: str, features: frozenset[str]) -> InstructionSet:
    """The first of the table that fits; a UserWarning where it is passed over, as this LLVM lacks its intrinsics."""
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
