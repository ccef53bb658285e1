"""Settings shared by all pieces of a text: the model, its voice, the language, and the sampling parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from ..arguments import switch
from ..errors import RequestError
from ..model import Qwen3TTSModel
from ..notices import notify
from ..request import DesignedVoice, Request, Voice, limits_of
from ..text.pace import most_milliseconds
from ..voice_arguments import VOICE_ARGUMENTS
from .store import fingerprint


@dataclass(frozen=True)
class Delivery:
    """The settings shared by the pieces of a text."""

    model: Qwen3TTSModel
    voice: Voice
    language: str
    streaming: bool | None  # the layout of the prompt; None is the model's usual one
    sampling: Mapping[str, Any]  # where it departs from the checkpoint's generation configuration
    runaway_guard: bool  # whether speech longer than any reading of its text is cut
    tempo: float = 1.0  # 2 is twice as fast, at the same pitch
    first: Delivery | None = None  # of the same text in its usual voice, whose hash of the model holds here too

    @classmethod
    def of(
        cls, model: Qwen3TTSModel, arguments: Mapping[str, Any], runaway_guard: bool, tempo: float = 1.0
    ) -> Delivery:
        """From the arguments of the model's ``generate_*`` method, one value each."""
        given = {name: value for name, value in arguments.items() if value is not None}
        for name, value in given.items():
            if isinstance(value, list) and name not in ("ref_audio", "ref_text", "voice_clone_prompt"):
                raise RequestError(f"{name} is a list; a text takes one value for all its pieces")
        voice = model.voice(**{name: given.pop(name) for name in VOICE_ARGUMENTS if name in given})
        return cls.of_voice(model, voice, given, runaway_guard, tempo)

    @classmethod
    def of_voice(
        cls,
        model: Qwen3TTSModel,
        voice: Voice,
        arguments: Mapping[str, Any],
        runaway_guard: bool,
        tempo: float = 1.0,
    ) -> Delivery:
        """From a voice, and the other arguments that are given."""
        given = dict(arguments)
        language, whole_text = given.pop("language", "auto"), given.pop("non_streaming_mode", None)
        streaming = None if whole_text is None else not switch(whole_text, "non_streaming_mode")
        return cls(model, voice, language, streaming, given, runaway_guard, tempo)

    def in_voice(self, voice: Voice) -> Delivery:
        """The same in another voice of the model."""
        return replace(self, voice=voice, first=self.first or self)

    def request(self, text: str, seed: int) -> Request:
        """The request for one piece; with the guard on, of at most :meth:`bound` frames."""
        options = {"language": self.language, "streaming": self.streaming, **self.sampling}
        request = self.model.prepare(text, self.voice, seed=seed, **options)
        bound = self.bound(text)
        if bound is None or request.limits.max_new_tokens <= bound:
            return request
        return replace(request, limits=replace(request.limits, max_new_tokens=bound + 1))  # N tokens: N - 1 frames

    def bound(self, text: str) -> int | None:
        """The number of frames that no speech of ``text`` reaches (``text/pace.py``); None without the guard."""
        if not self.runaway_guard:
            return None
        return most_frames(self.model, text)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the model; it reads all weights once."""
        return fingerprint(self.model) if self.first is None else self.first.fingerprint

    @cached_property
    def greedy(self) -> bool:
        """Whether nothing is drawn, so that seeds have no effect."""
        limits = limits_of(self.model.generation_config, dict(self.sampling))
        return not (limits.talker.do_sample or limits.subtalker.do_sample)

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.model.speech_tokenizer.get_output_sample_rate()


def most_frames(model: Qwen3TTSModel, text: str) -> int:
    """The number of frames that no speech of ``text`` reaches (``text/pace.py``)."""
    codec = model.speech_tokenizer
    return -(-most_milliseconds(text) * codec.get_output_sample_rate() // (1000 * codec.get_decode_upsample_rate()))


def frame_seconds(model: Qwen3TTSModel) -> float:
    """Duration of a frame: 0.08 s in all released models."""
    codec = model.speech_tokenizer
    return codec.get_decode_upsample_rate() / codec.get_output_sample_rate()


def warn_of_designed_voices(deliveries: Sequence[Delivery]) -> None:
    """Warn that a voice-design model does not keep a voice across several pieces of a text, one delivery each."""
    pieces = len(deliveries)
    if isinstance(deliveries[0].voice, DesignedVoice) and pieces > len({id(one) for one in deliveries}):
        notify(
            f"a voice-design model designs the voice anew for each of the {pieces} pieces of this text; "
            "to keep it, make a voice of the description for a base model ('qwen3tts-np voice design')"
        )
