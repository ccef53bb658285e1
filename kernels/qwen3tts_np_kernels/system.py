"""The operating system: every call that is not portable, behind a function that works everywhere.

Linux has all of them. Where a system lacks a call, the function falls back to the next best thing, or does nothing, as
its docstring states. ``tests/test_system.py`` finds such calls anywhere else. Standard library only.
"""

from __future__ import annotations

import _thread
import ctypes
import errno
import importlib
import mmap
import os
import platform
import select
import signal
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal, NamedTuple, TypeVar

T = TypeVar("T")
R = TypeVar("R")
Advice = Literal["dontneed", "willneed", "sequential", "random"]
RENAMES_OPEN_FILES = sys.platform != "win32"


# --- processor ------------------------------------------------------------------------------------


def allowed_cores() -> int:
    """Cores this process may run on: its affinity, or all where the system has no affinity."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_quota(root: Path = Path("/")) -> float | None:
    """CPU time limit of the cgroup of this process (of a container), in cores; None without a limit."""
    quotas = [_quota_of(folder) for folder in _cgroup_folders(root, "cpu")]
    return min((quota for quota in quotas if quota is not None), default=None)


def usable_cores() -> int:
    """Threads that can run at once: the allowed cores, at most the quota rounded up."""
    quota = cpu_quota()
    return allowed_cores() if quota is None else max(1, min(allowed_cores(), -int(-quota // 1)))


def thread_limit() -> int | None:
    """The threads that this user may have in all (``ulimit -u``); None without a limit, or where there is none."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    kind = getattr(resource, "RLIMIT_NPROC", None)
    limit = resource.RLIM_INFINITY if kind is None else resource.getrlimit(kind)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def thread_clock(others: Iterable[int | None]) -> Callable[[], float]:
    """A clock of the CPU time of the calling thread and of these others (``ident``), as long as they live, in seconds.

    Where the system has none of threads, it is that of the whole process.
    """
    if not hasattr(time, "pthread_getcpuclockid"):  # macOS, Windows
        return time.process_time
    clocks = [time.pthread_getcpuclockid(other) for other in others if other is not None]
    return lambda: time.thread_time() + sum(map(time.clock_gettime, clocks))


def arm_features() -> dict[str, bool]:
    """Whether the processor has dotprod and i8mm, as Linux tells programs on 64-bit ARM; nothing elsewhere."""
    if sys.platform != "linux" or platform.machine() != "aarch64":
        return {}
    auxiliary = ctypes.CDLL(None).getauxval
    auxiliary.restype, auxiliary.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
    return {"dotprod": bool(auxiliary(16) & 1 << 20), "i8mm": bool(auxiliary(26) & 1 << 13)}  # AT_HWCAP, AT_HWCAP2


def in_threads(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """``function`` of each item, in order, in as many threads as there are cores: for work outside the GIL.

    Where the system starts no more threads (``ulimit -u``, or the limit of a container), this one does the work.
    """
    from concurrent.futures import ThreadPoolExecutor  # here, since every start reads this file

    items = list(items)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            results = deque([pool.submit(function, item) for item in items])
        except RuntimeError:
            pool.shutdown(cancel_futures=True)
            yield from map(function, items)
            return
        while results:
            yield results.popleft().result()


def _quota_of(folder: Path) -> float | None:
    """The quota in cores. cgroup v2: "QUOTA PERIOD" in cpu.max, "max" for no limit; v1: two files, -1 for no limit."""
    words = _words(folder / "cpu.max")
    if not words:
        words = [*_words(folder / "cpu.cfs_quota_us"), *_words(folder / "cpu.cfs_period_us")]
    if len(words) != 2 or words[0] in ("max", "-1") or int(words[1]) <= 0:
        return None
    return int(words[0]) / int(words[1])


def _cgroup_folders(root: Path, controller: str) -> list[Path]:
    """Folders of a controller that apply to this process: its own cgroup and the enclosing ones."""
    found = []
    for line in _lines(root / "proc/self/cgroup"):
        hierarchy, controllers, path = line.split(":", 2)
        if hierarchy == "0" or controller in controllers.split(","):
            top = root / "sys/fs/cgroup" / ("" if hierarchy == "0" else controller)
            inside = Path(path.lstrip("/"))
            found += [top / parent for parent in (inside, *inside.parents)]
    return list(dict.fromkeys(found))


def _lines(path: Path) -> list[str]:
    """The lines of a kernel file; empty if it is missing or not readable."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def _words(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()


def at_fork(
    before: Callable[[], object] | None = None,
    after_in_parent: Callable[[], object] | None = None,
    after_in_child: Callable[[], object] | None = None,
) -> None:
    """Register calls around a fork, as ``os.register_at_fork``. A no-op on Windows, which does not fork."""
    if hasattr(os, "register_at_fork"):
        given = {"before": before, "after_in_parent": after_in_parent, "after_in_child": after_in_child}
        os.register_at_fork(**{name: call for name, call in given.items() if call is not None})


# --- memory ---------------------------------------------------------------------------------------


class Memory(NamedTuple):
    """Bytes of main memory, or of the limit of a container."""

    total: int
    available: int  # without swapping


def memory(root: Path = Path("/")) -> Memory | None:
    """The memory of this machine or container; None where the system does not report it (Windows, macOS)."""
    found = {words[0]: int(words[1]) * 1024 for line in _lines(root / "proc/meminfo") if len(words := line.split()) > 1}
    if not {"MemTotal:", "MemAvailable:"} <= found.keys():
        return None
    total, available = found["MemTotal:"], found["MemAvailable:"]
    for folder in _cgroup_folders(root, "memory"):  # the names are those of cgroup v2, and of v1
        limits = [*_words(folder / "memory.max"), *_words(folder / "memory.limit_in_bytes")]
        used = [*_words(folder / "memory.current"), *_words(folder / "memory.usage_in_bytes")]
        if limits and used and limits[0] != "max":
            total, available = min(total, int(limits[0])), min(available, max(0, int(limits[0]) - int(used[0])))
    return Memory(total, available)


def peak_memory() -> int | None:
    """Peak resident memory of this process in bytes, mapped files included; None where the system does not report it.

    Trap: on Linux, ``resource`` includes the memory of the program that started this one, up to its exec.
    """
    for line in _lines(Path("/proc/self/status")):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Trap: kilobytes everywhere except on macOS


def free_address_space() -> int | None:
    """Bytes of address space that this process may still take; None without a limit (``ulimit -v``), or if unknown."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    kind, used = getattr(resource, "RLIMIT_AS", None), _words(Path("/proc/self/statm"))
    limit = resource.RLIM_INFINITY if kind is None else resource.getrlimit(kind)[0]
    if limit == resource.RLIM_INFINITY or not used:
        return None
    return max(0, limit - int(used[0]) * mmap.PAGESIZE)


def advise(mapping: mmap.mmap, advice: Advice, start: int = 0, length: int | None = None) -> None:
    """Advise the system about bytes of a mapped file from ``start`` on; ``start`` may be anywhere in a page.

    "dontneed" drops their pages from this process. A no-op where the system does not support it.
    """
    number = getattr(mmap, f"MADV_{advice.upper()}", None)
    if number is not None and hasattr(mapping, "madvise"):
        first = start // mmap.PAGESIZE * mmap.PAGESIZE
        end = len(mapping) if length is None else start + length
        mapping.madvise(number, first, end - first)


def return_free_memory() -> None:
    """Return freed memory to the system. glibc keeps it otherwise; other systems return it by themselves."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):  # musl has none
        trim(0)


def keep_free_memory() -> None:
    """Keep freed memory in the process from now on, for work that takes and frees the same large arrays all the time.

    glibc gives arrays back to the system as soon as they are freed, which then clears the next ones page by page: that
    was 15 % of a training step. ``return_free_memory`` still returns what is free. Other systems: nothing is done.
    """
    if sys.platform == "linux" and (option := getattr(ctypes.CDLL(None), "mallopt", None)):  # musl has none
        option(_M_MMAP_THRESHOLD, 32 << 20)  # the most it takes
        option(_M_TRIM_THRESHOLD, (1 << 31) - 1)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h


# --- signals and pipes ----------------------------------------------------------------------------


def stop_signals() -> list[signal.Signals]:
    """The signals of this system that ask a program to end: SIGTERM, and of a closing terminal (SIGHUP, SIGBREAK)."""
    return [getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]


def signal_main_thread(number: signal.Signals) -> None:
    """Deliver a signal to the main thread, which wakes it where the system can do that; callable from any thread."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:
        _thread.interrupt_main(number)


def reader_is_gone(error: OSError) -> bool:
    """Whether a write failed because the pipe has no reader any more. Windows often raises EINVAL."""
    return isinstance(error, BrokenPipeError) or (sys.platform == "win32" and error.errno == errno.EINVAL)


# --- files ----------------------------------------------------------------------------------------


def open_without_waiting(path: str | os.PathLike[str]) -> BinaryIO:
    """``open(path, "rb")`` that returns at once for a FIFO that nobody has opened for writing, where there are such."""
    return open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))


def wait_to_read(file: IO[Any], seconds: float) -> bool:
    """Wait until something can be read from a pipe, or its writers have gone; False if neither happens in time.

    Trap: a FIFO that nobody has written to yet reads as if it had ended; poll knows the difference. Where there is no
    poll, the answer is True.
    """
    if not hasattr(select, "poll"):
        return True
    poll = select.poll()
    poll.register(file, select.POLLIN | select.POLLHUP)
    return bool(poll.poll(seconds * 1000))


def lock(file: IO[Any]) -> bool:
    """Lock an open file for this process, without waiting. Returns False if another process holds the lock.

    The lock is released when the file is closed or the process ends in any way.
    """
    try:
        import fcntl
    except ImportError:
        return _lock_on_windows(file)
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock_on_windows(file: IO[Any]) -> bool:
    msvcrt: Any = importlib.import_module("msvcrt")

    try:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    except OSError:
        return False
    return True


def process_runs(number: int) -> bool:
    """Whether a process with this number is running; always True on Windows, where the check would end it."""
    if sys.platform == "win32":
        return True
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # another user's process; not a valid process number
        return True
    return True


def may_own(found: os.stat_result) -> bool:
    """Whether this process can give a file the owner of ``found``: it is that owner, or root."""
    return not hasattr(os, "geteuid") or os.geteuid() in (0, found.st_uid)


def keep_permissions(old: Path, new: Path) -> None:
    """Give ``new`` the owner, group, permissions and access control list of ``old``.

    PermissionError if the owner cannot be kept. If the group cannot, its members get no more than everybody.
    """
    found, mine = old.stat(), new.stat()
    mode, whole = stat.S_IMODE(found.st_mode), True
    if hasattr(os, "chown"):
        if mine.st_uid != found.st_uid:
            os.chown(new, found.st_uid, -1)  # only root can change the owner
        try:
            if mine.st_gid != found.st_gid:
                os.chown(new, -1, found.st_gid)
        except PermissionError:
            mode, whole = mode & ~stat.S_IRWXG | mode & (mode & stat.S_IRWXO) << 3, False
    new.chmod(mode)  # after chown, which clears the setuid bits
    if whole and hasattr(os, "getxattr"):
        for name in ("security.selinux", "system.posix_acl_access"):
            with suppress(OSError):  # there is none, or the file system has none
                os.setxattr(new, name, os.getxattr(old, name))


# --- standard output ------------------------------------------------------------------------------


def appends(descriptor: int) -> bool:
    """Whether a file was opened to append, so that what is written anywhere goes to its end; True if unknown."""
    try:
        fcntl = importlib.import_module("fcntl")
    except ImportError:
        return True
    return bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND)
