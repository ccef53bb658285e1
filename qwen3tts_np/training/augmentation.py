"""Augmentation "exchange": a past that the talker cannot rely on.

In training the talker reads the true codes of every past frame; when it speaks it reads its own. The finest codes tell
a talker exactly where in its training speech it is, so it learns to recognise the place instead of reading the text,
and is lost with codes of its own. Therefore a share of the frames that it reads have codes 1 to G - 1 of some other
frame of the training speech with the same code 0, and a few codes are any at all. What is to be predicted stays: the
talker still learns the true code 0, the code predictor the true codes of the frame.

Source: the recipe of the demo voice (``golden/demo_voice/training.py``), where without it code 0 was right in 98 % of
the frames after the true past, and in 23 % after its own. Inputs with errors of the model's own kind are scheduled
sampling (Bengio et al., 2015) without a second pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import RequestError
from ..ops import Ints
from ..shown import shortened

NAME = "exchange"
SHARE = 0.5  # of the frames
WRONG = 0.03  # of the codes


@dataclass(frozen=True)
class FramePool:
    """The frames [N, G] of some training speech, in the order of their codes 0."""

    frames: Ints
    starts: Ints  # [V + 1] where the frames of each code 0 begin; V is more than any of them

    @classmethod
    def of(cls, frames: Ints) -> FramePool:
        """frames [N, G] of any utterances, behind one another. RequestError for what holds no frame."""
        if frames.ndim != 2 or not frames.size:
            raise RequestError(f"frames {list(frames.shape)} hold none to exchange, expected codes [frames, groups]")
        ordered = frames[np.argsort(frames[:, 0], kind="stable")]
        return cls(ordered, np.searchsorted(ordered[:, 0], np.arange(int(ordered[-1, 0]) + 2)))

    def __len__(self) -> int:
        return len(self.frames)


def exchanged(
    frames: Ints,
    pool: FramePool,
    draw: np.random.Generator,
    *,
    codebook_size: int,
    share: float = SHARE,
    wrong: float = WRONG,
) -> Ints:
    """What the talker reads in place of ``frames`` [F, G]: a copy in which some of it is not so.

    Each frame is exchanged with the chance ``share`` for a frame of ``pool`` with the same code 0, all of them equally
    likely; a frame whose code 0 the pool does not have stays. Then each code, code 0 too, is with the chance ``wrong``
    any code below ``codebook_size``. All that is random is drawn from ``draw``, as many numbers for any pool.
    RequestError for a chance that is not from 0 to 1.
    """
    for name, chance in (("share", share), ("wrong", wrong)):
        if not 0 <= chance <= 1:
            raise RequestError(f"{name}={shortened(chance)} must be from 0 to 1")
    chosen, place = draw.random(len(frames)) < share, draw.random(len(frames))
    noise, other = draw.random(frames.shape) < wrong, draw.integers(0, codebook_size, frames.shape)
    code = np.minimum(frames[:, 0], len(pool.starts) - 2)
    first, count = pool.starts[code], pool.starts[code + 1] - pool.starts[code]
    chosen &= (count > 0) & (code == frames[:, 0])
    read = frames.copy()
    read[chosen] = pool.frames[(first + (place * count).astype(np.int64))[chosen]]
    return np.where(noise, other, read)
