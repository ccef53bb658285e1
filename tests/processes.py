"""A complete run of the tests in several processes, as pytest-xdist has them: how many, and which file goes first.

A file stays in one process, so what its tests share is made once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from qwen3tts_np_kernels.system import usable_cores

MOST = 4  # processes: each imports and collects everything, which takes a core some seconds
NO_KERNELS = frozenset(
    f"test_{name}.py"
    for name in (
        "checkpoint checkpoints_of_others config diagnosis fixtures generated_readme goldens hub imports output "
        "porter_kit prompt sampling sentences speaker synthetic text text_feed text_official trace_command verify"
    ).split()
)
LONG = ("test_longform.py", "test_again.py")  # in this order


def is_complete(config: pytest.Config) -> bool:
    """Whether a run is of whole folders, and of all that is in them."""
    option = config.option
    part = option.collectonly or option.keyword or option.markexpr or getattr(option, "lf", False) or option.usepdb
    return not part and all(Path(argument).is_dir() for argument in config.args)


def share(config: pytest.Config) -> None:
    """Give a complete run several processes, unless ``-n`` says how many, and keep the tests of a file together."""
    option = config.option
    if not hasattr(option, "numprocesses") or hasattr(config, "workerinput"):
        return  # pytest-xdist is not installed; or this is one of its processes, which starts no others
    if option.numprocesses is None and not option.tx and usable_cores() > 1 and is_complete(config):
        option.numprocesses = min(usable_cores(), MOST)
    if option.numprocesses and option.dist == "no":
        option.dist, option.loadscopereorder = "loadfile", False


def in_order(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """Tests that need few kernels, while the kernels are compiled; then long files, so that no process ends alone."""

    def position(item: pytest.Item) -> tuple[bool, int]:
        name = item.path.name
        return name not in NO_KERNELS, LONG.index(name) if name in LONG else len(LONG)

    return sorted(items, key=position)
