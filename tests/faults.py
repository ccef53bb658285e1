"""A command killed, or its disk failing, at every write, fsync and rename in turn: never half a file under its name.

    python tests/faults.py                 # all; needs Linux and strace; exits 1 at what is wrong
    python tests/faults.py --only convert

``strace -e inject`` does it to the real program, from outside: for each command, each system call, and its first,
second, ... occurrence until the command gets through. Then there must be nothing under the final name, or what an
undisturbed run writes, and no traceback; and the run after all of them must leave nothing of theirs.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import count, product
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
KILLED = (137, -9)  # by a shell's count, and by Python's
ORDERLY = (0, 2)  # a write to the kernels' cache may fail without harm


class Command(NamedTuple):
    """What is run, and the name under which its work is found."""

    words: tuple[str, ...]
    output: str


COMMANDS = {
    "say": Command(("say", "m", "Hi", "--seed", "1", "--max-new-tokens", "2", "-o", "a.wav"), "a.wav"),
    "convert": Command(("convert", "--format", "int8", "m", "c"), "c"),
    "synth": Command(("synth", "--like", "tiny", "--type", "base", "s"), "s"),
}
CALLS = ("write", "fsync", "rename")
FAULTS = ("signal=KILL", "error=ENOSPC", "error=EIO")


def run(words: tuple[str, ...], folder: Path, fault: str = "") -> tuple[int, str, bool]:
    """Exit status, standard error, and whether the fault (``write:error=EIO:when=3``) occurred."""
    log = folder / "strace.txt"
    watch = ["strace", "-f", "-qq", "-o", str(log), "-e", f"trace={fault.partition(':')[0]}", "-e", f"inject={fault}"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")])}
    line = [*(watch if fault else []), sys.executable, "-m", "qwen3tts_np", *words]
    done = subprocess.run(line, cwd=folder, env=env, capture_output=True, text=True, check=False)
    seen = log.read_text(errors="replace") if fault else ""
    return done.returncode, done.stderr, "INJECTED" in seen or "killed by" in seen


def digest(path: Path) -> str:
    """Of a file, or of all names and files in a folder; "" where nothing is."""
    if not path.exists():
        return ""
    total = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        total.update(str(file.relative_to(path)).encode() + (file.read_bytes() if file.is_file() else b""))
    return total.hexdigest()


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def wrong(command: Command, folder: Path, call: str, fault: str) -> Iterator[str]:
    """One sentence for everything that is not as promised, with ``fault`` at each ``call`` in turn."""
    output = folder / command.output
    remove(output)
    run(command.words, folder)
    complete = digest(output)
    for step in count(1):
        remove(output)
        status, message, occurred = run(command.words, folder, f"{call}:{fault}:when={step}")
        here = f"{' '.join(command.words)}, {call} {step}, {fault}"
        if "Traceback" in message:
            yield f"{here}: a traceback\n{message}"
        if status not in (KILLED if "KILL" in fault and occurred else ORDERLY):
            yield f"{here}: exit status {status}\n{message}"
        if digest(output) not in ("", complete):
            yield f"{here}: {command.output} is not complete"
        if not occurred:
            break
    remove(output)
    run(command.words, folder)
    if digest(output) != complete:
        yield f"{here}: the run after it writes something else"
    if left := [path.name for path in folder.iterdir() if path.name.endswith(".partial")]:
        yield f"{here}: the run after it leaves {left}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=COMMANDS)
    only = parser.parse_args().only
    if not shutil.which("strace"):
        parser.error("strace is not installed")
    found = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(("synth", "--like", "tiny", "--type", "custom_voice", "m"), folder)
        for command, call, fault in product([only] if only else COMMANDS, CALLS, FAULTS):
            print(f"{command}: {call}, {fault}", flush=True)
            for sentence in wrong(COMMANDS[command], folder, call, fault):
                print(f"  {sentence}", flush=True)
                found += 1
    return int(found > 0)


if __name__ == "__main__":
    raise SystemExit(main())
