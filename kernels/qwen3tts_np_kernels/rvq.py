"""Residual vector quantisation: a vector is the sum of one entry from each of several codebooks."""

from collections.abc import Sequence

import numpy as np

from .arrays import I64, Array, Ints


def codebook_entries_ref(embedding_sum: Array, cluster_usage: Array) -> Array:
    """Codebook entries from the training statistics: entry = sum of its vectors / max(their count, 1e-5).

    embedding_sum [C, E], cluster_usage [C] -> [C, E].
    """
    return embedding_sum / np.maximum(cluster_usage, 1e-5)[:, None]


def lookup_ref(codes: Ints, codebooks: Sequence[Array]) -> Array:
    """The sum of the entries selected by each row of codes. codes [T, G], G codebooks [C, E] -> [T, E]."""
    total = codebooks[0][codes[:, 0]]  # [T, E]
    for entries, group in zip(codebooks[1:], codes.T[1:], strict=True):
        total = total + entries[group]
    return total


def nearest_ref(x: Array, entries: Array) -> I64:
    """Index of the nearest entry by Euclidean distance; the first of a tie. x [T, E], entries [C, E] -> [T].

    This is ``torch.cdist``'s |x|² - 2 x·e + |e|² as one matrix product, with its clamp and its root: where two
    entries are equally near within the rounding of the dtype, this rounding decides.
    """
    left = np.column_stack([-2 * x, np.sum(x * x, axis=1), np.ones_like(x[:, 0])])  # [T, E + 2]
    right = np.column_stack([entries, np.ones_like(entries[:, 0]), np.sum(entries * entries, axis=1)])  # [C, E + 2]
    distances = np.sqrt(np.maximum(left @ right.T, 0))  # [T, C]
    return distances.argmin(axis=1)
