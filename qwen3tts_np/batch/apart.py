"""The speech of a manifest and what its rows read may be in one folder: the one is never written over the other."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import OutputError
from ..files.name import shown_name
from ..manifest import Manifest, Row, is_path
from ..shown import shortened
from .identity import Extent, Shard, folded, readable, survey
from .settings import Settings


def surveyed(manifest: Manifest, shard: Shard, out: Path, settings: Settings) -> Extent:
    """How much there is to do (``identity.survey``). OutputError where speech would overwrite what a row reads."""
    apart = Apart(out, settings)
    extent = survey(manifest, shard, apart.add)
    apart.check(manifest)
    return extent


class Apart:
    """Clips and voices that are read out of the folder of the speech: few, and mostly none.

    Show it every row with :meth:`add`, then ask with :meth:`check`.
    """

    def __init__(self, out: Path, settings: Settings) -> None:
        self._out, self._settings = os.path.realpath(out), settings
        self._real: dict[str, str] = {}  # of folders
        self._reader: dict[str, str] = {}  # name of a file in the folder -> who reads it
        for name in ("voice", "ref_audio"):
            self._note(getattr(settings, name), f"--{name.replace('_', '-')}")

    def add(self, row: Row) -> None:
        """Note what a row reads."""
        self._note(row.ref_audio, f"line {row.line}")
        self._note(row.voice, f"line {row.line}")

    def check(self, manifest: Manifest) -> None:
        """OutputError where the speech of a row would be written over something that is read."""
        for row in readable(manifest) if self._reader else ():
            file = self._settings.file_of(row)
            if (reader := self._reader.get(folded(file))) is not None:
                raise OutputError(
                    f"{shown_name(manifest.path)}:{row.line}: its speech, {shortened(file)}, would overwrite what "
                    f"{reader} reads; name another OUT"
                )

    def _note(self, path: str | None, reader: str) -> None:
        if path is None or not is_path(path):
            return
        folder, name = os.path.split(path)
        if folder not in self._real:
            self._real[folder] = os.path.realpath(folder)
        if self._real[folder] == self._out:
            self._reader.setdefault(folded(name), reader)
