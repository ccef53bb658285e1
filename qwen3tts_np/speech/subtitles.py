"""Subtitles: which words are spoken when, as SubRip (.srt) or WebVTT (.vtt).

The times of pieces are exact; inside a piece a cue gets its share of the words.
"""

from __future__ import annotations

import html
import os
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

from ..errors import RequestError
from ..files.name import shown_name
from ..text.pace import milliseconds
from ..text.sentences import split
from .spoken import Spoken

CUE, LONGEST_CUE = 4.0, 6.0  # seconds of speech in a cue, usual and at most


def _srt(spoken: list[Spoken], language: str) -> str:
    cues = enumerate(_cues(spoken, language), start=1)
    return "".join(f"{i}\n{timestamp(a, ',')} --> {timestamp(b, ',')}\n{text}\n\n" for i, (a, b, text) in cues)


def _vtt(spoken: list[Spoken], language: str) -> str:
    cues = _cues(spoken, language)
    escaped = ((a, b, html.escape(text, quote=False)) for a, b, text in cues)
    return "WEBVTT\n\n" + "".join(f"{timestamp(a, '.')} --> {timestamp(b, '.')}\n{text}\n\n" for a, b, text in escaped)


SUBTITLE_FORMATS = {".srt": _srt, ".vtt": _vtt}


def subtitle_file(path: Path) -> Path:
    """``path``, if subtitles can be written there; RequestError otherwise, before the work."""
    if path.suffix.lower() not in SUBTITLE_FORMATS:
        raise RequestError(f"{path}: subtitles are .srt or .vtt files")
    if not os.path.isdir(path.parent):  # trap: Path.is_dir raises where the name is too long
        raise RequestError(f"{shown_name(path)} cannot be written: {shown_name(path.parent)} is no directory")
    return path


def _cues(spoken: list[Spoken], language: str) -> Iterator[tuple[float, float, str]]:
    """(start, end, text) in seconds. The times of pieces are exact, those in a piece are its share of the words."""
    for piece in spoken:
        parts = [part.spoken for part in split(piece.text, language, CUE, LONGEST_CUE)]
        lengths = [milliseconds(part) for part in parts]
        per_ms = (piece.end - piece.start) / sum(lengths)
        ends = list(accumulate(lengths, initial=0))
        for part, a, b in zip(parts, ends, ends[1:], strict=False):
            yield piece.start + per_ms * a, piece.start + per_ms * b, part


def timestamp(seconds: float, point: str) -> str:
    whole, ms = divmod(round(1000 * seconds), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{point}{ms:03}"
