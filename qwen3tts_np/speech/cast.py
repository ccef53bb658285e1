"""Files of users beside a text: who speaks (a cast), and how words are to be read (a lexicon). JSON objects, strictly.

    {"Anna": "vivian", "Bob": {"speaker": "ryan", "instruct": "whispering"}, "Ada": {"voice": "ada.safetensors"}}
    {"Nguyen": "Win", "SQL": "sequel"}

A name stands for a speaker of the model's table, a saved voice (a path relative to the file) or a description: as one
string it is what the model takes, as an object it says which.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..arguments import path_of
from ..checkpoint.json_file import parse_json, without_repeats
from ..errors import InputError, RequestError
from ..files.input import read_text
from ..files.name import shown_name
from ..shown import shortened
from ..text.lexicon import Lexicon
from ..text.markup import LONGEST_NAME, same_name
from ..voice.prompt_item import VoiceClonePromptItem
from .script import OWN, Cast

MOST = 16 << 20  # bytes
PathLike = str | os.PathLike[str]
FIELDS = ("speaker", "instruct", "voice", "description")


def read_lexicon(path: PathLike) -> Lexicon:
    """A lexicon. RequestError, with the file and the entry, for what is none."""
    file, entries = _read(path, "lexicon")
    try:
        return Lexicon(entries)
    except RequestError as e:
        raise RequestError(f"{shown_name(file)}: {e}") from None


def read_cast(path: PathLike) -> Cast:
    """A cast, with its saved voices loaded. RequestError, with the file and the name, for what is none."""
    file, entries = _read(path, "cast")
    if not entries:
        raise RequestError(f"{shown_name(file)}: the cast is empty; give names and their voices")
    seen: dict[str, str] = {}
    for name in entries:
        if not name.strip() or len(name) > LONGEST_NAME or any(c in "[]:：\n" for c in name):
            raise RequestError(
                f"{shown_name(file)}: {shortened(name)} cannot be a name: 1 to {LONGEST_NAME} characters without []:"
            )
        if (other := seen.setdefault(same_name(name), name)) != name:
            raise RequestError(f"{shown_name(file)}: {shortened(other)} and {shortened(name)} are the same name")
    return {name: _voice(file, name, value) for name, value in entries.items()}


def first_saved(cast: Cast) -> VoiceClonePromptItem | None:
    """The first saved voice of a cast, in which a base model without another speaks what belongs to nobody."""
    return next((one["voice_clone_prompt"] for one in cast.values() if "voice_clone_prompt" in one), None)


def _voice(file: Path, name: str, value: Any) -> dict[str, Any]:
    """The arguments of ``model.voice``."""
    where = f"{shown_name(file)}: {shortened(name)}"
    if isinstance(value, str) and value.strip():
        saved = value.endswith((".safetensors", ".pt"))
        return {"voice_clone_prompt": _load(file, value)} if saved else {OWN: value}
    fields = value if isinstance(value, dict) else {}
    kinds = {"speaker", "voice", "description"} & fields.keys()
    proper = all(key in FIELDS and isinstance(one, str) and one.strip() for key, one in fields.items())
    if not proper or len(kinds) != 1 or ("instruct" in fields and "speaker" not in fields):
        raise RequestError(
            f"{where} is {shortened(value)}; expected a speaker, a voice file or a description as a string, or an "
            'object with one of "speaker" (and "instruct"), "voice" or "description"'
        )
    if "voice" in fields:
        return {"voice_clone_prompt": _load(file, fields["voice"])}
    return {"instruct": fields["description"]} if "description" in fields else dict(fields)


def _load(file: Path, voice: str) -> VoiceClonePromptItem:
    return VoiceClonePromptItem.load(file.parent / voice)


def _read(path: PathLike, what: str) -> tuple[Path, dict[str, Any]]:
    file = path_of(path, what)
    try:
        content = parse_json(read_text(file, MOST), without_repeats)
    except InputError:
        raise
    except ValueError as e:
        raise RequestError(f"{shown_name(file)}: the {what} is not valid JSON: {e}") from None
    if not isinstance(content, dict):
        raise RequestError(f"{shown_name(file)}: the {what} is a JSON {type(content).__name__}, expected an object")
    return file, content
