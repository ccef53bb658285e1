"""The right values times or plus something, or with fewer digits."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from qwen3tts_np_kernels.bfloat16 import round_ref, widen_ref

from ...ops import AnyArray
from ..diagnosis import Context, Finding, best, finding

CLOSE = 2e-3  # relative, of a factor to one that has a name


def scaled(ours: AnyArray, theirs: AnyArray, context: Context) -> Finding | None:
    """One factor on everything."""
    finite = np.isfinite(ours) if ours.shape == theirs.shape else None
    if finite is None or ours.dtype.kind in "iub":
        return None
    a, b = ours[finite].astype(np.float64), theirs[finite].astype(np.float64)
    power = float(a @ a)
    if not power:
        return None
    factor = float(a @ b) / power
    message = f"everything is {factor:.6g} times ours{_named(factor, ours.shape)}"
    return finding("scaled", message, ours, theirs, ours * factor, context) if abs(factor - 1) > 1e-4 else None


def _named(factor: float, shape: tuple[int, ...]) -> str:
    """The usual meaning of such a factor."""
    names = {-1.0: "the sign", math.log(10): "log10 for ln, the other way", 1 / math.log(10): "log10 in place of ln"}
    names |= {2.0**15: "samples not divided by 32768", 2.0**-15: "samples divided by 32768"}
    for size in sorted({*shape, 16, 32, 64, 128, 256, 512, 1024, 2048} - {1, 2}):
        names |= {math.sqrt(size): f"sqrt({size})", 1 / math.sqrt(size): f"1 / sqrt({size})"}
        names |= {float(size): f"{size}", 1 / size: f"1 / {size}"}
    for value, name in names.items():
        if abs(factor / value - 1) < CLOSE:
            return f": {name}"
    return ""


def own_factors(ours: AnyArray, theirs: AnyArray, context: Context) -> Finding | None:
    """Each channel or each position its own factor, the same at all others."""

    def attempts() -> Iterator[Finding | None]:
        for axes in _factor_axes(ours, theirs):
            power = (ours * ours).sum(axis=axes, keepdims=True)
            factors = (ours * theirs).sum(axis=axes, keepdims=True) / np.where(power, power, 1)
            along = [axis for axis in range(ours.ndim) if axis not in axes]
            message = (
                f"{factors.size} factors along {along}, {factors.min():.3g} to {factors.max():.3g}: {_usually(context)}"
            )
            yield finding("own factors", message, ours, theirs, ours * factors, context)

    return best(attempts())


def _usually(context: Context) -> str:
    if context.leaf == "quantized":
        return "an entry of a codebook is its sum divided by its usage, at least 1e-5"
    return "a norm, its weight, a scale or a gamma is left out, doubled or another one"


def _factor_axes(ours: AnyArray, theirs: AnyArray) -> Iterator[tuple[int, ...]]:
    """Axes along which a factor stays the same. A factor for every three values or fewer would explain anything."""
    for axis in _channel_axes(ours, theirs):
        yield tuple(i for i in range(ours.ndim) if i != axis)
    if ours.shape == theirs.shape and ours.ndim == 3 and ours.dtype.kind == "f" and ours.shape[2] > 3:
        yield (2,)  # every head of every position


def channel_offset(ours: AnyArray, theirs: AnyArray, context: Context) -> Finding | None:
    """Each channel off by a constant, the same at every position."""

    def attempts() -> Iterator[Finding | None]:
        for axis in _channel_axes(ours, theirs):
            others = tuple(i for i in range(ours.ndim) if i != axis)
            offset = (theirs - ours).mean(axis=others, keepdims=True)
            if np.mean(np.abs(offset) > context.atol) < 0.5:
                continue  # a few slices that are wrong are not a bias
            message = f"each of {ours.shape[axis]} along axis {axis} is off by a constant: a bias is missing or doubled"
            yield finding("bias", message, ours, theirs, ours + offset, context)

    return best(attempts())


def rounded(ours: AnyArray, theirs: AnyArray, context: Context) -> Finding | None:
    """The values, or what they were made from, rounded to a narrower type."""
    if ours.shape != theirs.shape or ours.dtype.kind != "f":
        return None
    single = theirs.astype(np.float32)
    for name, narrow, unit in (
        ("bfloat16", widen_ref(round_ref(single)), 2.0**-8),
        ("float16", single.astype(np.float16).astype(np.float32), 2.0**-11),
    ):
        off = np.abs(ours.astype(np.float64) - theirs)
        # Half a unit from the rounding, and as much again where what it was made of had been rounded before.
        if np.array_equal(narrow, single) and (off <= 2 * unit * np.abs(ours) + context.atol).all():
            return Finding("rounded", f"the values are rounded to {name}: computed or stored in {name}", 0.0)
    return None


def _channel_axes(ours: AnyArray, theirs: AnyArray) -> Iterator[int]:
    """Axes with a value for at least three positions of each channel, enough to tell a constant from anything else."""
    if ours.shape == theirs.shape and ours.dtype.kind == "f":
        yield from (axis for axis, n in enumerate(ours.shape) if n > 1 and ours.size >= 3 * n)
