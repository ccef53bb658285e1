"""The entry of a safetensors header in which this package states the version that wrote a file, and what is in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ..errors import CheckpointError
from ..shown import shortened
from .json_file import parse_json

T = TypeVar("T")


def read_entry(
    metadata: Mapping[str, str],
    key: str,
    version: int,
    path: Path,
    build: Callable[[Any], T],
    remedy: str,
    oldest: int | None = None,
) -> T:
    """What ``build`` makes of the entry of a file at ``path``, of ``version`` or down to the ``oldest`` that it reads.

    CheckpointError where it is damaged, where ``build`` fails on it, and where it has another version, with ``remedy``.
    """
    try:
        stated = parse_json(metadata[key])
        found = stated["version"]
        if isinstance(found, int) and (version if oldest is None else oldest) <= found <= version:
            return build(stated)
    except (ValueError, TypeError, KeyError, AttributeError) as e:
        raise CheckpointError(f"{path}: {key} in the header is damaged ({type(e).__name__}: {e})") from None
    written = f"{path}: written in version {shortened(found)}"
    raise CheckpointError(f"{written}, and this package reads version {version}; {remedy}")
