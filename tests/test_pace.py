"""Calls of a team on a busy machine: the way that is faster is found, kept, and left when it no longer is."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from qwen3tts_np_kernels.cpu import compiled
from qwen3tts_np_kernels.pace import FEWEST, MOST, Pace
from qwen3tts_np_kernels.team import Team
from qwen3tts_np_kernels.threads_jit import Member, team_kernel

Machine = Callable[[bool], tuple[float, float]]  # alone -> seconds of a call, share of the time that its threads ran


def idle(alone: bool) -> tuple[float, float]:
    return (2.0, 1.0) if alone else (1.0, 0.99)


def busy(alone: bool) -> tuple[float, float]:
    return (3.0, 0.66) if alone else (9.0, 0.4)


def slow_but_better(alone: bool) -> tuple[float, float]:
    """Threads that wait for something else, and yet are faster together."""
    return (2.0, 0.7) if alone else (1.2, 0.7)


def ways(pace: Pace, machine: Machine, calls: int, function: object = "frame") -> list[bool]:
    """How each of so many calls is made."""
    made = []
    for _ in range(calls):
        alone = pace.alone(function)
        pace.note(alone, *machine(alone))
        made.append(alone)
    return made


def test_an_idle_machine_sees_no_trial() -> None:
    assert not any(ways(Pace(), idle, 1000))


def test_on_a_busy_machine_one_thread_works_most_of_the_time() -> None:
    pace = Pace()
    assert sum(ways(pace, busy, FEWEST + 1)) == 1
    made = ways(pace, busy, 1000)
    assert made.count(False) < 1000 / MOST + 4
    seconds = sum(busy(alone)[0] for alone in made)
    assert seconds < 1000 * busy(True)[0] * 1.1


def test_the_threads_are_back_soon_after_the_others_have_gone() -> None:
    pace = Pace()
    ways(pace, busy, 1000)
    assert not any(ways(pace, idle, 200)[MOST + 1 :])


def test_trials_that_change_nothing_become_rare() -> None:
    made = ways(Pace(), slow_but_better, 1000)
    assert 0 < made.count(True) < 1000 / MOST + 4


def test_functions_are_not_compared_with_each_other() -> None:
    pace = Pace()
    for _ in range(100):
        assert ways(pace, busy, 2, "prompt") + ways(pace, busy, 2, "frame") == [False] * 4


@team_kernel
def _members_of(me: Member, seen: Any) -> None:
    seen[me.index] = me.count


@pytest.mark.skipif(not compiled(), reason="a function that is not compiled is always run by all")
def test_a_kernel_is_run_by_one_thread_where_that_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any other function by all of them, as a pipeline of several stages needs."""
    monkeypatch.setattr(Pace, "alone", lambda pace, function: True)
    team, seen = Team(2), np.zeros(2, np.int64)
    team.run(_members_of, seen)
    assert seen.tolist() == [1, 0]
    names: set[str] = set()
    both = threading.Barrier(2)

    def meet(me: Member) -> None:
        both.wait(60)
        names.add(f"{me.index} of {me.count}")

    team.run(meet)
    assert names == {"0 of 2", "1 of 2"}
