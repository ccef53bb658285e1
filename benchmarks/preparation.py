"""The share of real time that ``train prepare`` takes, and what it takes it for.

    python benchmarks/preparation.py                          # synthetic 0.6B, noise; some minutes
    python benchmarks/preparation.py --model DIR --audio SPEECH.wav

Clips of 5 to 15 s, ten minutes together. The parts are timed in this process, with as many clips at once as there are
threads, once everything is packed; the command in a process of its own, loading and packing included. It writes
preparation.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from machine import describe_machine, noise, synthetic_model
from qwen3tts_np_kernels.system import usable_cores

from qwen3tts_np.audio.files import read_audio
from qwen3tts_np.compiled.blas import limited_blas
from qwen3tts_np.training.prepare.in_order import in_order
from qwen3tts_np.training.prepare.measure import DECODED, EMBEDDED, measure, round_trip, x_vector
from qwen3tts_np.training.prepare.prepare import ROUND_TRIPS
from qwen3tts_np.training.prepare.source import Utterance
from qwen3tts_np.training.prepare.tools import Tools

HERE = Path(__file__).parent
SECONDS, SHORTEST, LONGEST = 600.0, 5.0, 15.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a base model; without it a synthetic one")
    parser.add_argument("--like", default="0.6b", help="the size of the synthetic one (%(default)s)")
    parser.add_argument("--audio", type=Path, help="what clips are cut from; without it noise")
    parser.add_argument("--threads", type=int, nargs="+", default=[usable_cores()])
    parser.add_argument("--out", type=Path, default=HERE / "preparation.md")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model = args.model or synthetic_model(args.like, folder)
        clips, seconds = write_clips(folder, args.audio)
        columns = {threads: column(model, folder, clips, seconds, threads) for threads in args.threads}
    text = markdown(
        columns, f"{args.model.name if args.model else f'synthetic {args.like}'}, {len(clips)} clips, {seconds:.0f} s"
    )
    args.out.write_text(text, encoding="utf-8")
    print(text)


def write_clips(folder: Path, audio: Path | None) -> tuple[list[Path], float]:
    """Clips and a manifest of them in ``folder``; how long they are together."""
    wave, rate = (noise(60), 24000) if audio is None else read_audio(audio)
    draw, clips, seconds = np.random.default_rng(0), list[Path](), 0.0
    while seconds < SECONDS:
        length = min(round(draw.uniform(SHORTEST, LONGEST) * rate), len(wave))
        start = draw.integers(0, len(wave) - length + 1)
        clips.append(folder / f"{len(clips)}.wav")
        soundfile.write(clips[-1], wave[start : start + length], rate)
        seconds += length / rate
    rows = ({"audio": clip.name, "text": f"This is what clip {i} says."} for i, clip in enumerate(clips))
    (folder / "raw.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return clips, seconds


def column(model: Path, folder: Path, clips: list[Path], seconds: float, threads: int) -> dict[str, float]:
    """Shares of real time, by part, and of the command as a whole."""
    tools = Tools.load(model, threads=threads)
    tools.pack()
    tools.pack(decoder=True)
    waves = [read_audio(str(clip)) for clip in clips]
    rows = [Utterance(clip.name, {}, str(clip)) for clip in clips]

    def share(work: Callable[[Any], Any], items: list[Any]) -> float:
        for _ in in_order(work, items[:threads], threads):
            pass  # buffers have their size
        start = time.perf_counter()
        for _ in in_order(work, items, threads):
            pass
        return (time.perf_counter() - start) / seconds

    with limited_blas(1):  # as for each clip of the command
        found = {
            "codes": share(lambda wave: tools.codec.encode(wave[0], sr=wave[1]), waves),
            f"x-vector, of {EMBEDDED:.0f} s": share(
                lambda w: x_vector(w[0][: int(EMBEDDED * w[1])], w[1], tools), waves
            ),
            "a row with both, and its numbers": share(lambda row: measure(row, tools), rows),
        }
        first = [(row, measure(row, tools).frames()) for row in rows[:ROUND_TRIPS]]
        found[f"round trip of {ROUND_TRIPS} rows, {DECODED:.0f} s each"] = share(
            lambda trip: round_trip(*trip, tools), first
        )
    for name, options in (("the command, without round trips", ["--round-trips", "0"]), ("the command", [])):
        found[name] = command(model, folder, threads, options) / seconds
    return found


def command(model: Path, folder: Path, threads: int, options: list[str]) -> float:
    """Seconds of ``train prepare`` in a process of its own, its start included."""
    for old in folder.glob("out.*"):
        old.unlink()
    words = ["train", "prepare", folder / "raw.jsonl", folder / "out.jsonl", "--model", model, "--threads", threads]
    path = os.pathsep.join([str(HERE.parent), str(HERE.parent / "kernels")])
    start = time.perf_counter()
    line = [sys.executable, "-m", "qwen3tts_np", *map(str, words), *options]
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": path})
    return time.perf_counter() - start


def markdown(columns: dict[int, dict[str, float]], about: str) -> str:
    head = ["what", *(f"{threads} thread{'s' if threads > 1 else ''}" for threads in columns)]
    names = list(next(iter(columns.values())))
    rows = [[name, *(f"{found[name]:.4f}" for found in columns.values())] for name in names]
    lines = [head, ["---", *["--:"] * len(columns)], *rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    machine = describe_machine()
    made = f"{about}; {machine['cpu']}. Seconds per second of audio. Made by `preparation.py`."
    return f"# What preparation takes\n\n{made}\n\n{table}\n"


if __name__ == "__main__":
    main()
