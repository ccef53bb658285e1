"""The arguments of a kernel as one block of 64-bit words, which is all that its machine code receives.

An array is its address and its lengths, a tuple whatever it holds, one after the other. The kinds of the arguments,
which machine code is compiled for, are found on the way; the compiled side (``compiler.py``) reads a block by them.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np


class ArrayKind(NamedTuple):
    """A C-contiguous array."""

    dtype: np.dtype[Any]
    axes: int

    def __str__(self) -> str:
        return f"{self.dtype.str}[{self.axes}]"


class TupleKind(NamedTuple):
    """A tuple, or a named tuple of class ``cls``."""

    cls: type
    parts: tuple[Kind, ...]

    def __str__(self) -> str:
        return f"{self.cls.__module__}.{self.cls.__qualname__}({', '.join(map(str, self.parts))})"


Kind: TypeAlias = "ArrayKind | TupleKind | str"
INTEGER, NUMBER, TRUTH = "int64", "float64", "bool"
_SCALARS: dict[type, str] = {int: INTEGER, np.int64: INTEGER, float: NUMBER, np.float64: NUMBER, bool: TRUTH}
_SCALARS[np.bool_] = TRUTH


def flatten(value: Any, words: list[Any]) -> Kind:
    """Append the words of ``value`` to ``words``; returns its kind. TypeError for what no kernel takes."""
    if isinstance(value, np.ndarray):
        if not value.flags.c_contiguous:
            raise TypeError(f"a kernel takes contiguous arrays, not one with strides {value.strides}")
        words.append(value.ctypes.data)
        words += value.shape
        return ArrayKind(value.dtype, value.ndim)
    if isinstance(value, tuple):
        return TupleKind(type(value), tuple([flatten(part, words) for part in value]))
    words.append(value)
    try:
        return _SCALARS[type(value)]
    except KeyError:
        raise TypeError(f"a kernel takes arrays, numbers and tuples of them, not {type(value).__name__}") from None


def code_of(kind: Kind) -> str:
    """The words of a value in the notation of ``struct``."""
    if isinstance(kind, ArrayKind):
        return "q" * (1 + kind.axes)
    if isinstance(kind, TupleKind):
        return "".join(map(code_of, kind.parts))
    return "d" if kind == NUMBER else "q"
