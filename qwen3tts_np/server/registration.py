"""Voices over HTTP: listed, registered from a clip or a voice file, handed out, deleted. Names as vllm-omni's."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..shown import shortened
from ..voice.prompt_item import VoiceClonePromptItem
from .answer import House
from .models import choose, read_clip
from .refusal import Refusal
from .schema import DEFAULT_VOICE
from .voices import Registered, voice_of_file

FIELDS = ("name", "audio_sample", "voice_file", "ref_text", "speaker_description", "model", "consent")


def list_voices(house: House) -> dict[str, Any]:
    """The voices of the models and the registered ones."""
    of_models = [name for served in house.models.values() for name in served.model.get_supported_speakers()]
    registered = house.voices.all()
    names = [*dict.fromkeys(of_models), *(voice.name for voice in registered)]
    return {"voices": names, "uploaded_voices": [_shown(voice) for voice in registered]}


async def register_voice(house: House, form: Mapping[str, Any]) -> dict[str, Any]:
    """Register a clip with its transcript, or a voice file, under a name."""
    for field in form:
        if field not in FIELDS:
            raise Refusal(400, f"there is no field {shortened(field)}; the fields are {', '.join(FIELDS)}", field[:100])
    texts = {field: _text(form, field) for field in FIELDS if not field.endswith(("_sample", "_file"))}
    if texts["name"] is None:
        raise Refusal(400, "there is no 'name' for the voice", "name")
    name: str = texts["name"]
    if name == DEFAULT_VOICE:
        raise Refusal(409, f"voice {name!r} is the model's own choice; take another name", "name", "name_taken")
    if any(name.lower() in served.model.get_supported_speakers() for served in house.models.values()):
        raise Refusal(409, f"voice {shortened(name)} is one of a model's own; take another name", "name", "name_taken")
    await asyncio.to_thread(house.voices.new, name)
    sources = [source for source in ("audio_sample", "voice_file") if form.get(source) is not None]
    if len(sources) != 1:
        raise Refusal(400, "give one of 'audio_sample', a clip, and 'voice_file', a saved voice", "audio_sample")
    upload = form[sources[0]]
    if isinstance(upload, str):
        raise Refusal(400, f"{sources[0]} is a text; send it as a file", sources[0])
    content = await upload.read()
    notes: list[str] = []
    if sources == ["voice_file"]:
        item = await asyncio.to_thread(voice_of_file, content)
    else:
        item, notes = await _voice_of_clip(house, content, texts["ref_text"], texts["model"])
    if texts["speaker_description"] is not None:
        item = replace(item, description=texts["speaker_description"])
    voice = await asyncio.to_thread(house.voices.add, name, item)
    return {"success": True, "voice": _shown(voice), "notes": notes}


def voice_file(house: House, name: str) -> bytes:
    """A registered voice as a file."""
    return house.voices.content(name)


def delete_voice(house: House, name: str) -> dict[str, Any]:
    """Delete a registered voice."""
    house.voices.remove(name)
    return {"success": True, "message": f"voice {name!r} is deleted"}


async def _voice_of_clip(
    house: House, content: bytes, text: str | None, model: str | None
) -> tuple[VoiceClonePromptItem, list[str]]:
    """The voice of a clip, and warnings about it. Without a transcript it is the speaker embedding alone."""
    served = choose(house.models, model, ("base",))
    if served.kind != "base":
        raise Refusal(400, f"a voice of a clip needs a base model; {served.name} is a {served.kind} model", "model")
    clip = await asyncio.to_thread(read_clip, content)
    return await house.maker.voice(served, {"ref_audio": clip, "ref_text": text})


def _text(form: Mapping[str, Any], name: str) -> str | None:
    value = form.get(name)
    if value is not None and not isinstance(value, str):
        raise Refusal(400, f"{name} is a file; send it as a text", name)
    return value or None


def _shown(voice: Registered) -> dict[str, Any]:
    shown = {
        "name": voice.name,
        "created_at": voice.created,
        "file_size": voice.size,
        "ref_text": voice.item.ref_text,
        "speaker_description": voice.item.description or None,
        "x_vector_only_mode": voice.item.x_vector_only_mode,
    }
    return {name: value for name, value in shown.items() if value is not None}
