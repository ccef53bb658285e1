"""Tables of a data set in Parquet, as the hub has them: a row a clip, its audio a file within the table.

    audio   struct {bytes, path}, or binary: the content of an audio file, decoded here as any other file is
    text    a string; also called sentence, transcription, transcript, normalized_text
    speaker, language, id   where there are such columns

Rows come in batches of some megabytes, and only the columns that are read, so memory does not grow with the table.
Needs pyarrow (extra ``train``).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import InputError, QwenTTSError, RequestError
from ...extras import imported, install
from ...files.input import open_input
from ...files.name import shown_name
from ...shown import shortened
from .source import Info, Utterance

# Fields, and the columns that are taken for them, the first that is there.
FIELDS: dict[str, tuple[str, ...]] = {
    "text": ("text", "sentence", "transcription", "transcript", "normalized_text", "text_normalized"),
    "audio": ("audio", "speech", "wav"),
    "speaker": ("speaker", "speaker_id", "client_id"),
    "language": ("language", "lang", "locale"),
    "id": ("id",),
}
DURATIONS = ("duration", "audio_duration", "length_seconds")  # s
ROWS = 16  # of a batch: a clip has about a megabyte
BUFFER = 1 << 20  # bytes; without it all of a column of a group of rows would be in memory
SUFFIX = ".parquet"


@dataclass(frozen=True)
class Table:
    """One file. ``fetch``: its path on this machine; ``open_footer``: the file, of which the footer will be read."""

    name: str
    fetch: Callable[[], Path]
    open_footer: Callable[[], AbstractContextManager[Any]]


class ParquetSource:
    """Some files, one after the other; the next is fetched when the one before has been read."""

    def __init__(self, name: str, tables: Sequence[Table], columns: Mapping[str, str]) -> None:
        pyarrow()
        self.name, self._tables, self._named = name, tables, columns

    @classmethod
    def of_folder(cls, folder: Path, split: str, columns: Mapping[str, str]) -> ParquetSource:
        """The Parquet files below a folder; where any is named after a split, those of ``split``."""
        found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob(f"*{SUFFIX}"))
        if not found:
            raise RequestError(f"{shown_name(folder)} is a folder without any {SUFFIX} file")
        chosen = of_split(found, split, shown_name(folder))

        def table(name: str) -> Table:
            path = folder / name
            return Table(name, lambda: path, partial(open_input, path))

        return cls(shown_name(folder), [table(name) for name in chosen], columns)

    def __iter__(self) -> Iterator[Utterance]:
        for table in self._tables:
            path = table.fetch()
            with _opened(table.name, partial(open_input, path)) as file:
                columns = self._columns(file.schema_arrow, table.name)
                number = 0
                for batch in _batches(file, list(dict.fromkeys(columns.values())), table.name):
                    for row in batch.to_pylist():
                        number += 1
                        yield _utterance(f"{table.name}:{number}", {f: row[c] for f, c in columns.items()})

    def info(self) -> Info:
        """From the footers of the files, and from a column of durations where there is one."""
        rows, seconds, columns = 0, 0.0, dict[str, None]()
        for table in self._tables:
            with _opened(table.name, table.open_footer) as file:
                rows += file.metadata.num_rows
                columns |= dict.fromkeys(f"{field.name} ({field.type})" for field in file.schema_arrow)
                seconds += _durations(file, table.name)
        return Info(rows, list(columns), seconds / 3600 if seconds else None)

    def _columns(self, schema: Any, where: str) -> dict[str, str]:
        """Field -> column. RequestError where there is no text or no audio."""
        found = {}
        for field, usual in FIELDS.items():
            names = (self._named[field],) if field in self._named else usual
            column = next((name for name in names if name in schema.names), None)
            if column is not None:
                _check_type(field, schema.field(schema.names.index(column)), where)
                found[field] = column
            elif field in self._named or field in ("text", "audio"):
                there = ", ".join(schema.names)
                raise RequestError(
                    f"{where} has no column {shortened(names[0])} for {field}; it has {there}: --column {field}=NAME"
                )
        return found


def _check_type(field: str, column: Any, where: str) -> None:
    """RequestError unless the type of a column can be that of a field."""
    types = imported("pyarrow.types", "a data set", install("train"))
    kind = column.type.value_type if types.is_dictionary(column.type) else column.type
    if field == "audio":
        names = [part.name for part in kind] if types.is_struct(kind) else []
        kind = kind.field("bytes").type if names.count("bytes") == 1 else kind
        fits, expected = _is_binary(types, kind), "the content of files, or a struct with their bytes"
    else:
        fits, expected = _is_text(types, kind), "text"
        if field != "text":
            fits, expected = fits or types.is_integer(kind), "text or whole numbers"
    if not fits:
        shown = shortened(str(column.type))
        raise RequestError(f"{where}: column {shortened(column.name)} for {field} is {shown}, expected {expected}")


def _is_binary(types: Any, kind: Any) -> bool:
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))


def _is_text(types: Any, kind: Any) -> bool:
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def pyarrow() -> Any:
    """pyarrow.parquet. RequestError with the command that installs it where it is missing."""
    return imported("pyarrow.parquet", "a data set", install("train"))


def of_split(paths: Sequence[str], split: str, name: str) -> list[str]:
    """The files of a split, if any file is named after one: ``train-00000-of-00002.parquet``, ``train/0000.parquet``.

    RequestError names the splits that there are.
    """
    splits = {path: _split_of(path) for path in paths}
    known = {found for found in splits.values() if found is not None}
    if not known:
        return list(paths)
    chosen = [path for path in paths if splits[path] == split]
    if not chosen:
        raise RequestError(f"{name} has no split {shortened(split)}; it has {', '.join(sorted(known))}")
    return chosen


SPLITS = ("train", "validation", "test", "dev", "valid", "eval", "other")


def _split_of(path: str) -> str | None:
    """The split that a file's name, or its folder, begins with: the first word that is one."""
    *folders, file = path.removesuffix(SUFFIX).split("/")
    stem = file.split("-")[0]
    for word in (stem, *reversed(folders)):
        if word.split(".")[0] in SPLITS or (word == stem and "-of-" in file):
            return word
    return None


def _utterance(where: str, row: Mapping[str, Any]) -> Utterance:
    fields, audio = {}, row["audio"]
    for name in ("id", "text", "language", "speaker"):
        if (value := row.get(name)) is not None and str(value).strip():
            fields[name] = str(value)
    content = audio.get("bytes") if isinstance(audio, dict) else audio
    if not isinstance(content, bytes) or not content:
        return Utterance(where, fields, fault=f"its audio is {shortened(audio)}, expected the content of a file")
    return Utterance(where, fields, content)


def _durations(file: Any, where: str) -> float:
    column = next((name for name in DURATIONS if name in file.schema_arrow.names), None)
    if column is None:
        return 0.0
    values = (value for batch in _batches(file, [column], where) for value in batch.column(0).to_pylist())
    return sum(value for value in values if isinstance(value, int | float) and 0 <= value < math.inf)


def _batches(file: Any, columns: list[str], where: str) -> Iterator[Any]:
    with _in_one_sentence(where):
        yield from file.iter_batches(batch_size=ROWS, columns=columns)


@contextmanager
def _opened(name: str, open_content: Callable[[], AbstractContextManager[Any]]) -> Iterator[Any]:
    with _in_one_sentence(name), open_content() as content:
        yield pyarrow().ParquetFile(content, buffer_size=BUFFER, pre_buffer=False)


@contextmanager
def _in_one_sentence(name: str) -> Iterator[None]:
    """Errors of pyarrow, of which all are ArrowException, ValueError or OSError."""
    arrow = imported("pyarrow", "a data set", install("train"))
    try:
        yield
    except QwenTTSError:
        raise
    except (arrow.ArrowException, OSError) as e:
        reason = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        raise InputError(os.fspath(name), f"it is no Parquet file that can be read ({reason.rstrip('.')})") from None
