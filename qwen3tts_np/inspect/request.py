"""One request, as a JSON file or as options, and how it is put to a model.

    {"mode": "custom_voice", "text": "Hello.", "speaker": "vivian", "language": "english", "seed": 1}

``mode`` is "custom_voice", "voice_design" or "voice_clone", by default what the model is made for; the other names are
the arguments of the ``generate_*`` method, sampling included. ``ref_audio`` and ``voice_clone_prompt`` are files, by
their path next to the request. The call of a golden case, ``{"method", "arguments", "seed"}``, is understood as well,
and so is a whole ``case.json``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from ..config import read_json
from ..errors import RequestError
from ..model import Qwen3TTSModel, Speech
from ..voice.prompt_item import VoiceClonePromptItem

METHODS = {
    "custom_voice": "generate_custom_voice",
    "voice_design": "generate_voice_design",
    "voice_clone": "generate_voice_clone",
}
TYPES: dict[str, tuple[type, str]] = {
    **dict.fromkeys(("speaker", "language", "instruct", "ref_text", "ref_audio", "voice_clone_prompt"), (str, "text")),
    **dict.fromkeys(("non_streaming_mode", "x_vector_only_mode"), (bool, "true or false")),
    "seed": (int, "a whole number"),
}
MODE_OF = {"custom_voice": "custom_voice", "voice_design": "voice_design", "base": "voice_clone"}


@dataclass(frozen=True)
class SpeechRequest:
    """``arguments`` are keyword arguments of the method; ``mode`` None is what the model is made for."""

    arguments: dict[str, Any]
    mode: str | None = None
    seed: int | None = None

    def updated(self, arguments: dict[str, Any], seed: int | None) -> SpeechRequest:
        """With what is not None in ``arguments`` in place of what was there."""
        given = {name: value for name, value in arguments.items() if value is not None}
        return replace(self, arguments=self.arguments | given, seed=self.seed if seed is None else seed)


def read_request(path: Path) -> SpeechRequest:
    """Read a request file, or the ``case.json`` of a golden case by its folder. RequestError if it is neither."""
    file = path / "case.json" if path.is_dir() else path
    content = read_json(file)
    if "call" in content or "method" in content:
        return _read_call(file, content.get("call", content))
    for name, (kind, words) in TYPES.items():
        if content.get(name) is not None and type(content[name]) is not kind:
            raise RequestError(f"{file}: {name} is {content[name]!r}, expected {words}")
    mode, seed = content.pop("mode", None), content.pop("seed", None)
    if mode is not None and mode not in tuple(METHODS):
        raise RequestError(f"{file}: mode {mode!r} is not one of {', '.join(METHODS)}")
    for name in ("ref_audio", "voice_clone_prompt"):
        if isinstance(content.get(name), str) and (file.parent / content[name]).exists():
            content[name] = str(file.parent / content[name])
    return SpeechRequest(content, mode, seed)


def _read_call(file: Path, call: Any) -> SpeechRequest:
    """The call of a golden case; ``{"audio": name}`` is a tensor of inputs.safetensors, or a file."""
    modes = {method: mode for mode, method in METHODS.items()}
    if not isinstance(call, dict) or call.get("method") not in modes or not isinstance(call.get("arguments"), dict):
        raise RequestError(f"{file}: a call needs a method, one of {', '.join(modes)}, and an object of arguments")
    beside = file.parent / "inputs.safetensors"
    stored = load_file(beside) if beside.exists() else {}

    def filled(value: Any) -> Any:
        if not isinstance(value, dict) or "audio" not in value:
            return value
        if value["audio"] in stored:
            return stored[value["audio"]] / np.float32(32768), value["sample_rate"]
        return str(file.parent / value["audio"])

    arguments = {name: filled(value) for name, value in call["arguments"].items()}
    return SpeechRequest(arguments, modes[call["method"]], call.get("seed"))


def perform(model: Qwen3TTSModel, request: SpeechRequest) -> Speech:
    """Put the request to the model: (waveforms, rate, codes). RequestError for what the model cannot do."""
    mode = request.mode or MODE_OF[model.config.tts_model_type]
    method = getattr(model, METHODS[mode])
    arguments = dict(request.arguments)
    if not isinstance(arguments.get("text"), str):
        raise RequestError(f"text is {arguments.get('text')!r}; a request to look into has one text")
    if mode == "custom_voice":
        arguments.setdefault("speaker", next(iter(model.get_supported_speakers()), ""))
    if mode == "voice_design":
        arguments.setdefault("instruct", "")
    if mode == "voice_clone":
        _complete_clone(arguments)
    if reserved := arguments.keys() & {"self", "seed", "return_codes"}:
        raise RequestError(f"{', '.join(sorted(reserved))} has no place among the arguments of a request")
    speech: Speech = method(**arguments, seed=request.seed, return_codes=True)
    return speech


def _complete_clone(arguments: dict[str, Any]) -> None:
    """A saved voice by its file; a clip without its words gives its speaker embedding alone."""
    if isinstance(arguments.get("voice_clone_prompt"), str):
        arguments["voice_clone_prompt"] = VoiceClonePromptItem.load(arguments["voice_clone_prompt"])
    elif arguments.get("ref_text") is None:
        arguments.setdefault("x_vector_only_mode", True)
