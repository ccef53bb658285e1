"""Names that no file can have, whether it is read or written."""

from __future__ import annotations

import os

from ..shown import shortened

LONGEST = 1024  # characters of a path in a sentence


def fault_of_name(path: str | os.PathLike[str]) -> str | None:
    """Why ``path`` cannot be the name of a file, None where it can."""
    try:
        encoded = os.fsencode(path)
    except UnicodeEncodeError as e:
        character = e.object[e.start]
        if "\ud800" <= character <= "\udfff":
            return "it holds half a surrogate pair"
        return f"names of files are {e.encoding} here, which has no {character!r}; take a UTF-8 locale, or PYTHONUTF8=1"
    if b"\0" in encoded:
        return "it holds a null byte"
    return None if encoded else "it names no file"


def shown_name(path: str | os.PathLike[str]) -> str:
    """A name for a sentence: as it is, but quoted where it cannot be one, and its beginning where it is too long."""
    text = os.fspath(path)
    return text if len(text) <= LONGEST and not fault_of_name(path) else shortened(text)
