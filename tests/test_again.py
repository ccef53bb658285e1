"""Tests once more, in other environments: on older CPUs, and without the compiler. Each in a process of its own."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from llvmlite import binding
from qwen3tts_np_kernels.cpu import CPU, compiled, instruction_set

TESTS = Path(__file__).parent
KERNELS = ("test_simd.py", "test_kernels_linear.py")


@dataclass(frozen=True)
class Environment:
    """Variables of the environment, and the files that they make a difference to."""

    variables: Mapping[str, str]
    files: tuple[str, ...]

    @property
    def features(self) -> frozenset[str]:
        """Of the CPU that Numba shall compile for."""
        return frozenset(flag.removeprefix("+") for flag in self.variables["NUMBA_CPU_FEATURES"].split(",") if flag)


def older(processor: str, features: str, files: tuple[str, ...]) -> Environment:
    return Environment({"NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": features}, files)


_AVX2 = "+avx,+avx2,+bmi,+bmi2,+f16c,+fma,+lzcnt,+popcnt,+sse4.1,+sse4.2,+ssse3"
OLDER = {
    "AVX2": older("haswell", _AVX2, (*KERNELS, "test_kernels_conv.py")),
    "AVX-VNNI": older("alderlake", f"{_AVX2},+avxvnni", KERNELS),
    "SSE2": older("x86-64", "", (*KERNELS, "test_kernels_conv.py")),
}
WITHOUT = Environment({"NUMBA_DISABLE_JIT": "1"}, (*KERNELS, "test_kernels_conv.py", "test_codec_compiled.py"))


def run(environment: Environment) -> None:
    """AssertionError with what pytest prints if a test fails there."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "--hypothesis-profile", "few", "-p", "no:cacheprovider"]
        + [str(TESTS / file) for file in environment.files],
        cwd=TESTS.parent,
        env={**os.environ, **environment.variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:]


@pytest.mark.skipif(not compiled(), reason="the NumPy path does not ask for the CPU")
@pytest.mark.parametrize("name", OLDER)
def test_on_an_older_cpu(name: str) -> None:
    host = {feature for feature, there in binding.get_host_cpu_features().items() if there}
    features = OLDER[name].features
    if not CPU.is_x86 or not features <= host:
        pytest.skip(f"this CPU cannot play one of {name}")
    if instruction_set(platform.machine(), features) is CPU:
        pytest.skip(f"to the kernels this CPU is one of {name}: {CPU.name}")
    run(OLDER[name])


@pytest.mark.skipif(not compiled(), reason="there is none here either")
def test_without_the_compiler() -> None:
    run(WITHOUT)
