"""The CPU that Numba compiles for, and which of the few special instructions the kernels may use on it.

Everything in ``simd.py`` is portable LLVM code except the choices made here, once, at import. They follow the target
of Numba, not the host, so ``NUMBA_CPU_NAME`` and ``NUMBA_CPU_FEATURES`` switch a machine down to an older one.
"""

from __future__ import annotations

import platform
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from llvmlite import binding
from numba import config, njit
from numba.core.codegen import get_host_cpu_features

P = ParamSpec("P")
R = TypeVar("R")


def compiled() -> bool:
    """Whether kernels run compiled. With ``NUMBA_DISABLE_JIT=1`` the public functions give their oracle's result."""
    return not config.DISABLE_JIT


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile at the first call, to run without the GIL, and keep the machine code on disk. x / 0 is not an error."""
    return _compile(function, cache=True)


def inner(function: Callable[P, R]) -> Callable[P, R]:
    """Compile as a part of the kernels that call it, which keep it: it cannot be called from Python.

    Unlike a kernel it may close over other compiled functions, which would change the key of a cache every time.
    """
    return _compile(function, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """Like a kernel, but in other compiled code its statements stand in for the call, which compiles faster.

    It cannot be called with ``*arguments`` there.
    """
    return _compile(function, cache=True, inline="always")


def _compile(function: Callable[P, R], **options: Any) -> Callable[P, R]:
    """Trap: the linker knows a function by its qualified name, and takes one of two of the same name and argument
    types, even when they come from the caches of different processes. So closures are told apart by their contents.
    """
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    if cells:
        function.__qualname__ += f"({', '.join(getattr(cell, '__qualname__', repr(cell)) for cell in cells)})"
    compiled_function: Callable[P, R] = njit(nogil=True, error_model="numpy", **options)(function)
    return compiled_function


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


FEATURES = _target_features()
ARM = platform.machine().lower() in ("arm64", "aarch64")
X86 = platform.machine().lower() in ("x86_64", "amd64")

FUSED = ARM or "fma" in FEATURES
"""A multiply-add is one instruction; elsewhere LLVM would call the C library sixteen times for it."""

HALF = ARM or "f16c" in FEATURES
"""float16 is widened by one instruction; elsewhere LLVM would call a library that Numba does not link."""

REGISTERS = 32 if "avx512f" in FEATURES else 8
"""Vectors of 16 floats that the register file holds: AVX-512 has 32, AVX2 and NEON the room of 8."""


def _dot_lanes() -> int:
    """Lanes of the instructions that sum 4 byte or 2 word products into each lane (VNNI): 16, 8, or 0 for none.

    Trap: LLVM 22 changed the operand types of these intrinsics. It still reads the former types, as every LLVM reads
    the intrinsics of older ones, so the former types are the ones to use.
    """
    lanes = 16 if "avx512vnni" in FEATURES else 8 if "avxvnni" in FEATURES else 0
    vector, bits = f"<{lanes} x i32>", 32 * lanes
    names = (f"llvm.x86.avx512.vpdpbusd.{bits}", f"llvm.x86.avx512.vpdpwssd.{bits}")
    if lanes and not all(_knows(f"{vector} @{name}({vector}, {vector}, {vector})") for name in names):
        version = ".".join(map(str, binding.llvm_version_info))
        warnings.warn(f"LLVM {version} lacks the integer products of this CPU: int8 and int4 run slower", stacklevel=2)
        return 0
    return lanes


DOT_LANES = _dot_lanes()

MADD_LANES = (16 if "avx512bw" in FEATURES else 8 if "avx2" in FEATURES else 4) if X86 else 0
"""Lanes of the older x86 instruction that sums 2 word products; 0 where LLVM finds its own way."""
