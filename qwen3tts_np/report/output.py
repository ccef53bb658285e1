"""Writing what an audit found."""

from __future__ import annotations

from pathlib import Path

from ..checkpoint.writer import complete_file
from ..errors import RequestError


def write_text(path: Path, text: str) -> None:
    """Under another name first, so that what is found at ``path`` is whole. RequestError if the disk refuses."""
    try:
        with complete_file(path) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as e:
        raise RequestError(f"{path} cannot be written: {e.strerror}") from None
