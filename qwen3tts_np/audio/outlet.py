"""The file that libsndfile writes: in memory, until Python takes it.

Trap: with a file of the system libsndfile does not report every write that fails, such as that of the lengths in the
header at the end; the file would be damaged without an error.
"""

from __future__ import annotations

import io
from typing import Any


class Outlet(io.RawIOBase):
    """A file of which only what has been written since the last :meth:`writes` is kept."""

    def __init__(self) -> None:
        self._position = self._end = 0
        self._writes: list[tuple[int, bytes]] = []

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = (0, self._position, self._end)[whence] + offset
        return self._position

    def write(self, content: Any) -> int:
        data = bytes(content)
        self._writes.append((self._position, data))
        self._position += len(data)
        self._end = max(self._end, self._position)
        return len(data)

    def writes(self) -> list[tuple[int, bytes]]:
        """What has been written since the last call, in order: where, and the bytes."""
        found, self._writes = self._writes, []
        return found
