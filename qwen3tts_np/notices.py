"""Warnings that name the line of the caller's own code, however deep in the package they are issued."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_PACKAGE = __name__.partition(".")[0]
_heard: ContextVar[list[str] | None] = ContextVar("heard", default=None)


@contextmanager
def heard() -> Iterator[list[str]]:
    """What :func:`notify` says in the block, each message once, which is kept here in place of being shown.

    Of this thread alone. Trap: Python's ``catch_warnings`` is of the whole process, so two threads that use it take
    each other's warnings.
    """
    messages: list[str] = []
    token = _heard.set(messages)
    try:
        yield messages
    finally:
        _heard.reset(token)


def notify(message: str, category: type[Warning] = UserWarning) -> None:
    """Issue a warning whose source is the nearest line outside of this package."""
    messages = _heard.get()
    if messages is not None:
        if message not in messages:
            messages.append(message)
        return
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == _PACKAGE:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
