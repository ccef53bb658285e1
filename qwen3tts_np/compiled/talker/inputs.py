"""The talker's inputs on compiled kernels: rows of a prompt's table, and of text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from qwen3tts_np_kernels.team import Team
from qwen3tts_np_kernels.transformer_jit import Work

from ...ops import Array, Ints
from ...request import Request
from .talker import project_text
from .weights import CompiledWeights

PROMPT_COLUMNS = 64  # positions per pass: enough to be bound by arithmetic, not by memory


@dataclass(frozen=True)
class TalkerInputs:
    """Makes inputs at the width of the weights, zero padding included. ``work`` has ``PROMPT_COLUMNS`` at least."""

    weights: CompiledWeights
    team: Team
    work: Work

    def prompt(self, request: Request, part: range, *, project: bool = True) -> Array:
        """The positions ``part`` of a prompt [T, width]."""
        positions = request.prompt.prefill[part.start : part.stop]
        x = self.text(np.array([position.text for position in positions]), project=project)
        for row, position in zip(x, positions, strict=True):
            if position.codec is not None:
                row += self.weights.code_embedding(0, np.array(position.codec))
            elif position.frame is not None:
                row += self.frame(position.frame)
            elif position.x_vector:
                assert request.x_vector is not None  # Request rejects that
                row[: len(request.x_vector)] += request.x_vector
        return x

    def frame(self, codes: tuple[int, ...]) -> Array:
        """The sum of a frame's embeddings [width]."""
        total: Array = np.sum([self.weights.code_embedding(g, np.array(code)) for g, code in enumerate(codes)], axis=0)
        return total

    def text(self, ids: Ints, *, project: bool = True) -> Array:
        """``text_projection`` of the embeddings of text tokens, or the embeddings themselves. ids [n] -> [n, width]."""
        fc1, fc2 = self.weights.text_projection
        embedded = self.weights.text_embedding[ids]  # [n, X]
        width = fc1.bias.size if project else fc2.bias.size
        x = np.pad(embedded, ((0, 0), (0, width - embedded.shape[1]))).astype(np.float32, copy=False)
        if not project:
            return x
        hidden, y = np.empty_like(x), np.empty((len(ids), fc2.bias.size), np.float32)
        for first in range(0, len(ids), PROMPT_COLUMNS):
            part = slice(first, first + PROMPT_COLUMNS)
            given, inside, out = (array[part].reshape(-1) for array in (x, hidden, y))
            self.team.run(project_text, fc1, fc2, given, len(x[part]), inside, out, self.work)
        return y
