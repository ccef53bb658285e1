"""Kernels compiled ahead of a complete run, in a process beside those of the tests, once for all of them.

From an empty cache this takes a core about as long as the tests that need few kernels take, which go first.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-m", "qwen3tts_np", "warm-up", "--threads", "1"]


class Ahead:
    """``warm-up``, running. ``done`` is a file that is there once it has ended, which other processes look for."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.done = Path(self._folder.name, "done")
        path = os.pathsep.join([str(ROOT), str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")])
        self._process = subprocess.Popen(
            COMMAND,
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()

    def _watch(self) -> None:
        self._process.wait()
        self.done.touch()

    def close(self) -> None:
        self._process.kill()
        self._watcher.join()
        self._folder.cleanup()


def wait(done: Path) -> None:
    """Until all is compiled. Where that fails tests compile by themselves, and say why it fails."""
    while not done.exists():
        time.sleep(0.05)
