"""The folder that a manifest is spoken into.

    OUT/ID.wav               the speech of a row
    OUT/results/ID.json      its line of results.jsonl, written when the speech is there, emptied before it is replaced
    OUT/results.jsonl        the lines of all rows, in the manifest's order, once every shard has been closed; that of
                             an earlier run is empty until then
    OUT/shard-2-of-5.done    closes a shard: a JSON object of what was done

A row is finished if its line says that it was made of what it would be made of now. So an interruption at any moment
costs the rows that were being spoken, and a change costs the rows that it changes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..checkpoint.json_file import read_json
from ..errors import OutputError, QwenTTSError
from ..files.apart import check_outputs
from ..files.name import shown_name
from ..files.output import check_name, empty_file, output_file, remove_file, remove_leftovers, write_text
from ..manifest import BadRow, Manifest, Row
from .identity import Shard

LINES, RESULTS = "results", "results.jsonl"


class Folder:
    """OUT."""

    def __init__(self, path: Path) -> None:
        self.path: Path = path

    def check(self, manifest: Manifest) -> None:
        """OutputError where there cannot be such a folder, or it would overwrite the manifest, before the work."""
        check_name(self.path)
        if os.path.lexists(self.path) and not os.path.isdir(self.path):
            raise OutputError(f"{shown_name(self.path)} is not a directory")
        if self.path.is_dir():
            check_outputs({RESULTS: self.path / RESULTS}, {"MANIFEST": manifest.path})

    def make(self) -> None:
        """Make the folder where it is not there. OutputError where it cannot be."""
        try:
            (self.path / LINES).mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise OutputError(f"{shown_name(self.path)} cannot be made: {e.strerror}") from None

    @contextmanager
    def held(self, shard: Shard) -> Iterator[dict[str, Any]]:
        """Speak a shard here, alone: yields the object of its done-file, to be filled; that is written at the end.

        OutputError where the folder cannot be written, or another process speaks the shard.
        """
        self.make()
        done = self._done(shard)
        with output_file(done) as file:
            remove_file(done)
            empty_file(self.path / RESULTS)
            for folder in (self.path, self.path / LINES):
                remove_leftovers(folder, lambda name: shard.has_name(name.rpartition(".")[0]))
            report: dict[str, Any] = {}
            yield report
            file.write(f"{json.dumps(report)}\n".encode())

    def is_closed(self, count: int) -> bool:
        """Whether all of ``count`` shards are."""
        return all(self._done(Shard(number, count)).exists() for number in range(1, count + 1))

    def line_of(self, row: Row) -> dict[str, Any] | None:
        """The row's line, if its speech is there and the line can be read."""
        try:
            line = read_json(self._line(row.name))
        except QwenTTSError:
            return None
        file = line.get("file")
        return line if isinstance(file, str) and (self.path / file).is_file() else None

    def begin(self, row: Row) -> None:
        """The row's speech is about to be replaced."""
        empty_file(self._line(row.name))

    def end(self, line: dict[str, Any]) -> None:
        """Keep the line of a row: its speech is there, or will not be."""
        write_text(self._line(line["id"]), f"{json.dumps(line, ensure_ascii=False)}\n", sole=True)

    def write_results(self, manifest: Manifest) -> None:
        """Write results.jsonl: the line of each row as it was last spoken."""
        with output_file(self.path / RESULTS) as file:
            for row in manifest:
                file.write(f"{json.dumps(self._last_line(row), ensure_ascii=False)}\n".encode())

    def relative(self, file: str) -> str:
        """A file as a line of results.jsonl names it: relative to the folder."""
        try:
            return Path(os.path.relpath(file, self.path)).as_posix()
        except ValueError:  # on another drive
            return os.path.abspath(file)

    def _last_line(self, row: Row | BadRow) -> dict[str, Any]:
        if isinstance(row, BadRow):
            return failure(row.id, str(row.error))
        try:
            return read_json(self._line(row.name))
        except QwenTTSError:
            return failure(row.name, "it has not been spoken")

    def _line(self, name: str) -> Path:
        return self.path / LINES / f"{name}.json"

    def _done(self, shard: Shard) -> Path:
        return self.path / f"shard-{shard}.done"


def failure(name: str | None, error: str) -> dict[str, Any]:
    """The line of a row without speech."""
    return {"id": name, "error": error}
