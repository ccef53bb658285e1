"""Two checkouts of this project against each other: old / new, measured in turn.

    git worktree add ../before HEAD~20
    python benchmarks/compare.py ../before MODEL [MODEL ...]
    python benchmarks/compare.py ../before MODEL --cpus here AVX-512 AVX2 --formats float32 bfloat16 int8 int4 \\
        --converted FOLDER --cells cells.json --least 0.97

For each kind of CPU, model, format and number of threads: milliseconds per frame for batches of some sizes, and for a
prompt with its first frame, in a voice that has spoken before. Each checkout has a process of its own, which answers
one question at a time. A question is put to both, and the one that comes first changes, so that a busy machine slows
both equally. The ratios, of time and of CPU time, are medians of those of the pairs; above 1 the new one (the checkout
of this file) is faster. Frames are those of the same requests and seeds, and their codes must be equal, unless
--other-codes is given.

A cell of the table takes --seconds. One whose ratio is below --least is measured twice more, and its pairs are added,
before that is believed: in new processes, since two of the same checkout differ by some percent with the places that
their weights have in memory. --cells keeps those that are finished, so that a run that was stopped (--minutes, or in
any other way) is taken up by the same command. --converted is a folder of checkpoints in the formats that are packed,
each written by the checkout that reads it, once, and shared where the bytes are equal; without it such weights are
quantised whenever a model is loaded.
Exits with 1 if a ratio of times is below --least.
"""

from __future__ import annotations

import argparse
import filecmp
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parents[1]
TEXT = "The quick brown fox jumps over the lazy dog, and then it does so once more."
PACKED = ("int8", "int6", "int5", "int4")
CPUS = {  # what Numba is told; each older than those before it
    "here": {},
    "AVX-512": {"NUMBA_CPU_NAME": "skylake-avx512", "NUMBA_CPU_FEATURES": "+avx2,+fma,+f16c,+avx512f,+avx512bw"},
    "AVX2": {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma,+f16c"},
}
LEAST_PAIRS = 3
TRIES = 3


class Case(NamedTuple):
    """What is measured: a frame of a batch of so many, or a prompt with its first frame."""

    model: str
    format: str
    threads: int
    items: int
    prompt: bool


class Answer(NamedTuple):
    milliseconds: float
    cpu: float  # milliseconds of all threads, those that wait for others included
    codes: str  # digest


@dataclass
class Cell:
    """A case on one kind of CPU, and what both answered: (milliseconds, CPU milliseconds) of old and new in turn."""

    cpu: str
    case: Case
    pairs: list[list[list[float]]]
    tries: int = 1

    def milliseconds(self, side: int) -> float:
        return statistics.median(pair[side][0] for pair in self.pairs)

    def ratio(self, of: int = 0) -> float:
        """Old / new, of time or (1) of CPU time."""
        return statistics.median(old[of] / new[of] for old, new in self.pairs)

    def __str__(self) -> str:
        _, name, threads, items, prompt = self.case
        what = "prompt and frame" if prompt else f"batch of {items}"
        times = f"{self.milliseconds(0):.1f} / {self.milliseconds(1):.1f} ms = {self.ratio():.3f}"
        found = f"{times}, CPU {self.ratio(1):.3f}, {len(self.pairs)} pairs"
        return f"{self.cpu}, {Path(self.case.model).name}, {name}, {threads} threads, {what}: {found}"


# ---- one checkout, in its own process ----


class Speaker:
    """A model that answers questions. The batch of the last one goes on, if the next is the same."""

    def __init__(self) -> None:
        self._loaded: tuple[Any, ...] | None = None
        self._model: Any = None
        self._case: Case | None = None
        self._batch: Any = None
        self._seed = 0

    def ask(self, frames: int, case: Case) -> Answer | None:
        """So many frames; with none the model is made ready."""
        if self._case != case:
            self._case, self._batch, self._seed = case, None, 0
        if self._loaded != case[:3]:
            self._load(case)
        if frames == 0:
            return None
        return self._prompt() if case.prompt else self._frames(frames, case.items)

    def _load(self, case: Case) -> None:
        from qwen3tts_np import Qwen3TTSModel

        self._model = None  # before the next one takes its memory
        self._model = Qwen3TTSModel.from_pretrained(case.model, weights_format=case.format, threads=case.threads)
        self._loaded = case[:3]

    def _open(self, items: int, text: str = TEXT) -> Any:
        from machine import any_voice

        batch = self._model.open_batch(places=items, prompt_slice=None)
        for item in range(items):
            batch.join(self._model.prepare(text, any_voice(self._model), seed=8 * self._seed + item, streaming=False))
        self._seed += 1
        return batch

    def _prompt(self) -> Answer:
        with self._open(1, 2 * TEXT) as batch:
            start = time.perf_counter(), time.process_time()
            step = batch.step()
            seconds, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
            return Answer(1e3 * seconds, 1e3 * cpu, _digest([step.codes]))

    def _frames(self, count: int, items: int) -> Answer:
        """The median of so many frames, in which all speak; once somebody ends, the next seeds are taken."""
        times: list[tuple[float, float]] = []
        codes = []
        while len(times) < count:
            if self._batch is None:
                self._batch = self._open(items)
                self._batch.step()
            start = time.perf_counter(), time.process_time()
            step = self._batch.step()
            end = time.perf_counter(), time.process_time()
            if step.ended or len(step.places) < items:
                self._batch = None
                continue
            times.append((end[0] - start[0], end[1] - start[1]))
            codes.append(step.codes)
        seconds, cpu = map(statistics.median, zip(*times, strict=True))
        return Answer(1e3 * seconds, 1e3 * cpu, _digest(codes))


def _digest(codes: list[Any]) -> str:
    rows = [[[int(code) for code in item] for item in step] for step in codes]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def answer_questions(checkout: Path) -> None:
    from qwen3tts_np_kernels.cpu import CPU

    import qwen3tts_np

    assert Path(qwen3tts_np.__file__).resolve().parents[1] == checkout, qwen3tts_np.__file__
    print(json.dumps(CPU.name), flush=True)
    speaker = Speaker()
    for line in sys.stdin:
        frames, case = json.loads(line)
        print(json.dumps(speaker.ask(frames, Case(*case))), flush=True)


@dataclass(frozen=True)
class Checkout:
    """One of the two: its folder, and where its converted checkpoints are."""

    folder: Path
    converted: Path | None

    @property
    def commit(self) -> str:
        command = ["git", "-C", str(self.folder), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()

    @property
    def environment(self) -> dict[str, str]:
        paths = os.pathsep.join(map(str, (self.folder, self.folder / "kernels")))
        return {**os.environ, "PYTHONPATH": paths}

    def checkpoint(self, model: str, name: str) -> str:
        """A model in a format, converted if it is not."""
        if self.converted is None or name not in PACKED:
            return model
        target = self.converted.resolve() / self.commit / f"{Path(model).name}-{name}"
        if not target.exists():
            print(f"converting {target}", file=sys.stderr, flush=True)
            command = [sys.executable, "-m", "qwen3tts_np", "convert", "--format", name, str(Path(model).resolve())]
            command.append(str(target))
            subprocess.run(command, cwd=self.folder, env=self.environment, stdout=subprocess.DEVNULL, check=True)
            share_equal(target / "model.safetensors")
        return str(target)


def share_equal(file: Path) -> None:
    """Make ``file`` one with that of another checkout, if it has the same bytes.

    Two files are at different places in memory as long as they are cached: one of them was read 8 % faster for hours.
    """
    for other in file.parents[2].glob(f"*/{file.parent.name}/{file.name}"):
        if not other.samefile(file) and filecmp.cmp(other, file, shallow=False):
            file.unlink()
            file.hardlink_to(other)
            return


class Process:
    """A checkout's process, on one kind of CPU."""

    def __init__(self, checkout: Checkout, cpu: str) -> None:
        self._checkout = checkout
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--answer", str(checkout.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**checkout.environment, **CPUS[cpu]},
        )
        self.instructions = self.read()
        """The entry of the table of instruction sets that it computes with."""

    def begin(self, frames: int, case: Case) -> None:
        """Put a question, whose answer is to be read."""
        assert self._process.stdin is not None
        own = case._replace(model=self._checkout.checkpoint(case.model, case.format))
        print(json.dumps([frames, own]), file=self._process.stdin, flush=True)

    def ask(self, frames: int, case: Case) -> Answer:
        self.begin(frames, case)
        return Answer(*self.read())

    def read(self) -> Any:
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"the process of {self._checkout.folder} has ended")
        return json.loads(answer)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


# ---- both ----


class Cells:
    """Finished cells, kept in a file if there is one."""

    def __init__(self, file: Path | None, commits: list[str]) -> None:
        self._file, self._commits, self.all = file, commits, []
        if file is not None and file.exists():
            stored = json.loads(file.read_text(encoding="utf-8"))
            if stored["checkouts"] != commits:
                raise SystemExit(f"{file} is of the checkouts {stored['checkouts']}, and these are {commits}")
            self.all = [Cell(cpu, Case(*case), *rest) for cpu, case, *rest in stored["cells"]]

    def of(self, cpu: str, case: Case) -> Cell | None:
        return next((cell for cell in self.all if (cell.cpu, cell.case) == (cpu, case)), None)

    def are_wanted(self, cpu: str, case: Case, tries: int, least: float) -> bool:
        """Whether a case that has been measured so many times is to be measured once more."""
        cell = self.of(cpu, case)
        return tries == 0 if cell is None else cell.tries == tries and cell.ratio() < least

    def add(self, cell: Cell) -> None:
        """A cell, to what is known of it."""
        if known := self.of(cell.cpu, cell.case):
            known.pairs += cell.pairs
            known.tries += 1
            cell = known
        else:
            self.all.append(cell)
        print(cell, file=sys.stderr, flush=True)
        if self._file is not None:
            rows = [[cell.cpu, cell.case, cell.pairs, cell.tries] for cell in self.all]
            unfinished = self._file.with_suffix(".unfinished")
            unfinished.write_text(json.dumps({"checkouts": self._commits, "cells": rows}) + "\n", encoding="utf-8")
            unfinished.replace(self._file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="the older checkout")
    parser.add_argument("models", nargs="+", help="checkpoints")
    parser.add_argument("--cpus", nargs="+", choices=CPUS, default=["here"])
    parser.add_argument("--formats", nargs="+", default=["auto"], help="of weights (default: as they are stored)")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--seconds", type=float, default=7.0, help="of a cell; at least three pairs (%(default)s)")
    parser.add_argument("--frames", type=int, default=2, help="in turn (%(default)s)")
    parser.add_argument("--converted", type=Path, metavar="FOLDER")
    parser.add_argument("--cells", type=Path, metavar="FILE")
    parser.add_argument("--minutes", type=float, default=float("inf"), metavar="M", help="after which no cell is begun")
    parser.add_argument("--least", type=float, default=0.0, metavar="R")
    parser.add_argument("--other-codes", action="store_true")
    args = parser.parse_args()
    checkouts = [Checkout(folder, args.converted) for folder in (args.other.resolve(), HERE)]
    cells = Cells(args.cells, [checkout.commit for checkout in checkouts])
    measure(checkouts, cells, args)
    print(table(cells.all, args.least))
    missing = sum(cells.of(cpu, case) is None for cpu in args.cpus for case in cases(args))
    if missing:
        raise SystemExit(f"{missing} cells are missing: the same command goes on")
    if any(cell.ratio() < args.least for cell in cells.all):
        raise SystemExit(1)


def cases(args: argparse.Namespace) -> Iterator[Case]:
    for model in args.models:
        for name in args.formats:
            for threads in args.threads:
                yield from (Case(model, name, threads, items, False) for items in args.batches)
                yield Case(model, name, threads, 1, True)


def measure(checkouts: list[Checkout], cells: Cells, args: argparse.Namespace) -> None:
    """Those that are missing and then those that are low, as long as there is time."""
    end = time.monotonic() + 60 * args.minutes
    for tries in range(TRIES):
        for cpu in args.cpus:
            wanted = [case for case in cases(args) if cells.are_wanted(cpu, case, tries, args.least)]
            if not wanted or time.monotonic() > end:
                continue
            processes = [Process(checkout, cpu) for checkout in checkouts]
            names = " and ".join(process.instructions for process in processes)
            print(f"{cpu}: {names}", file=sys.stderr, flush=True)
            for case in wanted:
                if time.monotonic() < end:
                    cells.add(measured(processes, cpu, case, args))
            for process in processes:
                process.close()


def measured(processes: list[Process], cpu: str, case: Case, args: argparse.Namespace) -> Cell:
    for process in processes:
        process.begin(0, case)
    for process in processes:
        process.read()
    for process in processes:  # compiles, and reads the prompts
        process.ask(1, case)
    cell, end = Cell(cpu, case, []), time.monotonic() + args.seconds
    while len(cell.pairs) < LEAST_PAIRS or time.monotonic() < end:
        order = (0, 1) if len(cell.pairs) % 2 else (1, 0)
        answers = {side: processes[side].ask(args.frames, case) for side in order}
        if answers[0].codes != answers[1].codes and not args.other_codes:
            raise SystemExit(f"the codes differ: {cpu}, {case}")
        cell.pairs.append([list(answers[side][:2]) for side in (0, 1)])
    return cell


def table(cells: list[Cell], least: float) -> str:
    """Markdown: for each row of cases the ratios, and the new milliseconds; below it the ratios that are too low."""
    columns = sorted({(cell.case.prompt, cell.case.items) for cell in cells})
    heads = ["prompt and frame" if prompt else f"batch of {items}" for prompt, items in columns]
    lines = [f"| CPU | model | format | threads | {' | '.join(heads)} |", f"|---|---|---|--:|{'--:|' * len(heads)}"]
    rows: dict[tuple[Any, ...], dict[tuple[bool, int], Cell]] = {}
    for cell in cells:
        rows.setdefault((cell.cpu, *cell.case[:3]), {})[cell.case.prompt, cell.case.items] = cell
    for (cpu, model, name, threads), found in rows.items():
        texts = [_shown(found[column]) if column in found else "" for column in columns]
        lines.append(f"| {cpu} | {Path(model).name} | {name} | {threads} | {' | '.join(texts)} |")
    low = sorted((cell for cell in cells if cell.ratio() < least), key=Cell.ratio)
    lines += ["", f"{len(low)} of {len(cells)} ratios are below {least}", *(f"- {cell}" for cell in low)]
    return "\n".join(lines)


def _shown(cell: Cell) -> str:
    return f"{cell.ratio():.2f} ({cell.milliseconds(1):.1f} ms)"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--answer"]:
        answer_questions(Path(sys.argv[2]))
    else:
        main()
