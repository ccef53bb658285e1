"""Signals while the program is loaded, which takes seconds: it ends at once, with no traceback out of an import.

The package imports this first of all. From ``cli.main`` on the command line has handlers of its own, which clean up;
afterwards these are back, for Python's own end. A program that imports the package keeps its signals as they are.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]
PYTHONS = (signal.SIG_DFL, signal.default_int_handler)  # one that is ignored (nohup) stays ignored


def end_at_once(number: int, _: FrameType | None = None) -> None:
    """End with 128 and the number of the signal. Nothing has been written yet, or all is done."""
    os._exit(128 + number)


def is_command_line() -> bool:
    """Whether this process is ``qwen3tts-np`` or ``python -m qwen3tts_np``, and no program that imports the package."""
    name = sys.argv[0] if getattr(sys, "argv", None) else ""
    if name == "-m":  # so it is while the package is imported; the full path comes later
        return sys.orig_argv[sys.orig_argv.index("-m") + 1 :][:1] == ["qwen3tts_np"]
    return os.path.basename(name).removesuffix(".exe") == "qwen3tts-np"


if is_command_line() and threading.current_thread() is threading.main_thread():
    for _number in SIGNALS:
        if signal.getsignal(_number) in PYTHONS:
            signal.signal(_number, end_at_once)
