"""Startup cost of a fresh process: import, load, the first sound, the second, and peak memory.

    python benchmarks/startup.py MODEL FORMAT             prints one JSON object: seconds, and bytes
    python benchmarks/startup.py --from-outside MODEL...  the same of each model, as whoever starts the program sees it

speed.py runs the first twice with a new NUMBA_CACHE_DIR: first all kernels are compiled, then they are read from the
cache. From outside, time begins with the start of the process: until Python has loaded the model and ended, and until
the first samples of ``qwen3tts-np say MODEL TEXT --stream`` are in the pipe; models take turns, and a round before the
first is not counted. Medians, and the most memory that a process that speaks ever held, mapped files included.
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

from qwen3tts_np_kernels.system import peak_memory


def cold_and_warm(model: Path, weights_format: str) -> dict[str, dict[str, float]]:
    """The measurements of a process that compiles, and of one that loads kernels from the cache."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
        command = [sys.executable, __file__, str(model), weights_format]
        runs = [subprocess.run(command, env=environment, check=True, capture_output=True, text=True) for _ in range(2)]
    cold, warm = (json.loads(run.stdout) for run in runs)
    return {"cold": cold, "warm": warm}


def from_outside(models: list[str], rounds: int = 5, threads: int = 2) -> dict[str, dict[str, float]]:
    """Seconds and bytes for each model."""
    found: dict[str, list[tuple[float, float, int]]] = {model: [] for model in models}
    for _ in range(rounds + 1):
        for model in models:
            load = f"Qwen3TTSModel.from_pretrained({model!r}, threads={threads})"
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", f"from qwen3tts_np import Qwen3TTSModel; {load}"], check=True)
            found[model].append((time.perf_counter() - start, *_first_sound(model, threads)))
    names = ("load", "first_sound", "peak_bytes")
    medians = {model: map(statistics.median, zip(*runs[1:], strict=True)) for model, runs in found.items()}
    return {model: dict(zip(names, values, strict=True)) for model, values in medians.items()}


def _first_sound(model: str, threads: int) -> tuple[float, int]:
    """Seconds from the start of the command to its first samples, and the most memory it held."""
    options = ["--stream", "-o", "-", "--raw", "--threads", str(threads), "--seed", "1", "--max-new-tokens", "20"]
    command = [sys.executable, "-m", "qwen3tts_np", "say", model, "Good morning.", *options]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        if not process.stdout.read(1):
            raise SystemExit(f"no sound: {' '.join(command)}")
        first = time.perf_counter() - start
        process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return first, usage.ru_maxrss * 1024


def main() -> None:
    if sys.argv[1] == "--from-outside":
        for model, values in from_outside(sys.argv[2:]).items():
            print(json.dumps({"model": model} | {name: round(value, 3) for name, value in values.items()}))
        return
    path, weights_format = sys.argv[1:]
    times = [time.perf_counter()]
    from qwen3tts_np import Qwen3TTSModel

    times.append(time.perf_counter())
    model = Qwen3TTSModel.from_pretrained(path, weights_format=weights_format)
    times.append(time.perf_counter())
    from machine import TEXT, any_voice

    voice = any_voice(model)
    for _ in range(2):
        times.append(time.perf_counter())
        next(model.stream(model.prepare(TEXT, voice, streaming=False, seed=0)))
        times.append(time.perf_counter())
    model.generate([model.prepare(TEXT, voice, streaming=False, seed=0, max_new_tokens=40)])
    names = ("import", "load", "request", "first_sound", "pause", "second_sound")
    seconds = {name: end - start for name, start, end in zip(names, times, times[1:], strict=False)}
    print(json.dumps(seconds | {"peak_bytes": peak_memory() or 0}))


if __name__ == "__main__":
    main()
