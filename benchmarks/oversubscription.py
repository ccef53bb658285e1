"""Throughput of the frame loop with more threads than cores, and how long its threads wait for each other.

    python benchmarks/oversubscription.py [MODEL]           one JSON object: frames per second, and their ratios
    python benchmarks/oversubscription.py --waits [MODEL]   a table: frames, and waits at barriers, on unequal cores too

Separate processes speak with MODEL, by default the demo voice, for some seconds, concurrently. The kinds of run
alternate, so that a change of the machine's load affects all of them; the median of each is reported. ``busy``: other
programs keep every core busy meanwhile.

With --waits kernels are compiled anew, in a folder of their own, with a barrier that counts the time each thread is at
work and the time it waits. A slow core is simulated in it: what the last thread does up to a barrier, or up to the next
part of a product that it takes, lasts so many times as long, by waiting. All threads run every kernel there, as on an
idle machine, so the waits can be seen.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from qwen3tts_np_kernels.system import usable_cores

DEMO_VOICE = Path(__file__).parents[1] / "qwen3tts_np" / "demo_voice"
SECONDS, ROUNDS = 4.0, 3
RUNS = {  # name: processes, threads of each, whether other programs keep all cores busy
    "1 thread": (1, 1, False),
    "2 threads": (1, 2, False),
    "1 thread, busy": (1, 1, True),
    "2 threads, busy": (1, 2, True),
    "2 processes of 2 threads": (2, 2, False),
    "8 processes of 2 threads": (8, 2, False),
}
RATIOS = (
    ("2 threads", "1 thread"),
    ("2 threads, busy", "1 thread, busy"),  # at least 0.8
    ("8 processes of 2 threads", "2 processes of 2 threads"),  # at least 0.7
)


def frames_a_second(model: Path, processes: int, threads: int, busy: bool) -> float:
    """Frames per second, summed over all processes, which start counting together."""
    command = [sys.executable, __file__, "--speak", str(model), str(threads)]
    speakers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    others = []
    try:
        for speaker in speakers:
            assert speaker.stdout is not None
            assert speaker.stdout.readline() == "ready\n"
        others = [
            subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(usable_cores() if busy else 0)
        ]
        for speaker in speakers:
            assert speaker.stdin is not None
            speaker.stdin.close()  # which it waits for
        return sum(float(speaker.stdout.read()) for speaker in speakers if speaker.stdout is not None)
    finally:
        for process in [*others, *speakers]:
            process.kill()
            process.wait()


def speak(path: str, threads: int) -> None:
    """One process: frames per second of the frame loop."""
    from machine import TEXT, any_voice

    from qwen3tts_np import Qwen3TTSModel

    model = Qwen3TTSModel.from_pretrained(path, threads=threads)
    text = "good morning" if Path(path) == DEMO_VOICE else TEXT
    request = model.prepare(text, any_voice(model), seed=0, max_new_tokens=30)
    model.generate([request])
    print("ready", flush=True)
    sys.stdin.read()
    frames, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < SECONDS:
        frames += len(model.generate([request])[0].codes)
    print(frames / passed)


# ---- waits at barriers ----


class Waiting(NamedTuple):
    """A kind of run of one process."""

    threads: int = 2
    slow: float = 1.0  # the last thread takes so many times as long
    niceness: int | None = None  # of another program that keeps one core busy


WAITS = {
    "2 threads": Waiting(),
    "one core at 0.8 of the speed": Waiting(slow=1.25),
    "one core at half the speed": Waiting(slow=2.0),
    "one core shared with a program of low priority": Waiting(niceness=10),
    "one core shared with a program": Waiting(niceness=0),
    "4 threads": Waiting(threads=4),
}


def report_waits(model: Path) -> None:
    """Print the table."""
    found: dict[str, list[tuple[float, list[float]]]] = {name: [] for name in WAITS}
    with tempfile.TemporaryDirectory() as kernels:
        for _ in range(ROUNDS):
            for name, run in WAITS.items():
                found[name].append(waits(model, run, kernels))
    print("| | frame | share of the time that each thread waits |\n|---|--:|---|")
    for name, rounds in found.items():
        each = [statistics.median(shares) for shares in zip(*(shares for _, shares in rounds), strict=True)]
        frame = statistics.median(frame for frame, _ in rounds)
        print(f"| {name} | {frame:.1f} ms | {', '.join(f'{share:.0%}' for share in each)} |")


def waits(model: Path, run: Waiting, kernels: str) -> tuple[float, list[float]]:
    """Milliseconds per frame, and the share of the time that each thread waited. ``kernels``: a folder for them."""
    command = [sys.executable, __file__, "--wait", str(model), str(run.threads), str(run.slow)]
    environment = {**os.environ, "NUMBA_CACHE_DIR": kernels}
    other = None
    speaker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert speaker.stdout is not None
        assert speaker.stdin is not None
        assert speaker.stdout.readline() == "ready\n"
        if run.niceness is not None:
            other = subprocess.Popen([sys.executable, "-c", f"import os; os.nice({run.niceness})\nwhile True: pass"])
            os.sched_setaffinity(other.pid, [max(os.sched_getaffinity(0))])
        speaker.stdin.close()  # which it waits for
        frame, shares = json.loads(speaker.stdout.read())
        return frame, shares
    finally:
        for process in filter(None, [speaker, other]):
            process.kill()
            process.wait()


def count_waits(slow: float) -> list[Any]:
    """Have kernels count, before anything imports them. Returns the list of the teams' members, team by team.

    A member's line of ``meeting`` has room behind its first four numbers: here are its ticks at work and at barriers,
    and the tick up to which they are counted.
    """
    from llvmlite import ir
    from qwen3tts_np_kernels import threads_jit
    from qwen3tts_np_kernels.cpu import CPU, inner
    from qwen3tts_np_kernels.simd.llvm import I64, INT64, Builder, Value, call, operation
    from qwen3tts_np_kernels.simd.ops import pause

    barrier, next_part, members, line = (getattr(threads_jit, n) for n in ("barrier", "next_part", "members", "_LINE"))
    made: list[list[threads_jit.Member]] = []

    @operation(INT64)
    def ticks(b: Builder) -> Value:
        """a counter of constant rate; trap: LLVM's own counter is one that programs on ARM may not read"""
        if CPU.is_x86:
            return call(b, "llvm.readcyclecounter", I64)
        return b.call(ir.InlineAsm(ir.FunctionType(I64, []), "mrs $0, cntvct_el0", "=r", side_effect=True), [])

    @inner
    def count_work(me: threads_jit.Member) -> None:
        at = line * (2 + me.index)
        since = me.meeting[at + 6]
        if since and me.index == me.count - 1:
            until = since + slow * (ticks() - since)
            while ticks() < until:
                pause()
        now = ticks()
        if since:
            me.meeting[at + 4] += now - since
        me.meeting[at + 6] = now

    @inner
    def counting_barrier(me: threads_jit.Member) -> None:
        count_work(me)
        barrier(me)
        at, now = line * (2 + me.index), ticks()
        if me.meeting[at + 6]:
            me.meeting[at + 5] += now - me.meeting[at + 6]
        me.meeting[at + 6] = now

    @inner
    def counting_next_part(me: threads_jit.Member, count: int, last: threads_jit.Part) -> threads_jit.Part:
        count_work(me)
        return next_part(me, count, last)

    def recorded(size: int) -> list[threads_jit.Member]:
        made.append(members(size))
        return made[-1]

    threads_jit.barrier, threads_jit.next_part, threads_jit.members = counting_barrier, counting_next_part, recorded
    return made


def wait(path: str, threads: int, slow: float) -> None:
    """One process: prints milliseconds per frame, and the share of the time that each thread waited."""
    teams = count_waits(slow)
    from machine import TEXT, any_voice
    from qwen3tts_np_kernels.pace import Pace

    from qwen3tts_np import Qwen3TTSModel

    Pace.alone = lambda pace, function: False  # type: ignore[method-assign]
    model = Qwen3TTSModel.from_pretrained(path, threads=threads)
    text, voice = "good morning" if Path(path) == DEMO_VOICE else TEXT, any_voice(model)
    model.generate([model.prepare(text, voice, seed=0, max_new_tokens=3)])  # starts the threads
    (lines,) = [team[0].meeting.reshape(2 + 2 * threads, -1)[2 : 2 + threads] for team in teams if len(team) == threads]
    print("ready", flush=True)
    sys.stdin.read()
    times: list[float] = []
    counted = np.zeros((threads, 2))
    while sum(times) < SECONDS:
        with model.open_batch(places=1, prompt_slice=None) as batch:
            batch.join(model.prepare(text, voice, seed=0, max_new_tokens=200))
            batch.step()  # the prompt
            while not batch.idle:
                lines[:, 4:7] = 0
                start = time.perf_counter()
                if len(batch.step().places):
                    times.append(time.perf_counter() - start)
                    counted += lines[:, 4:6]
    print(json.dumps([1e3 * statistics.median(times), (counted[:, 1] / counted.sum(1)).tolist()]))


def main(arguments: list[str]) -> None:
    waiting = arguments[:1] == ["--waits"]
    model = Path(arguments[waiting]) if len(arguments) > waiting else DEMO_VOICE
    (report_waits if waiting else report)(model)


def report(model: Path) -> None:
    """Print the object."""
    rates: dict[str, list[float]] = {name: [] for name in RUNS}
    for _ in range(ROUNDS):
        for name, run in RUNS.items():
            rates[name].append(frames_a_second(model, *run))
    medians = {name: statistics.median(rate) for name, rate in rates.items()}
    ratios = {f"{one} / {other}": round(medians[one] / medians[other], 2) for one, other in RATIOS}
    rounded = {name: round(rate, 1) for name, rate in medians.items()}
    print(json.dumps({"cores": usable_cores(), "frames_a_second": rounded, "ratios": ratios}, indent=1))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--wait"]:
        wait(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
    elif sys.argv[1:2] == ["--speak"]:
        speak(sys.argv[2], int(sys.argv[3]))
    else:
        main(sys.argv[1:])
