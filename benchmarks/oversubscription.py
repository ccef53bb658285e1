"""Throughput of the frame loop with more threads than cores.

    python benchmarks/oversubscription.py [MODEL]     prints one JSON object: frames per second, and their ratios

Separate processes speak with MODEL, by default the demo voice, for some seconds, concurrently. The kinds of run
alternate, so that a change of the machine's load affects all of them; the median of each is reported. ``busy``: other
programs keep every core busy meanwhile.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from qwen3tts_np_kernels.system import usable_cores

DEMO_VOICE = Path(__file__).parents[1] / "qwen3tts_np" / "demo_voice"
SECONDS, ROUNDS = 4.0, 3
RUNS = {  # name: processes, threads of each, whether other programs keep all cores busy
    "1 thread": (1, 1, False),
    "2 threads": (1, 2, False),
    "1 thread, busy": (1, 1, True),
    "2 threads, busy": (1, 2, True),
    "2 processes of 2 threads": (2, 2, False),
    "8 processes of 2 threads": (8, 2, False),
}
RATIOS = (
    ("2 threads", "1 thread"),
    ("2 threads, busy", "1 thread, busy"),  # at least 0.8
    ("8 processes of 2 threads", "2 processes of 2 threads"),  # at least 0.7
)


def frames_a_second(model: Path, processes: int, threads: int, busy: bool) -> float:
    """Frames per second, summed over all processes, which start counting together."""
    command = [sys.executable, __file__, str(model), str(threads)]
    speakers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    others = []
    try:
        for speaker in speakers:
            assert speaker.stdout is not None
            assert speaker.stdout.readline() == "ready\n"
        others = [
            subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(usable_cores() if busy else 0)
        ]
        for speaker in speakers:
            assert speaker.stdin is not None
            speaker.stdin.close()  # which it waits for
        return sum(float(speaker.stdout.read()) for speaker in speakers if speaker.stdout is not None)
    finally:
        for process in [*others, *speakers]:
            process.kill()
            process.wait()


def speak(path: str, threads: int) -> None:
    """One process: frames per second of the frame loop."""
    from machine import TEXT, any_voice

    from qwen3tts_np import Qwen3TTSModel

    model = Qwen3TTSModel.from_pretrained(path, threads=threads)
    text = "good morning" if Path(path) == DEMO_VOICE else TEXT
    request = model.prepare(text, any_voice(model), seed=0, max_new_tokens=30)
    model.generate([request])
    print("ready", flush=True)
    sys.stdin.read()
    frames, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < SECONDS:
        frames += len(model.generate([request])[0].codes)
    print(frames / passed)


def main() -> None:
    model = Path(sys.argv[1]) if len(sys.argv) > 1 else DEMO_VOICE
    rates: dict[str, list[float]] = {name: [] for name in RUNS}
    for _ in range(ROUNDS):
        for name, run in RUNS.items():
            rates[name].append(frames_a_second(model, *run))
    medians = {name: statistics.median(rate) for name, rate in rates.items()}
    ratios = {f"{one} / {other}": round(medians[one] / medians[other], 2) for one, other in RATIOS}
    rounded = {name: round(rate, 1) for name, rate in medians.items()}
    print(json.dumps({"cores": usable_cores(), "frames_a_second": rounded, "ratios": ratios}, indent=1))


if __name__ == "__main__":
    if len(sys.argv) == 3:
        speak(sys.argv[1], int(sys.argv[2]))
    else:
        main()
