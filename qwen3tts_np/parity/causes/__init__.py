"""The table of known mistakes, the specific before the general (``diagnosis.py`` defines how one is chosen)."""

from __future__ import annotations

import numpy as np

from ...ops import AnyArray
from ..diagnosis import EXPLAINED, Cause, Context, Finding
from .attention import attention_variants
from .layout import edges, heads_mixed, other_length, permuted, shifted, some_positions, transposed
from .mel import log_base, mel_recipes
from .neighbours import addend, another_input, another_tensor, another_weight, bias, codebook_order, concatenation
from .norm import norm_variants
from .pointwise import activations, snakes
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
# A spectrogram has neither weights nor inputs of ours, so what explains its values by a bias or a factor misleads.
OF_MEL: tuple[Cause, ...] = (log_base, mel_recipes, transposed, permuted, shifted, other_length, rounded)
# The location of the difference, for one that no cause explains.
PLACES: tuple[Cause, ...] = (edges, some_positions)


def diagnose(ours: AnyArray, theirs: AnyArray, context: Context) -> list[Finding]:
    """All causes that explain the difference, the likeliest first; otherwise its location; [] if nothing is known."""
    with np.errstate(all="ignore"):
        table = OF_MEL if context.leaf == "mel" else CAUSES
        found = [f for cause in table if (f := cause(ours, theirs, context))]
    if not found:
        return [f for place in PLACES if (f := place(ours, theirs, context))][:1]
    # All findings with a negligible remainder rank equally; the sort keeps the order of the table.
    return sorted(found, key=lambda f: max(f.left, EXPLAINED / 5))
