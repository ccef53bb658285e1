"""Files and folders that this package writes: complete under their names, or not there.

A regular file grows under a private name beside its place and is renamed when it is complete; a symbolic link stays and
the file behind it is replaced; permissions and owner stay as they were. A FIFO or a device gets the bytes as a pipe
does, and is there afterwards as before.

The private name is ``.NAME.PID-RANDOM.partial``, and it is locked while it is written. So two programs do not write one
file at once, and what a killed program has left is recognised and removed by the next that writes the same file.
"""

from __future__ import annotations

import hashlib
import io
import os
import random
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from qwen3tts_np_kernels import system

from ..errors import OutputError
from ..shown import shortened
from .name import fault_of_name

PathLike = str | os.PathLike[str]

LONGEST = 200  # bytes of a name that are part of the private one, which the file system may limit to 255
PATIENCE = 6  # attempts at a file that somebody else is writing
PAUSE = 0.1  # seconds between two, on the average
YOUNG = 10  # seconds; an unlocked partial file of a running process may be one that it is just about to lock
LOCK = ".lock"  # in a folder that is not complete
PRIVATE = re.compile(r"\.(?P<name>.+)\.(?P<process>\d+)-[0-9a-f]{8}\.partial", re.DOTALL)


# --- writing --------------------------------------------------------------------------------------


@contextmanager
def output_file(path: PathLike) -> Iterator[BinaryIO]:
    """A binary file to write to, which becomes ``path`` when the block ends well and vanishes when it does not.

    OutputError if the name, the permissions or the disk do not allow it, or another process is writing ``path``. In a
    folder of :func:`output_folder`, which is private itself, a file is written as it is, and errors are the folder's.
    """
    if any(PRIVATE.fullmatch(parent.name) for parent in Path(path).parents):
        with open(path, "wb") as inside:
            yield inside
        return
    with _in_one_sentence(path):
        _check_place(path)
        if is_special(path):
            with tempfile.TemporaryFile() as content:
                yield content
                content.seek(0)
                with open(path, "wb", opener=_without_making) as node:
                    shutil.copyfileobj(content, node)
            return
        target = Path(os.path.realpath(path))
        partial, file = _claim(path, target, _new_file)
        try:
            with suppress(FileNotFoundError):
                system.keep_permissions(target, partial)  # before there is anything to read
            yield file
            file.flush()
            os.fsync(file.fileno())
            if not system.RENAMES_OPEN_FILES:
                file.close()
            os.replace(partial, target)
        finally:
            _drop(partial, file)


def write_bytes(path: PathLike, content: bytes) -> None:
    """Write a whole file; errors as in :func:`output_file`."""
    with output_file(path) as file:
        file.write(content)


def npy_of(array: NDArray[Any]) -> bytes:
    """``array`` as a .npy file. Trap: ``numpy.save`` writes past Python's file object, which no FIFO takes."""
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def write_text(path: PathLike, text: str) -> None:
    """Write a whole file as UTF-8; what that cannot hold (half a surrogate pair) is escaped."""
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


@contextmanager
def output_folder(path: PathLike) -> Iterator[Path]:
    """A folder to fill in, which becomes ``path`` when the block ends well and vanishes when it does not.

    Files in it may be written in any way. OutputError if ``path`` is there and not an empty folder, if the disk
    refuses, or if another process is writing ``path``.
    """
    with _in_one_sentence(path):
        check_new_folder(path)
        target = Path(os.path.realpath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        partial, lock = _claim(path, target, _new_folder)
        try:
            yield partial
            _sync(partial)
            lock.close()
            (partial / LOCK).unlink()
            if target.exists():
                system.keep_permissions(target, partial)
                target.rmdir()  # empty; Windows does not rename over it
            os.replace(partial, target)
        finally:
            _drop(partial, lock)


def _without_making(path: str, flags: int) -> int:
    """Open what is there, and make no file where a node has just gone."""
    return os.open(path, flags & ~(os.O_CREAT | os.O_TRUNC))


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("r+b") as file:
                os.fsync(file.fileno())


@contextmanager
def _in_one_sentence(path: PathLike) -> Iterator[None]:
    """What the system says of ``path``. A reader that has gone is the caller's to judge."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as e:
        raise _refused(path, e.strerror or str(e)) from None


def _refused(path: PathLike, reason: str) -> OutputError:
    return OutputError(f"{os.fspath(path)} cannot be written: {reason}")


# --- checks before the work -----------------------------------------------------------------------


def check_writable(path: PathLike) -> None:
    """OutputError unless a file can be written at ``path``, as far as that can be known beforehand."""
    with _in_one_sentence(path):
        _check_place(path)
        target = Path(os.path.realpath(path))
        if is_special(target):
            if not os.access(target, os.W_OK):
                raise _refused(path, "Permission denied")
            return
        if not target.parent.is_dir():
            raise _refused(path, f"{Path(path).parent} is no directory")
        if not os.access(target.parent, os.W_OK | os.X_OK):
            raise _refused(path, f"nothing can be written in {target.parent}")
        if holder := _other_holder(target):
            raise _busy(path, holder)


def check_new_folder(path: PathLike) -> None:
    """OutputError unless ``path`` may become a folder of ours: it is not there, or an empty folder."""
    with _in_one_sentence(path):
        _check_name(path)
        if os.path.lexists(path) and (not os.path.isdir(path) or any(os.scandir(path))):
            raise OutputError(f"{os.fspath(path)} exists already and is not an empty directory")


def is_special(path: PathLike) -> bool:
    """Whether ``path`` is there and is neither a file nor a folder: a FIFO, a device or a socket, or a link to one."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _check_place(path: PathLike) -> None:
    """OutputError if what is at ``path``, or the name itself, forbids writing. OSError as the system has it."""
    _check_name(path)
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(found.st_mode):
        raise _refused(path, "it is a directory; give the name of a file")
    if stat.S_ISSOCK(found.st_mode):
        raise _refused(path, "it is a socket")
    if stat.S_ISREG(found.st_mode):
        if not found.st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH):
            raise _refused(path, "it is write-protected")
        if not system.may_own(found):
            raise _refused(path, "it belongs to another user")


def _check_name(path: PathLike) -> None:
    if fault := fault_of_name(path):
        raise OutputError(f"{shortened(os.fspath(path))} cannot be the name of a file: {fault}")


# --- one holder -----------------------------------------------------------------------------------


def _claim(path: PathLike, target: Path, make: Callable[[Path], BinaryIO]) -> tuple[Path, BinaryIO]:
    """A new private file or folder beside ``target``, which ``make`` makes, and the open file that locks it."""
    holder = 0
    for _ in range(PATIENCE):
        partial = _private_name(target)
        lock = make(partial)
        with suppress(OSError):  # some network file systems have no locks
            system.lock(lock)
        holder = _other_holder(target, partial)
        if not holder:
            return partial, lock
        _drop(partial, lock)
        time.sleep(random.uniform(0, 2 * PAUSE))  # two that began together do not meet again
    raise _busy(path, holder)


def _new_file(partial: Path) -> BinaryIO:
    """Trap: "wb" would follow a link that somebody has planted there."""
    return partial.open("xb")


def _new_folder(partial: Path) -> BinaryIO:
    partial.mkdir()
    return (partial / LOCK).open("xb")


def _other_holder(target: Path, own: Path | None = None) -> int:
    """The process that is writing ``target``, 0 if there is none. What dead ones have left is removed."""
    found = 0
    for partial, process in _partials(target):
        if partial == own or not partial.exists():
            continue
        if _is_locked(partial, process):
            found = process
        elif not system.process_runs(process) or time.time() - os.stat(partial).st_mtime > YOUNG:
            _drop(partial)
    return found


def _partials(target: Path) -> Iterator[tuple[Path, int]]:
    """Private files and folders of ``target`` that are our own, with the number of the process in their name."""
    name = _short(target.name)
    with suppress(OSError), os.scandir(target.parent) as entries:
        for entry in entries:
            match = PRIVATE.fullmatch(entry.name)
            if match and match["name"] == name and not entry.is_symlink() and system.may_own(entry.stat()):
                yield Path(entry.path), int(match["process"])


def _is_locked(partial: Path, process: int) -> bool:
    """Whether the process that made it is still at work."""
    try:
        with (partial / LOCK if partial.is_dir() else partial).open("r+b") as file:
            return not system.lock(file)
    except FileNotFoundError:
        return False
    except OSError:  # a file system without locks
        return system.process_runs(process)


def _private_name(target: Path) -> Path:
    return target.with_name(f".{_short(target.name)}.{os.getpid()}-{secrets.token_hex(4)}.partial")


def _short(name: str) -> str:
    """``name``, or the beginning of a long one and a hash that tells it from others."""
    encoded = os.fsencode(name)
    if len(encoded) <= LONGEST:
        return name
    return os.fsdecode(encoded[: LONGEST - 16]) + hashlib.sha256(encoded).hexdigest()[:16]


def _drop(partial: Path, file: IO[bytes] | None = None) -> None:
    """Remove what is not complete, if it is still there; on a disk that refuses even that, it stays."""
    with suppress(OSError):
        if file is not None:
            file.close()  # may want to write what it holds
    with suppress(OSError):
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)


def _busy(path: PathLike, process: int) -> OutputError:
    return OutputError(f"{os.fspath(path)} is being written by process {process}; wait for it, or give another name")
