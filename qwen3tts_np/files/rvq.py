"""Codes as the .rvq files of qwentts.cpp hold them: 11 bits a code, the least significant first, and no header.

Codes are in the order [G, frames]: all of the first codebook, then all of the second. With the 16 codebooks of the
released codec a frame takes 22 bytes, so the number of frames is known from the length.
"""

from __future__ import annotations

import os

import numpy as np

from ..errors import RequestError
from ..ops import I64, Ints
from .input import read_bytes
from .name import shown_name

SUFFIX = ".rvq"
GROUPS, BITS = 16, 11  # of the released codec, whose codebooks have 2048 entries
FRAME_BYTES = GROUPS * BITS // 8
MOST = 32 << 20  # bytes; an hour has 1 MB


def read_rvq(path: str | os.PathLike[str]) -> I64:
    """Codes [frames, 16]. RequestError where the file cannot be read, or has no whole number of frames."""
    data = read_bytes(path, MOST)
    if not data or len(data) % FRAME_BYTES:
        raise RequestError(f"{shown_name(path)} has {len(data)} bytes; codes have {FRAME_BYTES} for each frame")
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little").reshape(-1, BITS)
    codes = np.packbits(np.pad(bits, ((0, 0), (0, 16 - BITS))), axis=1, bitorder="little").view("<u2")
    return codes.reshape(GROUPS, -1).T.astype(np.int64)


def rvq_of(codes: Ints) -> bytes:
    """Codes [frames, 16] as the content of such a file. RequestError for codes of another codec."""
    if codes.ndim != 2 or codes.shape[1] != GROUPS or not codes.size or not 0 <= codes.min() <= codes.max() < 1 << BITS:
        raise RequestError(
            f"codes {list(codes.shape)} do not fit a {SUFFIX} file, which holds [frames, {GROUPS}] from 0 to "
            f"{(1 << BITS) - 1}"
        )
    bits = codes.T.astype(np.int64).reshape(-1, 1) >> np.arange(BITS) & 1
    return np.packbits(bits.astype(np.uint8), bitorder="little").tobytes()
