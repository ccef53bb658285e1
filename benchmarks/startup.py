"""Start-up: what a fresh process costs until it speaks.

    python benchmarks/startup.py MODEL FORMAT                            one process: prints one JSON object
    python benchmarks/startup.py --from-outside MODEL... [--official PYTHON] [--json] [--rounds N]

speed.py runs the first twice with a new NUMBA_CACHE_DIR: first all kernels are compiled, then they are read from the
cache. From outside, time begins with the start of the process: until Python has loaded the model and ended, and until
the first samples of ``qwen3tts-np say MODEL TEXT --stream`` are in the pipe; models take turns, and a round before the
first is not counted. Medians of seconds; bytes of a process that has spoken: the most it held, mapped files included;
what of that is its own; and what a second process at the same time adds to the first, where the system tells it.

With the interpreter of ``golden/setup_official.sh`` the official package takes its turn, in float32, with the first
MODEL, which must not be a converted one. It does not stream: its first samples come with the last.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from qwen3tts_np_kernels.system import peak_memory

TEXT, THREADS, FRAMES = "Good morning.", 2, 20
OFFICIAL = """
import sys, torch
torch.set_num_threads({threads})
from qwen_tts import Qwen3TTSModel
model = Qwen3TTSModel.from_pretrained({model!r}, device_map="cpu", dtype=torch.float32)
"""
OFFICIAL_SOUND = """
speaker = model.get_supported_speakers()[0]
wavs, rate = model.generate_custom_voice({text!r}, speaker, max_new_tokens={frames})
sys.__stdout__.buffer.write(wavs[0].tobytes())
"""


def cold_and_warm(model: Path, weights_format: str) -> dict[str, dict[str, float]]:
    """The measurements of a process that compiles, and of one that loads kernels from the cache."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
        command = [sys.executable, __file__, str(model), weights_format]
        runs = [subprocess.run(command, env=environment, check=True, capture_output=True, text=True) for _ in range(2)]
    cold, warm = (json.loads(run.stdout) for run in runs)
    return {"cold": cold, "warm": warm}


def from_outside(models: Sequence[str], official: str | None = None, rounds: int = 5) -> dict[str, dict[str, float]]:
    """Seconds and bytes for each model, and for "official"."""
    runs: dict[str, Callable[[], dict[str, float]]] = {model: lambda model=model: _ours(model) for model in models}
    if official is not None:
        runs["official"] = lambda: _official(official, models[0])
    found: dict[str, list[dict[str, float]]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            found[name].append(run())
    names = {name: measured[0].keys() for name, measured in found.items()}
    medians = {
        name: {key: statistics.median(one[key] for one in found[name][1:]) for key in keys}
        for name, keys in names.items()
    }
    for model in models:
        medians[model] |= _memory(model)
    return medians


def _ours(model: str) -> dict[str, float]:
    load = f"from qwen3tts_np import Qwen3TTSModel; Qwen3TTSModel.from_pretrained({model!r}, threads={THREADS})"
    loaded = _seconds([sys.executable, "-c", load])
    return {"load": loaded, "first_sound": _seconds(_say(model, FRAMES))}


def _official(python: str, model: str) -> dict[str, float]:
    load = OFFICIAL.format(model=model, threads=THREADS)
    sound = load + OFFICIAL_SOUND.format(text=TEXT, frames=FRAMES)
    return {"load": _seconds([python, "-c", load]), "first_sound": _seconds([python, "-c", sound])}


def _say(model: str, frames: int) -> list[str]:
    options = [
        "--stream",
        "-o",
        "-",
        "--raw",
        "--threads",
        str(THREADS),
        "--seed",
        "1",
        "--max-new-tokens",
        str(frames),
    ]
    return [sys.executable, "-m", "qwen3tts_np", "say", model, TEXT, *options]


def _seconds(command: list[str]) -> float:
    """From the start of a command to its first output, or where there is none to its end."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        seconds = time.perf_counter() - start
        process.stdout.read()
    if process.returncode:
        raise SystemExit(f"it failed: {' '.join(command)}")
    return seconds


def _memory(model: str) -> dict[str, float]:
    """Of a process that speaks, and of a second one at the same time."""
    with ExitStack() as stack:
        both = [
            stack.enter_context(subprocess.Popen(_say(model, 400), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL))
            for _ in range(2)
        ]
        try:
            for process in both:
                assert process.stdout is not None
                process.stdout.read(1920 * 2 * 8)
            first, second = (_kilobytes(process.pid) for process in both)
        finally:
            for process in both:
                process.kill()
    if not first or not second:
        return {}
    return {
        "peak_bytes": first["VmHWM"] * 1024,
        "own_bytes": first["Anonymous"] * 1024,
        "second_adds_bytes": (second["Private_Clean"] + second["Private_Dirty"]) * 1024,
    }


def _kilobytes(process: int) -> dict[str, int]:
    """What Linux says of the memory of a process; empty elsewhere."""
    found = {}
    for name in ("status", "smaps_rollup"):
        path = Path(f"/proc/{process}/{name}")
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            words = line.split()
            if words[-1:] == ["kB"]:
                found[words[0].rstrip(":")] = int(words[1])
    return found


def table(measured: dict[str, dict[str, float]]) -> str:
    """The medians as text."""
    lines = [f"{'':32} {'load':>8} {'first sound':>12} {'held at most':>13} {'its own':>9} {'a second adds':>14}"]
    for name, values in measured.items():
        sizes = [values.get(key) for key in ("peak_bytes", "own_bytes", "second_adds_bytes")]
        gigabytes = ["" if size is None else f"{size / 1e9:.2f} GB" for size in sizes]
        columns = "{:>13} {:>9} {:>14}".format(*gigabytes)
        lines.append(f"{name[-32:]:32} {values['load']:6.2f} s {values['first_sound']:10.2f} s {columns}")
    return "\n".join(lines)


def one_process(path: str, weights_format: str) -> dict[str, float]:
    """This process: import, load, the request, the first sound, the voice again, in seconds; peak memory in bytes."""
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
    return seconds | {"peak_bytes": peak_memory() or 0}


def main() -> None:
    parser = argparse.ArgumentParser(description="Start-up of a fresh process.")
    parser.add_argument("--from-outside", action="store_true", help="time commands instead of this process")
    parser.add_argument("--official", metavar="PYTHON", help="interpreter of golden/setup_official.sh")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="that are counted (%(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object in place of a table")
    parser.add_argument("models", nargs="+", metavar="MODEL", help="or, of this process, MODEL FORMAT")
    args = parser.parse_args()
    if not args.from_outside:
        print(json.dumps(one_process(*args.models)))
        return
    measured = from_outside(args.models, args.official, args.rounds)
    print(json.dumps(measured) if args.json else table(measured))


if __name__ == "__main__":
    main()
