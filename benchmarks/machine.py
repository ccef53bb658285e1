"""What all benchmarks share: the machine, the model, and one thing to say with it."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import numpy as np

from qwen3tts_np import Qwen3TTSModel
from qwen3tts_np.synthetic.weights import write_checkpoint

FRAME = 0.08  # seconds of audio
TEXT = "The quick brown fox jumps over the lazy dog, and then it does so once more."


def describe_machine() -> dict[str, Any]:
    return {"cpu": _cpu(), "cores": os.cpu_count(), "python": platform.python_version(), "numpy": np.__version__}


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def synthetic_model(like: Any, folder: Path) -> Path:
    """A base checkpoint of this size, which has all parts: its speech is noise, and takes as long as any."""
    write_checkpoint(folder / "model", like, "base")
    return folder / "model"


def noise(seconds: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A clip at 24 kHz."""
    return np.random.default_rng(0).uniform(-0.3, 0.3, round(seconds * 24000)).astype(np.float32)


def request(model: Qwen3TTSModel, text: str | list[str]) -> dict[str, Any]:
    """The arguments that ``generate`` and ``stream`` of this model's type need to say a text."""
    if model.config.tts_model_type == "base":
        clip = (noise(4), 24000)
        prompt = model.create_voice_clone_prompt(clip, x_vector_only_mode=True)
        return {"text": text, "voice_clone_prompt": prompt, "non_streaming_mode": True}
    if model.config.tts_model_type == "custom_voice":
        return {"text": text, "speaker": model.get_supported_speakers()[0]}
    return {"text": text, "instruct": "A calm voice."}


def call(model: Qwen3TTSModel, verb: str) -> Any:
    """The method ``verb`` ("generate" or "stream") of this model's type."""
    names = {"base": "voice_clone", "custom_voice": "custom_voice", "voice_design": "voice_design"}
    return getattr(model, f"{verb}_{names[model.config.tts_model_type]}")
