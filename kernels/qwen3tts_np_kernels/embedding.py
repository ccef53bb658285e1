"""Rows of a table."""

import numpy as np

from .arrays import Array, Ints


def embedding_ref(ids: Ints, table: Array) -> Array:
    """The row of each id. ids [...], table [V, H] -> [..., H]."""
    return table[ids]


def embedding_backward_ref(dy: Array, ids: Ints, dtable: Array) -> None:
    """Add the gradient of ``embedding_ref`` to dtable [V, H]: to the row of each id its dy. dy [..., H].

    Trap: ``dtable[ids] += dy`` counts an id that occurs twice once.
    """
    np.add.at(dtable, ids, dy)
