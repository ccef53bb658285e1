"""Grey pictures as PNG, for pages that contain everything they show.

Portable Network Graphics (ISO/IEC 15948): a signature, then chunks of a length, a name, bytes and a CRC.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_DEPTH, _GREY = 8, 0  # bits of a pixel; the colour type


def png(pixels: NDArray[np.uint8]) -> bytes:
    """pixels [height, width], 0 black to 255 white, the first row on top."""
    height, width = pixels.shape
    rows = np.pad(pixels, ((0, 0), (1, 0)))  # before each row the number of its filter: 0, none
    header = struct.pack(">IIBBBBB", width, height, _DEPTH, _GREY, 0, 0, 0)
    return (
        _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows.tobytes(), 9)) + _chunk(b"IEND", b"")
    )


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
