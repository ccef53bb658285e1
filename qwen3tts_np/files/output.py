"""Atomic output of files and folders: complete under their names, or absent.

A regular file is written under a private name in the same folder and renamed when complete; a symbolic link is kept and
its target replaced; permissions and owner are preserved. A FIFO or a device is written to directly and stays in place.

The private name is ``.NAME.PID-RANDOM.partial``, and it is locked while it is written. So two programs never write the
same file at once, and the leftovers of a killed program are recognised and removed by the next one that writes the
same file.
"""

from __future__ import annotations

import atexit
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

from ..errors import OutputError, QwenTTSError
from ..shown import shortened
from .name import fault_of_name, shown_name

PathLike = str | os.PathLike[str]

LONGEST = 200  # bytes of the name kept in the private one, which the file system may limit to 255
PATIENCE = 6  # attempts at a file that another process is writing
PAUSE = 0.1  # seconds between two attempts, on average
YOUNG = 10  # seconds; an unlocked partial file of a running process may be about to be locked
LOCK = ".lock"  # in a folder that is not complete
SCRATCH = "qwen3tts-np"  # a name in the folder of temporary files, which nothing ever gets
PRIVATE = re.compile(r"\.(?P<name>.+)\.(?P<process>\d+)-[0-9a-f]{8}\.partial", re.DOTALL)


# --- writing --------------------------------------------------------------------------------------


@contextmanager
def output_file(path: PathLike, *, sole: bool = False) -> Iterator[BinaryIO]:
    """A binary file to write to, which becomes ``path`` if the block succeeds and is removed if it fails.

    Raises OutputError if the name, the permissions or the disk do not allow it, or another process is writing ``path``.
    In a folder of :func:`output_folder`, itself private, a file is written directly, and errors are the folder's.
    ``sole``: the caller keeps other writers away. They are not looked for, which takes longer the more the folder
    holds, and what a killed one has left is for :func:`remove_leftovers`.
    """
    if any(found["name"] != SCRATCH for parent in Path(path).parents if (found := PRIVATE.fullmatch(parent.name))):
        with open(path, "wb") as inside:
            yield inside
        return
    with in_one_sentence(path):
        _check_place(path)
        if is_special(path):
            with tempfile.TemporaryFile() as content:
                yield content
                content.seek(0)
                with open_node(path) as node:
                    shutil.copyfileobj(content, node)
            return
        target = Path(os.path.realpath(path))
        partial, file = _claim(path, target, new_file, sole)
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


@contextmanager
def open_node(path: PathLike) -> Iterator[BinaryIO]:
    """A FIFO or a device, open for writing as soon as there is a reader. Errors as in :func:`output_file`."""
    with in_one_sentence(path):
        _check_place(path)
        with open(path, "wb", opener=_without_making) as node:
            yield node


def write_bytes(path: PathLike, content: bytes) -> None:
    """Write a complete file; errors as in :func:`output_file`."""
    with output_file(path) as file:
        file.write(content)


def npy_of(array: NDArray[Any]) -> bytes:
    """``array`` as a .npy file. Trap: ``numpy.save`` bypasses Python's file object, which fails for a FIFO."""
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def write_text(path: PathLike, text: str, *, sole: bool = False) -> None:
    """Write a complete file as UTF-8; a lone surrogate is escaped."""
    with output_file(path, sole=sole) as file:
        file.write(text.encode("utf-8", errors="backslashreplace"))


def remove_file(path: PathLike) -> None:
    """Remove the file ``path``, if there is one; a FIFO or a device stays."""
    with in_one_sentence(path):
        if not is_special(path):
            Path(path).unlink(missing_ok=True)


def empty_file(path: PathLike) -> None:
    """What the file ``path`` says holds no more; it keeps its permissions, and a link stays. Errors as in output_file.

    The caller keeps other writers away.
    """
    if os.path.isfile(path):
        write_text(path, "", sole=True)


def remove_leftovers(folder: PathLike, is_ours: Callable[[str], bool]) -> None:
    """Remove what dead processes have left in ``folder`` of files for whose names ``is_ours``."""
    with in_one_sentence(folder), os.scandir(folder) as entries:
        matches = [(entry, match) for entry in entries if (match := PRIVATE.fullmatch(entry.name))]
    for entry, match in matches:
        partial, process = Path(entry.path), int(match["process"])
        if is_ours(match["name"]) and _is_ours(entry) and not _is_locked(partial, process):
            _drop_dead(partial, process)


@contextmanager
def output_folder(path: PathLike) -> Iterator[Path]:
    """A folder to fill, which becomes ``path`` if the block succeeds and is removed if it fails.

    Files in it may be written in any way. Raises OutputError if ``path`` exists and is not an empty folder, if the disk
    fails, or if another process is writing ``path``.
    """

    def take_place(partial: Path, target: Path) -> None:
        check_new_folder(path)  # another process may have filled it meanwhile
        if target.exists():
            system.keep_permissions(target, partial)
            target.rmdir()  # empty; Windows does not rename over it
        os.replace(partial, target)

    with in_one_sentence(path):
        check_new_folder(path)
        with _filled_folder(path, take_place) as partial:
            yield partial


@contextmanager
def replaced_folder(path: PathLike) -> Iterator[Path]:
    """As :func:`output_folder`; a folder that is at ``path`` already is replaced once the new one is complete.

    Trap: no system replaces a folder that is not empty in one step. Whoever is killed between the two renames leaves
    none under the name; a caller writes it again when it goes on.
    """
    with in_one_sentence(path):
        check_name(path)
        if (target := Path(os.path.realpath(path))).exists() and not target.is_dir():
            raise OutputError(f"{shown_name(path)} is not a directory")
        with _filled_folder(path, lambda partial, target: remove_folder(target, then=partial)) as partial:
            yield partial


@contextmanager
def _filled_folder(path: PathLike, take_place: Callable[[Path, Path], None]) -> Iterator[Path]:
    """A private folder to fill; ``take_place`` gives it the name ``path`` when it is complete and on the disk."""
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    partial, lock = _claim(path, target, _new_folder)
    try:
        yield partial
        _sync(partial)
        lock.close()
        (partial / LOCK).unlink()
        take_place(partial, target)
    finally:
        _drop(partial, lock)


def remove_folder(path: PathLike, *, then: Path | None = None) -> None:
    """Remove a folder, if there is one, which is complete under its name until it is gone. ``then`` gets the name."""
    with in_one_sentence(path):
        target, old = Path(path), private_name(Path(path))
        if target.is_dir():
            unfinished[old] = os.getpid()
            os.replace(target, old)
        if then is not None:
            os.replace(then, target)
        _drop(old)


@contextmanager
def held(path: PathLike) -> Iterator[None]:
    """Nobody else writes ``path`` within the block, where the caller does with ``sole``. Errors as in output_file."""
    with in_one_sentence(path):
        _check_place(path)
        partial, lock = _claim(path, Path(os.path.realpath(path)), new_file)
    try:
        yield
    finally:
        _drop(partial, lock)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder, removed afterwards; what killed processes have left of theirs is removed too.

    OutputError if there is no place for one.
    """
    try:
        partial = private_name(Path(tempfile.gettempdir(), SCRATCH))
        partial.mkdir(mode=0o700)
        unfinished[partial] = os.getpid()
        lock = (partial / LOCK).open("xb")
    except OSError as e:
        raise OutputError(f"no temporary folder can be made: {e.strerror or e}") from None
    try:
        with suppress(OSError):  # some file systems have no locks
            system.lock(lock)
        _other_holder(partial.with_name(SCRATCH), partial)  # those of running processes stay
        (partial / "files").mkdir()
        yield partial / "files"
    finally:
        _drop(partial, lock)


def _without_making(path: str, flags: int) -> int:
    """Open an existing node; do not create a file if it has just been removed."""
    return os.open(path, flags & ~(os.O_CREAT | os.O_TRUNC))


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("r+b") as file:
                os.fsync(file.fileno())


@contextmanager
def in_one_sentence(path: PathLike) -> Iterator[None]:
    """The system's error for ``path`` in one sentence. A closed pipe is left to the caller."""
    try:
        yield
    except (BrokenPipeError, QwenTTSError):  # trap: a missing input is an OSError too
        raise
    except OSError as e:
        raise _refused(path, e.strerror or str(e)) from None


def _refused(path: PathLike, reason: str) -> OutputError:
    return OutputError(f"{shown_name(path)} cannot be written: {reason}")


# --- checks before the work -----------------------------------------------------------------------


def check_writable(path: PathLike) -> None:
    """Raises OutputError unless a file can be written at ``path``, as far as that is known beforehand."""
    with in_one_sentence(path):
        _check_place(path)
        target = Path(os.path.realpath(path))
        if is_special(target):
            if not os.access(target, os.W_OK):
                raise _refused(path, "Permission denied")
            return
        if not target.parent.is_dir():
            raise _refused(path, f"{(target if os.path.islink(path) else Path(path)).parent} is no directory")
        if not os.access(target.parent, os.W_OK | os.X_OK):
            raise _refused(path, f"nothing can be written in {target.parent}")
        if holder := _other_holder(target):
            raise _busy(path, holder)


def check_new_folder(path: PathLike) -> None:
    """Raises OutputError unless ``path`` does not exist or is an empty folder."""
    with in_one_sentence(path):
        check_name(path)
        if not os.path.lexists(path):
            return
        if not os.path.isdir(path) or os.listdir(path):
            raise OutputError(f"{shown_name(path)} exists already and is not an empty directory")
        if os.path.samefile(path, os.curdir):
            raise OutputError(f"{shown_name(path)} is the current directory, which cannot be replaced; name a new one")


def is_special(path: PathLike) -> bool:
    """Whether ``path`` exists and is neither a file nor a folder: a FIFO, a device, a socket, or a link to one."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _check_place(path: PathLike) -> None:
    """Raises OutputError if the node at ``path``, or the name itself, forbids writing; OSError from the system."""
    check_name(path)
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


def check_name(path: PathLike) -> None:
    """Raises OutputError for a name that no file can have."""
    if fault := fault_of_name(path):
        raise OutputError(f"{shortened(os.fspath(path))} cannot be the name of a file: {fault}")


# --- one holder -----------------------------------------------------------------------------------


unfinished: dict[Path, int] = {}
"""Private files and folders, each with the process that writes it."""


@atexit.register
def drop_unfinished() -> None:
    """Remove what is left of this process: an interrupt may come between any two lines, also in a clean-up."""
    for partial, process in list(unfinished.items()):
        if process == os.getpid():  # otherwise this is a forked child
            _drop(partial)


def _claim(path: PathLike, target: Path, make: Callable[[Path], BinaryIO], sole: bool = False) -> tuple[Path, BinaryIO]:
    """A new private file or folder beside ``target``, created by ``make``, and the open file that locks it."""
    holder = 0
    for _ in range(PATIENCE):
        partial = private_name(target)
        unfinished[partial] = os.getpid()
        try:
            lock = make(partial)
        except OSError:  # also where something else has this name
            del unfinished[partial]
            raise
        with suppress(OSError):  # some network file systems have no locks
            system.lock(lock)
        holder = 0 if sole else _other_holder(target, partial)
        if not holder:
            return partial, lock
        _drop(partial, lock)
        time.sleep(random.uniform(0, 2 * PAUSE))  # so that two concurrent attempts diverge
    raise _busy(path, holder)


def new_file(partial: Path) -> BinaryIO:
    """Create and open a file. Trap: "wb" would follow a link planted there."""
    return partial.open("xb")


def _new_folder(partial: Path) -> BinaryIO:
    partial.mkdir()
    try:
        return (partial / LOCK).open("xb")
    except OSError:  # the umask may forbid it
        partial.rmdir()
        raise


def _other_holder(target: Path, own: Path | None = None) -> int:
    """The process that is writing ``target``, 0 if there is none. Leftovers of dead processes are removed."""
    found = 0
    for partial, process in _partials(target):
        if partial == own or not partial.exists():
            continue
        if _is_locked(partial, process):
            found = process
        else:
            _drop_dead(partial, process)
    return found


def _drop_dead(partial: Path, process: int) -> None:
    """Remove what is not locked, unless it may be about to be."""
    if not system.process_runs(process) or _age(partial) > YOUNG:
        _drop(partial)


def _age(partial: Path) -> float:
    """Seconds since it was written to; 0 if it has just got its final name."""
    try:
        return time.time() - partial.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _partials(target: Path) -> Iterator[tuple[Path, int]]:
    """Private files and folders of ``target`` that are our own, with the number of the process in their name."""
    name = short_name(target.name)
    with suppress(OSError), os.scandir(target.parent) as entries:
        for entry in entries:
            match = PRIVATE.fullmatch(entry.name)
            if match and match["name"] == name and _is_ours(entry):
                yield Path(entry.path), int(match["process"])


def _is_ours(entry: os.DirEntry[str]) -> bool:
    """Whether this user may have made it; False if it has gone. None of ours is a link."""
    try:
        return not entry.is_symlink() and system.may_own(entry.stat())
    except FileNotFoundError:
        return False


def _is_locked(partial: Path, process: int) -> bool:
    """Whether the process that created it is still writing."""
    try:
        with (partial / LOCK if partial.is_dir() else partial).open("r+b") as file:
            return not system.lock(file)
    except FileNotFoundError:
        return False
    except OSError:  # a file system without locks
        return system.process_runs(process)


def private_name(target: Path) -> Path:
    return target.with_name(f".{short_name(target.name)}.{os.getpid()}-{secrets.token_hex(4)}.partial")


def short_name(name: str) -> str:
    """``name``, or the start of a long one with a hash that makes it unique."""
    encoded = os.fsencode(name)
    if len(encoded) <= LONGEST:
        return name
    return os.fsdecode(encoded[: LONGEST - 16]) + hashlib.sha256(encoded).hexdigest()[:16]


def _drop(partial: Path, file: IO[bytes] | None = None) -> None:
    """Remove an incomplete output, if it still exists; if the disk refuses, it stays."""
    with suppress(OSError):
        if file is not None:
            file.close()  # may want to write what it holds
    with suppress(OSError):
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)
    unfinished.pop(partial, None)


def _busy(path: PathLike, process: int) -> OutputError:
    return OutputError(f"{shown_name(path)} is being written by process {process}; wait for it, or give another name")
