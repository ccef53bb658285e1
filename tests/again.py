"""Tests once more, in a process of their own for each of some environments, while the others go on.

A test named ``test_again_...`` waits for one of these runs. They start when a session has collected such a test, one
after the other, so that they take one core at most; each is of all collected files that its environment is for.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from llvmlite import binding
from qwen3tts_np_kernels.cpu import CPU, instruction_set

MARK = "QWEN3TTS_NP_TESTS_AGAIN"  # set in such a process, which starts no other
ALL_BUT = "not test_again"  # what to run there
TESTS = Path(__file__).parent
KERNELS = ("test_simd.py", "test_kernels_linear.py")


@dataclass(frozen=True)
class Environment:
    """Variables of the environment, and the files that they make a difference to."""

    variables: Mapping[str, str]
    files: tuple[str, ...]

    def __post_init__(self) -> None:
        assert all((TESTS / file).is_file() for file in self.files), self.files

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
NO_COMPILER = "without the compiler"
ENVIRONMENTS = {
    **OLDER,
    NO_COMPILER: Environment({"NUMBA_DISABLE_JIT": "1"}, (*KERNELS, "test_kernels_conv.py", "test_codec_compiled.py")),
}


def why_not(name: str) -> str:
    """Why there is nothing to run in this environment; "" if there is."""
    if name == NO_COMPILER:
        return ""
    host = {feature for feature, there in binding.get_host_cpu_features().items() if there}
    features = OLDER[name].features
    if not CPU.is_x86 or not features <= host:
        return f"this CPU cannot play one of {name}"
    if instruction_set(platform.machine(), features) is CPU:
        return f"to the kernels this CPU is one of {name}: {CPU.name}"
    return ""


class Again:
    """The runs of one session."""

    def __init__(self, names: Sequence[str], collected: set[str], before: Callable[[], None]) -> None:
        """``names`` of environments, the names of the files that the session has collected, what to wait for first."""
        self._before = before
        self._done = {name: threading.Event() for name in names}
        self._failures: dict[str, str] = {}
        self._collected = collected
        self._process: subprocess.Popen[str] | None = None
        self._closed = False
        self._worker = threading.Thread(target=self._run_all)
        self._worker.start()

    def _run_all(self) -> None:
        self._before()
        for name, done in self._done.items():
            if not self._closed:
                self._run(name)
            done.set()

    def _run(self, name: str) -> None:
        environment = ENVIRONMENTS[name]
        files = [str(TESTS / file) for file in environment.files if file in self._collected]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-q", "-x", "-k", ALL_BUT, "-p", "no:cacheprovider", *files],
            cwd=TESTS.parent,
            env={**os.environ, **environment.variables, MARK: "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if self._closed:
            self._process.kill()
        printed, _ = self._process.communicate()
        if self._process.returncode != 0:
            self._failures[name] = printed[-6000:]

    def check(self, name: str) -> None:
        """Wait for the run in one environment. AssertionError with what it printed if it failed."""
        if reason := why_not(name):
            pytest.skip(reason)
        self._done[name].wait()
        assert name not in self._failures, self._failures[name]

    def close(self) -> None:
        self._closed = True
        if self._process is not None:
            self._process.kill()
        self._worker.join()


def wanted(items: Sequence[pytest.Item]) -> list[str]:
    """The environments that the tests of a session wait for and that can be had."""
    files = {item.path.name for item in items if item.name.startswith("test_again")}
    return [n for n, environment in ENVIRONMENTS.items() if files & set(environment.files) and not why_not(n)]
