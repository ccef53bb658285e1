"""Voices from the arguments that name them: the same rules for the official methods, narration, request files and the
command line.

    custom_voice   speaker, instruct
    voice_design   instruct
    base           ref_audio, ref_text, x_vector_only_mode; or voice_clone_prompt

An argument that is None is not given. A speaker that is not given is the first of the model's table, sorted; a clip
without a transcript gives its speaker embedding alone, unless ``x_vector_only_mode`` says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from .cloning import VoiceCloner
from .config import ModelConfig
from .errors import RequestError, RequestTypeError
from .notices import notify
from .request import ClonedVoice, CustomVoice, DesignedVoice, Voice, per_item
from .voice.prompt_item import voice_prompt_items

ARGUMENTS_OF: dict[str, tuple[str, ...]] = {  # type of model -> the arguments that name its voices
    "custom_voice": ("speaker", "instruct"),
    "voice_design": ("instruct",),
    "base": ("ref_audio", "ref_text", "x_vector_only_mode", "voice_clone_prompt"),
}
VOICE_ARGUMENTS: tuple[str, ...] = tuple(dict.fromkeys(name for names in ARGUMENTS_OF.values() for name in names))
IGNORED = "the 0.6B custom-voice model does not follow instructions: instruct is ignored"


def voices_of(config: ModelConfig, cloner: VoiceCloner, count: int, **arguments: Any) -> list[Voice]:
    """The voices of ``count`` texts. An argument is one value for all of them, or a list with one for each.

    RequestError for an argument of another type of model, and where the arguments do not name a voice.
    """
    kind = config.tts_model_type
    given = {name: value for name, value in arguments.items() if value is not None}
    for name in given:
        if name not in ARGUMENTS_OF[kind]:
            known = ", ".join(ARGUMENTS_OF[kind])
            raise RequestTypeError(f"a {kind} model has no argument {name}; its voices are named by {known}")
    if kind == "base":
        return list(_cloned(cloner, count, **given))
    instructs = per_item(given.get("instruct"), count, "instruct", "")
    if kind == "voice_design":
        return list(map(DesignedVoice, instructs))
    first = min(config.talker_config.spk_id, default="")
    speakers = per_item(given.get("speaker"), count, "speaker", first)
    return followed(config, list(map(CustomVoice, speakers, instructs)))


def followed(config: ModelConfig, voices: Sequence[Voice]) -> list[Voice]:
    """``voices`` without instructions that the model was not trained to follow; one warning says so.

    Trap: the official package drops them without a word.
    """
    small = config.tts_model_size == "0b6"
    kept = [replace(voice, instruct="") if small and isinstance(voice, CustomVoice) else voice for voice in voices]
    if kept != list(voices):
        notify(IGNORED)
    return kept


def _cloned(
    cloner: VoiceCloner,
    count: int,
    ref_audio: Any = None,
    ref_text: Any = None,
    x_vector_only_mode: Any = None,
    voice_clone_prompt: Any = None,
) -> list[ClonedVoice]:
    if voice_clone_prompt is not None:
        items = voice_prompt_items(voice_clone_prompt)
    elif ref_audio is not None:
        clips = len(ref_audio) if isinstance(ref_audio, list) else 1
        if x_vector_only_mode is None:
            x_vector_only_mode = [text is None for text in per_item(ref_text, clips, "ref_text", None)]
        items = cloner.voices(ref_audio, ref_text, x_vector_only_mode)
    else:
        raise RequestError("give ref_audio or voice_clone_prompt: a base model has no voice of its own")
    if count == 1 and len(items) != 1:
        raise RequestError(f"voice_clone_prompt has {len(items)} voices; a request takes one")
    return list(map(ClonedVoice, per_item(items, count, "voice_clone_prompt", None)))
