"""On-disk cache of compiled kernels: one file per function and argument types, verified before it is used.

A file is a SHA-256 followed by the bytes it covers: an object file of machine code, and what it is of. It is written
under a temporary name and renamed, so concurrent processes never read a partial file; a file whose digest differs is
not passed to LLVM: the kernel is compiled and written again. The folder is named by a digest of the kernel sources and
of the versions that compile them. So machine code of other sources is never loaded, which Numba would reuse if only an
imported file has changed.

The folder is in the first usable of these locations: ``NUMBA_CACHE_DIR``; ``__pycache__`` beside the sources; the
user's cache folder. Without any, kernels are compiled in memory.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import stat
import struct
import sys
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import CodeType
from typing import Any

import llvmlite
import numpy as np
from llvmlite import binding

from . import system
from .arguments import Kind
from .machine_code import Code, target

_DIGEST = hashlib.sha256().digest_size
_LENGTHS = struct.Struct("<4Q")
KEPT = 4  # folders of other sources or versions that are kept beside the one in use
_HERE = Path(__file__).parent
_SCALARS = (int, float, str, np.generic)


def code_of(function: Callable[..., Any], kinds: tuple[Kind, ...], make: Callable[[str], Code]) -> Code:
    """The machine code of ``function`` for these kinds of arguments: from disk, or made, and stored where possible.

    ``make``: compiles it under a name.
    """
    sources = sources_of(Path(function.__code__.co_filename))
    key = _key(function, kinds)
    entry = f"{function.__module__.rpartition('.')[2]}.{function.__name__}-{hashlib.sha256(key).hexdigest()[:20]}"
    where = folder(sources)
    if where is None:
        return make(entry)
    path = where / f"{entry}.bin"
    code = _read(path, key)
    if code is None:
        code = make(entry)
        try:
            write(path, sealed(key, code))
        except OSError as e:
            _say_once("cannot keep", f"compiled kernels cannot be kept in {where}: {e.strerror}; {_CONSEQUENCE}")
    return code


def _key(function: Callable[..., Any], kinds: tuple[Kind, ...]) -> bytes:
    """All that code depends on beside the sources: the CPU, the kinds, and constants of other packages."""
    name = f"{function.__module__}.{function.__qualname__}"
    return repr((name, constants(function), tuple(map(str, kinds)), tuple(target()))).encode()


def sealed(key: bytes, code: Code) -> bytes:
    """The content of a file: a digest of the rest; lengths; key, names and object."""
    parts = (key, code.entry.encode(), " ".join(code.needs).encode(), code.object)
    content = b"".join((_LENGTHS.pack(*map(len, parts)), *parts))
    return hashlib.sha256(content).digest() + content


def _read(path: Path, key: bytes) -> Code | None:
    """The code in a file; None if there is none, if it is of something else, or damaged (reported once)."""
    content = checked(path)
    if content is None:
        return None
    parts, at = [], _LENGTHS.size
    for length in _LENGTHS.unpack_from(content):
        parts.append(content[at : at + length])
        at += length
    stored, entry, needs, code = parts
    return Code(entry.decode(), tuple(needs.decode().split()), code) if stored == key else None


_CONSEQUENCE = (
    "they are compiled in memory, which takes half a minute in every process; set NUMBA_CACHE_DIR to a folder that can "
    "be written to"
)


def checked(path: Path) -> bytes | None:
    """The content of a file; None if it does not exist, or is not what was written (reported once)."""
    try:
        with system.open_without_waiting(path) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # what is written next takes its place
                return None
            content = file.read()
    except OSError:
        return None
    if hashlib.sha256(content[_DIGEST:]).digest() == content[:_DIGEST]:
        return content[_DIGEST:]
    _say_once("damaged", f"{path} is damaged: the kernels of such files are compiled anew")
    return None


def write(path: Path, content: bytes) -> None:
    """Write a complete file or nothing. Raises OSError where that is not possible."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with new.open("xb") as file:
            file.write(content)
        new.replace(path)
    except BaseException:
        with suppress(OSError):
            new.unlink()
        raise


@functools.cache
def sources_of(file: Path) -> tuple[Path, ...]:
    """Folders and files whose functions a kernel in ``file`` can contain: this package and the subpackage of the file.

    For ``package/subpackage/module.py`` that is all of ``package/subpackage``; for a top-level module, its file.
    """
    room = file
    while (room.parent / "__init__.py").exists() and (room.parent.parent / "__init__.py").exists():
        room = room.parent
    return (_HERE,) if _HERE in file.parents else (_HERE, room)


@functools.cache
def constants(function: Callable[..., Any]) -> tuple[str, ...]:
    """Global constants compiled into ``function`` or into functions it calls: "name=value", sorted.

    They may be imported from anywhere, so the digest of the sources does not cover them.
    """
    found, seen, ahead = set(), {function}, [function]
    while ahead:
        inside = ahead.pop()
        names = set(_names(inside.__code__))
        used = [(name, value) for name, value in inside.__globals__.items() if name in names]
        used += [("", cell.cell_contents) for cell in inside.__closure__ or ()]
        for name, value in used:
            called = getattr(value, "py_func", None)
            if called is not None and called not in seen:
                seen.add(called)
                ahead.append(called)
            elif all(isinstance(part, _SCALARS) for part in (value if isinstance(value, tuple) else (value,))):
                found.add(f"{name}={value!r}")
    return tuple(sorted(found))


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _names(inner)


def numba_version() -> str:
    """The file that states it: importing Numba takes long."""
    found = find_spec("numba")
    if found is None or found.origin is None:
        return ""
    return Path(found.origin).with_name("_version.py").read_text(encoding="utf-8")


@functools.cache
def stamp(sources: tuple[Path, ...]) -> str:
    """A digest of the sources and of the versions of everything that compiles them."""
    digest = hashlib.sha256()
    versions = numba_version(), llvmlite.__version__, binding.llvm_version_info, sys.version, sys.platform
    digest.update(repr(versions).encode())
    for source in sources:
        for file in [source] if source.is_file() else sorted(source.rglob("*.py")):
            digest.update(str(file.relative_to(source.parent)).encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:20]


@functools.cache
def folder(sources: tuple[Path, ...]) -> Path | None:
    """The cache folder of these sources; None (reported once) where no location is usable."""
    name = f"kernels-{stamp(sources)}"
    for place in places():
        found = place / name
        try:
            if found.is_dir():  # perhaps filled by another user and read-only to us: good enough for reading
                return found
            found.mkdir(parents=True)
            tempfile.TemporaryFile(dir=found).close()
        except OSError:
            continue
        _remove_old(place, found)
        return found
    _say_once("no place", f"there is no place to keep compiled kernels: {_CONSEQUENCE}")
    return None


def places() -> Iterator[Path]:
    if named := os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(named)
    yield _HERE / "__pycache__"
    base = os.environ.get("LOCALAPPDATA") or os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if os.path.isabs(base):  # otherwise there is no home directory
        yield Path(base) / "qwen3tts_np"


def _remove_old(place: Path, new: Path) -> None:
    """Remove all but the latest of the folders beside a new one."""
    with suppress(OSError):
        others = [other for other in place.glob("kernels-*") if other != new and other.is_dir()]
        for old in sorted(others, key=lambda other: other.stat().st_mtime, reverse=True)[KEPT:]:
            shutil.rmtree(old, ignore_errors=True)


said: set[str] = set()


def _say_once(subject: str, sentence: str) -> None:
    if subject not in said:
        said.add(subject)
        warnings.warn(sentence, stacklevel=2)
