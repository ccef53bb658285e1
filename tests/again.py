"""Tests once more, in processes of their own with another environment, while the others go on."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

_MARK = "QWEN3TTS_NP_TESTS_AGAIN"


class Again:
    """The tests of some files, without those named "again", in each of some environments: started together."""

    def __init__(self, files: Sequence[str], environments: Mapping[str, Mapping[str, str]]) -> None:
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-k", "not again", "-p", "no:cacheprovider", *files]
        self._runs: dict[str, tuple[subprocess.Popen[str], IO[str]]] = {}
        if _MARK in os.environ:
            return  # this is such a process
        for name, environment in environments.items():
            output = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 (closed by close)
            process = subprocess.Popen(
                command,
                cwd=Path(__file__).parents[1],
                env={**os.environ, **environment, _MARK: "1"},
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
            )
            self._runs[name] = process, output

    def check(self, name: str) -> None:
        """Wait for the run in one environment. AssertionError with what it printed if it failed."""
        process, output = self._runs[name]
        status = process.wait()
        output.seek(0)
        assert status == 0, output.read()[-6000:]

    def close(self) -> None:
        for process, output in self._runs.values():
            process.kill()
            process.wait()
            output.close()
