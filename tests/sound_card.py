"""A stand-in for sounddevice: a sound card that hears at once, or fails."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from qwen3tts_np.ops import Pcm


class PortAudioError(Exception):
    """As sounddevice raises it."""


class SoundCard:
    """What was heard, in order, and what was done."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.rate = 0
        self.parts: list[Pcm] = []
        self.fails_after: int | None = None  # writes
        self.there = True

    @property
    def heard(self) -> Pcm:
        return np.concatenate(self.parts)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> SoundCard:
        """Be the module ``sounddevice``."""
        module: Any = ModuleType("sounddevice")
        module.PortAudioError, module.OutputStream, module.query_devices = PortAudioError, self._stream, self._query
        monkeypatch.setitem(sys.modules, "sounddevice", module)
        return self

    def _query(self, kind: str) -> dict[str, str]:
        assert kind == "output"
        if not self.there:
            raise PortAudioError("Error querying device -1")
        return {"name": "a card"}

    def _stream(self, samplerate: int, channels: int, dtype: str) -> SoundCard:
        assert (channels, dtype) == (1, "int16")
        self.rate = samplerate
        return self

    def write(self, samples: Pcm) -> None:
        if self.fails_after is not None and len(self.parts) >= self.fails_after:
            raise PortAudioError("the cable is out")
        assert samples.ndim == 2 and samples.dtype == np.int16
        self.parts.append(samples[:, 0].copy())

    def __getattr__(self, name: str) -> Any:
        if name not in ("start", "stop", "abort", "close"):
            raise AttributeError(name)
        return lambda: self.calls.append(name)
