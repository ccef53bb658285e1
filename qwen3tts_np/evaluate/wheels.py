"""The extra ``evaluate``: how it is installed, and weights out of wheels that are never imported."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from ..errors import RequestError
from ..extras import install

INSTALL = install("evaluate")
INSTALL_ALONE = "pip install --no-deps {}"  # what the package asks for besides would bring PyTorch


def file_of_wheel(package: str, parts: Sequence[str], purpose: str, how: str) -> Path:
    """A file that an installed package brings, found without importing the package. RequestError if there is none."""
    try:
        found = Path(str(distribution(package).locate_file("/".join(parts))))
    except PackageNotFoundError:
        raise RequestError(f"{purpose} needs the weights in {package}, which is not installed: {how}") from None
    if not found.is_file():
        raise RequestError(f"{purpose} needs {'/'.join(parts)}, which this version of {package} does not bring: {how}")
    return found
