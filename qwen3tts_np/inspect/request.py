"""A request as written in a file or on a command line, and its conversion for the frame loop of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError
from ..model import Qwen3TTSModel
from ..ops import Ints
from ..request import ClonedVoice, CustomVoice, DesignedVoice, Request, Voice
from ..voice.prompt_item import voice_prompt_items

SPEECH = {  # model type -> its call
    "custom_voice": "generate_custom_voice",
    "voice_design": "generate_voice_design",
    "base": "generate_voice_clone",
}
METHODS = (*SPEECH.values(), "encode", "decode", "speaker_embedding")


@dataclass(frozen=True)
class WrittenRequest:
    """One call, as written in a file. ``inputs`` holds the arrays named by ``arguments``."""

    arguments: dict[str, Any]
    method: str | None = None  # one of METHODS; None: the generate_* of the model's type
    seed: int | None = None
    inputs: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    codes: Ints | None = None  # [frames, G] to follow (teacher forcing)
    about: str = ""
    checkpoint: dict[str, Any] | None = None  # what a golden case was recorded with
    last: int | None = None  # the token after the followed codes, where it is not the end of speech

    @property
    def call(self) -> dict[str, Any]:
        """The written form."""
        return {"method": self.method, "arguments": self.arguments, "seed": self.seed}

    def updated(self, arguments: dict[str, Any], seed: int | None) -> WrittenRequest:
        """A copy with the ``arguments`` that are not None replaced."""
        given = {name: value for name, value in arguments.items() if value is not None}
        return replace(self, arguments=self.arguments | given, seed=self.seed if seed is None else seed)

    def for_model(self, model: Qwen3TTSModel) -> WrittenRequest:
        """A copy with its method set. Raises RequestError if that is a generate_* of another type of model."""
        made_for = model.config.tts_model_type
        method = self.method or SPEECH[made_for]
        for kind, name in SPEECH.items():
            if method == name and kind != made_for:
                raise RequestError(f"{method} needs a {kind} model; this is a {made_for} model")
        return replace(self, method=method)

    def argument(self, name: str) -> Any:
        """The value of an argument, with arrays filled in; None if not given. A list of one is its value."""
        return only(self._filled(self.arguments.get(name)))

    def filled(self) -> dict[str, Any]:
        """The keyword arguments, with arrays filled in: a clip is (samples, rate in Hz)."""
        return {name: self._filled(value) for name, value in self.arguments.items()}

    def _filled(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._filled(v) for v in value]
        if is_reference(value, "audio"):
            samples = self.inputs[value["audio"]]
            wave = samples / np.float32(32768) if samples.dtype == np.int16 else samples
            return wave, value["sample_rate"]
        if is_reference(value, "codes"):
            return self.inputs[value["codes"]].astype(np.int64)
        return value


def prepare(model: Qwen3TTSModel, written: WrittenRequest) -> Request:
    """The input of the frame loop of ``model``. Raises RequestError for a request it does not support."""
    written = written.for_model(model)
    if written.method not in SPEECH.values():
        raise RequestError(f"method {written.method!r} does not speak; those that do are {', '.join(SPEECH.values())}")
    if written.argument("text") is None:
        raise RequestError(f"{written.method}: missing a required argument: 'text'")
    of_the_voice = ("speaker", "instruct", "ref_audio", "ref_text", "x_vector_only_mode", "voice_clone_prompt")
    rest = {name: written.argument(name) for name in written.arguments if name not in of_the_voice}
    non_streaming = rest.pop("non_streaming_mode", None)
    streaming = None if non_streaming is None else not non_streaming
    return model.prepare(voice=_voice(model, written), streaming=streaming, seed=written.seed, **rest)


def _voice(model: Qwen3TTSModel, written: WrittenRequest) -> Voice:
    """The voice: a clip without a transcript gives only its speaker embedding."""
    if written.method == SPEECH["custom_voice"]:
        speaker = written.argument("speaker")
        first = next(iter(model.get_supported_speakers()), "")
        return CustomVoice(first if speaker is None else speaker, written.argument("instruct") or "")
    if written.method == SPEECH["voice_design"]:
        return DesignedVoice(written.argument("instruct") or "")
    saved, clip = written.argument("voice_clone_prompt"), written.argument("ref_audio")
    text, alone = written.argument("ref_text"), written.argument("x_vector_only_mode")
    if saved is not None:
        items = voice_prompt_items(saved)
    elif clip is not None:
        items = model.create_voice_clone_prompt(clip, text, text is None if alone is None else alone)
    else:
        raise RequestError("give ref_audio or voice_clone_prompt: a base model has no voice of its own")
    if len(items) != 1:
        raise RequestError(f"voice_clone_prompt has {len(items)} voices; a request takes one")
    return ClonedVoice(items[0])


def is_reference(value: Any, kind: str) -> bool:
    """Whether it is ``{"audio": NAME}`` or ``{"codes": NAME}``."""
    return isinstance(value, dict) and isinstance(value.get(kind), str)


def only(value: Any) -> Any:
    """The value of a list of one."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value
