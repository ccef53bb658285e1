"""Voices as qwentts.cpp keeps them: ``NAME.spk`` is the speaker embedding, float32 without a header.

Beside it ``NAME.rvq`` are the codes of the clip and ``NAME.txt`` its words, where the voice is for cloning in context.
Which model made them the files do not say.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import CheckpointError, OutputError
from ..files.input import read_bytes, read_text
from ..files.name import shown_name
from ..files.output import write_bytes
from ..files.rvq import SUFFIX as CODES
from ..files.rvq import read_rvq, rvq_of
from ..ops import Array, Ints

SUFFIX, WORDS = ".spk", ".txt"
MOST = 1 << 20  # bytes; the largest released model has 8,192


class Parts(NamedTuple):
    """What the files hold."""

    embedding: Array  # [H]
    codes: Ints | None  # [frames, 16]
    text: str | None


def is_spk(path: Path) -> bool:
    """Whether the suffix says that a file is such a voice."""
    return path.suffix.lower() == SUFFIX


def beside(path: Path) -> tuple[Path, Path]:
    """Where the codes of a .spk file would be, and their words."""
    return path.with_suffix(CODES), path.with_suffix(WORDS)


def read_spk(path: Path) -> Parts:
    """The voice of a .spk file and of those beside it. CheckpointError for what is no embedding."""
    data = read_bytes(path, MOST)
    embedding = np.frombuffer(data[: len(data) // 4 * 4], "<f4").astype(np.float32)
    if not data or len(data) % 4 or not np.isfinite(embedding).all():
        raise CheckpointError(f"{shown_name(path)} holds no speaker embedding: finite numbers of 4 bytes each")
    codes, words = beside(path)
    if not os.path.isfile(codes):
        return Parts(embedding, None, None)
    if not os.path.isfile(words):
        raise CheckpointError(f"{shown_name(codes)} are codes, and their words are missing: {shown_name(words)}")
    return Parts(embedding, read_rvq(codes), read_text(words, MOST).strip())


def write_spk(path: Path, parts: Parts) -> None:
    """Write the files of a voice. OutputError where others beside it would be taken for, or overwritten by, its own."""
    codes, words = beside(path)
    content = parts.embedding.astype("<f4").tobytes()
    if parts.codes is None or parts.text is None:
        if os.path.lexists(codes):
            raise OutputError(f"{shown_name(codes)} would be read as the codes of {shown_name(path)}; remove it first")
        write_bytes(path, content)
        return
    packed = rvq_of(parts.codes)
    if os.path.lexists(words) and read_text(words, MOST).strip() != parts.text.strip():
        raise OutputError(f"{shown_name(words)} exists and says something else than the clip; name another {SUFFIX}")
    write_bytes(words, parts.text.encode())
    write_bytes(codes, packed)
    write_bytes(path, content)
