"""Standard streams that may be closed, full, or without a reader: no traceback ends the work.

A closed one becomes the null device. Standard output that takes no more is an OutputError, for Python would raise an
OSError of no name, often long after the line that printed. What standard error does not take is lost, not the work.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from qwen3tts_np_kernels.system import reader_is_gone

from ..errors import InputError, OutputError

MODES = {"stdin": "r", "stdout": "w", "stderr": "w"}  # in the order of their numbers


@contextmanager
def standard_streams() -> Iterator[None]:
    """Within the block all three streams exist, and fail as described above."""
    for name, mode in MODES.items():
        if getattr(sys, name) is None:  # open() takes the first free number, its own: no file of ours gets it
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    before = sys.stdin, sys.stdout, sys.stderr
    sys.stdin = _over(sys.stdin, _Input)
    sys.stdout, sys.stderr = _over(sys.stdout, _Output), _over(sys.stderr, _Messages)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a checkpoint may hold names the terminal cannot show
    try:
        yield
    finally:
        with suppress(OSError, OutputError):  # the caller flushes whose failure matters
            sys.stdout.flush()
        sys.stderr.flush()
        sys.stdin, sys.stdout, sys.stderr = before


class _Input(io.FileIO):
    """Standard input, which may be open for writing only, or of a terminal that belongs to another job."""

    def readinto(self, buffer: Any, /) -> int | None:
        with _in_one_sentence():
            return super().readinto(buffer)

    def readall(self) -> bytes:
        with _in_one_sentence():
            return super().readall() or b""


@contextmanager
def _in_one_sentence() -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise InputError("standard input", e.strerror or str(e)) from e


class _Output(io.FileIO):
    """Standard output; after its first failure it accepts everything, so that the error is raised once."""

    failed = False

    def write(self, data: Any, /) -> int:
        if self.failed:
            return len(data)
        try:
            return super().write(data)
        except OSError as e:
            self.failed = True
            if reader_is_gone(e):
                raise
            raise OutputError(f"standard output cannot be written: {e.strerror}") from None


class _Messages(io.FileIO):
    """Standard error."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


def _over(stream: TextIO, kind: type[io.FileIO]) -> TextIO:
    """``stream`` with a raw file of another kind; what is not a file (a console of Windows, a test's) unchanged."""
    buffer = getattr(stream, "buffer", None)
    if not isinstance(stream, io.TextIOWrapper) or type(getattr(buffer, "raw", buffer)) is not io.FileIO:
        return stream
    if kind is _Input:
        return io.TextIOWrapper(io.BufferedReader(kind(stream.fileno(), closefd=False)), stream.encoding, stream.errors)
    stream.flush()
    at_once = stream.line_buffering or stream.write_through
    raw = io.BufferedWriter(kind(stream.fileno(), "w", closefd=False))
    return io.TextIOWrapper(raw, stream.encoding, stream.errors, line_buffering=at_once)
