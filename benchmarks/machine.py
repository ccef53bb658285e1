"""Shared by all benchmarks: the machine, the model, and a request."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import numpy as np

from qwen3tts_np import Qwen3TTSModel
from qwen3tts_np.compiled.frame_loop import FrameLoop
from qwen3tts_np.request import ClonedVoice, CustomVoice, DesignedVoice, Voice
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


def synthetic_model(like: Any, folder: Path, kind: Any = "base") -> Path:
    """A checkpoint of this size; a base one has all parts. Its speech is noise, but takes as long as real speech."""
    write_checkpoint(folder / "model", like, kind)
    return folder / "model"


def noise(seconds: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A clip at 24 kHz."""
    return np.random.default_rng(0).uniform(-0.3, 0.3, round(seconds * 24000)).astype(np.float32)


def forget_openings(model: Qwen3TTSModel) -> None:
    """The next call reads its whole prompt, as the first one with a voice does."""
    assert isinstance(model.frame_loop, FrameLoop)
    model.frame_loop.openings.clear()


def any_voice(model: Qwen3TTSModel, instruct: str = "") -> Voice:
    """A voice that this model supports; ``instruct`` is heard by those of custom-voice and voice-design models."""
    if model.config.tts_model_type == "base":
        (item,) = model.create_voice_clone_prompt((noise(4), 24000), x_vector_only_mode=True)
        return ClonedVoice(item)
    if model.config.tts_model_type == "custom_voice":
        return CustomVoice(model.get_supported_speakers()[0], instruct)
    return DesignedVoice(instruct or "A calm voice.")
