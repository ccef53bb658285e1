"""Error measures between two tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..errors import RequestError
from ..ops import AnyArray


@dataclass(frozen=True)
class Error:
    """The difference of two tensors of the same shape; ``ours`` is the reference."""

    greatest: float  # |difference|
    at: tuple[int, ...]  # where
    ours: float  # the values there
    theirs: float
    relative: float  # greatest |difference| / greatest |ours|
    rms: float  # root mean square of the difference / that of ours
    cosine: float
    snr: float  # dB, 20 log10(1 / rms); infinite where they are equal


def same_shape(theirs: AnyArray, ours: AnyArray) -> AnyArray | None:
    """``theirs`` in the shape of ``ours``, if only axes of length 1 or a split axis (heads) differ, else None."""
    if theirs.shape == ours.shape:
        return theirs
    bare = [[n for n in a.shape if n != 1] for a in (theirs, ours)]
    if theirs.size != ours.size or (len(bare[0]) == len(bare[1]) and bare[0] != bare[1]):
        return None
    return theirs.reshape(ours.shape)


def difference(a: AnyArray, b: AnyArray) -> AnyArray:
    """a - b in float64; 0 where both are the same infinity, infinite where only one is finite."""
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore"):
        found = np.asarray(wide_a - wide_b)
    if np.isfinite(found).all():
        return found
    found[np.isnan(found)] = np.inf
    found[wide_a == wide_b] = 0.0
    return found


def measure(theirs: AnyArray, ours: AnyArray) -> Error:
    """Measure the error. Both of the same shape, not empty."""
    error = difference(theirs, ours)
    at = np.unravel_index(int(np.abs(error).argmax()), error.shape)
    finite = np.isfinite(ours) & np.isfinite(theirs)
    kept = slice(None) if finite.all() else finite.ravel()
    a, b = (one.ravel()[kept].astype(np.float64) for one in (theirs, ours))
    power, peak = _dot(b, b), float(np.abs(b).max(initial=0))
    rms = math.inf if not np.isfinite(error).all() else math.sqrt(float(np.sum(error * error)) / max(power, 1e-300))
    norms = math.sqrt(_dot(a, a) * power)
    greatest = float(np.abs(error[at]))
    return Error(
        greatest,
        tuple(map(int, at)),
        float(ours[at]),
        float(theirs[at]),
        greatest / peak if peak else (math.inf if greatest else 0.0),
        rms,
        _dot(a, b) / norms if norms else float(greatest == 0),
        -20 * math.log10(rms) if rms else math.inf,
    )


def _dot(a: AnyArray, b: AnyArray) -> float:
    """A dot product without BLAS, which would wake its threads for a thousand small tensors."""
    return float(np.einsum("i,i", a, b))


def outside(theirs: AnyArray, ours: AnyArray, atol: float) -> bool:
    """Whether any value is off by more than ``atol``."""
    return bool((np.abs(difference(theirs, ours)) > atol).any())


def require_numbers(name: str, tensor: AnyArray) -> AnyArray:
    """``tensor`` if it holds numbers; otherwise raises RequestError."""
    if tensor.dtype.kind not in "fiub":
        raise RequestError(f"{name} is {tensor.dtype}, expected numbers")
    return tensor
