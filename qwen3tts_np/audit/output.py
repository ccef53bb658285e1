"""Writing what an audit found."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import RequestError


def write_text(path: Path, text: str) -> None:
    """Under another name first, so that what is found at ``path`` is whole. RequestError if the disk refuses."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    except OSError as e:
        raise RequestError(f"{path} cannot be written: {e.strerror}") from None
    finally:
        if part.exists():
            part.unlink()
