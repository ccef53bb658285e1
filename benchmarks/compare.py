"""Two checkouts of this project against each other: old / new, measured in turn.

    git worktree add ../before HEAD~20
    python benchmarks/compare.py ../before MODEL [MODEL ...]

For each model, as it is stored or in --formats: milliseconds per frame for batches of some sizes and numbers of
threads, and for a prompt with its first frame. Each checkout has a process of its own, which answers one question at a
time. A question is put to both, and the one that comes first changes, so that a busy machine slows both equally. The
ratios, of time and of CPU time, are medians of those of the pairs; above 1 the new one (the checkout of this file) is
faster. Frames are those of the same requests and seeds, and their codes must be equal, unless --other-codes is given.
--least R exits with 1 if a ratio of times is below R.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parents[1]
TEXT = "The quick brown fox jumps over the lazy dog, and then it does so once more."


class Case(NamedTuple):
    """What is measured: a frame of a batch of so many, or a prompt with its first frame."""

    model: str
    format: str
    threads: int
    items: int
    prompt: bool

    def __str__(self) -> str:
        what = "prompt and frame" if self.prompt else f"batch of {self.items}"
        return f"{Path(self.model).name} ({self.format}) | {self.threads} | {what}"


class Answer(NamedTuple):
    milliseconds: float
    cpu: float  # milliseconds of all threads, those that wait for others included
    codes: str  # digest


# ---- one checkout, in its own process ----


class Speaker:
    """A model that answers questions."""

    def __init__(self) -> None:
        self._loaded: tuple[Any, ...] | None = None
        self._model: Any = None
        self._seed = 0

    def ask(self, frames: int, case: Case) -> Answer:
        if self._loaded != case[:3]:
            from qwen3tts_np import Qwen3TTSModel

            self._model = None  # before the next one takes its memory
            self._model = Qwen3TTSModel.from_pretrained(case.model, weights_format=case.format, threads=case.threads)
            self._loaded = case[:3]
        return self._prompt(case) if case.prompt else self._frames(frames, case.items)

    def _open(self, items: int, seed: int, text: str = TEXT) -> Any:
        from machine import any_voice

        batch = self._model.open_batch(places=items, prompt_slice=None)
        for item in range(items):
            batch.join(self._model.prepare(text, any_voice(self._model), seed=8 * seed + item, streaming=False))
        return batch

    def _prompt(self, case: Case) -> Answer:
        with self._open(1, 0, 2 * TEXT) as batch:
            start = time.perf_counter(), time.process_time()
            step = batch.step()
            seconds, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
            return Answer(1e3 * seconds, 1e3 * cpu, _digest([step.codes]))

    def _frames(self, count: int, items: int) -> Answer:
        """The median of so many frames, in which all speak; if one ends, the next seeds are taken."""
        for seed in range(100):
            times: list[tuple[float, float]] = []
            codes = []
            with self._open(items, seed) as batch:
                batch.step()
                while len(times) < count:
                    start = time.perf_counter(), time.process_time()
                    step = batch.step()
                    times.append((time.perf_counter() - start[0], time.process_time() - start[1]))
                    codes.append(step.codes)
                    if len(step.places) < items or step.ended:
                        break
                else:
                    seconds, cpu = map(statistics.median, zip(*times, strict=True))
                    return Answer(1e3 * seconds, 1e3 * cpu, _digest(codes))
        raise SystemExit("of a hundred batches all had somebody who ended at once")


def _digest(codes: list[Any]) -> str:
    rows = [[[int(code) for code in item] for item in step] for step in codes]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def answer_questions(checkout: Path) -> None:
    import qwen3tts_np

    assert Path(qwen3tts_np.__file__).resolve().parents[1] == checkout, qwen3tts_np.__file__
    speaker = Speaker()
    for line in sys.stdin:
        frames, case = json.loads(line)
        print(json.dumps(speaker.ask(frames, Case(*case))), flush=True)


class Process:
    """A checkout's process."""

    def __init__(self, checkout: Path) -> None:
        paths = os.pathsep.join(map(str, (checkout, checkout / "kernels")))
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--answer", str(checkout)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": paths},
        )

    def ask(self, frames: int, case: Case) -> Answer:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([frames, case]), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"a process ended: {case}")
        return Answer(*json.loads(answer))

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


# ---- both ----


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="the older checkout")
    parser.add_argument("models", nargs="+", help="checkpoints")
    parser.add_argument("--formats", nargs="+", default=["auto"], help="of weights (default: as they are stored)")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=4, help="timed in a round")
    parser.add_argument("--least", type=float, default=0.0, metavar="R")
    parser.add_argument("--other-codes", action="store_true")
    args = parser.parse_args()
    rows = []
    processes = [Process(checkout) for checkout in (args.other.resolve(), HERE)]
    print("| model | threads | | old | new | old / new | CPU | frames, of one |\n|---|--:|---|--:|--:|--:|--:|--:|")
    for model in args.models:
        for name in args.formats:
            for threads in args.threads:
                cases = [Case(model, name, threads, items, False) for items in args.batches]
                cases.append(Case(model, name, threads, 1, True))
                rows += measured(processes, cases, args)
    for process in processes:
        process.close()
    if min(rows) < args.least:
        raise SystemExit(f"a ratio of {min(rows):.2f} is below {args.least}")


def measured(processes: list[Process], cases: list[Case], args: argparse.Namespace) -> list[float]:
    """The ratios of the cases, which are printed."""
    answers: dict[Case, list[tuple[Answer, Answer]]] = {case: [] for case in cases}
    for round_ in range(-1, args.rounds):  # the first one compiles
        for number, case in enumerate(cases):
            new_first = (round_ + number) % 2
            one = processes[new_first].ask(args.frames if round_ >= 0 else 1, case)
            other = processes[1 - new_first].ask(args.frames if round_ >= 0 else 1, case)
            if one.codes != other.codes and not args.other_codes:
                raise SystemExit(f"the codes differ: {case}")
            if round_ >= 0:
                answers[case].append((other, one) if new_first else (one, other))
    ratios, alone = [], 0.0
    for case, pairs in answers.items():
        old, new = (statistics.median(pair[side].milliseconds for pair in pairs) for side in (0, 1))
        ratio, cpu = (statistics.median(pair[0][of] / pair[1][of] for pair in pairs) for of in (0, 1))
        alone = new if case.items == 1 and not case.prompt else alone
        gain = f"{case.items * alone / new:.2f}" if alone and not case.prompt else ""
        print(f"| {case} | {old:.1f} ms | {new:.1f} ms | {ratio:.2f} | {cpu:.2f} | {gain} |", flush=True)
        ratios.append(ratio)
    return ratios


if __name__ == "__main__":
    if sys.argv[1:2] == ["--answer"]:
        answer_questions(Path(sys.argv[2]))
    else:
        main()
