"""The CPU that kernels are compiled for, and the decorators that make kernels of Python functions.

``CPU`` is the matching entry of ``simd/instruction_sets.py``, chosen once at import. It follows ``NUMBA_CPU_NAME`` and
``NUMBA_CPU_FEATURES``, which can select an older CPU.

Nothing here imports Numba: a kernel whose machine code is on disk runs without it, which saves a second of each start.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import struct
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

from llvmlite import binding

from . import cache
from .arguments import Kind, code_of, flatten
from .callee import Callee
from .machine_code import load, target, target_machine
from .selection import byte_products
from .simd.instruction_sets import ARM, INSTRUCTION_SETS, InstructionSet
from .system import free_address_space

P = ParamSpec("P")
R = TypeVar("R")


def compiled() -> bool:
    """Whether kernels run compiled. With ``NUMBA_DISABLE_JIT=1`` the public functions return their oracle's result."""
    return os.environ.get("NUMBA_DISABLE_JIT", "0") == "0"


# Without a count of references: threads that count on the same array would wait for each other all the time.
OPTIONS = {"nogil": True, "error_model": "numpy", "_nrt": False, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """A function that is called from Python: compiled at the first call, without the GIL, and kept on disk.

    It returns an integer or nothing, which is 0 to Python, and cannot create arrays. Arguments are contiguous arrays,
    numbers, and tuples of them. Numbers are int64, float64 or bool in compiled code. x / 0 does not raise.
    """
    return Kernel(function, OPTIONS) if compiled() else function


def inner(function: Callable[P, R]) -> Callable[P, R]:
    """A function that kernels call; it cannot be called from Python. Unlike a kernel it may close over others."""
    return Callee(function, OPTIONS) if compiled() else function


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """Like ``inner``, but inlined into its callers, which compiles faster. They cannot pass it ``*arguments``."""
    return Callee(function, {**OPTIONS, "inline": "always"}) if compiled() else function


class _Entry(NamedTuple):
    """The machine code of a kernel for arguments of certain kinds."""

    pack: Callable[..., bytes]  # words to a block
    call: Callable[[bytes], int]  # releases the GIL
    address: int


class Bound:
    """A kernel with all its arguments but the first, which are looked at once, for many calls, and kept alive.

    The arguments of a frame are two hundred words in nested tuples: looking at them took 1 % of the time of the frame.
    """

    def __init__(self, kernel: Kernel, arguments: tuple[Any, ...]) -> None:
        self.kernel, self._alive = kernel, arguments
        words: list[Any] = []
        self._kinds = tuple([flatten(argument, words) for argument in arguments])
        self._block = _words_of(self._kinds).pack(*words)
        self._latest: tuple[Any, _Entry, bytes] | None = None  # the first argument of the latest call, and that call

    def __call__(self, first: Any) -> int:
        entry, block = self.prepared(first)
        return entry.call(block)

    def prepared(self, first: Any) -> tuple[_Entry, bytes]:
        """Its machine code for such a first argument, and the block of a call. Whatever compiling and loading raise."""
        latest = self._latest
        if latest is None or latest[0] is not first:
            words: list[Any] = []
            kind = flatten(first, words)
            block = _words_of((kind,)).pack(*words) + self._block
            self._latest = latest = first, self.kernel.entry((kind, *self._kinds)), block
        return latest[1:]


def _words_of(kinds: tuple[Kind, ...]) -> struct.Struct:
    """The words of arguments of these kinds, without gaps: blocks may be joined."""
    return struct.Struct(f"={''.join(map(code_of, kinds))}")


class Kernel(Callee):
    """A kernel: its machine code for each combination of kinds of arguments that it has been called with."""

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        super().__init__(function, options)
        self._entries: dict[tuple[Kind, ...], _Entry] = {}

    def __call__(self, *arguments: Any) -> int:
        entry, block = self.prepared(*arguments)
        return entry.call(block)

    def bound(self, *arguments: Any) -> Bound:
        """The kernel with all its arguments but the first."""
        return Bound(self, arguments)

    def prepared(self, *arguments: Any) -> tuple[_Entry, bytes]:
        """Its machine code for these arguments, and the block of a call."""
        words: list[Any] = []
        entry = self.entry(tuple([flatten(argument, words) for argument in arguments]))
        return entry, entry.pack(*words)

    def address(self, kinds: tuple[Kind, ...]) -> int:
        """The address of its entry for arguments of these kinds, valid until the process ends."""
        return self.entry(kinds).address

    def entry(self, kinds: tuple[Kind, ...]) -> _Entry:
        """Its machine code for arguments of these kinds."""
        return self._entries.get(kinds) or self._loaded(kinds)

    def _loaded(self, kinds: tuple[Kind, ...]) -> _Entry:
        with _LOADING:
            if kinds not in self._entries:
                address = load(cache.code_of(self.py_func, kinds, functools.partial(self._compile, kinds)))
                self._entries[kinds] = _Entry(_words_of(kinds).pack, _FUNCTION(address), address)
        return self._entries[kinds]

    def _compile(self, kinds: tuple[Kind, ...], entry: str) -> Any:
        free = free_address_space()
        if free is not None and free < COMPILER_TAKES:  # trap: LLVM ends the process where it gets no memory
            raise MemoryError(
                f"{free >> 20} MB of address space are free (ulimit -v), and compiling takes {COMPILER_TAKES >> 20}"
            )
        _announce()
        from .compiler import compile_kernel

        return compile_kernel(self.py_func, self.targetoptions, kinds, entry)


@functools.cache
def _announce() -> None:
    """Say once that something takes its time. Where a program has not set up logging, Python prints it."""
    logging.getLogger("qwen3tts_np.kernels").warning(COMPILING)  # below the package that it belongs to


COMPILING = "compiling kernels for this CPU, which takes up to half a minute and is done once per installation"
COMPILER_TAKES = 300 << 20  # bytes of address space, Numba's import included
_FUNCTION = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_char_p)
_LOADING = threading.RLock()


def cache_folder() -> Path | None:
    """The folder of the kernels' machine code; None where they are compiled in memory, or not at all."""
    return cache.folder(cache.sources_of(Path(__file__))) if compiled() else None


def knows(declaration: str) -> bool:
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
            if all(map(knows, candidate.intrinsics)):
                return candidate
            version = ".".join(map(str, binding.llvm_version_info))
            warnings.warn(
                f"LLVM {version} lacks the integer products of this CPU: int8 and int4 run slower", stacklevel=2
            )
    raise AssertionError("the last entry of the table fits every machine")


def target_features() -> frozenset[str]:
    """Of :func:`target`: those that LLVM lists, and on ARM those that it makes use of without listing them."""
    listed = frozenset(flag[1:] for flag in target().features.split(",") if flag.startswith("+"))
    return listed | byte_products(target_machine()) if target().architecture in ARM else listed


CPU = instruction_set(target().architecture, target_features())
