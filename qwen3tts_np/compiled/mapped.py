"""Mapped arrays of a file as kernels take them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class _Writable:
    """The memory of an array, for NumPy; it keeps the array alive."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array
        self.__array_interface__ = {**array.__array_interface__, "data": (array.ctypes.data, False)}


def in_place(array: NDArray[Any]) -> NDArray[Any]:
    """A mapped array without its read-only flag, not copied. Kernels do not write to weights.

    Trap: for Numba a read-only array is another type, for which it would compile the kernels again.
    """
    return np.asarray(_Writable(array))
