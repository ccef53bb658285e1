"""A team of threads that is forgotten, interrupted or forked while it works."""

from __future__ import annotations

import dis
import os
import sys
import threading
from contextlib import nullcontext
from types import FrameType
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qwen3tts_np_kernels import cpu, together_jit
from qwen3tts_np_kernels import team as teams
from qwen3tts_np_kernels.cpu import Kernel, compiled
from qwen3tts_np_kernels.pace import Pace
from qwen3tts_np_kernels.team import Team
from qwen3tts_np_kernels.threads_jit import PARTS, Member, Part, barrier, first_part, members, next_part, team_kernel

needs_compiler = pytest.mark.skipif(not compiled(), reason="barriers exist in compiled code only")
PATIENCE = 60  # seconds after which a thread that waits is taken for one that waits indefinitely


def in_time(function: Any, *arguments: Any) -> None:
    """Call in another thread; AssertionError where it does not come back."""
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()


@pytest.mark.parametrize("last", [0, 1])
def test_a_thread_may_be_the_last_to_know_its_team(last):
    """Its finalizer then runs in that thread, which cannot wait for itself, nor the first for those it leads."""
    team, others = Team(2), set(threading.enumerate())
    team.run(lambda me: None)
    threads = set(threading.enumerate()) - others
    assert len(threads) == 2
    in_time(team.run, lambda me: team.close() if me.index == last else None)
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


@team_kernel
def _meet(me: Member, rounds: int, sums: Any) -> None:
    for _ in range(rounds):
        sums[me.index] += 1
        barrier(me)


@needs_compiler
@pytest.mark.parametrize("size", [2, 9])
def test_threads_that_sleep_in_a_barrier_are_woken(size):
    """More threads than cores: some are not running when others arrive."""
    sums = np.zeros((size, 8), np.int64)[:, 0].copy()
    in_time(Team(size).run, _meet, 3000, sums)
    assert (sums == 3000).all()


@needs_compiler
@pytest.mark.parametrize("size", [1, 3])
def test_arguments_that_are_looked_at_once_serve_many_calls(size):
    team, sums = Team(size), np.zeros(size, np.int64)
    call = cast(Kernel, _meet).bound(5, sums)
    for calls in range(1, 4):
        team.run(call)
        assert (sums == 5 * calls).all()


@team_kernel
def _take_one(me: Member, count: int, taken: Any, state: Any) -> None:
    """The member's next part. state: whether it has taken one before, that one's ``behind``, whether none was left."""
    part = next_part(me, count, Part(0, 0, state[1], False)) if state[0] else first_part(me, count)
    for unit in range(part.first, part.end):
        taken[me.index, unit] += 1
    state[0], state[1], state[2] = 1, part.behind, part.first == part.end


def taken_in(order: list[int], team: list[Member], count: int) -> Any:
    """One thread plays all members, which ask in this order and then each to the end. [members, units]"""
    taken, states = np.zeros((len(team), count), np.int64), np.zeros((len(team), 3), np.int64)
    for index in order + sorted([*range(len(team))] * (PARTS * len(team) + 2)):
        if not states[index, 2]:
            _take_one(team[index], count, taken, states[index])
    assert states[:, 2].all()
    return taken


@needs_compiler
@given(st.integers(1, 5), st.lists(st.tuples(st.integers(0, 70), st.lists(st.integers(0, 99))), min_size=1, max_size=4))
def test_every_unit_is_taken_once_in_whatever_order_members_ask(size: int, times: list[tuple[int, list[int]]]) -> None:
    team = members(size)
    before = team[0].meeting.copy()
    for count, order in times:
        assert (taken_in([index % size for index in order], team, count).sum(axis=0) == 1).all()
    if size == 1:
        np.testing.assert_array_equal(team[0].meeting, before)  # whoever is alone has nothing to count


@needs_compiler
def test_members_that_keep_pace_do_their_shares_and_one_that_is_early_does_all():
    team = members(2)
    for order, expected in (([0, 1] * 9, [32, 32]), ([0] * 99, [64, 0]), ([1, 0] + [1] * 9, [16, 48])):
        assert taken_in(order, team, 64).sum(axis=1).tolist() == expected


@team_kernel
def _take_all(me: Member, rounds: int, counts: Any, taken: Any) -> None:
    for i in range(rounds):
        count = counts[i % counts.size]
        part = first_part(me, count)
        while part.first < part.end:
            for unit in range(part.first, part.end):
                taken[me.index, unit] += 1
            part = next_part(me, count, part)
        barrier(me)


@needs_compiler
@pytest.mark.parametrize("size", [1, 2, 5])
def test_threads_take_every_unit_once(size, monkeypatch):
    monkeypatch.setattr(Pace, "alone", lambda pace, function: False)
    counts, taken, rounds = np.array([1, 64, 8, 33, 0]), np.zeros((size, 64), np.int64), 3000
    in_time(Team(size).run, _take_all, rounds, counts, taken)
    expected = rounds // 5 * (np.arange(64) < counts[:, None]).sum(axis=0)
    np.testing.assert_array_equal(taken.sum(axis=0), expected)


@pytest.mark.parametrize("possible", [0, 1, 3, 4])
def test_where_the_system_starts_fewer_threads_those_do_the_work(possible, monkeypatch):
    """As under ``ulimit -u``: the number of threads is no part of a result."""
    start, left = threading.Thread.start, [possible]

    def limited(thread: threading.Thread) -> None:
        if not left[0]:
            raise RuntimeError("can't start new thread")
        left[0] -= 1
        start(thread)

    def ended() -> None:
        left[0] = possible

    team, seen = Team(4), []
    monkeypatch.setattr(threading.Thread, "start", limited)
    monkeypatch.setattr(teams, "_stop", lambda *crew, stop=teams._stop: (stop(*crew), ended()))
    told = pytest.warns(UserWarning, match=f"{possible} of 4 threads were started") if possible < 4 else nullcontext()
    with told:
        team.run(lambda me: seen.append((me.index, me.count)))
    count = max(possible, 1)
    assert sorted(seen) == [(index, count) for index in range(count)]
    team.close()


class Interrupted(Exception):
    pass


@needs_compiler
def test_code_that_one_thread_cannot_load_ends_the_call_of_all(monkeypatch):
    """Loading fails once, as it does where the working folder vanishes while a kernel is compiled."""
    meet = team_kernel(cast(Kernel, _meet).py_func)  # of which nothing is loaded
    load, failures = cpu.load, [OSError("no such folder")]

    def once(code: bytes) -> int:
        if failures:
            raise failures.pop()
        return load(code)

    def fail() -> None:
        try:
            team.run(meet, 1, sums)
        except OSError as e:
            raised.append(str(e))

    monkeypatch.setattr(cpu, "load", once)
    team, sums, raised = Team(2), np.zeros(2, np.int64), []
    in_time(fail)
    assert raised == ["no such folder"] and not sums.any()
    team.run(meet, 1, sums)
    assert sums.tolist() == [1, 1]


def leaves_with(frame: FrameType) -> bool:
    """Whether a ``with`` ends here, and its lock is about to be released.

    Trap: Python 3.12 reports the line of the ``with`` again there. Ctrl-C is handled behind calls and jumps back only,
    so never there, and what is raised there is outside of the ``with``.
    """
    code, at = frame.f_code.co_code, frame.f_lasti
    return sys.version_info[:2] == (3, 12) and [dis.opname[op] for op in code[at : at + 6 : 2]] == 3 * ["LOAD_CONST"]


def interrupted_at(point: int, files: set[str]) -> Any:
    """A tracer that raises Interrupted as Ctrl-C does: between two lines of these files, at the ``point``-th."""
    left = point

    def line(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal left
        left -= event == "line" and not leaves_with(frame)
        if left == 0:
            raise Interrupted
        return line

    return lambda frame, event, argument: line if frame.f_code.co_filename in files else None


@pytest.mark.parametrize("runs", ["function", pytest.param("kernel", marks=needs_compiler)])
def test_an_interrupt_behind_any_line_leaves_the_team_usable(runs, monkeypatch):
    """The next call, of either kind, is one of all threads."""
    monkeypatch.setattr(Pace, "alone", lambda pace, function: False)
    team, old, files = Team(2), sys.gettrace(), {file for m in (teams, together_jit, cpu) if (file := m.__file__)}
    sums = np.zeros(2, np.int64)
    kernel = cast(Kernel, _meet).bound(1, sums) if runs == "kernel" else None
    for point in range(1, 300):
        if point % 2:
            team.close()  # so that it starts again, which may be interrupted as well
        try:
            sys.settrace(interrupted_at(point, files))
            team.run(kernel or (lambda me: None))
        except Interrupted:
            pass
        else:
            break
        finally:
            sys.settrace(old)
        for function in (kernel, None, kernel) if kernel else (None,):
            seen: list[int] = []
            sums[:] = 0
            in_time(team.run, function or (lambda me, seen=seen: seen.append(me.index)))
            assert sums.tolist() == [1, 1] if function else sorted(seen) == [0, 1], point
    assert 10 < point < 299, "the call has been interrupted at every line"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_that_is_forked_while_the_team_works_or_starts_has_threads_of_its_own():
    team, begun, end = Team(2), threading.Event(), threading.Event()

    def work(me: Member) -> None:
        begun.set()
        end.wait()

    caller = threading.Thread(target=team.run, args=(work,))
    caller.start()
    begun.wait()
    with teams.starting:  # as another thread holds it that starts a team
        child = os.fork()
        if child == 0:
            seen: list[int] = []
            runner = threading.Thread(target=lambda: team.run(lambda me: seen.append(me.index)), daemon=True)
            runner.start()
            runner.join(PATIENCE)
            os._exit(len(seen))
    end.set()
    caller.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2


def test_calls_of_several_threads_follow_one_another():
    team, running = Team(2), [0]

    def alone(me: Member, mine: list[int]) -> None:
        if me.index == 0:
            running[0] += 1
            assert running[0] == 1
            mine.append(1)
            running[0] -= 1

    lists: list[list[int]] = [[] for _ in range(4)]
    callers = [threading.Thread(target=lambda one=one: [team.run(alone, one) for _ in range(50)]) for one in lists]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert [len(one) for one in lists] == [50] * 4
