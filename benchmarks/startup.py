"""Startup cost of a fresh process: import, load, the first sound, the second, and peak memory.

    python benchmarks/startup.py MODEL FORMAT     prints one JSON object: seconds, and bytes

speed.py runs it twice with a new NUMBA_CACHE_DIR: first all kernels are compiled, then they are read from the cache.
"""

from __future__ import annotations

import json
import os
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


def main() -> None:
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
