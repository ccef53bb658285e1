"""Teacher forcing on compiled kernels: the losses of ``ReferenceTeacher``, many times faster.

With weights that are kept exactly (float32, bfloat16, float16) the logits differ by the rounding of float32. int8 and
int4 are what those kernels compute in generation, whose inputs are quantised too.
"""

from __future__ import annotations

import numpy as np
from qwen3tts_np_kernels.pack import BLOCK
from qwen3tts_np_kernels.stack_jit import Stack
from qwen3tts_np_kernels.team import Team
from qwen3tts_np_kernels.transformer_jit import Cache, Transformer

from ..config import ModelConfig
from ..ops import Array, Ints
from ..request import Request
from ..teacher import beside
from .talker.batch import new_cache, new_columns, new_work
from .talker.inputs import PROMPT_COLUMNS, TalkerInputs
from .talker.reading import project_columns, read_columns
from .talker.weights import CompiledWeights


class CompiledTeacher:
    """Talker and code predictor of packed weights (``teacher.Teacher``). States have the width of the weights, zero
    padding included."""

    def __init__(self, weights: CompiledWeights, team: Team, config: ModelConfig) -> None:
        self._weights, self._team, self._config = weights, team, config
        self._work = new_work(weights.model, PROMPT_COLUMNS, team.size, weights.text_projection[0].bias.size)
        self._columns = new_columns(PROMPT_COLUMNS)
        self._inputs = TalkerInputs(weights, team, self._work)

    def read(self, request: Request, codes: Ints, *, project_text: bool = True) -> tuple[Array, Array]:
        prompt, c = len(request.prompt.prefill), self._config.talker_config
        talker, inputs = self._weights.model.talker, self._inputs
        x = np.concatenate(
            [
                inputs.prompt(request, range(prompt), project=project_text),
                *(inputs.frame(tuple(frame))[None] for frame in codes.tolist()),
            ]
        )  # [P + f, width]
        text = np.array(beside(request.prompt, len(codes), self._config), np.int64)
        x[prompt:] += inputs.text(text, project=project_text)
        cache = new_cache(talker.layers.sizes, 1, len(x), c.rope_theta)
        hidden, logits = [], []
        for first in range(0, len(x), PROMPT_COLUMNS):
            part = x[first : first + PROMPT_COLUMNS]
            item, position = np.zeros(len(part), np.int64), np.arange(first, first + len(part))
            states, scores = self._pass(talker.layers, talker.head, 0, talker.vocabulary, part, item, position, cache)
            hidden.append(states)
            logits.append(scores[max(prompt - 1 - first, 0) :])
        return np.concatenate(hidden)[prompt - 1 :], np.concatenate(logits)

    def complete(self, states: Array, codes: Ints) -> Array:
        parts = [slice(first, first + PROMPT_COLUMNS) for first in range(0, len(codes), PROMPT_COLUMNS)]
        return np.concatenate([self._complete(states[part], codes[part]) for part in parts])

    def _complete(self, states: Array, codes: Ints) -> Array:
        """As many frames as a pass has columns: every pass is one position of all of them."""
        predictor, c = self._weights.model.predictor, self._config.talker_config.code_predictor_config
        frames, groups = codes.shape
        cache = new_cache(predictor.layers.sizes, frames, groups, c.rope_theta)
        logits = np.empty((frames, groups - 1, predictor.entries), np.float32)
        for position in range(groups):
            x = states if position == 0 else self._weights.code_embedding(position - 1, codes[:, position - 1])
            if predictor.projects:
                x = self._projected(x)
            head = max(position - 1, 0)  # after the state alone nothing is predicted
            items, positions = np.arange(frames), np.full(frames, position)
            _, scores = self._pass(
                predictor.layers, predictor.heads, head, predictor.entries, x, items, positions, cache
            )
            if position > 0:
                logits[:, head] = scores
        return logits

    def _projected(self, x: Array) -> Array:
        """``small_to_mtp_projection``. x [n, width] -> [n, the predictor's width]."""
        flat, projection = np.ascontiguousarray(x, np.float32).reshape(-1), self._weights.model.predictor.projection
        self._team.run(project_columns, projection, flat, len(x), self._work)
        return self._work.x[: len(x) * projection.bias.size].reshape(len(x), -1).copy()

    def _pass(
        self,
        layers: Transformer,
        head: Stack,
        index: int,
        entries: int,
        x: Array,
        item: Ints,
        position: Ints,
        cache: Cache,
    ) -> tuple[Array, Array]:
        """Columns of one pass. x [n, width] -> their states [n, width] and logits [n, entries]."""
        count, columns = len(x), self._columns
        self._work.x[: x.size] = x.reshape(-1)
        columns.item[:count], columns.position[:count] = item, position
        work = self._work._replace(scores=np.empty((self._team.size, 2 * cache.room), np.float32))
        hidden = np.empty(x.size, np.float32)
        self._team.run(read_columns, layers, head, index, entries, count, cache, columns, work, hidden)
        row = -(-entries // BLOCK) * BLOCK
        return hidden.reshape(x.shape), work.product[: count * row].reshape(count, row)[:, :entries].copy()
