"""What is there to be prepared: clips with their texts, from the one manifest or from a table of a data set."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import soundfile

from ...errors import QwenTTSError
from ...files.input import open_input
from ...files.name import shown_name
from ...manifest import BadRow, Manifest, Row, is_path

KEPT = ("id", "text", "ref_text", "language", "speaker", "instruct")  # fields that training reads, as they are


@dataclass(frozen=True)
class Utterance:
    """A row of the raw data. Files are paths that can be opened, or URLs; ``fault`` is why it cannot be used."""

    where: str  # of the row, for a sentence: "raw.jsonl:3"
    fields: dict[str, Any] = field(default_factory=dict)  # those of KEPT, and non_streaming_mode
    audio: str | bytes | None = None  # bytes: the content of an audio file
    audio_codes: str | list[list[int]] | None = None
    ref_audio: str | None = None
    fault: str | None = None

    def identity(self) -> list[Any]:
        """What the row is made of: equal where nothing has to be made again."""
        return [self.fields, identity_of(self.audio), identity_of(self.audio_codes), identity_of(self.ref_audio)]


class Info(NamedTuple):
    """What a source holds. ``hours``: None where nothing but decoding would tell."""

    rows: int
    columns: list[str]  # with their types, where these are known
    hours: float | None
    unread: int = 0  # rows that cannot be read, or have no length


class Source(Protocol):
    """Raw data, read as often as it is iterated, row by row."""

    name: str

    def __iter__(self) -> Iterator[Utterance]: ...

    def info(self) -> Info: ...


class ManifestSource:
    """The one manifest; the official training file is one."""

    def __init__(self, path: Path) -> None:
        self.manifest: Manifest = Manifest(path)
        self.name: str = shown_name(path)

    def __iter__(self) -> Iterator[Utterance]:
        for row in self.manifest:
            yield self._bad(row) if isinstance(row, BadRow) else self._utterance(row)

    def info(self) -> Info:
        """Rows, the fields that any of them has, and the hours that headers of files and codes claim."""
        rows, unread, seconds, columns = 0, 0, 0.0, dict[str, None]()
        for row in self.manifest:
            rows += 1
            if isinstance(row, BadRow):
                unread += 1
                continue
            names = [*KEPT, "audio", "audio_codes", "ref_audio"]
            columns |= dict.fromkeys(name for name in names if getattr(row, name) is not None)
            length = _claimed_seconds(row)
            unread += length is None
            seconds += length or 0.0
        return Info(rows, list(columns), seconds / 3600 if unread < rows else None, unread)

    def _utterance(self, row: Row) -> Utterance:
        fields = {name: value for name in KEPT if (value := getattr(row, name)) is not None}
        if (whole := row.sampling.get("non_streaming_mode")) is not None:
            fields["non_streaming_mode"] = whole
        where = f"{self.name}:{row.line}"
        return Utterance(where, fields, row.audio, row.audio_codes, row.ref_audio, row.error)

    def _bad(self, row: BadRow) -> Utterance:
        where = f"{self.name}:{row.line}"
        return Utterance(where, fault=str(row.error).removeprefix(f"{where}: "))


def limited(source: Iterable[Utterance], most: int | None) -> Iterator[Utterance]:
    """The first ``most`` rows, or all. Trap: the row behind the last is not asked for, which might be a download."""
    if most is None:
        yield from source
        return
    rows = iter(source)
    for _ in range(most):
        if (row := next(rows, None)) is None:
            return
        yield row


def identity_of(value: Any) -> Any:
    """A file by its name, size and time; anything else by its content."""
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    if isinstance(value, str) and is_path(value):
        try:
            found = os.stat(value)
        except (OSError, ValueError):  # of what cannot be the name of a file too
            return value
        return [value, found.st_size, found.st_mtime_ns]
    return value


def _claimed_seconds(row: Row) -> float | None:
    """The length of a row's clip as the header of its file claims it."""
    if row.audio is None or not is_path(row.audio):
        return None
    try:
        with open_input(row.audio) as content, soundfile.SoundFile(content) as file:
            return max(0, file.frames) / file.samplerate
    except (QwenTTSError, soundfile.LibsndfileError):
        return None
