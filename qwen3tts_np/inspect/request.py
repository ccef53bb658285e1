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
from ..model import Qwen3TTSModel
from ..request import ClonedVoice, CustomVoice, DesignedVoice, Request, Voice
from ..voice.prompt_item import voice_prompt_items

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


def prepare(model: Qwen3TTSModel, request: SpeechRequest) -> Request:
    """The request as ``model`` reads it. RequestError for what the model cannot do."""
    mode = request.mode or MODE_OF[model.config.tts_model_type]
    if mode != MODE_OF[model.config.tts_model_type]:
        needed = next(kind for kind, made_for in MODE_OF.items() if made_for == mode)
        raise RequestError(f"{METHODS[mode]} needs a {needed} model; this is a {model.config.tts_model_type} model")
    arguments = dict(request.arguments)
    text = arguments.pop("text", None)
    if not isinstance(text, str):
        raise RequestError(f"text is {text!r}; a request to look into has one text")
    if reserved := arguments.keys() & {"self", "seed", "return_codes"}:
        raise RequestError(f"{', '.join(sorted(reserved))} has no place among the arguments of a request")
    non_streaming = arguments.pop("non_streaming_mode", None)
    voice = _voice(model, mode, arguments)
    streaming = None if non_streaming is None else not non_streaming
    return model.prepare(text, voice, streaming=streaming, seed=request.seed, **arguments)


def _voice(model: Qwen3TTSModel, mode: str, arguments: dict[str, Any]) -> Voice:
    """Who speaks; its arguments are taken out of ``arguments``."""
    if mode == "custom_voice":
        speaker = arguments.pop("speaker", None)
        known = model.get_supported_speakers()
        return CustomVoice(next(iter(known), "") if speaker is None else speaker, arguments.pop("instruct", None) or "")
    if mode == "voice_design":
        return DesignedVoice(arguments.pop("instruct", None) or "")
    names = ("ref_audio", "ref_text", "x_vector_only_mode", "voice_clone_prompt")
    clip, text, alone, saved = (arguments.pop(name, None) for name in names)
    if saved is not None:
        (item,) = voice_prompt_items(saved)
    elif clip is not None:
        (item,) = model.create_voice_clone_prompt(clip, text, text is None if alone is None else alone)
    else:
        raise RequestError("give ref_audio or voice_clone_prompt: a base model has no voice of its own")
    return ClonedVoice(item)
