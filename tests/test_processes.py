"""A complete run of the tests has several processes, and no other run has unless it is told to."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ahead
import processes
import pytest

TESTS = Path(__file__).parent
CORES = 3


@pytest.fixture(autouse=True)
def _cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "usable_cores", lambda: CORES)


def config(*arguments: Any, **given: Any) -> Any:
    """What pytest has made of a command line."""
    usual = {"collectonly": False, "keyword": "", "markexpr": "", "lf": False, "usepdb": False}
    xdist = {"numprocesses": None, "tx": [], "dist": "no", "loadscopereorder": True}
    return SimpleNamespace(
        args=list(map(str, arguments)) or [str(TESTS)], option=SimpleNamespace(**usual | xdist | given)
    )


def shared(configured: Any) -> Any:
    processes.share(configured)
    return configured.option.numprocesses, configured.option.dist, configured.option.loadscopereorder


def test_a_complete_run_keeps_the_tests_of_a_file_together():
    assert shared(config()) == (CORES, "loadfile", False)


@pytest.mark.parametrize(
    "other",
    [
        config(__file__),
        config(f"{__file__}::test_x"),
        config(TESTS, __file__),
        config(collectonly=True),
        config(keyword="voice"),
        config(markexpr="slow"),
        config(lf=True),
        config(usepdb=True),
        config(tx=["popen"]),
    ],
)
def test_any_other_run_has_one_process(other):
    assert shared(other) == (None, "no", True)


def test_one_core_has_one_process(monkeypatch):
    monkeypatch.setattr(processes, "usable_cores", lambda: 1)
    assert shared(config()) == (None, "no", True)


def test_what_is_asked_for_is_done():
    assert shared(config(numprocesses=0)) == (0, "no", True)
    assert shared(config(__file__, numprocesses=2)) == (2, "loadfile", False)
    assert shared(config(numprocesses=2, dist="worksteal")) == (2, "worksteal", True)


def test_a_process_of_a_run_starts_no_others():
    worker = config()
    worker.workerinput = {}
    assert shared(worker) == (None, "no", True)


def test_a_run_without_xdist_has_one_process():
    plain = config()
    del plain.option.numprocesses
    processes.share(plain)
    assert plain.option.dist == "no"


def test_files_that_need_few_kernels_go_first_and_then_long_ones():
    few, long, other = sorted(processes.NO_KERNELS)[0], processes.LONG[1], "test_x.py"
    items: Any = [SimpleNamespace(path=Path(name)) for name in (other, long, processes.LONG[0], few)]
    assert [item.path.name for item in processes.in_order(items)] == [few, processes.LONG[0], long, other]
    assert all((TESTS / name).is_file() for name in (*processes.NO_KERNELS, *processes.LONG))


def test_others_see_that_all_is_compiled(monkeypatch):
    monkeypatch.setattr(ahead, "COMMAND", [sys.executable, "-c", ""])
    one = ahead.Ahead()
    ahead.wait(one.done)
    assert one.done.exists()
    one.close()
    assert not one.done.parent.exists()
