"""Machine code in this process: what it is made for, and how it is loaded. Numba is not needed for either.

LLVM's loader places the code of one kernel, an object file, in memory. Everything in it is private except its entry.
"""

from __future__ import annotations

import functools
import os
from typing import Any, NamedTuple

from llvmlite import binding

from .system import arm_features


class Code(NamedTuple):
    """The machine code of one kernel for arguments of certain kinds."""

    entry: str  # the name of its function, which takes the address of a block of arguments
    needs: tuple[str, ...]  # functions outside of it that it calls
    object: bytes


class Target(NamedTuple):
    """The CPU that code is made for, as LLVM names it."""

    triple: str
    cpu: str
    features: str  # "+avx2,-sse4a,..."

    @property
    def architecture(self) -> str:
        """As ``platform.machine()`` names it, of this process: Windows runs x86 programs on ARM."""
        return self.triple.partition("-")[0]


@functools.cache
def target() -> Target:
    """The CPU of this machine, or the one that ``NUMBA_CPU_NAME`` and ``NUMBA_CPU_FEATURES`` name."""
    features = os.environ.get("NUMBA_CPU_FEATURES")
    if features is None:
        features = ",".join(filter(None, [binding.get_host_cpu_features().flatten(), *_told_by_the_system()]))
    cpu = os.environ.get("NUMBA_CPU_NAME") or binding.get_host_cpu_name()
    return Target(binding.get_process_triple(), cpu, features)


def _told_by_the_system() -> list[str]:
    """Features that LLVM takes from an ARM CPU's name: it may not know the name, and a hypervisor may hide them."""
    return [f"{'+' if there else '-'}{name}" for name, there in arm_features().items()]


def target_machine() -> Any:
    """LLVM's generator of code for :func:`target`, to be loaded by :func:`load`."""
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    triple, cpu, features = target()
    reloc = "static" if target().architecture in ("x86_64", "i686") else "default"
    return binding.Target.from_triple(triple).create_target_machine(
        cpu=cpu, features=features, opt=3, reloc=reloc, codemodel="jitdefault", jit=True
    )


@functools.cache
def _engine() -> Any:
    module = binding.parse_assembly(f'target triple = "{target().triple}"')
    return binding.create_mcjit_compiler(module, target_machine())


def add_symbol(name: str, address: int) -> None:
    """Let machine code call the C function at ``address`` by ``name``."""
    binding.add_symbol(name, address)


_addresses: dict[str, int] = {}


def load(code: Code) -> int:
    """The address of the entry; the code stays in memory until the process ends. One thread at a time."""
    if code.entry in _addresses:
        return _addresses[code.entry]
    engine = _engine()
    if any(binding.address_of_symbol(name) is None for name in code.needs):
        from numba.core.registry import cpu_target  # a function that only Numba has

        cpu_target.target_context.refresh()
    engine.add_object_file(binding.ObjectFileRef.from_data(code.object))
    engine.finalize_object()
    _addresses[code.entry] = engine.get_function_address(code.entry)
    return _addresses[code.entry]
