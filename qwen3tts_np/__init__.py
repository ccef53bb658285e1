"""Qwen3-TTS on NumPy and Numba: no framework."""

from .codec.tokenizer import Qwen3TTSTokenizer
from .errors import CheckpointError, ConfigError, QwenTTSError, RequestError
from .model import Qwen3TTSModel
from .reference_clip import ReferenceClipWarning
from .streaming import SpeechSession, SpeechStream
from .trace import trace
from .voice import VoiceClonePromptItem

__all__ = [
    "CheckpointError",
    "ConfigError",
    "Qwen3TTSModel",
    "Qwen3TTSTokenizer",
    "QwenTTSError",
    "ReferenceClipWarning",
    "RequestError",
    "SpeechSession",
    "SpeechStream",
    "VoiceClonePromptItem",
    "trace",
]
