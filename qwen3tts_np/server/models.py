"""The models of a server by their names, and the voice that a request asks one of them for."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..audio.files import read_audio
from ..audio.url import is_url, read_url
from ..errors import AudioTooLong
from ..model import Qwen3TTSModel
from ..notices import heard
from ..ops import Wave
from ..request import CustomVoice, DesignedVoice, Voice
from ..shown import shortened
from ..speech import demo
from ..speech.script import Cast, Script
from .refusal import Refusal
from .schema import SpeechRequest
from .settings import CLIP_BYTES, CLIP_SECONDS, Settings
from .voices import VoiceFolder

Clip = tuple[Wave, int]  # [samples], Hz


@dataclass(frozen=True)
class Served:
    """A model that answers by its name."""

    name: str
    model: Qwen3TTSModel
    of_demo: bool = False  # the voice that comes with the package, which reads only what was made readable for it

    @property
    def kind(self) -> str:
        """custom_voice, voice_design or base."""
        return self.model.config.tts_model_type

    def script(self, script: Script) -> Script:
        """``script`` as the model can read it."""
        return script.rewritten(demo.readable) if self.of_demo else script

    def warm_up(self) -> None:
        """Speak a frame, so that the first client does not wait for kernels to be compiled and weights to be packed."""
        voice: Voice = DesignedVoice()
        if self.kind == "custom_voice":
            voice = CustomVoice(min(self.model.get_supported_speakers()))
        elif self.kind == "base":
            hum = 0.1 * np.sin(np.arange(3 * 24_000) / 40, dtype=np.float32)
            with heard():  # that it is no voice
                voice = self.model.voice(ref_audio=(hum, 24_000), ref_text="Hm.")
        for _ in self.model.stream(self.model.prepare("Hello.", voice, seed=0, max_new_tokens=2)):
            continue

    def language(self, asked: str) -> str:
        """The language of a text."""
        return "english" if self.of_demo and asked == "auto" else asked


def choose(models: Mapping[str, Served], name: str | None, kinds: tuple[str, ...] = ()) -> Served:
    """The model of this name, with or without its owner; without one the first of these kinds, or of all."""
    if name is None:
        return next((model for kind in kinds for model in models.values() if model.kind == kind), _first(models))
    short = name.rpartition("/")[2]  # of OWNER/NAME, as the hub has it
    if short not in models:
        known = ", ".join(models)
        raise Refusal(404, f"model {shortened(name)} is not served here; there is {known}", "model", "model_not_found")
    return models[short]


def kinds_for(asked: SpeechRequest, voices: VoiceFolder) -> tuple[str, ...]:
    """Which kinds of model a request that names none may mean, the likeliest first."""
    if asked.ref_audio is not None or (asked.voice is not None and asked.voice in voices.names()):
        return ("base",)
    if asked.voice is None and asked.instructions is not None:
        return ("voice_design", "custom_voice")
    return ("custom_voice", "voice_design")


def voice_arguments(served: Served, asked: SpeechRequest, voices: VoiceFolder, settings: Settings) -> dict[str, Any]:
    """What the model takes to find the voice. Reads files and, where that is allowed, URLs: not for an event loop."""
    clip = {"ref_audio": asked.ref_audio, "ref_text": asked.ref_text, "x_vector_only_mode": asked.x_vector_only_mode}
    if served.kind != "base":
        for name, value in clip.items():
            if value is not None:
                raise Refusal(400, f"{name} needs a base model; {served.name} is a {served.kind} model", name)
        if served.kind == "custom_voice":
            return {"speaker": asked.voice, "instruct": asked.instructions}
        if asked.voice is not None:
            raise Refusal(
                400,
                f"voice={shortened(asked.voice)}: a voice-design model has no voices; describe one in 'instructions', "
                "and leave 'voice' away or send 'default'",
                "voice",
            )
        return {"instruct": asked.instructions}
    if asked.instructions is not None:
        raise Refusal(400, "a base model speaks as its voice does and follows no instructions", "instructions")
    if asked.ref_audio is None:
        if asked.voice is None:
            raise Refusal(
                400, "a base model has no voice of its own: give a registered 'voice', or 'ref_audio'", "voice"
            )
        return {"voice_clone_prompt": voices.get(asked.voice).item}
    if asked.voice is not None:
        raise Refusal(400, "give 'voice' or 'ref_audio', not both", "voice")
    return {**clip, "ref_audio": read_clip(clip_bytes(asked.ref_audio, settings))}


def cast_of(served: Served, names: Iterable[str], voices: VoiceFolder) -> Cast:
    """The voices that a text with markup names: registered ones for a base model; others are in the model's table."""
    if served.kind != "base":
        return {}
    return {name: {"voice_clone_prompt": voices.get(name).item} for name in names}


def clip_bytes(source: str, settings: Settings) -> bytes:
    """The content of ``ref_audio``: base64, bare or as a data URL; or a URL, where fetching is allowed."""
    if is_url(source):
        if not settings.allow_fetch:
            raise Refusal(
                400,
                "ref_audio is a URL, and this server fetches nothing: send the clip as base64, or start the server "
                "with --allow-fetch",
                "ref_audio",
            )
        return read_url(source, public=True)
    text = source.partition(",")[2] if source.startswith("data:") else source
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Refusal(400, "ref_audio is neither base64 nor a data URL of audio", "ref_audio") from None


def read_clip(content: bytes) -> Clip:
    """A reference clip. Refusal for one that is too large or too long, RequestError for what is no audio."""
    if len(content) > CLIP_BYTES:
        raise Refusal(
            413, f"the clip has {len(content)} bytes and the limit is {CLIP_BYTES}", "ref_audio", "clip_too_large"
        )
    with suppress(AudioTooLong):
        wave, rate = read_audio(content, longest=CLIP_SECONDS)
        if len(wave) <= CLIP_SECONDS * rate:
            return wave, rate
    raise Refusal(
        422,
        f"the clip lasts more than {CLIP_SECONDS:.0f} s, which is the limit; 10 to 20 s are best",
        "ref_audio",
        "clip_too_long",
    )


def _first(models: Mapping[str, Served]) -> Served:
    return next(iter(models.values()))
