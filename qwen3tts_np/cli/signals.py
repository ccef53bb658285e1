"""Signals that ask the program to end: it cleans up first, and its exit status is 128 and the number of the signal.

A handler raises an exception, in the middle of whatever runs. Trap: where that is a function that C code has called
back, Python reports the exception and goes on; so the signal is given once more.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from qwen3tts_np_kernels import system

from ..start import end_at_once

COPIES = 1.0  # seconds; what comes so soon after the first is its copy: from a terminal and from a wrapper, or SIGHUP
AGAIN = 0.05  # seconds until a signal whose exception was lost is given once more


@contextmanager
def orderly_end() -> Iterator[None]:
    """The first signal raises KeyboardInterrupt or SystemExit in the block; a later one ends the process at once.

    One that is ignored (``nohup``) stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ending = _Ending()
    numbers = signal.SIGINT, *system.stop_signals()
    ours = signal.SIG_DFL, signal.default_int_handler, end_at_once
    before = {number: handler for number in numbers if (handler := signal.getsignal(number)) in ours}
    hook, sys.unraisablehook = sys.unraisablehook, ending.lost
    try:
        for number in before:
            signal.signal(number, ending.signalled)
        yield
        ending.check()
    finally:
        ending.over()
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.unraisablehook = hook


class _Ending:
    """What has been signalled so far."""

    def __init__(self) -> None:
        self._number: signal.Signals | None = None
        self._first = 0.0
        self._is_lost = False
        self._again: threading.Timer | None = None
        self._hook = sys.unraisablehook

    def signalled(self, number: int, _: FrameType | None) -> None:
        """The handler."""
        if not self._number:
            self._number, self._first = signal.Signals(number), time.monotonic()
        elif self._is_lost:
            self._is_lost = False
        elif time.monotonic() - self._first < COPIES:
            return
        else:
            end_at_once(number)
        self._raise()

    def _raise(self) -> NoReturn:
        assert self._number is not None
        raise KeyboardInterrupt if self._number == signal.SIGINT else SystemExit(128 + self._number)

    def lost(self, unraisable: Any) -> None:
        """In the place of ``sys.unraisablehook``, which Python calls with an exception that it cannot raise."""
        if not self._number or not issubclass(unraisable.exc_type, KeyboardInterrupt | SystemExit):
            self._hook(unraisable)
            return
        self.over()
        self._is_lost = True
        self._again = threading.Timer(AGAIN, system.signal_main_thread, [self._number])
        self._again.daemon = True
        self._again.start()

    def check(self) -> None:
        """At the end: raise what was lost, even if the work has ended in another way because of it."""
        if self._is_lost:
            self._raise()

    def over(self) -> None:
        """No signal given once more comes after this."""
        if self._again is not None:
            self._again.cancel()
            self._again.join()
