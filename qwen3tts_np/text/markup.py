r"""Marks in a text: pauses and changes of voice. Read where they are asked for only; else brackets are text.

    [pause 0.5s]   silence of exactly this length: 0 to 60 s in whole milliseconds, also as [pause 500ms]
    [voice NAME]   another voice from here on; [voice] is that of the request again
    NAME: text     the same at the beginning of a line, for the names of a cast
    \[pause 1s]    what looks like a mark and is text

Other brackets ("[sic]", "[1]") are text. A text that begins with ``<speak>`` is SSML (``ssml.py``) and has no others.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import pairwise

from ..errors import RequestError
from ..notices import notify
from ..shown import shortened
from .sentences import Break, break_between
from .spans import Span, SpanReader

LONGEST_PAUSE = 60_000  # ms
LONGEST_NAME = 64  # characters
PAUSE_RULE = "a pause lasts 0 to 60 s, in whole milliseconds: 0.5s or 500ms"

_MARK = re.compile(
    r"(?P<escape>\\?)\[(?P<kind>pause|voice)(?![a-z_-])(?P<value>[^\[\]\n]*)(?P<closed>\]?)", re.IGNORECASE
)
_LENGTH = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?|\.[0-9]{1,9}) ?(ms|s)")
_NAMED = re.compile(rf"[ \t]*(?P<name>[^\n:：\[\]]{{1,{LONGEST_NAME}}}?)[ \t]*[:：](?:[ \t]+|$|(?<=：))", re.MULTILINE)
_LIKE_A_NAME = re.compile(r"[^\W\d_][\w.'’-]*(?: [\w.'’-]+)?")


def read_marks(text: str, cast: Collection[str] = ()) -> list[Span]:
    """The spans of a :func:`~qwen3tts_np.text.clean.clean` text; ``cast`` are names that may begin a line.

    RequestError for a mark that is not closed, or has no such value; a warning for a line of a stranger.
    """
    reader = SpanReader()
    for part in _parts(text, {same_name(name): name for name in cast}):
        if isinstance(part, str):
            reader.add(part)
        elif isinstance(part, int):
            reader.pause(part)
        else:
            reader.speaker(part.name)
    spans = reader.spans()
    breaks = [Break.WORD, *(break_between(a.text, b.text) for a, b in pairwise(spans))]
    return [replace(span, opens=kind) for span, kind in zip(spans, breaks, strict=True)]


def length_of(value: str) -> int | None:
    """A length of time ("0.5s", "500ms") in ms; None where it is no pause."""
    found = _LENGTH.fullmatch(value.strip())
    if found is None:
        return None
    ms = Decimal(found[1]) * (1000 if found[2] == "s" else 1)
    return int(ms) if ms == int(ms) and ms <= LONGEST_PAUSE else None


def same_name(name: str) -> str:
    """A name as it is compared: capitals and composed letters make no difference."""
    return unicodedata.normalize("NFC", " ".join(name.split())).casefold()


@dataclass(frozen=True)
class _Voice:
    name: str | None


def _parts(text: str, cast: dict[str, str]) -> Iterator[str | int | _Voice]:
    """Text, pauses in ms, and voices, in order."""
    position, new_line = 0, True
    for mark in _MARK.finditer(text):
        before = text[position : mark.start()]
        yield from _lines(before, cast, new_line)
        new_line = not before.rpartition("\n")[2].strip() and (new_line or "\n" in before)
        position = mark.end()
        if mark["escape"]:
            yield mark.group()[1:]
            new_line = False
        else:
            yield _read(mark, cast)
    yield from _lines(text[position:], cast, new_line)


def _read(mark: re.Match[str], cast: dict[str, str]) -> int | _Voice:
    """A pause in ms, or a voice."""
    written, kind, value = shortened(mark.group()), mark["kind"].lower(), mark["value"].strip()
    if not mark["closed"]:
        raise RequestError(f"the mark {written} is not closed by a bracket; write \\[ where it is text")
    if kind == "voice":
        if len(value) > LONGEST_NAME:
            raise RequestError(f"the mark {written}: a name has at most {LONGEST_NAME} characters")
        return _Voice(cast.get(same_name(value), value) if value else None)
    length = length_of(value)
    if length is None:
        raise RequestError(f"the mark {written}: {PAUSE_RULE}")
    return length


def _lines(text: str, cast: dict[str, str], new_line: bool) -> Iterator[str | _Voice]:
    """``text`` with its names, where there is a cast; ``new_line``: whether it begins a line."""
    if not cast:
        yield text
        return
    position = 0
    for line in re.finditer(r"[^\n]*\n?", text):
        named = _NAMED.match(text, line.start(), line.end()) if line.start() or new_line else None
        if named is None:
            continue
        if (name := cast.get(same_name(named["name"]))) is None:
            if _LIKE_A_NAME.fullmatch(named["name"]):
                notify(f"a line begins with {named['name']!r}, who is not in the cast: the name is spoken")
            continue
        yield text[position : line.start()]
        yield _Voice(name)
        position = named.end()
    yield text[position:]
