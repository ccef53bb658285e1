"""Files that hold what is in the files beside them in another form, to be read faster."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from .header_entry import read_entry
from .safetensors import Checkpoint

T = TypeVar("T")
REMEDY = "remove the file, or convert the original checkpoint again"


def read_beside(
    path: Path,
    key: str,
    version: int,
    digest: Callable[[Checkpoint], str],
    build: Callable[[Any, Checkpoint], T],
    oldest: int | None = None,
) -> T | None:
    """What ``build`` makes of the header's entry ``key`` and the tensors; None where there is no file.

    None with a warning where ``of`` in the entry is not the ``digest`` of the files beside it, which are read instead.
    CheckpointError as in :func:`read_entry`.
    """
    if not path.exists():
        return None
    packed = Checkpoint.open(path)

    def read(stated: Any) -> T | None:
        if stated["of"] == digest(packed):
            return build(stated, packed)
        warnings.warn(f"{path} is damaged or not of the files beside it, which are read instead", stacklevel=5)
        return None

    return read_entry(packed.metadata, key, version, path, read, REMEDY, oldest)
