"""A journal: lines of JSON at the end of a file, each there before the next one is made.

A killed process leaves whole lines, and at most one that is not: that one is dropped when the journal is opened again.
So work that takes hours resumes where it was. What is read back is found by its key.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from qwen3tts_np_kernels import system

from ..errors import OutputError
from .name import shown_name
from .output import check_writable, in_one_sentence, is_special

KEY = "key"
MARK = b'{"key": "qwen3tts-np journal 1"}\n'  # the first line


class Journal:
    """The entries of one journal. Open one with :func:`open_journal`."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, file
        self._at: dict[str, int] = {}  # key -> where its line begins
        self._end = self._begin()  # of the last whole line
        for line in file:
            key = _key_of(line)
            if key is None:  # of a killed process, or of a disk that failed: what follows is made again
                break
            self._at[key] = self._end
            self._end += len(line)
        file.truncate(self._end)

    def _begin(self) -> int:
        """The length of the mark, which is written where there is none. OutputError for a file of somebody else."""
        found = self._file.read(len(MARK))
        if not MARK.startswith(found):
            raise OutputError(f"{shown_name(self._path)} exists and is no journal of this program; name another output")
        if found != MARK:
            self._file.seek(0)
            self._file.write(MARK)
        return len(MARK)

    def __len__(self) -> int:
        return len(self._at)

    def __contains__(self, key: str) -> bool:
        return key in self._at

    def __getitem__(self, key: str) -> dict[str, Any]:
        self._file.seek(self._at[key])
        return json.loads(self._file.readline())

    def add(self, key: str, entry: dict[str, Any]) -> None:
        """Write an entry. OutputError where the disk refuses."""
        line = f"{json.dumps({KEY: key, **entry})}\n".encode()
        with in_one_sentence(self._path):
            self._file.seek(self._end)
            self._file.write(line)
            self._file.flush()
        self._at[key] = self._end
        self._end += len(line)


@contextmanager
def open_journal(path: Path) -> Iterator[Journal]:
    """The journal ``path``, made where there is none, for this process alone.

    One that holds nothing when an error ends the work goes again.
    OutputError where it cannot be written, is no file, or another process has it open.
    """
    check_writable(path)
    if is_special(path):
        raise OutputError(f"{shown_name(path)} is a pipe or a device, and a journal has to be a file")
    with in_one_sentence(path):
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666), "r+b")
    try:
        if not _locked(file):
            raise OutputError(f"{shown_name(path)} is being written by another process; wait for it")
        with in_one_sentence(path):
            journal = Journal(path, file)
        try:
            yield journal
        except BaseException:
            if not len(journal):
                with suppress(OSError):  # where an open file cannot go
                    path.unlink()
            raise
        with in_one_sentence(path):
            file.flush()
            os.fsync(file.fileno())
    finally:
        with suppress(OSError):  # what could not be written before
            file.close()


def _locked(file: BinaryIO) -> bool:
    try:
        return system.lock(file)
    except OSError:  # some network file systems have no locks
        return True


def _key_of(line: bytes) -> str | None:
    """The key of a line; None for a line that is not whole."""
    if not line.endswith(b"\n"):
        return None
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    key = entry.get(KEY) if isinstance(entry, dict) else None
    return key if isinstance(key, str) else None
