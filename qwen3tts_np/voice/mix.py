"""A voice between two others: their speaker embeddings (x-vectors), interpolated on the sphere."""

from __future__ import annotations

import math

import numpy as np

from ..arguments import real_number
from ..errors import RequestError
from ..notices import notify
from ..ops import Array
from ..shown import shortened
from .prompt_item import VoiceClonePromptItem

SAME, OPPOSITE = 1e-6, math.pi - 1e-3  # radians between two directions: where the arc has no length, or no direction


def mixed(a: VoiceClonePromptItem, b: VoiceClonePromptItem, share: float) -> VoiceClonePromptItem:
    """The voice at ``share`` (0 to 1) of the way from ``a`` to ``b``: a speaker embedding alone.

    Transcripts and codes belong to one clip and are left out. RequestError for embeddings of unequal size, without a
    direction, or of opposite directions.
    """
    share = real_number(share)
    if not 0 <= share <= 1:
        raise RequestError(f"share={shortened(share)} must be a number from 0 to 1, the share of the second voice")
    first, second = a.ref_spk_embedding, b.ref_spk_embedding
    if first.ndim != 1 or first.shape != second.shape:
        shapes = f"{list(first.shape)} and {list(second.shape)}"
        raise RequestError(f"voices with embeddings of shape {shapes} cannot be mixed: take two of one size of model")
    known = a.fingerprint if b.fingerprint is None else b.fingerprint
    if a.fingerprint and b.fingerprint and a.fingerprint.speaker_encoder != b.fingerprint.speaker_encoder:
        notify("the two voices were made with different weights of the speaker encoder: expect a voice unlike both")
        known = None
    return VoiceClonePromptItem(
        ref_code=None,
        ref_spk_embedding=on_the_arc(first, second, share),
        x_vector_only_mode=True,
        icl_mode=False,
        fingerprint=known,
        description=f"a mix of two voices, {1 - share:g} and {share:g}",
    )


def on_the_arc(a: Array, b: Array, share: float) -> Array:
    """[H] float32: the direction at ``share`` of the arc from ``a`` to ``b`` [H] (slerp), the length as far between
    theirs. RequestError where there is no such arc, or more than one."""
    first, second = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(first), np.linalg.norm(second)
    if not all(lengths):
        raise RequestError("an embedding of zeros has no direction, and cannot be mixed")
    u, v = first / lengths[0], second / lengths[1]
    angle = 2 * math.atan2(float(np.linalg.norm(u - v)), float(np.linalg.norm(u + v)))  # exact near 0 and pi
    if angle > OPPOSITE:
        raise RequestError("the two embeddings have opposite directions: no voice is between them")
    if angle < SAME:
        direction = u
    else:
        direction = (math.sin((1 - share) * angle) * u + math.sin(share * angle) * v) / math.sin(angle)
    return (((1 - share) * lengths[0] + share * lengths[1]) * direction).astype(np.float32)
