"""What measures need beyond the package: the extra ``evaluate``, and weights out of wheels that are never imported."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from ..errors import RequestError

INSTALL = "pip install 'qwen3tts-np[evaluate]'"
INSTALL_ALONE = "pip install --no-deps {}"  # what the package asks for besides would bring PyTorch


def imported(module: str, purpose: str, how: str = INSTALL) -> Any:
    """The module of an extra. RequestError with the command that installs it where it is missing."""
    try:
        return import_module(module)
    except ModuleNotFoundError as e:
        raise RequestError(f"{purpose} needs {e.name or module}, which is not installed: {how}") from None


def file_of_wheel(package: str, parts: Sequence[str], purpose: str, how: str) -> Path:
    """A file that an installed package brings, found without importing the package. RequestError if there is none."""
    try:
        found = Path(str(distribution(package).locate_file("/".join(parts))))
    except PackageNotFoundError:
        raise RequestError(f"{purpose} needs the weights in {package}, which is not installed: {how}") from None
    if not found.is_file():
        raise RequestError(f"{purpose} needs {'/'.join(parts)}, which this version of {package} does not bring: {how}")
    return found
