"""The right values at the wrong positions."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations

import numpy as np

from ...ops import AnyArray
from ..diagnosis import Context, Finding, best, finding
from ..measure import difference

SHIFTS = 64  # positions tried in either direction
SLICES = 4096  # along an axis that are distinguished


def transposed(ours: AnyArray, theirs: AnyArray, context: Context) -> Finding | None:
    """The axes in another order."""
    orders = list(permutations(range(ours.ndim)))[1:]
    return best(
        finding("transposed", f"the axes are in the order {list(order)}", ours, theirs, ours.transpose(order), context)
        for order in orders
    )


def heads_mixed(ours: AnyArray, theirs: AnyArray, context: Context) -> Finding | None:
    """Heads, positions and channels split or joined in the wrong order."""

    def attempts() -> Iterator[Finding | None]:
        t = len(ours)
        for heads in (n for n in range(2, 65) if ours.ndim >= 2 and ours.size // t % n == 0):
            split = ours.reshape(t, heads, -1)  # [T, N, D]
            swaps = {
                "heads before positions when they are joined": split.transpose(1, 0, 2),
                "channels before heads when they are split": split.transpose(0, 2, 1),
                "[positions, heads] read as [heads, positions]": ours.reshape(heads, t, -1).transpose(1, 0, 2),
            }
            for what, candidate in swaps.items():
                yield finding("heads mixed", f"{what}, with {heads} heads", ours, theirs, candidate, context)

    return best(attempts())


def permuted(ours: AnyArray, theirs: AnyArray, context: Context) -> Finding | None:
    """The slices along one axis in another order: codebooks, heads, halves, interleaved pairs."""
    if ours.shape != theirs.shape:
        return None
    return best(_permuted_along(axis, ours, theirs, context) for axis in range(ours.ndim) if ours.shape[axis] > 1)


def _permuted_along(axis: int, ours: AnyArray, theirs: AnyArray, context: Context) -> Finding | None:
    n = ours.shape[axis]
    a, b = (np.moveaxis(x, axis, 0).reshape(n, -1).astype(np.float64) for x in (ours, theirs))
    if n > SLICES or a.shape[1] < 2 or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return None
    distances = (a * a).sum(1) - 2 * b @ a.T  # [theirs, ours] less |theirs|²
    order = distances.argmin(axis=1)
    if len(set(order.tolist())) < n or (order == np.arange(n)).all():
        return None
    what = f"the {n} slices of axis {axis} are {_named(order)}"
    return finding("permuted", what, ours, theirs, ours.take(order, axis), context)


def _named(order: AnyArray) -> str:
    n = len(order)
    if (order == np.arange(n)[::-1]).all():
        return "in reverse"
    if n % 2 == 0 and (order == np.roll(np.arange(n), n // 2)).all():
        return "with their halves swapped"
    for width in (w for w in range(2, n + 1) if n % w == 0 and w % 2 == 0):
        pairs = np.arange(n).reshape(-1, width)
        for what, inside in (
            ("interleaved where ours has halves", pairs.reshape(-1, 2, width // 2).swapaxes(1, 2)),
            ("in halves where ours are interleaved", pairs.reshape(-1, width // 2, 2).swapaxes(1, 2)),
        ):
            if (order == inside.ravel()).all():
                return f"{what}, in groups of {width}"
    return f"in the order {order[:8].tolist()}{' ...' if n > 8 else ''}"


def shifted(ours: AnyArray, theirs: AnyArray, context: Context) -> Finding | None:
    """The same values some positions later or earlier: padding or a cut on the wrong side, a position off by one."""
    if ours.shape != theirs.shape:
        return None

    def attempts() -> Iterator[Finding | None]:
        for axis, n in enumerate(ours.shape):
            for k in range(1, min(SHIFTS, n // 2) + 1):
                first, last = range(n - k), range(k, n)
                for way, here, there in (("later", first, last), ("earlier", last, first)):
                    message = f"everything is {k} {way} along axis {axis}: padded or cut on the wrong side, or one off"
                    moved, seen = ours.take(here, axis), theirs.take(there, axis)
                    yield finding("shifted", message, ours.take(there, axis), seen, moved, context)

    return best(attempts())


def other_length(ours: AnyArray, theirs: AnyArray, context: Context) -> Finding | None:
    """More or fewer positions along one axis, the others as they should be."""
    if ours.ndim != theirs.ndim:
        return None
    unequal = [axis for axis in range(ours.ndim) if ours.shape[axis] != theirs.shape[axis]]
    if len(unequal) != 1:
        return None
    (axis,) = unequal
    n, m = ours.shape[axis], theirs.shape[axis]
    few, extra = min(n, m), abs(n - m)
    count = f"{extra} {'more' if m > n else 'fewer'} along axis {axis}"

    def attempts() -> Iterator[Finding | None]:
        for at, where in ((0, "end"), (extra, "beginning")):
            mine = ours.take(range(at, at + few) if n > m else range(few), axis)
            seen = theirs.take(range(at, at + few) if m > n else range(few), axis)
            yield finding(
                "other length", f"{count}, at the {where}; the rest agrees", np.zeros_like(mine), seen, mine, context
            )

    agrees = best(attempts())
    return agrees or Finding("other length", f"{count}, and the rest differs too", 1.0)


def edges(ours: AnyArray, theirs: AnyArray, context: Context) -> Finding | None:
    """Wrong only at the beginning, the end or both: padding with something else."""
    for axis, off in _positions_off(ours, theirs, context):
        n = len(off)
        wrong = np.flatnonzero(off)
        right = np.flatnonzero(~off)
        if len(wrong) and len(right) > n // 2 and (np.diff(right) == 1).all():
            before, after = int(right[0]), int(n - 1 - right[-1])
            where = " and ".join(
                text for count, text in ((before, f"the first {before}"), (after, f"the last {after}")) if count
            )
            return Finding("edges", f"only {where} of {n} along axis {axis} differ: padding with something else", 1.0)
    return None


def some_positions(ours: AnyArray, theirs: AnyArray, context: Context) -> Finding | None:
    """Wrong at some positions only, exact at the others."""
    for axis, off in _positions_off(ours, theirs, context):
        wrong = np.flatnonzero(off)
        if 0 < len(wrong) < len(off):
            shown = f"{wrong[:8].tolist()}{' ...' if len(wrong) > 8 else ''}"
            return Finding("some positions", f"only {len(wrong)} of {len(off)} along axis {axis} differ: {shown}", 1.0)
    return None


def _positions_off(ours: AnyArray, theirs: AnyArray, context: Context) -> Iterator[tuple[int, AnyArray]]:
    if ours.shape != theirs.shape:
        return
    off = np.asarray(np.abs(difference(ours, theirs)) > context.atol)
    for axis in range(ours.ndim):
        yield axis, np.asarray(off.any(axis=tuple(i for i in range(ours.ndim) if i != axis)))
