"""Teacher forcing: talker and code predictor read a request and codes that are given, all frames in one pass.

    prompt [P positions] ── frame 0 ── frame 1 ── ... ── frame f - 1        input of the talker
                       │         │          │                      │
                    row 0      row 1      row 2       ...        row f      states and logits

The input at every position is the one that generation has there: the same prompt, the same sum of a frame's embeddings
and the next text token. So row t is what ``generate.py`` chooses frame t from. Where only the states of given codes are
wanted this takes the place of the frame loop: nothing is drawn, so no position waits for another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .config import ModelConfig
from .generate import Weights, embed_frame, embed_prefill
from .ops import Array, Ints, linear
from .request import Request
from .talker.code_predictor import NAME, project_inputs
from .talker.talker import new_cache, raw_text, text_projection, transformer
from .text.prompt import Prompt


class Teacher(Protocol):
    """Talker and code predictor of a model, which read given codes."""

    def read(self, request: Request, codes: Ints, *, project_text: bool = True) -> tuple[Array, Array]:
        """The talker's rows: states after the final norm [f + 1, H], and logits [f + 1, V]. codes [f, G].

        Without ``project_text`` text embeddings enter as they are stored, as no model reads them: some training scripts
        leave the projection out. Only where both have one width.
        """
        ...

    def complete(self, states: Array, codes: Ints) -> Array:
        """Logits [n, G - 1, C] of codes 1 to G - 1 of n frames, each given its state [n, H] and the codes before it."""
        ...


@dataclass(frozen=True)
class ReferenceTeacher:
    """On NumPy. Its compiled twin is ``compiled/teacher.py``."""

    weights: Weights
    config: ModelConfig

    def read(self, request: Request, codes: Ints, *, project_text: bool = True) -> tuple[Array, Array]:
        w, c = self.weights.talker, self.config.talker_config
        embed_text = text_projection if project_text else raw_text
        prompt = embed_prefill(request, self.weights, embed_text)  # [P, H]
        x = np.concatenate([prompt, *(embed_frame(frame, self.weights)[None] for frame in codes)])  # [P + f, H]
        x[len(prompt) :] += embed_text(w, np.array(beside(request.prompt, len(codes), self.config), np.int64))
        hidden = transformer(x, w.layers, w.norm, new_cache(c), c, "talker.model")[len(prompt) - 1 :]  # [f + 1, H]
        return hidden, linear(hidden, w.codec_head)

    def complete(self, states: Array, codes: Ints) -> Array:
        w, talker = self.weights.code_predictor, self.config.talker_config
        c = talker.code_predictor_config
        tables = [self.weights.talker.codec_embedding, *(part.weight for part in w.codec_embedding)]
        logits = np.empty((*codes[:, 1:].shape, c.vocab_size), states.dtype)
        for row, state, frame in zip(logits, states, codes, strict=True):
            read = np.stack([state, *(table[code] for table, code in zip(tables[:-1], frame, strict=False))])  # [G, H]
            x = transformer(project_inputs(read, w), w.layers, w.norm, new_cache(c), c, f"{NAME}.model")
            for g, head in enumerate(w.lm_head):
                row[g] = linear(x[g + 1], head.weight)
        return logits


def beside(prompt: Prompt, frames: int, config: ModelConfig) -> list[int]:
    """The text tokens that are added to the frames: those that trail the prompt, and then ``tts_pad``."""
    trailing = prompt.trailing[:frames]
    return [*trailing, *[config.tts_pad_token_id] * (frames - len(trailing))]
