"""Kernels compiled ahead, in a second process, while the tests that need few of them go first.

In a session of all files, from an empty cache, compiling takes a core about as long as these tests take the other.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from qwen3tts_np_kernels.cpu import compiled

ROOT = Path(__file__).parents[1]
MEANWHILE = frozenset(
    f"test_{name}.py"
    for name in (
        "checkpoint checkpoints_of_others config diagnosis fixtures generated_readme goldens hub imports output "
        "porter_kit prompt sampling sentences speaker synthetic text text_feed text_official trace_command verify"
    ).split()
)
MANY = 40  # files: in a shorter session the tests compile what they need


def is_worth_it(items: Sequence[pytest.Item]) -> bool:
    return compiled() and len({item.path for item in items}) >= MANY


def in_order(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """Tests that go first, the others, and those that wait for runs in other environments, which come after this."""
    return sorted(items, key=lambda item: 2 if item.name.startswith("test_again") else item.path.name not in MEANWHILE)


class Ahead:
    """``warm-up`` of one session."""

    def __init__(self) -> None:
        path = os.pathsep.join([str(ROOT), str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "qwen3tts_np", "warm-up", "--threads", "1"],
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def wait(self) -> None:
        """Until all is compiled. Where that fails tests compile by themselves, and say why it fails."""
        self._process.wait()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
