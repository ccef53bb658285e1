"""Files of ``benchmarks/`` and ``golden/``, which are no packages, as modules for the tests."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any


def program(file: Path) -> Any:
    """The module of a file, which finds those beside it as it does when it is run."""
    sys.path.insert(0, str(file.parent))
    try:
        return importlib.import_module(file.stem)
    finally:
        sys.path.remove(str(file.parent))
