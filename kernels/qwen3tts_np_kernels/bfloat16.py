"""bfloat16 stored as uint16: the upper half of a float32."""

import numpy as np

from .arrays import F32, U16, Array


def widen_ref(bits: U16) -> F32:
    """The float32 of each bfloat16, exactly. Any shape."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def round_ref(x: Array) -> U16:
    """The nearest bfloat16 of each float32, ties to even; a NaN stays a (quiet) NaN. Any shape."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(x), (bits >> 16) | 0x40, rounded).astype(np.uint16)
