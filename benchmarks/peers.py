"""Other programs that speak with this model, beside ours, on this machine: the commands are yours.

    python benchmarks/peers.py MODEL --peer 'NAME=program --threads {threads} --output {out} {text}'
    python benchmarks/peers.py MODEL --format int4 --peer 'official=.venv-official/bin/python \\
        benchmarks/official_say.py MODEL {text} {out} --threads {threads} --frames {frames}'

A command says NAME=PROGRAM ARGUMENT ...; in it {text} stands for a text, {out} for the WAV file that it has to write,
{threads} for the number of threads, and {frames}, if it can be limited, for the most frames. No shell runs it.

Every round runs every program twice, with a short and with a long text, in an order that changes from round to round,
so that a busy machine slows all of them equally. Each run is a fresh process, as somebody at a terminal has it. Two
runs give two figures: what a second of speech takes (the difference of the times over the difference of the audio's
lengths), and what is spent before (the rest: start, load, prompt). Medians of the rounds are reported, with CPU time
and the most memory, which includes pages of mapped files. A program that fails, or writes no audio, ends the benchmark
with its last words.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import soundfile
from machine import describe_machine

SHORT = "Good morning to you all."
LONG = "The quick brown fox jumps over the lazy dog, and then it does so once more before the sun goes down."
OURS = "ours"
LAST_WORDS = 10  # lines
KILOBYTE = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss


class Run(NamedTuple):
    """One process."""

    wall: float  # s
    cpu: float  # s, of all threads
    memory: int  # bytes, the most
    audio: float  # s


class Pair(NamedTuple):
    """A program's runs of one round."""

    short: Run
    long: Run

    @property
    def per_second(self) -> float:
        """Seconds for a second of speech."""
        return (self.long.wall - self.short.wall) / (self.long.audio - self.short.audio)

    @property
    def before(self) -> float:
        """Seconds that do not depend on the length of the speech."""
        return self.long.wall - self.per_second * self.long.audio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="the checkpoint that ours speaks with")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=COMMAND", help="may be repeated")
    parser.add_argument("--format", default="auto", help="of our weights")
    parser.add_argument("--say", default="", help="more options of ours, as in '--speaker ryan'")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--frames", type=int, nargs=2, default=(25, 100), metavar=("SHORT", "LONG"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write peers.json and peers.md here")
    args = parser.parse_args()
    commands = {OURS: _ours(args), **dict(map(named_command, args.peer))}
    rounds: dict[str, list[Pair]] = {name: [] for name in commands}
    for round_ in range(-1, args.rounds):  # the first one compiles, and brings the files into memory
        names = list(commands)
        turn = round_ % len(names)
        for name in names[turn:] + names[:turn]:
            pair = Pair(*(run_once(commands[name], text, frames, args) for text, frames in _texts(args)))
            if pair.long.audio <= pair.short.audio:
                raise SystemExit(f"{name}: the long text has {pair.long.audio:.2f} s, the short {pair.short.audio:.2f}")
            if round_ >= 0:
                rounds[name].append(pair)
            print(f"{name}: {pair.per_second:.2f} s per s, {pair.before:.1f} s before", file=sys.stderr, flush=True)
    report = {
        "machine": describe_machine(),
        "model": args.model,
        "threads": args.threads,
        "rounds": args.rounds,
        "programs": {name: {"command": commands[name], **_summary(pairs)} for name, pairs in rounds.items()},
    }
    table = _table(report)
    print(table)
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "peers.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        (args.out / "peers.md").write_text(table + "\n", encoding="utf-8")


def _ours(args: argparse.Namespace) -> list[str]:
    options = [
        "--format",
        args.format,
        "--threads",
        "{threads}",
        "--max-new-tokens",
        "{frames}",
        *shlex.split(args.say),
    ]
    return [sys.executable, "-m", "qwen3tts_np", "say", args.model, "{text}", "-o", "{out}", *options]


def named_command(text: str) -> tuple[str, list[str]]:
    name, equals, command = text.partition("=")
    if not (name and equals and command) or name == OURS:
        raise SystemExit(f"--peer {text!r} is not NAME=COMMAND, with a name other than {OURS}")
    return name, shlex.split(command)


def _texts(args: argparse.Namespace) -> list[tuple[str, int]]:
    return list(zip((SHORT, LONG), args.frames, strict=True))


def run_once(command: list[str], text: str, frames: int, args: argparse.Namespace) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "speech.wav")
        words = {"{text}": text, "{out}": str(out), "{threads}": str(args.threads), "{frames}": str(frames)}
        filled = [_filled(word, words) for word in command]
        log = Path(folder, "log")
        start = time.perf_counter()
        with log.open("wb") as output, subprocess.Popen(filled, stdout=output, stderr=output) as process:
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - start
        if process.returncode != 0 or not out.is_file():
            last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_WORDS:]
            raise SystemExit("\n".join([f"{shlex.join(filled)}: status {process.returncode}", *last]))
        return Run(wall, used.ru_utime + used.ru_stime, used.ru_maxrss * KILOBYTE, soundfile.info(out).duration)


def _filled(word: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        word = word.replace(name, value)
    return word


def _summary(pairs: list[Pair]) -> dict[str, Any]:
    return {
        "per_second": statistics.median(pair.per_second for pair in pairs),
        "before_s": statistics.median(pair.before for pair in pairs),
        "long_real_time_factor": statistics.median(pair.long.wall / pair.long.audio for pair in pairs),
        "long_cpu_factor": statistics.median(pair.long.cpu / pair.long.audio for pair in pairs),
        "memory_bytes": max(pair.long.memory for pair in pairs),
        "runs": [pair._asdict() for pair in pairs],
    }


def _table(report: dict[str, Any]) -> str:
    ours = report["programs"][OURS]
    lines = [
        f"{report['model']} on {report['machine']['cpu']}, {report['threads']} threads, "
        f"medians of {report['rounds']} rounds.",
        "",
        "| | s per s of speech | of ours | before, s | whole run, s per s | CPU s per s | most memory |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, found in report["programs"].items():
        lines.append(
            f"| {name} | {found['per_second']:.2f} | {found['per_second'] / ours['per_second']:.2f}x | "
            f"{found['before_s']:.1f} | {found['long_real_time_factor']:.2f} | {found['long_cpu_factor']:.2f} | "
            f"{found['memory_bytes'] / 1e9:.2f} GB |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
