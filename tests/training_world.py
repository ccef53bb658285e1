"""What tests of training share: rows for a tiny model, the settings of a run of seconds, and a run that is killed.

As a program it trains, and kills itself: see ``main``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

from qwen3tts_np.training.adapters import write_arrays
from qwen3tts_np.training.logs import OF_THE_CLOCK
from qwen3tts_np.training.run import run
from qwen3tts_np.training.settings import TrainingSettings
from qwen3tts_np.training.state import State
from qwen3tts_np.training.trainer import Trainer

TEXTS = ("It rained.", "The ferry came late.", "Nobody minded.", "In the morning the sun was out again.", "Good night.")
QUICK: dict[str, Any] = {
    "batch_size": 2,
    "gradient_accumulation_steps": 2,
    "num_epochs": 4,
    "learning_rate": 3e-3,
    "logging_steps": 1,
    "save_steps": 2,
    "eval_steps": 2,
    "save_total_limit": 2,
    "validation_texts": 0,
    "rank": 4,
}


def write_data(folder: Path, rows: int = 5, width: int = 64, speakers: tuple[str, ...] = ("Ada",)) -> Path:
    """``data.jsonl`` with its validation and its x-vectors, as ``train prepare`` leaves them."""
    draw = np.random.default_rng(0)
    made = [
        {
            "id": f"clip{i}",
            "text": TEXTS[i % len(TEXTS)],
            "speaker": speakers[i % len(speakers)],
            "language": ("english", "auto")[i % 2],
            "non_streaming_mode": i % 3 > 0,
            "audio_codes": draw.integers(0, 128, (4 + i % 3, 16)).tolist(),
        }
        for i in range(rows + 2)
    ]
    for name, part in (("data.jsonl", made[:rows]), ("data.validation.jsonl", made[rows:])):
        (folder / name).write_text("".join(f"{json.dumps(row)}\n" for row in part), encoding="utf-8")
    vectors = {name.lower(): draw.normal(0, 0.5, width).astype(np.float32) for name in speakers}
    write_arrays(folder / "data.safetensors", vectors)
    return folder / "data.jsonl"


def settings_of(base: Path, data: Path, output: Path, **values: Any) -> TrainingSettings:
    names = {"model": str(base), "data": str(data), "output": str(output)}
    return TrainingSettings(**{**QUICK, **names, **values})


def train(base: Path, data: Path, output: Path, **values: Any) -> State:
    return run(Trainer(base, settings_of(base, data, output, **values)))


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a run by its name; logs without what the clock says."""
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: _timeless(path) if name.endswith(".jsonl") else path.read_bytes() for name, path in files.items()}


def _timeless(path: Path) -> bytes:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return json.dumps([{k: v for k, v in line.items() if k not in OF_THE_CLOCK} for line in lines]).encode()


def die() -> None:
    """As the system kills: nothing is cleaned up."""
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """``training_world.py BASE DATA OUT MODE rename N [after]`` or ``.. step N``: train, and die there.

    At the N-th rename of the process, before it or after it; or in the N-th step, before the optimiser's. N = 0: live.
    """
    base, data, output = map(Path, sys.argv[1:4])
    mode, where, number, after = sys.argv[4], sys.argv[5], int(sys.argv[6]), sys.argv[7:] == ["after"]
    count = 0
    rename, step = os.replace, Trainer.step

    def counted_rename(*paths: Any, **more: Any) -> None:
        nonlocal count
        count += 1
        if count == number and not after:
            die()
        rename(*paths, **more)
        if count == number:
            die()

    def counted_step(self: Trainer, *args: Any) -> Any:
        nonlocal count
        count += 1
        found = step(self, *args)
        if count == number:
            die()
        return found

    if where == "rename":
        os.replace = counted_rename  # type: ignore[assignment]
    else:
        Trainer.step = counted_step  # type: ignore[method-assign]
    train(base, data, output, train=mode)


if __name__ == "__main__":
    main()
