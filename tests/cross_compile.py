"""Compile, for another CPU, every kernel that is in the cache of this installation.

    python tests/cross_compile.py FOLDER TARGET VERSION

TARGET is ``machine_code.target()`` of a process there, as JSON, and VERSION its ``sys.version``. FOLDER becomes what
such a process, with the same sources and packages, reads as ``NUMBA_CACHE_DIR``. Prints the number of kernels.
"""

from __future__ import annotations

import ast
import functools
import importlib
import json
import os
import platform
import pydoc
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import binding
from qwen3tts_np_kernels import machine_code

_TOKEN = re.compile(r"[^(),\s]+|[()]")


def main(folder: str, target: str, version: str) -> None:
    compile_for(machine_code.Target(*json.loads(target)))
    from qwen3tts_np_kernels import cache
    from qwen3tts_np_kernels.compiler import compile_kernel

    found = list(_cached())
    sys.version = version  # it is part of the cache's names
    cache.stamp.cache_clear()
    cache.folder.cache_clear()
    os.environ["NUMBA_CACHE_DIR"] = folder
    for kernel, kinds in found:
        cache.code_of(
            kernel.py_func, kinds, functools.partial(compile_kernel, kernel.py_func, kernel.targetoptions, kinds)
        )
    print(len(found))


def compile_for(target: machine_code.Target) -> None:
    """Have this process compile for ``target``, which it cannot load then.

    Traps: kernels are made for one CPU, chosen when they are imported; Numba asks LLVM for the process's own; and calls
    of Linux have other numbers on other processors.
    """
    assert "qwen3tts_np_kernels.cpu" not in sys.modules, "the CPU is chosen already"
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    machine_code.target = lambda: target  # type: ignore[assignment]
    binding.get_process_triple = lambda: target.triple
    platform.machine = lambda: target.architecture


def _cached() -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Kernels and the kinds of arguments that they are compiled for, of the present sources."""
    from qwen3tts_np_kernels import cache, cpu
    from qwen3tts_np_kernels.callee import Callee

    for file in sorted(path for place in cache.places() for path in place.glob("kernels-*/*.bin")):
        content = cache.checked(file)
        if content is None:
            continue
        key = content[cache._LENGTHS.size :][: cache._LENGTHS.unpack_from(content)[0]]
        name, _, kinds, _ = ast.literal_eval(key.decode())
        module, _, function = name.rpartition(".")
        found = getattr(_module(module), function, None)
        if isinstance(found, Callee):
            kernel = cpu.kernel(found.py_func)  # tests make kernels of what only kernels call
            sources = cache.sources_of(Path(kernel.py_func.__code__.co_filename))
            if file.parent.name == f"kernels-{cache.stamp(sources)}":
                yield kernel, _kinds(iter(_TOKEN.findall(", ".join(kinds))))


def _module(name: str) -> Any:
    """The module of this name; None where it is that of a program that the path does not lead to."""
    try:
        return sys.modules.get(name) or importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return None


def _kinds(tokens: Iterator[str]) -> tuple[Any, ...]:
    """Kinds from their names, to the end or the closing bracket."""
    from qwen3tts_np_kernels.arguments import ArrayKind, TupleKind

    found: list[Any] = []
    for token in tokens:
        if token == ")":
            break
        if token == "(":
            found.append(TupleKind(pydoc.locate(found.pop()), _kinds(tokens)))  # type: ignore[arg-type]
        elif token.endswith("]"):
            dtype, _, axes = token[:-1].partition("[")
            found.append(ArrayKind(np.dtype(dtype), int(axes)))
        else:
            found.append(token)
    return tuple(found)


if __name__ == "__main__":
    main(*sys.argv[1:])
