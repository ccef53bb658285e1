"""Strict JSON files: every error names the file and, if possible, the line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import ConfigError, InputError, MissingFileError
from ..files.input import read_text
from ..shown import shortened

MOST_JSON = 32 << 20  # bytes; the largest file of a released checkpoint, vocab.json, has 3 MB
MOST_VALUES = 1_000_000  # vocab.json has 150,000, which take some 25 MB; so many take 100 MB


def read_json(path: Path, role: str = "") -> dict[str, Any]:
    """The JSON object in ``path``. ConfigError if the file is missing, unreadable or holds anything else.

    ``role``: what the file is, where it is not part of a checkpoint, for the sentence that refuses it.
    """
    called = f"{role} {path}" if role else str(path)
    try:
        raw = parse_json(read_text(path, MOST_JSON))
    except InputError as e:
        if isinstance(e.__cause__, FileNotFoundError | NotADirectoryError):
            hint = "" if role else f"; is {path.parent} a Qwen3-TTS checkpoint directory?"
            raise MissingFileError(f"{called} not found{hint}") from None
        raise
    except json.JSONDecodeError as e:
        raise ConfigError(f"{called}:{e.lineno}: not valid JSON ({e.msg})") from None
    except ValueError as e:
        raise ConfigError(f"{called}: not valid JSON ({e})") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{called}: a JSON object was expected, found {type(raw).__name__}")
    return raw


def parse_json(text: str, pairs: Callable[[list[tuple[str, Any]]], Any] = dict) -> Any:
    """``json.loads`` restricted to the standard, whose every error is a ValueError; ``pairs`` makes objects.

    Trap: an empty list is two bytes of JSON and fifty of memory, so the number of values is limited too.
    """
    if sum(map(text.count, ",[{")) > MOST_VALUES:
        raise ValueError(f"it has more than {MOST_VALUES} values")
    try:
        return json.loads(text, object_pairs_hook=pairs, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


class RepeatedName(ValueError):
    """An object has a name more than once."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{shortened(name)} is there twice")
        self.name: str = name


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """``pairs`` of :func:`parse_json` for objects whose names have to differ. RepeatedName where they do not."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise RepeatedName(name)
        found[name] = value
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a number in JSON")
