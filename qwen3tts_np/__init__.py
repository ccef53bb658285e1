"""Qwen3-TTS on NumPy and Numba: no framework."""

from . import start as start  # first: a signal from here on ends the program without a traceback
from .errors import CheckpointError, ConfigError, MissingFileError, QwenTTSError, RequestError, RequestTypeError
from .model import Qwen3TTSModel
from .request import ClonedVoice, CustomVoice, DesignedVoice, Request
from .scoring.score import score
from .speech_tokenizer import Qwen3TTSTokenizer
from .streaming import SpeechSession, SpeechStream
from .trace import trace
from .voice.prompt_item import VoiceClonePromptItem
from .voice.reference_clip import ReferenceClipWarning

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "ClonedVoice",
    "ConfigError",
    "CustomVoice",
    "DesignedVoice",
    "MissingFileError",
    "Qwen3TTSModel",
    "Qwen3TTSTokenizer",
    "QwenTTSError",
    "ReferenceClipWarning",
    "Request",
    "RequestError",
    "RequestTypeError",
    "SpeechSession",
    "SpeechStream",
    "VoiceClonePromptItem",
    "__version__",
    "score",
    "trace",
]
