"""The program while it is loaded, which takes seconds: no traceback out of an import.

The package imports this first of all. A signal ends the program at once. So does a limit on address space into which
the libraries would run: NumPy cannot be imported then, OpenBLAS tries again without end, and LLVM aborts.

From ``cli.main`` on the command line has handlers of its own, which clean up (``cli/signals.py``); afterwards these are
back. A program that imports the package keeps its signals as they are.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from types import FrameType

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]
LEAST = 900 << 20  # bytes of address space: the libraries, and their compiler at work
MANY_THREADS = 4096  # a limit beyond which nobody is short of threads
PYTHONS = (signal.SIG_DFL, signal.default_int_handler)  # one that is ignored (nohup) stays ignored


def end_at_once(number: int, _: FrameType | None = None) -> None:
    """End with 128 and the number of the signal. Nothing has been written yet, or all is done."""
    os._exit(128 + number)


def let_it_end() -> None:
    """Ignore signals: only Python's own end is left, and the exit status is decided.

    Trap: Python gives handlers up before it has ended, and a signal after that would look like one before the work.
    """
    for number in SIGNALS:
        if signal.getsignal(number) is end_at_once:
            signal.signal(number, signal.SIG_IGN)


def fault_of_limits() -> str | None:
    """Why the program cannot run under the limits of this process; None where it can."""
    from qwen3tts_np_kernels.system import free_address_space  # after the handlers are there

    free = free_address_space()
    if free is None or free >= LEAST:
        return None
    return f"{free >> 20} MB of address space are free (ulimit -v), and {LEAST >> 20} are needed at least"


def let_blas_start() -> None:
    """Where the system starts no threads for OpenBLAS, have it start none.

    Trap: it ends the process then, while NumPy is imported, by the signal of Ctrl-C.
    """
    from qwen3tts_np_kernels.system import allowed_cores, thread_limit

    limit, over = thread_limit(), threading.Event()
    if limit is None or limit > MANY_THREADS:
        return
    threads = [threading.Thread(target=over.wait, daemon=True) for _ in range(allowed_cores())]
    try:
        for thread in threads:
            thread.start()
    except RuntimeError:
        os.environ["OPENBLAS_NUM_THREADS"] = "1"
    over.set()


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
    atexit.register(let_it_end)  # the first to be registered is the last to be called
    if _fault := fault_of_limits():
        if sys.stderr is not None:
            print(f"qwen3tts-np: {_fault}", file=sys.stderr)
        raise SystemExit(2)
    let_blas_start()
