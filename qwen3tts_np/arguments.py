"""Arguments of calls, whatever a caller hands over: their types and ranges, one function for each kind of argument.

Every error is one sentence with the name of the argument, its (shortened) value or its type, and the rule. That a value
fits the model is checked where the model is known.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from contextlib import suppress
from numbers import Integral, Real
from pathlib import Path
from types import UnionType
from typing import Any, get_args

import numpy as np

from .errors import RequestError, RequestTypeError
from .ops import AnyArray, Array, Ints, as_array
from .shown import shortened

MOST_FRAMES = 4_500_000  # of codes, 12.5 a second: an array of more is a mistake, which takes long to be read


def require_text(value: object, name: str) -> None:
    """Raises RequestError unless ``value`` is a string that UTF-8 can carry (a lone surrogate is not)."""
    if not isinstance(value, str):
        raise RequestTypeError(f"{name} must be a string, not {type(value).__name__}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as e:
        raise RequestError(
            f"{name}: U+{ord(value[e.start]):04X} at position {e.start} is half a surrogate pair, not a character"
        ) from None


def require_type(value: object, kind: type | UnionType, name: str) -> None:
    """Raises RequestTypeError unless ``value`` is one of ``kind``."""
    if not isinstance(value, kind):
        kinds = " or ".join(one.__name__ for one in (get_args(kind) or (kind,)))
        raise RequestTypeError(f"{name} is {type(value).__name__}, expected a {kinds}")


def path_of(value: Any, name: str) -> Path:
    """``value`` as a path: text, or an object that stands for a path."""
    text = None
    with suppress(TypeError):  # what stands for no path, or for one that is no text
        text = os.fspath(value)
    if not isinstance(text, str):
        raise RequestTypeError(f"{name} is {type(value).__name__}, expected the name of a file or a folder")
    if not text:
        raise RequestError(f"{name} is empty, expected the name of a file or a folder")
    return Path(text)


def switch(value: Any, name: str) -> bool:
    """``value`` as a bool, also 0 and 1; None and "" are False, as in the official package.

    Trap: of other text, "False" would be true.
    """
    if value is None or (isinstance(value, str) and not value):
        return False
    if not isinstance(value, bool | np.bool_ | Integral) or value not in (0, 1):
        raise RequestError(f"{name}={shortened(value)} must be True or False")
    return bool(value)


def whole_number(value: Any, name: str, least: int = 1) -> int:
    """``value`` as a Python integer of at least ``least``; NumPy's integers are some, True is none."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise RequestError(f"{name}={shortened(value)} must be a whole number of at least {least}")
    return int(value)


def real_number(value: Any) -> float:
    """``value`` as a float; NaN for what is no number, or beyond the range of a float."""
    if isinstance(value, Real) and not isinstance(value, bool):
        with suppress(OverflowError):
            return float(value)
    return math.nan


def callback(value: Any, name: str) -> Callable[..., Any] | None:
    """A function, or None."""
    if value is not None and not callable(value):
        raise RequestTypeError(f"{name} is {type(value).__name__}, expected a function or None")
    return value


def array_of(value: Any, name: str) -> AnyArray:
    """An array, a tensor of PyTorch, or nested lists, as an array."""
    try:
        return np.asarray(as_array(value))
    except (ValueError, TypeError, OverflowError):  # lists of different lengths, or of foreign objects
        raise RequestTypeError(f"{name} is {type(value).__name__}, which is no array of numbers") from None


def vector_of(value: Any, name: str) -> Array:
    """``value`` as an array of finite numbers, of whatever shape."""
    array = array_of(value, name)
    if array.dtype.kind not in "fiu":
        raise RequestError(f"{name} is {array.dtype} {list(array.shape)}, expected finite numbers")
    if not np.isfinite(array).all():
        raise RequestError(f"{name} {list(array.shape)} holds values that are not finite")
    return array


def codes_of(value: Any, name: str, groups: int | None = None, codebook_size: int | None = None) -> Ints:
    """``value`` as codes [frames, G]; with ``groups`` codes per frame, each from 0 to ``codebook_size`` - 1."""
    array = array_of(value, name)
    wanted = "G" if groups is None else groups
    if array.ndim != 2 or array.dtype.kind not in "iu" or (groups is not None and array.shape[1] != groups):
        shape = list(array.shape)
        raise RequestError(f"{name} are {array.dtype} {shape}, expected integers [frames, {wanted}]")
    if len(array) > MOST_FRAMES:
        raise RequestError(f"{name} have {len(array)} frames, more than {MOST_FRAMES}, which last 100 hours")
    if codebook_size is not None and array.size and not 0 <= array.min() <= array.max() < codebook_size:
        frame, group = np.argwhere((array < 0) | (array >= codebook_size))[0]
        where = f"(frame {frame}, group {group})"
        raise RequestError(f"code {array[frame, group]} {where} is not from 0 to {codebook_size - 1}")
    return array
