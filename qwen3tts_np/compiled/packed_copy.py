"""Packed copies of checkpoints in the user's cache, each made once, where he allows it.

Weights that are to be int8 or int4 and are stored wider are quantised and packed at every load, which takes seconds. A
copy as ``convert`` writes it is mapped instead, and shared by all processes. It takes disk (0.6B in int4: 2.2 GB), so
nothing is written without ``cache_packed=True``, ``--cache-packed`` or ``QWEN3TTS_NP_CACHE_PACKED=1``.

A copy is named by its format and by what identifies its source: the names, sizes, times and both ends of all files. It
has its name when it is complete, and is made anew where a file of it is missing or of another size.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from pathlib import Path

from ..arguments import switch
from ..checkpoint.quantised import is_quantised
from ..checkpoint.safetensors import Checkpoint
from ..errors import OutputError, RequestError
from ..files.input import open_input, read_text
from ..files.output import output_file
from ..notices import notify
from ..shown import shortened

VARIABLE = "QWEN3TTS_NP_CACHE_PACKED"
COPIED = ("int8", "int4")
LISTING = "packed_copy.json"
_ENDS = 4096  # bytes of a file that are looked at, first and last


def is_allowed(asked: bool | None, weights_format: str) -> bool:
    """Whether a copy may be made: as ``asked``, or by the environment where None.

    RequestError where it is asked for and there is none for ``weights_format``.
    """
    if asked is None:
        value = os.environ.get(VARIABLE, "")
        if value not in ("", "0", "1"):
            raise RequestError(f"{VARIABLE}={shortened(value)} must be 0 or 1")
        return value == "1" and weights_format in COPIED
    wanted = switch(asked, "cache_packed")
    if wanted and weights_format not in COPIED:
        raise RequestError(
            f"cache_packed=True with weights_format={shortened(weights_format)}: a packed copy is int8 or int4"
        )
    return wanted


def folder() -> Path:
    """Where copies are kept; removing it, or a copy in it, is always safe."""
    base = os.environ.get("LOCALAPPDATA") or os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "qwen3tts_np" / "packed"


def copies() -> list[Path]:
    """The copies that are there."""
    return sorted(path.parent for path in folder().glob(f"*/{LISTING}"))


def packed_copy(source: Path, weights_format: str) -> Path:
    """The packed copy of a checkpoint, made where there is none yet.

    ``source`` itself if it is quantised already, or, with a warning, if no copy can be written.
    """
    if is_quantised(Checkpoint.open(source)):
        return source
    target = folder() / f"{source.resolve().name}-{weights_format}-{identity(source)[:20]}"
    if _is_complete(target):
        return target
    from ..layout.convert import convert  # here, since who has a copy needs none of it

    logging.getLogger(__name__).info("packing %s as %s into %s, once", source, weights_format, target)
    try:
        shutil.rmtree(target, ignore_errors=True)
        convert(source, target, weights_format, _finish)
    except OutputError as e:
        if _is_complete(target):  # another process was faster
            return target
        notify(f"no packed copy is kept: {e}")
        return source
    return target


def pack_rest(folder: Path) -> None:
    """Write, beside the converted weights of a checkpoint, what else can be mapped."""
    from ..text.tokenizer import pack_vocabulary
    from .codec.packed import write_packed_decoder

    write_packed_decoder(folder / "speech_tokenizer")
    pack_vocabulary(folder)


def _finish(folder: Path) -> None:
    pack_rest(folder)
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in _files(folder)}
    with output_file(folder / LISTING) as file:
        file.write(json.dumps(sizes, indent=1).encode())


def _is_complete(copy: Path) -> bool:
    """Whether every file that was written is there, at its size."""
    listing = copy / LISTING
    if not listing.is_file():
        return False
    try:
        sizes = json.loads(read_text(listing))
        return bool(sizes) and all((copy / name).stat().st_size == size for name, size in sizes.items())
    except (ValueError, OSError, AttributeError):
        return False


def identity(source: Path) -> str:
    """A digest of its files: names, sizes, times, and both ends of each."""
    found = hashlib.sha256()
    for path in _files(source):
        stat = path.stat()
        found.update(f"{path.relative_to(source).as_posix()} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        with open_input(path) as file:
            found.update(file.read(_ENDS))
            file.seek(max(stat.st_size - _ENDS, 0))
            found.update(file.read(_ENDS))
    return found.hexdigest()


def _files(folder: Path) -> list[Path]:
    """Those that a checkpoint consists of: none that is hidden, as a lock is."""
    return sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
