"""Manifests: tables of texts, voices and audio, a row each. One reader for every command that takes one.

    {"id": "a1", "text": "Good morning.", "speaker": "ryan", "temperature": 0.7}

    id,text,speaker,seed
    a1,Good morning.,ryan,7

JSON Lines (an object a line) or CSV with a heading, whichever the first character says; UTF-8, with a byte order mark
or without. Fields are :data:`TEXT_FIELDS`, ``seed``, and the sampling arguments of ``generate_*``; null and an empty
cell are not given. Files are named relative to the manifest; ``audio_codes`` are a .npy file or, in JSON, codes
[frames][G]. The official training file (``audio``, ``text``, ``ref_audio``) is a manifest, and so is the results.jsonl
of ``batch``, whose ``file`` is the row's audio.

A manifest may be larger than memory: it is read line by line, as often as it is iterated.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from .arguments import path_of, require_text
from .audio.url import is_url
from .checkpoint.json_file import parse_json
from .errors import RequestError
from .files.fields import NUMBER, SAMPLING_RULES, SEED, SWITCH, TEXT, WHOLE, Rule, are_codes
from .files.input import open_input
from .files.name import shown_name
from .notices import notify
from .shown import shortened

TEXT_FIELDS = (
    "id",
    "text",
    "audio",
    "audio_codes",
    "ref_audio",
    "ref_text",
    "language",
    "speaker",
    "voice",
    "instruct",
)
FILES = ("audio", "audio_codes", "ref_audio", "voice")
OF_RESULTS = ("seconds", "frames", "made", "warnings")  # what results.jsonl has besides
MOST_LINE = 32 << 20  # bytes; an hour of codes has 4 MB
BOM = b"\xef\xbb\xbf"

ID: Rule = (lambda value: isinstance(value, str) or type(value) is int, "text, or a whole number")
CODES: Rule = (
    lambda value: isinstance(value, str) or (value and are_codes(value)),
    "a .npy file, or codes [frames][groups]",
)
RULES: dict[str, Rule] = {
    **dict.fromkeys(TEXT_FIELDS, TEXT),
    "id": ID,
    "audio_codes": CODES,
    "file": TEXT,
    "error": TEXT,
    "seed": SEED,
    **SAMPLING_RULES,
}
SWITCHES = {"true": True, "false": False, "1": True, "0": False}  # as a cell of CSV has them, in any case


@dataclass(frozen=True)
class Row:
    """A row of a manifest. None, or no entry of ``sampling``, is not given; files are paths that can be opened."""

    line: int  # of the file, from 1: its first one
    name: str  # the id, or where there is none 16 hex digits of the SHA-256 of the row's fields: as good in any order
    id: str | None = None
    text: str | None = None
    audio: str | None = None  # a file, or a URL
    audio_codes: str | list[list[int]] | None = None  # a .npy file, or codes [frames][G]
    ref_audio: str | None = None  # a file, a URL, or base64 behind "data:"
    ref_text: str | None = None
    language: str | None = None
    speaker: str | None = None
    voice: str | None = None  # the file of a saved voice
    instruct: str | None = None
    seed: int | None = None
    error: str | None = None  # of a results.jsonl: why there is no audio
    sampling: Mapping[str, Any] = field(default_factory=dict)  # under the official names


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be read."""

    line: int
    id: str | None  # where that is known
    error: RequestError  # its sentence has the file, the line, the field, its value and the rule


class Manifest:
    """A manifest by its path. Iterating it yields every :class:`Row`, and a :class:`BadRow` where there is none.

    RequestError, while iterating, where the file cannot be read, is no manifest, or has a line without end. A field
    that is unknown is ignored, and a warning names it once.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path: Path = path_of(path, "manifest")
        self._unknown: set[str] = set()  # those that have been named

    def __iter__(self) -> Iterator[Row | BadRow]:
        with open_input(self.path) as file:
            lines = self._lines(file)
            first = next(((number, line) for number, line in lines if line.strip()), None)
            if first is None:
                raise RequestError(f"{shown_name(self.path)} is empty, expected JSON Lines, or CSV with a heading")
            begin, line = first
            if line.lstrip().startswith(b"["):
                raise self._error(begin, "this is a JSON array; a manifest has one object a line")
            written = self._json if line.lstrip().startswith(b"{") else self._csv
            for number, found in written(begin, chain([first], lines)):
                yield found if isinstance(found, BadRow) else self._row(number, found)

    def rows(self) -> Iterator[Row]:
        """Every row. RequestError at the first that cannot be read."""
        for row in self:
            if isinstance(row, BadRow):
                raise row.error
            yield row

    def _lines(self, file: BinaryIO) -> Iterator[tuple[int, bytes]]:
        number = 0
        while line := file.readline(MOST_LINE + 1):
            number += 1
            if len(line) > MOST_LINE:
                raise self._error(number, f"it has more than {MOST_LINE} bytes")
            yield number, line.removeprefix(BOM) if number == 1 else line

    def _json(self, begin: int, lines: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
        for number, line in lines:
            if not line.strip():
                continue
            try:
                fields = parse_json(line.decode("utf-8"))
            except UnicodeDecodeError as e:
                yield number, self._bad(number, f"byte {e.start} is not UTF-8")
            except ValueError as e:
                yield number, self._bad(number, f"not valid JSON ({getattr(e, 'msg', e)})")
            else:
                one = isinstance(fields, dict)
                yield number, fields if one else self._bad(number, f"{shortened(fields)} is no JSON object")

    def _csv(self, begin: int, lines: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
        """``begin``: the line on which the next row begins, which may have several."""
        end = begin  # the line that was read last

        def texts() -> Iterator[str]:
            nonlocal end
            for number, line in lines:
                if b"\0" in line:  # which csv reads or refuses as the version of Python has it
                    raise self._error(number, "it holds a NUL, which no table of text has")
                end = number
                yield line.decode("utf-8", errors="surrogateescape")

        heading: list[str] | None = None
        try:
            for cells in csv.reader(texts()):
                number, begin = begin, end + 1
                if heading is None:
                    heading = self._heading(number, cells)
                elif any(cells):
                    yield number, self._cells(number, heading, cells)
        except csv.Error as e:
            raise self._error(begin, f"not valid CSV ({e})") from None

    def _heading(self, number: int, cells: list[str]) -> list[str]:
        heading = [cell.strip() for cell in cells]
        if not set(heading) & set(RULES):
            names = ", ".join((*TEXT_FIELDS, "seed"))
            raise self._error(number, f"the heading {shortened(','.join(cells))} has none of the fields {names}")
        if twice := [name for i, name in enumerate(heading) if name in heading[:i]]:
            raise self._error(number, f"the heading has {shortened(twice[0])} twice")
        return heading

    def _cells(self, number: int, heading: list[str], cells: list[str]) -> dict[str, Any] | BadRow:
        if len(cells) != len(heading):
            return self._bad(number, f"it has {len(cells)} cells, and the heading has {len(heading)}")
        if any("\udc80" <= c <= "\udcff" for cell in cells for c in cell):
            return self._bad(number, "it is not UTF-8")
        return {name: _of_cell(name, cell) for name, cell in zip(heading, cells, strict=True) if cell}

    def _row(self, number: int, fields: dict[str, Any]) -> Row | BadRow:
        given = {name: value for name, value in fields.items() if value is not None}
        try:
            return Row(number, **self._checked(given))
        except RequestError as e:
            return self._bad(number, str(e), _id_of(given.get("id")))

    def _checked(self, given: dict[str, Any]) -> dict[str, Any]:
        """The fields of a row. RequestError names the field."""
        values: dict[str, Any] = {}
        for name, value in given.items():
            if name not in RULES:
                self._name_unknown(name)
                continue
            holds, words = RULES[name]
            if not holds(value):
                raise RequestError(f"{name} is {shortened(value)}, expected {words}")
            if isinstance(value, str):
                require_text(value, name)
            values[name] = value
        if "file" in values:
            if "audio" in values:
                raise RequestError("file and audio are the same field; give one of them")
            values["audio"] = values.pop("file")
        for name in FILES:
            if isinstance(value := values.get(name), str) and is_path(value):
                values[name] = str(self.path.parent / value)
        if "id" in values:
            values["id"] = str(values["id"])
        name = values["id"] if "id" in values else _name_of(given)
        sampling = {name: values.pop(name) for name in SAMPLING_RULES if name in values}
        return {**values, "name": name, "sampling": sampling}

    def _name_unknown(self, name: str) -> None:
        if name in OF_RESULTS or name in self._unknown or len(self._unknown) >= len(RULES):
            return
        self._unknown.add(name)
        where, known = shown_name(self.path), ", ".join(RULES)
        notify(f"{where}: there is no field {shortened(name)}, so it is ignored; there are {known}")

    def _error(self, number: int, reason: str) -> RequestError:
        return RequestError(f"{shown_name(self.path)}:{number}: {reason}")

    def _bad(self, number: int, reason: str, name: str | None = None) -> BadRow:
        return BadRow(number, name, self._error(number, reason))


def is_path(value: str) -> bool:
    """Whether the value of a field that names a file does so by its path: not by a URL, not as base64."""
    return not is_url(value) and not value.startswith("data:")


def _id_of(value: Any) -> str | None:
    """The id of a row that cannot be read, None where it has none that can be written."""
    if value is None or not ID[0](value):
        return None
    try:
        require_text(str(value), "id")
    except RequestError:
        return None
    return str(value)


def _name_of(given: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()[:16]


def _of_cell(name: str, cell: str) -> Any:
    """A cell as JSON would have it; one that is none of what the field takes stays text, which its rule refuses."""
    rule = RULES.get(name)
    if "_" in cell:  # trap: Python's numbers may have it
        return cell
    try:
        if rule is SWITCH:
            return SWITCHES.get(cell.strip().lower(), cell)
        if rule in (WHOLE, SEED):
            return int(cell)
        if rule is NUMBER:
            return float(cell)
    except ValueError:
        pass
    return cell
