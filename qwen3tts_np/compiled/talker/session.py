"""A decode session: weights, caches and working buffers of one batch, from its prompts to its last frame.

    session = DecodeSession(weights, team, talker_config, limits, streams)
    session.prefill(inputs, texts)
    while (frame := session.frame()) is not None:
        ...

One compiled call writes a frame (``frame.write_frame``); control returns to Python between frames, so Ctrl-C and a
reader of the stream wait for one frame at most.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from qwen3tts_np_kernels.threads_jit import Team

from ...config import TalkerConfig
from ...errors import RequestError
from ...ops import Array, Ints
from ...talker.frame import Frame
from ...talker.sampling import SamplingParameters
from .batch import Choosing, new_batch, new_cache, new_columns, new_work
from .frame import write_frame
from .generator import Streams
from .sampling import new_scratch, rule_of
from .talker import project_text, read_prompt
from .weights import CompiledWeights

PROMPT_COLUMNS = 32  # prompt positions per pass: enough to be bound by arithmetic, not by memory
FIRST_FRAMES = 128  # initial capacity; it grows by half


class DecodeSession:
    """Writes the codes of one batch. ``max_new_tokens=N``, for all items or for each, is at most N - 1 frames.

    All widths of inputs and results are those of ``weights``, zero padding included.
    """

    def __init__(
        self,
        weights: CompiledWeights,
        team: Team,
        config: TalkerConfig,
        talker: SamplingParameters,
        subtalker: SamplingParameters,
        max_new_tokens: int | Sequence[int],
        streams: Streams,
    ) -> None:
        self._weights, self._team, self._config = weights, team, config
        self._parameters = talker, subtalker
        if talker.do_sample and talker.temperature > float(np.finfo(np.float32).max):
            raise self._out_of_range()  # as in the reference, where a token that is out, -inf / inf, is not a number
        self._last_steps = np.broadcast_to(np.asarray(max_new_tokens) - 1, streams.stream_of.shape)  # [B]
        self._last_step = int(self._last_steps.max())
        self._streams = streams
        self._step = 0
        self._ended = False
        items = len(streams.stream_of)
        model = weights.model
        self._work = new_work(model, max(PROMPT_COLUMNS, 2 * items), team.size, weights.text_projection[0].bias.size)
        self._columns = new_columns(max(PROMPT_COLUMNS, 2 * items))
        vocabulary = max(config.vocab_size, config.code_predictor_config.vocab_size)
        self._choosing = Choosing(rule_of(talker), rule_of(subtalker), new_scratch(vocabulary))
        self._cache = new_cache(model.talker.layers.sizes, items, 0, config.rope_theta)
        predictor = config.code_predictor_config
        self._predictor_cache = new_cache(
            model.predictor.layers.sizes, items, predictor.num_code_groups, predictor.rope_theta
        )

    def project_text(self, ids: Ints) -> Array:
        """``text_projection`` of the embeddings of text tokens, at the talker's width. ids [n] -> [n, H]."""
        fc1, fc2 = self._weights.text_projection
        embedded = self._weights.text_embedding[ids]  # [n, X]
        x = np.pad(embedded, ((0, 0), (0, fc1.bias.size - embedded.shape[1]))).astype(np.float32, copy=False)
        hidden, y = np.empty_like(x), np.empty((len(ids), fc2.bias.size), np.float32)
        for first in range(0, len(ids), PROMPT_COLUMNS):
            part = slice(first, first + PROMPT_COLUMNS)
            given, inside, out = (array[part].reshape(-1) for array in (x, hidden, y))
            self._team.run(project_text, fc1, fc2, given, len(x[part]), inside, out, self._work)
        return y

    def prefill(self, inputs: Sequence[Array], texts: Sequence[Array]) -> None:
        """Read the prompts.

        inputs: the talker inputs [T, H] of each item. texts: the embeddings added to its frames [T', H], the last one
        indefinitely.
        """
        lengths = np.array([len(x) for x in inputs])
        longest = int(lengths.max())
        self._batch = new_batch(self._weights.model, lengths, texts, self._streams)
        self._make_room(0, longest + min(self._last_step + 1, FIRST_FRAMES))
        everything = np.concatenate(inputs)  # [sum of T, H]
        item = np.repeat(np.arange(len(inputs)), lengths)
        position = np.concatenate([np.arange(length) for length in lengths])
        ends = (position == lengths[item] - 1).astype(np.int64)
        order = np.argsort(ends, kind="stable")  # the final positions of all prompts come last: one pass of the head
        for first in range(0, len(order), PROMPT_COLUMNS):
            part = order[first : first + PROMPT_COLUMNS]
            self._read(everything[part], item[part], position[part], ends[part])

    def talker_step(self, position: int) -> None:
        """One pass of the talker over one column at ``position``, as in every frame; for benchmarks."""
        self._make_room(int(self._batch.length.max()), position + 1)
        width = self._weights.model.tables.width
        one = np.ones(1, np.int64)
        self._read(self._batch.hidden[None, :width], 0 * one, position * one, one)

    def _read(self, inputs: Array, item: Ints, position: Ints, ends: Ints) -> None:
        """Read columns of prompts. inputs [columns, width]; ends: see ``talker.read_prompt``."""
        columns, count = self._columns, len(item)
        self._work.x[: inputs.size] = inputs.reshape(-1)
        columns.item[:count], columns.position[:count] = item, position
        talker = self._weights.model.talker
        self._team.run(read_prompt, talker, self._batch, count, ends, self._cache, columns, self._work)

    def more_text(self, text: Array) -> None:
        """Add text [n, H] that has arrived since, for a batch of one, before the row that is repeated indefinitely."""
        batch = self._batch
        rows = batch.text.reshape(-1, text.shape[1])
        first, last = int(batch.text_first[0]) + self._step, int(batch.text_last[0])  # rows already read are released
        rows = np.concatenate([rows[first:last], text, rows[last:]])
        self._batch = batch._replace(
            text=rows.reshape(-1), text_first=np.array([-self._step]), text_last=np.array([len(rows) - 1])
        )

    def frame(self) -> Frame | None:
        """Write the next frame; None when all items have ended or the limit is reached.

        Raises RequestError if a choice had no valid probabilities.
        """
        if self._ended:
            return None
        batch, is_last = self._batch, self._step == self._last_step
        if not is_last:
            batch.finished[self._last_steps <= self._step] = True
        self._make_room(int(batch.length.max()) + self._step, int(batch.length.max()) + self._step + 1)
        self._team.run(
            write_frame,
            self._weights.model,
            batch,
            self._choosing,
            self._step,
            is_last,
            self._cache,
            self._predictor_cache,
            self._columns,
            self._work,
        )
        if batch.status[1]:
            raise self._out_of_range()
        going = batch.going[: batch.status[0]].copy()
        self._ended = is_last or len(going) == 0
        self._step += 1
        return None if self._ended else Frame(going, batch.codes[going])

    def _out_of_range(self) -> RequestError:
        talker, subtalker = self._parameters
        return RequestError(
            f"temperature={talker.temperature}, repetition_penalty={talker.repetition_penalty} and "
            f"subtalker_temperature={subtalker.temperature} take the logits out of the range of float32; "
            "use values nearer to 1"
        )

    def _make_room(self, used: int, needed: int) -> None:
        """A cache of at least ``needed`` positions, with the first ``used`` kept."""
        sizes, items = self._weights.model.talker.layers.sizes, len(self._batch.length)
        old = self._cache
        if old.room >= needed:
            return
        room = max(needed, old.room + old.room // 2)
        self._cache = new_cache(sizes, items, -(-room // 16) * 16, self._config.rope_theta)
        shape = (items * sizes.layers * sizes.kv_heads, -1, 2 * sizes.half)
        for before, now in ((old.k, self._cache.k), (old.v, self._cache.v)):
            now.reshape(shape)[:, :used] = before.reshape(shape)[:, :used]
        self._work = self._work._replace(scores=np.empty((self._team.size, self._cache.room), np.float32))
