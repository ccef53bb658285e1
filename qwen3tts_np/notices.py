"""Warnings that name the line of the caller's own code, however deep in the package they are issued."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_PACKAGE = __name__.partition(".")[0]


def notify(message: str, category: type[Warning] = UserWarning) -> None:
    """Issue a warning whose source is the nearest line outside of this package."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == _PACKAGE:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


@contextmanager
def heard() -> Iterator[list[str]]:
    """Warnings of the block, each once, which are kept here in place of being shown. For one thread at a time."""
    messages: list[str] = []
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        try:
            yield messages
        finally:
            messages += dict.fromkeys(str(one.message) for one in given)
