"""bfloat16 stored as uint16: the upper half of a float32."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def widen_ref(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The float32 of each bfloat16, exactly. Any shape."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def round_ref(x: NDArray[np.floating[Any]]) -> NDArray[np.uint16]:
    """The nearest bfloat16 of each float32, ties to even; a NaN stays a (quiet) NaN. Any shape."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(x), (bits >> 16) | 0x40, rounded).astype(np.uint16)
