"""Finished pieces in a folder, each under a hash of everything that makes it what it is.

So a run that was killed resumes with the same result, and a changed text costs only what changed.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..checkpoint.keys import Embedding
from ..compiled.frame_loop import FrameLoop
from ..errors import RequestError
from ..files.name import shown_name
from ..files.output import check_name, short_name, write_bytes, write_text
from ..model import Qwen3TTSModel
from ..ops import Pcm
from ..talker.generator import fresh_seed

SAMPLED_ROWS = 4096  # of a table, in a fingerprint: all of a code table
MARK = "qwen3tts-np-pieces.txt"  # says that a folder was made here, and so may go
MARK_TEXT = "Finished pieces of a long text, kept by qwen3tts-np until all of it is spoken.\n"
OURS = re.compile(rf"\.?([0-9a-f]{{64}}\.(npz|seed)|{re.escape(MARK)})(\.\d+(-[0-9a-f]{{8}})?\.partial)?")


def pieces_folder(output: Path) -> Path:
    """Where the finished pieces of ``output`` are kept, beside it: OUTPUT.pieces."""
    return output.with_name(f"{short_name(output.name)}.pieces")


# --- keys -----------------------------------------------------------------------------------------


def hash_of(*parts: Any) -> str:
    """SHA-256 of numbers, strings, arrays, and of tuples, lists, mappings and dataclasses of them."""
    return hashlib.sha256(json.dumps(parts, default=_as_json, sort_keys=True).encode()).hexdigest()


def _as_json(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        raw = np.ascontiguousarray(value)
        return [value.dtype.str, list(value.shape), hashlib.sha256(raw.tobytes()).hexdigest()]
    if is_dataclass(value) and not isinstance(value, type):
        return [type(value).__name__, {f.name: getattr(value, f.name) for f in fields(value)}]
    if isinstance(value, Mapping):
        return dict(value)
    return repr(value)


def fingerprint(model: Qwen3TTSModel) -> str:
    """A hash of whatever of a model can change what it says. It reads all weights once, at the speed of memory."""
    assert isinstance(model.frame_loop, FrameLoop)
    parts = (model.frame_loop.used_weights, model.speech_tokenizer, model.speaker_encoder)
    sums = [[list(array.shape), array.dtype.str, _sum(array)] for array in _arrays(parts)]
    words = model.text_tokenizer.encode("iPhone 3.5 naïve 你好")  # differs between the pre-tokenizers
    return hash_of(asdict(model.config), asdict(model.generation_config), words, sums)


def _arrays(part: Any) -> Iterator[NDArray[Any]]:
    """All arrays below a tree of dataclasses and tuples; of the text embedding, which is left on disk, some rows."""
    if isinstance(part, np.ndarray):
        yield part
    elif isinstance(part, Embedding):
        rows = part.tensor.data.shape[0]
        yield part[np.linspace(0, rows - 1, min(rows, SAMPLED_ROWS)).astype(np.int64)]
    elif isinstance(part, tuple):
        for member in part:
            yield from _arrays(member)
    elif is_dataclass(part):
        for f in fields(part):
            yield from _arrays(getattr(part, f.name))


def _sum(array: NDArray[Any]) -> int:
    """The sum of an array's bytes, eight at a time: no single change leaves it as it was."""
    raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    whole = len(raw) // 8 * 8
    return int(np.add.reduce(raw[:whole].view(np.uint64), dtype=np.uint64)) + int(raw[whole:].sum(dtype=np.uint64))


# --- finished pieces ------------------------------------------------------------------------------


class Recording(NamedTuple):
    """A finished piece."""

    samples: Pcm
    frames: int
    attempts: int


class Store:
    """A folder of finished pieces, each found by its key, complete or not at all."""

    def __init__(self, folder: Path) -> None:
        check_name(folder)
        self._folder = folder
        self._first: tuple[str, bytes] | None = None  # to be written before any piece
        self.made: set[str] = set()  # keys, in this run

    def get(self, key: str) -> Recording | None:
        """A finished piece. One that is damaged, as only a failing disk can make it, is as good as none."""
        try:
            with np.load(self._folder / f"{key}.npz", allow_pickle=False) as stored:
                return Recording(stored["samples"], int(stored["frames"]), int(stored["attempts"]))
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error):
            return None

    def put(self, key: str, recording: Recording) -> None:
        """Keep a piece."""
        if not self.made:
            self._make_folder()
        if self._first is not None:
            write_bytes(self._folder / self._first[0], self._first[1])
            self._first = None
        content = io.BytesIO()
        np.savez(content, **recording._asdict())
        write_bytes(self._folder / f"{key}.npz", content.getvalue())
        self.made.add(key)

    def seed(self, job: str) -> int:
        """The seed of a job that was given none: drawn when it first ran, and kept from its first piece on."""
        path = self._folder / f"{job}.seed"
        try:
            return int(path.read_bytes())
        except FileNotFoundError:
            drawn = fresh_seed()
            self._first = (path.name, b"%d" % drawn)
            return drawn
        except (OSError, ValueError):
            raise RequestError(f"{shown_name(path)} cannot be read; remove it, or give a seed") from None

    def remove(self) -> None:
        """Forget all pieces, and the folder if nothing else is in it.

        Of a folder that was not made here only the pieces of this run go.
        """
        mark = self._folder / MARK
        if not mark.is_file():
            for key in self.made:
                (self._folder / f"{key}.npz").unlink(missing_ok=True)
            return
        for path in self._folder.iterdir():
            if OURS.fullmatch(path.name) and path != mark:
                path.unlink(missing_ok=True)
        if [path.name for path in self._folder.iterdir()] == [MARK]:
            mark.unlink()
            self._folder.rmdir()

    def _make_folder(self) -> None:
        """The folder, marked if it is new; what a run that was killed here has left is an empty one, or ours."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            made_here = all(OURS.fullmatch(path.name) for path in self._folder.iterdir())
        except OSError as e:
            raise RequestError(f"{shown_name(self._folder)} cannot be made: {e.strerror}") from None
        if made_here:
            write_text(self._folder / MARK, MARK_TEXT)
