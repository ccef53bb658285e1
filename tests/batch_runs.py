"""A manifest spoken in every way that there is: the same bytes for every row, and memory that does not grow with it.

    python tests/batch_runs.py [--rows 300] [--many 100000] [--spoken N] [--only bytes|memory]

Bytes: 300 rows of 1 to 200 letters, sampled, in three voices, spoken in one run; then killed three times with SIGKILL
and finished, in 2 and in 5 shards, in reverse, one at a time, and by two workers of a local Ray cluster where Ray is
installed. Memory: 1,000 and 100,000 rows, each in a process of its own; of those ``--spoken`` are spoken, all by
default, and the others have no words, which takes less time. ``test_batch.py`` has a small version.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
VOICES = ("vivian", "ryan", "aiden")
SETTINGS = ("--threads", "1")
WORDS = (
    "rain ferry late morning sun breakfast deck long way home forest hill nobody spoke evening boat tea wind".split()
)
ALLOWED = 20 << 20  # bytes of memory that 100,000 rows may take more than 1,000

Rows = list[dict[str, Any]]


def rows_of(count: int, most: int = 40) -> Rows:
    """Rows of 1 to 200 letters in three voices, each of fewer than ``most`` frames."""
    draw = random.Random(0)
    rows = []
    for number in range(count):
        text = " ".join(draw.choices(WORDS, k=60))[: draw.randint(1, 200)].strip()
        rows.append({"id": f"row {number}", "text": text, "speaker": draw.choice(VOICES), "max_new_tokens": most})
    return rows


def write_manifest(path: Path, rows: Rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def command(model: Path, manifest: Path, out: Path, *options: str) -> list[str]:
    """The command line that speaks a manifest."""
    program = [sys.executable, "-m", "qwen3tts_np", "batch"]
    return [*program, *map(str, (model, manifest, out)), *SETTINGS, *options]


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    of_ray = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}  # nothing leaves this machine
    return {**os.environ, "PYTHONPATH": path, **of_ray}


def speak(model: Path, manifest: Path, out: Path, *options: str, status: int = 0) -> None:
    """Speak a manifest to the end, with this exit status."""
    _run(command(model, manifest, out, *options), status)


def _run(words: list[str], status: int) -> None:
    found = subprocess.run(words, env=environment(), stdout=subprocess.DEVNULL).returncode
    assert found == status, f"exit status {found} of {' '.join(words)}"


def speak_and_kill(model: Path, manifest: Path, out: Path, *options: str, after: int) -> None:
    """Speak until ``after`` audio files are there, and kill the process with SIGKILL."""
    process = subprocess.Popen(command(model, manifest, out, *options), env=environment())
    while process.poll() is None and len(list(out.glob("*.wav"))) < after:
        time.sleep(0.01)
    assert process.poll() is None, "it was to be killed before its end"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "results.jsonl").exists()


def speak_killed(model: Path, manifest: Path, out: Path, rows: int, times: int = 3) -> None:
    """Kill the process ``times`` times, and then let it end."""
    for kill in range(1, times + 1):
        speak_and_kill(model, manifest, out, after=kill * rows // (times + 1))
    speak(model, manifest, out)
    assert not list(out.rglob("*.partial")), "what was left of a killed process is removed"


def speak_shards(model: Path, manifest: Path, out: Path, count: int) -> None:
    """Speak each shard, the last one first."""
    for number in range(count, 0, -1):
        speak(model, manifest, out, "--shard", f"{number}/{count}")


def spoken(out: Path) -> dict[str, str]:
    """row -> hash of its audio file and its line."""
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    return {line["id"]: _hash((out / line["file"]).read_bytes() + json.dumps(line).encode()) for line in lines}


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def ways(model: Path, rows: Rows, folder: Path) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """Each way to speak ``rows``, by its name."""
    manifest = write_manifest(folder / "rows.jsonl", rows)
    reversed_ = write_manifest(folder / "reversed.jsonl", rows[::-1])
    yield "one run", lambda out: speak(model, manifest, out)
    yield "killed 3 times", lambda out: speak_killed(model, manifest, out, len(rows))
    yield "2 shards", lambda out: speak_shards(model, manifest, out, 2)
    yield "5 shards", lambda out: speak_shards(model, manifest, out, 5)
    yield "reversed", lambda out: speak(model, reversed_, out)
    yield "one at a time", lambda out: speak(model, manifest, out, "--batch-size", "1")
    if importlib.util.find_spec("ray") is not None:
        yield "Ray, two workers", lambda out: speak_on_ray(model, manifest, out)


def speak_on_ray(model: Path, manifest: Path, out: Path, status: int = 0) -> None:
    """Speak a manifest with two actors of a cluster on this machine."""
    program = [sys.executable, "-m", "qwen3tts_np.batch.ray", str(model), str(manifest), str(out)]
    _run([*program, "--workers", "2", *SETTINGS], status)


def memory(model: Path, count: int, spoken_rows: int, folder: Path) -> int:
    """Peak bytes of a process that speaks the first of ``count`` short rows; the others have no words."""
    manifest = folder / f"{count}.jsonl"
    with manifest.open("w", encoding="utf-8") as file:
        for number in range(count):
            text = f"Number {number}." if number < spoken_rows else "..."
            file.write(json.dumps({"id": f"row-{number:06}", "text": text}) + "\n")
    words = [*command(model, manifest, folder / f"out-{count}"), "--max-new-tokens", "3"]
    process = subprocess.Popen(words, env=environment())
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == int(spoken_rows < count)
    return usage.ru_maxrss << 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--many", type=int, default=100_000)
    parser.add_argument("--spoken", type=int, help="of the many rows (all)")
    parser.add_argument("--only", choices=("bytes", "memory"))
    args = parser.parse_args()
    sys.path[:0] = [str(ROOT), str(ROOT / "kernels")]
    from qwen3tts_np.synthetic.weights import write_checkpoint

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = folder / "model"
        write_checkpoint(model, "tiny", "custom_voice")
        good = args.only == "memory" or same_bytes(model, rows_of(args.rows), folder)
        return int(not (good and (args.only == "bytes" or bounded(model, args.many, args.spoken or args.many, folder))))


def same_bytes(model: Path, rows: Rows, folder: Path) -> bool:
    """Whether every way gives the same bytes; prints a line for each."""
    first: dict[str, str] = {}
    good = True
    for number, (name, way) in enumerate(ways(model, rows, folder)):
        start = time.monotonic()
        way(folder / f"way{number}")
        found = spoken(folder / f"way{number}")
        first = first or found
        other = [row for row in first if found.get(row) != first[row]]
        good &= not other and len(found) == len(rows)
        print(f"{name}: {len(found)} rows, {len(other)} of other bytes, {time.monotonic() - start:.0f} s", flush=True)
    return good


def bounded(model: Path, many: int, spoken_rows: int, folder: Path) -> bool:
    """Whether memory stays within 20 MB of that of 1,000 rows."""
    few, most = memory(model, 1000, 1000, folder), memory(model, many, spoken_rows, folder)
    print(f"peak memory: {few / 1e6:.1f} MB with 1,000 rows, {most / 1e6:.1f} MB with {many:,}, {spoken_rows:,} spoken")
    return most - few <= ALLOWED


if __name__ == "__main__":
    sys.exit(main())
