"""The body of ``POST /v1/audio/speech``: OpenAI's arguments, and vllm-omni's names for what OpenAI does not have.

Strict: an argument that is not known, or of another type, is refused by its name in one sentence. null is not given.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ..audio.encode import check_streamed
from ..audio.tempo import check_tempo
from ..checkpoint.json_file import parse_json
from ..config import GenerationConfig
from ..errors import RequestError
from ..shown import printable, shortened
from .refusal import Refusal
from .settings import Settings

DEFAULT_VOICE = "default"  # the model's own choice; OpenAI's clients always send a voice
_NUMBER = "a number"
_SWITCHES = ("do_sample", "subtalker_dosample", "non_streaming_mode", "x_vector_only_mode", "markup")
_WHOLE = ("top_k", "subtalker_top_k", "max_new_tokens", "seed")
_TEXTS = ("input", "model", "instructions", "response_format", "stream_format", "language", "ref_audio", "ref_text")
SAMPLING = (*(field.name for field in fields(GenerationConfig)), "non_streaming_mode")
ARGUMENTS = (*_TEXTS[:2], "voice", *_TEXTS[2:], "x_vector_only_mode", "speed", "markup", "seed", *SAMPLING)


@dataclass(frozen=True)
class SpeechRequest:
    """One answer that is asked for."""

    text: str
    model: str | None
    voice: str | None  # None: the model's own choice
    instructions: str | None
    response_format: str
    sse: bool  # whether audio comes as events
    language: str
    speed: float  # 2 is twice as fast, at the same pitch
    markup: bool  # whether marks are read in the text
    seed: int | None
    ref_audio: str | None  # base64, or a URL
    ref_text: str | None
    x_vector_only_mode: bool | None
    sampling: Mapping[str, Any]  # what departs from the checkpoint's generation configuration


def read_json(body: bytes) -> dict[str, Any]:
    """A JSON object. Refusal where it is none."""
    try:
        value = parse_json(body.decode(json.detect_encoding(body), "surrogatepass"))
    except ValueError as e:
        raise Refusal(400, f"the body is not JSON: {printable(str(e))}", code="invalid_json") from None
    if not isinstance(value, dict):
        raise Refusal(400, f"the body is a JSON {type(value).__name__}; expected an object with 'input'")
    return value


def parse_speech(given: Mapping[str, Any], settings: Settings, default_format: str = "mp3") -> SpeechRequest:
    """The request in a JSON object. Refusal for whatever is wrong with it."""
    values = {name: value for name, value in given.items() if value is not None}
    for name, value in values.items():
        _check(name, value)
    text = values.get("input")
    if text is None:
        raise Refusal(400, "there is no 'input', the text to speak", "input")
    check_text(text, settings)
    return SpeechRequest(
        text=text,
        model=values.get("model"),
        voice=_voice(values.get("voice")),
        instructions=values.get("instructions") or None,
        response_format=_audio_format(values.get("response_format", default_format)),
        sse=_is_sse(values.get("stream_format", "audio")),
        language=values.get("language", "auto"),
        speed=_speed(values.get("speed", 1)),
        markup=values.get("markup", False),
        seed=values.get("seed"),
        ref_audio=values.get("ref_audio"),
        ref_text=values.get("ref_text"),
        x_vector_only_mode=values.get("x_vector_only_mode"),
        sampling={name: values[name] for name in SAMPLING if name in values},
    )


def check_text(text: str, settings: Settings) -> None:
    """Refusal for a text that is too long."""
    if len(text) > settings.max_text:
        raise Refusal(
            422,
            f"the text has {len(text)} characters and this server speaks at most {settings.max_text} in one request "
            "(--max-text)",
            "input",
            "text_too_long",
        )


def _check(name: str, value: Any) -> None:
    """Refusal for an argument that is not known, or of another type."""
    if name in ("voice", "speed"):
        return  # a voice has two forms; what a speed can be is said below
    if name not in ARGUMENTS:
        known = ", ".join(ARGUMENTS)
        raise Refusal(400, f"there is no argument {shortened(name)}; the arguments are {known}", shortened(name))
    expected, found = _NUMBER, isinstance(value, int | float) and not isinstance(value, bool)
    if name in _TEXTS:
        expected, found = "a string", isinstance(value, str)
    elif name in _SWITCHES:
        expected, found = "true or false", isinstance(value, bool)
    elif name in _WHOLE:
        expected, found = "a whole number", isinstance(value, int) and not isinstance(value, bool)
    if not found:
        raise Refusal(400, f"{name}={shortened(value)} must be {expected}", name)


def _voice(value: Any) -> str | None:
    """A name, or the object with an id that OpenAI has for voices of one's own."""
    if isinstance(value, dict) and set(value) == {"id"}:
        value = value["id"]
    if value is None or value == DEFAULT_VOICE:
        return None
    if not isinstance(value, str) or not value:
        raise Refusal(400, f'voice={shortened(value)} must be a name, or {{"id": name}}', "voice")
    return value


def _speed(value: Any) -> float:
    try:
        return check_tempo(value, "speed")
    except RequestError as e:
        raise Refusal(400, str(e), "speed") from None


def _audio_format(name: str) -> str:
    try:
        return check_streamed(name)
    except RequestError as e:
        raise Refusal(400, str(e), "response_format") from None


def _is_sse(name: str) -> bool:
    if name not in ("audio", "sse"):
        raise Refusal(400, f"stream_format={shortened(name)} must be 'audio' or 'sse'", "stream_format")
    return name == "sse"
