"""Files that users name, read through one gate.

Whatever is at a name, reading ends: a regular file is read up to a limit; a pipe (``<(command)``, ``/dev/stdin``) is
read for as long as somebody writes to it; folders, devices and sockets are refused by name. Every error is an
:class:`InputError`, one sentence with the name and the reason, whose cause is the system's own error.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from qwen3tts_np_kernels import system

from ..errors import InputError, MissingInputError
from .name import fault_of_name, shown_name

PathLike = str | os.PathLike[str]

PATIENCE = 10  # seconds for the next bytes of a pipe
BLOCK = 1 << 20  # bytes
MOST = 2 << 30  # bytes that are read into memory
SPECIAL = ((stat.S_ISDIR, "a directory"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"))


def read_bytes(path: PathLike, most: int = MOST) -> bytes:
    """The content of the file or pipe ``path``. Raises InputError if unreadable or longer than ``most`` bytes."""
    with _opened(path) as (file, mode), _in_one_sentence(path):
        size = os.fstat(file.fileno()).st_size if stat.S_ISREG(mode) else 0
        if size > most:
            raise _too_long(path, most)
        content = file.read() if stat.S_ISREG(mode) else _read_pipe(file, path, most)
        if content is None:  # of the system's own files, some have nothing to say yet
            raise InputError(shown_name(path), "there is nothing to read in it now")
    if len(content) > most:
        raise _too_long(path, most)
    return content


def read_text(path: PathLike, most: int = MOST) -> str:
    """The same as text in UTF-8, with line ends as they are. InputError names the first byte that is not UTF-8.

    A byte order mark at its beginning, which editors of Windows write, is no part of it.
    """
    content = read_bytes(path, most)
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as e:
        raise InputError(shown_name(path), f"byte {e.start} is not UTF-8") from e


@contextmanager
def open_input(path: PathLike) -> Iterator[BinaryIO]:
    """The regular file ``path``, to be mapped or read in parts. InputError for anything else."""
    with _opened(path) as (file, mode):
        if not stat.S_ISREG(mode):
            raise InputError(shown_name(path), "it is a pipe, and this has to be a file")
        with _in_one_sentence(path):
            yield file


@contextmanager
def _opened(path: PathLike) -> Iterator[tuple[BinaryIO, int]]:
    """The open file or pipe, and its mode. Opening a FIFO in the usual way waits for a writer."""
    if fault := fault_of_name(path):
        raise InputError(shown_name(path), fault)
    with _in_one_sentence(path):
        _refuse_special(path, os.stat(path).st_mode)  # before it is opened: opening a device may do something
        file = system.open_without_waiting(path)
    with file:
        mode = os.fstat(file.fileno()).st_mode
        _refuse_special(path, mode)
        yield file, mode


def _refuse_special(path: PathLike, mode: int) -> None:
    for is_kind, kind in SPECIAL:
        if is_kind(mode):
            raise InputError(shown_name(path), f"it is {kind}; give the name of a file")
    if not stat.S_ISREG(mode) and not stat.S_ISFIFO(mode):
        raise InputError(shown_name(path), "it is not a file")


def _read_pipe(file: BinaryIO, path: PathLike, most: int) -> bytes:
    """A pipe to its end."""
    content = bytearray()
    while len(content) <= most:
        if not system.wait_to_read(file, PATIENCE):
            raise InputError(shown_name(path), f"nobody has written to it for {PATIENCE} s")
        block = os.read(file.fileno(), BLOCK)
        if not block:
            break
        content += block
    return bytes(content)


@contextmanager
def _in_one_sentence(path: PathLike) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        reason = "its name is too long" if e.errno == errno.ENAMETOOLONG else e.strerror or str(e)
        kind = MissingInputError if isinstance(e, FileNotFoundError) else InputError
        raise kind(shown_name(path), reason) from e


def _too_long(path: PathLike, most: int) -> InputError:
    return InputError(shown_name(path), f"it has more than {most} bytes")
