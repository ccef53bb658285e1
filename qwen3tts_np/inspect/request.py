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
from ..request import Request
from ..voice_arguments import VOICE_ARGUMENTS

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
    given = {name: written.argument(name) for name in written.arguments}
    voice = model.voice(**{name: given.pop(name) for name in VOICE_ARGUMENTS if name in given})
    non_streaming = given.pop("non_streaming_mode", None)
    streaming = None if non_streaming is None else not non_streaming
    return model.prepare(voice=voice, streaming=streaming, seed=written.seed, **given)


def is_reference(value: Any, kind: str) -> bool:
    """Whether it is ``{"audio": NAME}`` or ``{"codes": NAME}``."""
    return isinstance(value, dict) and isinstance(value.get(kind), str)


def only(value: Any) -> Any:
    """The value of a list of one."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value
