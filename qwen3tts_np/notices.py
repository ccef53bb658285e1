"""Warnings that name the line of the caller's own code, however deep in the package they are issued."""

from __future__ import annotations

import sys
import warnings

_PACKAGE = __name__.partition(".")[0]


def notify(message: str, category: type[Warning] = UserWarning) -> None:
    """Issue a warning whose source is the nearest line outside of this package."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == _PACKAGE:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
