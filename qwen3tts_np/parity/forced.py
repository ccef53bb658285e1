"""Teacher forcing: the model is fed given codes instead of its own, so that an early error does not spread.

No model code changes: a generator whose draws are the given codes makes the model write them in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..arguments import codes_of
from ..codec.encoder import NAME as ENCODER
from ..codec.encoder import CodecEncoder
from ..compiled.frame_loop import FrameLoop
from ..generate import FrameWriter
from ..model import Qwen3TTSModel
from ..ops import Array, Ints
from ..request import Limits, Request
from ..talker.frame import Frame
from ..talker.generator import Generator
from ..talker.sampling import SamplingParameters

GIVEN = "the given codes"
HEADS = ("talker.codec_head", "talker.code_predictor.lm_head.*", "talker.token")  # what ranks of codes are read from
RESIDUALS = (f"{ENCODER}.quantizer.*.residual", f"{ENCODER}.downsample")  # and ranks of codebook entries


class GivenCodes:
    """A ``Generator`` that draws the given codes [frames, G], then ``last``."""

    def __init__(self, codes: Ints, last: int) -> None:
        self._tokens = iter([*np.asarray(codes).ravel().tolist(), last])

    def multinomial(self, p: Array) -> NDArray[np.int64]:
        """The next code, whatever its probability. p [1, V] -> [1]."""
        return np.array([next(self._tokens)], dtype=np.int64)


@dataclass(frozen=True)
class ForcedLoop:
    """A frame loop that writes the given codes [frames, G]."""

    loop: FrameWriter
    codes: Ints
    last: int

    def frames(self, requests: Sequence[Request], generator: Generator) -> Iterator[Frame]:
        limits = requests[0].limits
        limits = Limits(_drawn(limits.talker), _drawn(limits.subtalker), max_new_tokens=len(self.codes) + 1)
        drawn = [replace(request, limits=limits) for request in requests]
        codes = GivenCodes(self.codes, self.last)
        if isinstance(self.loop, FrameLoop):
            return self.loop.reference_frames(drawn, codes)
        return self.loop.frames(drawn, codes)


def forced(model: Qwen3TTSModel, codes: Ints, last: int | None = None) -> Qwen3TTSModel:
    """``model``, whose calls write ``codes`` [frames, G] whatever their text, then ``last``: the end of speech if None.

    Raises RequestError if it has no such codes.
    """
    c = model.config.talker_config
    codes = codes_of(codes, GIVEN, c.num_code_groups, c.code_predictor_config.vocab_size)
    last = c.codec_eos_token_id if last is None else last
    return replace(model, frame_loop=ForcedLoop(model.frame_loop, codes, last))


def _drawn(s: SamplingParameters) -> SamplingParameters:
    """The same parameters with sampling on: greedy decoding does not call a generator."""
    return s if s.do_sample else SamplingParameters(True, 1.0, 0, 1.0, s.repetition_penalty)


def code_ranks(trace: Mapping[str, Array], codes: Ints) -> dict[str, Array]:
    """The rank of each code [frames, G] among the logits it was chosen from.

    ``ranks.*``: how many codes had a greater logit, so 0 is the best; ``margins.*``: its logit less the greatest
    other one. Of the talker [frames], of the code predictor [frames, G - 1].
    """
    frames, groups = codes.shape
    talker = [_standing(trace[f"{HEADS[0]}@{t}"].ravel(), codes[t, 0]) for t in range(frames)]
    predictor = [
        [_standing(trace[f"talker.code_predictor.lm_head.{g - 1}@{t}"].ravel(), codes[t, g]) for g in range(1, groups)]
        for t in range(frames)
    ]
    return _tables("talker", np.array(talker).reshape(frames, 2)) | _tables(
        "code_predictor", np.array(predictor).reshape(frames, groups - 1, 2)
    )


def codebook_ranks(trace: Mapping[str, Array], codes: Ints, encoder: CodecEncoder) -> dict[str, Array]:
    """The same for the encoder's codes [frames, G]: entries nearer than the one taken; by how much it was nearer."""
    layers = [
        f"{ENCODER}.quantizer.semantic_residual_vector_quantizer.layers.0",
        *(f"{ENCODER}.quantizer.acoustic_residual_vector_quantizer.layers.{i}" for i in range(codes.shape[1] - 1)),
    ]
    found = np.empty((*codes.shape, 2))
    for g, (layer, entries) in enumerate(zip(layers, encoder.codebooks, strict=True)):
        residual = trace[f"{layer}.residual@0"].T  # [T, E]
        for t, row in enumerate(residual):
            found[t, g] = _standing(-np.linalg.norm(row - entries, axis=1), codes[t, g])
    return _tables("encoder", found)


def _standing(scores: Array, chosen: int) -> tuple[float, float]:
    """(how many are better, lead over the best other one)."""
    others = np.delete(scores, chosen)
    return float((others > scores[chosen]).sum()), float(scores[chosen] - others.max())


def _tables(of: str, found: Array) -> dict[str, Array]:
    return {f"ranks.{of}": found[..., 0].astype(np.int32), f"margins.{of}": found[..., 1].astype(np.float32)}
