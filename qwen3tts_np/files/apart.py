"""Rejects outputs of a command that would overwrite its inputs or each other, before the work starts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

from ..errors import OutputError
from .output import PathLike, check_writable, is_special

READ = (".json", ".safetensors", ".txt", ".npy", ".npz", ".bin", ".csv", ".seed")  # in a folder that a command reads


def check_outputs(outputs: Mapping[str, PathLike | None], inputs: Mapping[str, Any]) -> None:
    """Raises OutputError unless every output can be written, is not an input, and is not another output.

    Both map a name for the user (such as an option) to a path; None means not given. An input that is not a path (a
    URL, an array) is skipped. Of an input folder, the files of a model in it are protected.
    """
    given = {name: Path(path) for name, path in outputs.items() if path is not None}
    for path in given.values():
        check_writable(path)
    files = {name: path for name, path in given.items() if not is_special(path)}
    for (first, path), (second, other) in combinations(files.items(), 2):
        if _same(path, other):
            raise OutputError(f"{first} and {second} are the same file, {path}")
    for name, path in files.items():
        for source, value in inputs.items():
            if _is_read(path, value):
                raise OutputError(f"{name} {path} would overwrite what {source} {os.fspath(value)} reads")


def _same(a: Path, b: Path) -> bool:
    try:
        return os.path.samefile(a, b)
    except OSError:  # one does not exist yet
        return os.path.normcase(os.path.realpath(a)) == os.path.normcase(os.path.realpath(b))


def _is_read(output: Path, value: Any) -> bool:
    if not isinstance(value, str | os.PathLike) or not output.exists():
        return False
    try:
        source = Path(value)
        if not os.path.isdir(source):
            return source.exists() and os.path.samefile(source, output)
    except (OSError, ValueError):  # not a file name: base64, a text
        return False
    inside = Path(os.path.realpath(output)).is_relative_to(os.path.realpath(source))
    return inside and output.suffix.lower() in READ
