"""Small arrays that a graph has in another form than the checkpoint, made when the graph is."""

from __future__ import annotations

import numpy as np

from ...ops import Array, codebook_entries
from ..weights import Tensors


def values_of(tensors: Tensors, key: str) -> Array:
    """The tensor ``key`` in float32."""
    return tensors[key].widen(np.dtype(np.float32))


def entries_of(tensors: Tensors, name: str, sums: str) -> Array:
    """The entries [C, E] of the codebook ``name``, whose sums are stored as ``name.sums``."""
    return codebook_entries(values_of(tensors, f"{name}.{sums}"), values_of(tensors, f"{name}.cluster_usage"))
