"""Python's locks as functions of C, with which compiled code sleeps and wakes on every system, without the GIL."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable

_allocate, _free = ctypes.pythonapi.PyThread_allocate_lock, ctypes.pythonapi.PyThread_free_lock
_acquire, _release = ctypes.pythonapi.PyThread_acquire_lock, ctypes.pythonapi.PyThread_release_lock
_allocate.argtypes, _allocate.restype = (), ctypes.c_void_p
_free.argtypes, _free.restype = (ctypes.c_void_p,), None
_acquire.argtypes, _acquire.restype = (ctypes.c_void_p, ctypes.c_int), ctypes.c_int

ACQUIRE = ctypes.cast(_acquire, ctypes.c_void_p).value or 0
"""The address of int f(lock, 1), which waits until the lock is released, and takes it."""
RELEASE = ctypes.cast(_release, ctypes.c_void_p).value or 0
"""The address of void f(lock): a thread that waits for it goes on, or the next one to come does not wait."""


def new_lock() -> int:
    """The address of a lock that is taken."""
    lock: int | None = _allocate()
    if lock is None or not _acquire(lock, 1):
        raise MemoryError("no memory for a lock")
    return lock


def free_locks(locks: Iterable[int]) -> None:
    """Free locks that nobody uses any more."""
    for lock in locks:
        _free(lock)
