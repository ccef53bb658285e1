"""The table of known mistakes, the specific before the general (``diagnosis.py`` defines how one is chosen)."""

from __future__ import annotations

import numpy as np

from ...ops import AnyArray
from ..diagnosis import EXPLAINED, Cause, Context, Finding
from .attention import attention_variants
from .layout import edges, heads_mixed, other_length, permuted, shifted, some_positions, transposed
from .neighbours import addend, another_input, another_tensor, another_weight, bias, codebook_order, concatenation
from .norm import norm_variants
from .pointwise import activations, log_base, snakes
from .rope import rope_variants
from .sampling import repetition, suppressed
from .scale import channel_offset, own_factors, rounded, scaled

CAUSES: tuple[Cause, ...] = (
    suppressed,
    repetition,
    codebook_order,
    rope_variants,
    attention_variants,
    activations,
    snakes,
    log_base,
    norm_variants,
    bias,
    another_tensor,
    concatenation,
    addend,
    another_input,
    another_weight,
    scaled,
    transposed,
    heads_mixed,
    permuted,
    shifted,
    other_length,
    rounded,
    own_factors,
    channel_offset,
)
# The location of the difference, for one that no cause explains.
PLACES: tuple[Cause, ...] = (edges, some_positions)


def diagnose(ours: AnyArray, theirs: AnyArray, context: Context) -> list[Finding]:
    """All causes that explain the difference, the likeliest first; otherwise its location; [] if nothing is known."""
    with np.errstate(all="ignore"):
        found = [f for cause in CAUSES if (f := cause(ours, theirs, context))]
    if not found:
        return [f for place in PLACES if (f := place(ours, theirs, context))][:1]
    # All findings with a negligible remainder rank equally; the sort keeps the order of the table.
    return sorted(found, key=lambda f: max(f.left, EXPLAINED / 5))
