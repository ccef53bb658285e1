"""On-disk cache of compiled kernels: one file per function and argument types, verified before it is used.

A file is a SHA-256 followed by the bytes it covers. It is written under a temporary name and renamed, so concurrent
processes never read a partial file; a file whose digest differs is neither unpickled nor passed to LLVM: the kernel is
compiled and written again. The folder is named by a digest of the kernel sources and of the versions that compile
them. So machine code of other sources is never loaded, which Numba would reuse if only an imported file has changed.

The folder is in the first usable of these locations: ``NUMBA_CACHE_DIR``; ``__pycache__`` beside the sources; the
user's cache folder. Without any, kernels are compiled in memory.
"""

from __future__ import annotations

import functools
import hashlib
import os
import pickle
import shutil
import sys
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import CodeType
from typing import Any

import llvmlite
import numba
import numpy as np
from llvmlite import binding
from numba import config
from numba.core.caching import FunctionCache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

_DIGEST = hashlib.sha256().digest_size
_KEPT = 4  # folders of other sources or versions that are kept beside the one in use
_HERE = Path(__file__).parent
_SCALARS = (int, float, str, np.generic)


class KernelCache(FunctionCache):  # type: ignore[misc]  # Numba is not typed
    """The cache of one function, replacing Numba's own; ``kind`` distinguishes two kernels compiled from it."""

    def __init__(self, function: Callable[..., Any], kind: str = "kernel") -> None:
        self._py_func = function
        self._name = f"{kind}-{function.__module__.rpartition('.')[2]}.{function.__name__}"
        self._sources = sources_of(Path(function.__code__.co_filename))
        self.enable()

    @property
    def cache_path(self) -> str | None:
        found = folder(self._sources)
        return None if found is None else str(found)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The compiled function for these types, or None."""
        target_context.refresh()
        where = folder(self._sources)
        if where is None or not self._enabled:
            return None
        key = self._key(sig, target_context.codegen())
        content = _checked(where / self._file(key))
        if content is None:
            return None
        stored, payload = pickle.loads(content)
        return CompileResult._rebuild(target_context, *payload) if stored == key else None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Store a compiled function, if a cache folder is usable."""
        where = folder(self._sources)
        if where is None or not self._enabled or data.library.has_dynamic_globals:
            return
        key = self._key(sig, data.codegen)
        content = dumps((key, data._reduce()))
        try:
            _write(where / self._file(key), hashlib.sha256(content).digest() + content)
        except OSError as e:
            _say_once("cannot keep", f"compiled kernels cannot be kept in {where}: {e.strerror}; {_CONSEQUENCE}")

    def _key(self, sig: Any, codegen: Any) -> Any:
        """The types, the CPU and the function: for closures with their free variables; constants of other packages."""
        return self._py_func.__qualname__, constants(self._py_func), *self._index_key(sig, codegen)

    def _file(self, key: Any) -> str:
        return f"{self._name}-{hashlib.sha256(str(key).encode()).hexdigest()[:20]}.bin"


_CONSEQUENCE = (
    "they are compiled in memory, which takes half a minute in every process; set NUMBA_CACHE_DIR to a folder that can "
    "be written to"
)


def _checked(path: Path) -> bytes | None:
    """The content of a file; None if it does not exist, or is not what was written (reported once)."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    if hashlib.sha256(content[_DIGEST:]).digest() == content[:_DIGEST]:
        return content[_DIGEST:]
    _say_once("damaged", f"{path} is damaged: the kernels of such files are compiled anew")
    return None


def _write(path: Path, content: bytes) -> None:
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


@functools.cache
def stamp(sources: tuple[Path, ...]) -> str:
    """A digest of the sources and of the versions of everything that compiles them."""
    digest = hashlib.sha256()
    versions = numba.__version__, llvmlite.__version__, binding.llvm_version_info, sys.version, sys.platform
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
    for place in _places():
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


def _places() -> Iterator[Path]:
    if config.CACHE_DIR:
        yield Path(config.CACHE_DIR)
    yield _HERE / "__pycache__"
    base = os.environ.get("LOCALAPPDATA") or os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if os.path.isabs(base):  # otherwise there is no home directory
        yield Path(base) / "qwen3tts_np"


def _remove_old(place: Path, new: Path) -> None:
    """Remove all but the latest of the folders beside a new one."""
    with suppress(OSError):
        others = [other for other in place.glob("kernels-*") if other != new and other.is_dir()]
        for old in sorted(others, key=lambda other: other.stat().st_mtime, reverse=True)[_KEPT:]:
            shutil.rmtree(old, ignore_errors=True)


_said: set[str] = set()


def _say_once(subject: str, sentence: str) -> None:
    if subject not in _said:
        _said.add(subject)
        warnings.warn(sentence, stacklevel=2)
