"""Finished pieces in a folder, each under a hash of everything that makes it what it is.

So a run that was killed goes on where it was, with the same result, and a changed text costs only what changed.
"""

from __future__ import annotations

import hashlib
import io
import json
import secrets
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..checkpoint.keys import Embedding
from ..compiled.frame_loop import FrameLoop
from ..errors import RequestError
from ..files.output import write_bytes
from ..model import Qwen3TTSModel
from ..voice.prompt_item import VoiceClonePromptItem

Pcm = NDArray[np.int16]  # [samples]

FORMAT = 1  # part of every key; other numbers mean pieces that are made in another way
SAMPLED_ROWS = 4096  # of a table, in a fingerprint: all of a code table

# --- keys -----------------------------------------------------------------------------------------


def hash_of(*parts: Any) -> str:
    """SHA-256 of values that JSON can hold, of voices, and of the ``repr`` of others."""
    return hashlib.sha256(json.dumps(parts, default=_as_json, sort_keys=True).encode()).hexdigest()


def _as_json(value: Any) -> Any:
    if isinstance(value, VoiceClonePromptItem):
        code = None if value.ref_code is None else value.ref_code.tolist()
        embedding = np.asarray(value.ref_spk_embedding, np.float64).tolist()
        return [embedding, code, value.x_vector_only_mode, value.icl_mode, value.ref_text]
    return repr(value)


def fingerprint(model: Qwen3TTSModel) -> str:
    """A hash of whatever of a model can change what it says. It reads all weights once, at the speed of memory."""
    assert isinstance(model.frame_loop, FrameLoop)
    parts = (model.frame_loop.used_weights, model.speech_tokenizer, model.speaker_encoder)
    sums = [[list(array.shape), array.dtype.str, _sum(array)] for array in _arrays(parts)]
    words = model.text_tokenizer.encode("iPhone 3.5 naïve 你好")  # tells the pre-tokenizers apart
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
    """A finished piece, its edges trimmed and faded."""

    samples: Pcm
    attempts: int
    complete: bool


class Store:
    """A folder of finished pieces, each found by its key, complete or not at all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._first: tuple[str, bytes] | None = None  # to be written before any piece
        self.made: set[str] = set()  # in this run

    def get(self, key: str) -> Recording | None:
        """A finished piece. One that is damaged, as only a failing disk can make it, is as good as none."""
        try:
            with np.load(self._folder / f"{key}.npz", allow_pickle=False) as stored:
                return Recording(stored["samples"], int(stored["attempts"]), bool(stored["complete"]))
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error):
            return None

    def put(self, key: str, recording: Recording) -> None:
        if self._first is not None:
            self._write(*self._first)
            self._first = None
        content = io.BytesIO()
        np.savez(content, **recording._asdict())
        self._write(f"{key}.npz", content.getvalue())
        self.made.add(key)

    def seed(self, job: str) -> int:
        """The seed of a job that was given none: drawn when it first ran, and kept from its first piece on."""
        path = self._folder / f"{job}.seed"
        try:
            return int(path.read_bytes())
        except FileNotFoundError:
            drawn = secrets.randbits(32)
            self._first = (path.name, b"%d" % drawn)
            return drawn
        except (OSError, ValueError):
            raise RequestError(f"{path} cannot be read; remove it, or give a seed") from None

    def remove(self) -> None:
        """Forget all pieces, and the folder if nothing else is in it."""
        for pattern in ("*.npz", "*.seed", ".*.partial"):  # the last where a killed run was just writing
            for path in self._folder.glob(pattern):
                path.unlink(missing_ok=True)
        if not any(self._folder.iterdir()):
            self._folder.rmdir()

    def _write(self, name: str, content: bytes) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise RequestError(f"{self._folder} cannot be made: {e.strerror}") from None
        write_bytes(self._folder / name, content)
