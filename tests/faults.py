"""A command killed, or its disk failing, at its writes, fsyncs and renames in turn: never half a file under its name.

    python tests/faults.py                      # needs Linux and strace; exits 1 at what is wrong
    python tests/faults.py --only convert --every

``strace -e inject`` does it to the real program, from outside: for each command and each system call at its first, its
last and some occurrences between (``--every``: at each of them). Then there must be the old file under the final name,
or what an undisturbed run writes, and no traceback; and the run after all of them must leave nothing of theirs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
KILLED = (137, -9)  # by a shell's count, and by Python's
ORDERLY = (0, 2)  # a write to the kernels' cache may fail without harm
TRIED = 6  # occurrences of a system call
ARGUMENTS = {"text": "Hi.", "speaker": "ryan", "max_new_tokens": 3}
REQUEST = {"method": "generate_custom_voice", "arguments": ARGUMENTS, "seed": 1}
TEXT = "It rained. The ferry came late, and nobody minded at all, since all had time.\n\nThe sun was out again."


class Command(NamedTuple):
    """What is run, and the names under which its work is found."""

    words: tuple[str, ...]
    outputs: tuple[str, ...]
    folder: bool = False  # whether the work is a folder
    passing: tuple[str, ...] = ()  # outputs that go before they come again
    resumes: bool = False  # whether the next run goes on where this one ended
    kept: tuple[str, ...] = ()  # what a run leaves for the next, for it not to be done again


ROWS = ("o/a.wav", "o/b.wav")
LINES = ("o/results/a.json", "o/results/b.json", "o/results.jsonl")
PREPARED = ("d.jsonl", "d.validation.jsonl", "d.safetensors", "d.json", "d.html")
SHORT = ("--seed", "1", "--max-new-tokens", "3")
COMMANDS = {
    "say": Command(("say", "m", "Hi", *SHORT, "-o", "a.wav"), ("a.wav",)),
    "stream": Command(("say", "m", "Hi", *SHORT, "--stream", "-o", "s.flac"), ("s.flac",)),
    "srt": Command(("say", "m", "--file", "t.txt", *SHORT, "-o", "l.wav", "--srt", "l.srt"), ("l.wav", "l.srt")),
    "batch": Command(("batch", "m", "b.jsonl", "o", *SHORT), (*ROWS, *LINES), passing=LINES, resumes=True),
    "prepare": Command(
        ("train", "prepare", "raw.jsonl", "d.jsonl", "--model", "b", "--validation", "50%", "--round-trips", "1"),
        PREPARED,
        resumes=True,
        kept=("d.journal",),
    ),
    "voice": Command(("voice", "create", "b", "clip.wav", "-o", "v.safetensors"), ("v.safetensors",)),
    "encode": Command(("encode", "b", "clip.wav", "-o", "c.npy"), ("c.npy",)),
    "fixtures": Command(("fixtures", "export", "m", "r.json", "f", "--tensors", "*norm"), ("f",), folder=True),
    "convert": Command(("convert", "--format", "int8", "m", "c"), ("c",), folder=True),
    "synth": Command(("synth", "--like", "tiny", "--type", "base", "s"), ("s",), folder=True),
}
CALLS = ("write", "fsync", "rename")
FAULTS = ("signal=KILL", "error=ENOSPC", "error=EIO")
OLD = b"the old file"


class Run(NamedTuple):
    """The end of a command under strace."""

    status: int
    message: str  # on standard error
    calls: int  # occurrences of the system call
    occurred: bool  # the fault


def run(words: tuple[str, ...], folder: Path, call: str = "write", fault: str = "") -> Run:
    """Run a command with a fault such as ``error=EIO:when=3`` in a system call, or with none."""
    log = folder / "strace.txt"
    inject = ["-e", f"inject={call}:{fault}"] if fault else []
    watch = ["strace", "-f", "-qq", "-o", str(log), "-e", f"trace={call}", *inject]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")])}
    line = [*watch, sys.executable, "-m", "qwen3tts_np", *words]
    done = subprocess.run(line, cwd=folder, env=env, capture_output=True, text=True, check=False)
    seen = log.read_text(errors="replace")
    log.unlink()
    return Run(done.returncode, done.stderr, seen.count(f" {call}("), "INJECTED" in seen or "killed by" in seen)


def digest(path: Path) -> str:
    """Of a file, or of all names and files in a folder; "" where nothing is."""
    if not path.exists():
        return ""
    total = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        total.update(str(file.relative_to(path)).encode() + (file.read_bytes() if file.is_file() else b""))
    return total.hexdigest()


def as_before(command: Command, folder: Path) -> None:
    """The old files again, and nothing of an earlier run; no folder, since one in use is not replaced."""
    for name in command.kept:
        (folder / name).unlink(missing_ok=True)
    for name in command.outputs:
        if command.folder:
            shutil.rmtree(folder / name, ignore_errors=True)
        else:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(OLD)


def steps(count: int, every: bool) -> list[int]:
    """Occurrences to try, counted from 1."""
    if every or count <= TRIED:
        return list(range(1, count + 1))
    return sorted({1 + (count - 1) * i // (TRIED - 1) for i in range(TRIED)})


def wrong(command: Command, folder: Path, every: bool) -> Iterator[str]:
    """A line for each system call and fault, and one, with two spaces before it, for what is not as promised."""
    outputs = [folder / name for name in command.outputs]
    as_before(command, folder)
    old = [digest(output) for output in outputs]
    run(command.words, folder)  # compiles
    as_before(command, folder)
    present = _names(command, folder) | {*outputs, *(folder / name for name in command.kept)}
    counts = {call: _undisturbed(command, folder, call) for call in CALLS}
    complete = [digest(output) for output in outputs]
    for call, fault in product(CALLS, FAULTS):
        tried = steps(counts[call], every)
        yield f"{' '.join(command.words)}: {call} {tried} of {counts[call]}, {fault}"
        for step in tried:
            as_before(command, folder)
            done = run(command.words, folder, call, f"{fault}:when={step}")
            if "Traceback" in done.message:
                yield f"  {call} {step}, {fault}: a traceback\n{done.message}"
            if done.status not in (KILLED if "KILL" in fault and done.occurred else ORDERLY):
                yield f"  {call} {step}, {fault}: exit status {done.status}\n{done.message}"
            for name, output, before, after in zip(command.outputs, outputs, old, complete, strict=True):
                if digest(output) not in (before, after, *([""] if name in command.passing else [])):
                    yield f"  {call} {step}, {fault}: {name} is not complete"
            if command.resumes and (run(command.words, folder).status, list(map(digest, outputs))) != (0, complete):
                yield f"  {call} {step}, {fault}: the next run does not complete it"
    as_before(command, folder)
    run(command.words, folder)
    if [digest(output) for output in outputs] != complete:
        yield "  the run after all of them writes something else"
    if left := sorted(path.name for path in _names(command, folder) - present):
        yield f"  the run after all of them leaves {left}"


def _names(command: Command, folder: Path) -> set[Path]:
    """What is in the folder, and beside each output."""
    places = {folder, *((folder / name).parent for name in command.outputs)}
    return {path for place in places for path in place.iterdir()}


def _undisturbed(command: Command, folder: Path, call: str) -> int:
    """How often a command makes a system call where all goes well."""
    as_before(command, folder)
    return run(command.words, folder, call).calls


def tested(name: str, every: bool) -> bool:
    """Test one command in a folder of its own. Prints what :func:`wrong` says; whether all was well."""
    well = True
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for kind, model in (("custom_voice", "m"), ("base", "b")):
            run(("synth", "--like", "tiny", "--type", kind, model), folder)
        run(("say", "m", "Hello there.", "--seed", "1", "--max-new-tokens", "40", "-o", "clip.wav"), folder)
        (folder / "r.json").write_text(json.dumps(REQUEST))
        (folder / "t.txt").write_text(TEXT)
        rows = ({"id": name, "text": "Hi.", "speaker": speaker} for name, speaker in (("a", "ryan"), ("b", "vivian")))
        (folder / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        raw = [{"audio": "clip.wav", "text": text} for text in ("One.", "Two.", "Three.")]
        raw += [{"text": text, "audio_codes": [[i] * 16] * 9} for i, text in enumerate(("Four.", "Five.", "Six."))]
        (folder / "raw.jsonl").write_text("".join(json.dumps(row) + "\n" for row in raw))
        for line in wrong(COMMANDS[name], folder, every):
            print(line, flush=True)
            well = well and not line.startswith("  ")
    return well


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=COMMANDS, action="append", help="may be given several times")
    parser.add_argument("--every", action="store_true", help="every occurrence: hours")
    args = parser.parse_args()
    if not shutil.which("strace"):
        parser.error("strace is not installed")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        well = list(pool.map(lambda name: tested(name, args.every), args.only or COMMANDS))
    return int(not all(well))


if __name__ == "__main__":
    raise SystemExit(main())
