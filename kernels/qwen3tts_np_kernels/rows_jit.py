"""Rows of values that are moved: by all threads of a pass (``program_jit.py``), columns shared out."""

from __future__ import annotations

import numpy as np

from .arrays import F32
from .cpu import compiled, inner, kernel
from .simd.llvm import LANES
from .simd.ops import load, store
from .threads_jit import Member, share
from .together_jit import ALONE, Runner


def copy_rows(x: F32, y: F32, run: Runner = ALONE) -> None:
    """y = the first values of each row of x. Contiguous float32: x [..., at least C], y [..., C], as many rows."""
    if x.shape[:-1] != y.shape[:-1] or x.shape[-1] < y.shape[-1]:
        raise ValueError(f"copy_rows: x{list(x.shape)} and y{list(y.shape)} do not fit [..., at least C] and [..., C]")
    if compiled():
        run(_copy_rows, x.reshape(-1), x.shape[-1], y.reshape(-1), y.shape[-1])
    else:
        y[...] = x[..., : y.shape[-1]]


def pass_on(x: F32, past: int, kept: F32, run: Runner = ALONE) -> None:
    """The first ``past`` rows of x = kept, then kept = the last: what one block of a signal hands to the next.

    Contiguous float32: x [T, ...], T at least ``past``, and kept with the values of ``past`` rows, flat.
    """
    if x.dtype != np.float32 or not x.flags.c_contiguous or len(x) < past or kept.shape != (x[:past].size,):
        found = f"x is {x.dtype} {list(x.shape)}, kept{list(kept.shape)}"
        raise ValueError(f"pass_on: {found}, expected contiguous float32 [T, ...] and its first {past} rows, flat")
    if compiled():
        run(_pass_on, x.reshape(-1), x[0].size, kept)
    else:
        x[:past] = kept.reshape(x[:past].shape)
        kept[:] = x[len(x) - past :].reshape(-1)


@inner
def _copy(x: F32, x_at: int, y: F32, y_at: int, count: int) -> None:
    """y[y_at : y_at + count] = x[x_at : x_at + count], in a third of the time of a loop over single values."""
    whole = count // LANES * LANES
    for i in range(0, whole, LANES):
        store(y, y_at + i, load(x, x_at + i))
    for i in range(whole, count):
        y[y_at + i] = x[x_at + i]


@kernel
def _copy_rows(me: Member, x: F32, x_width: int, y: F32, y_width: int) -> None:
    first, end = share(me, y.size // y_width)
    for row in range(first, end):
        _copy(x, row * x_width, y, row * y_width, y_width)


@kernel
def _pass_on(me: Member, x: F32, width: int, kept: F32) -> None:
    """Every column of all rows is moved by one thread, which needs no other."""
    first, end = share(me, (width + LANES - 1) // LANES)
    first, end, last = first * LANES, min(end * LANES, width), x.size - kept.size
    for row in range(first, kept.size, width):
        _copy(kept, row, x, row, end - first)
    for row in range(first, kept.size, width):
        _copy(x, last + row, kept, row, end - first)
