"""A decode session: weights, caches and working space of one batch, from its prompts to its last frame.

    session = DecodeSession(weights, team, talker_config, limits, streams)
    session.prefill(inputs, texts)
    while (frame := session.frame()) is not None:
        ...

One compiled call writes a frame (``decode_jit.write_frame``); between two of them Python is in charge, so Ctrl-C and
a reader of the stream wait for one frame at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qwen3tts_np_kernels import decode_jit as kernels
from qwen3tts_np_kernels.sampling_jit import Rule, new_scratch
from qwen3tts_np_kernels.threads_jit import Team
from qwen3tts_np_kernels.transformer_jit import Cache, Columns, Sizes, Work

from ...config import TalkerConfig
from ...errors import RequestError
from ...ops import Array, Ints, rope_angles
from ...talker.frame import Frame
from ...talker.generator import Generator, ItemGenerators, TorchGenerator
from ...talker.sampling import SamplingParameters
from .weights import CompiledWeights

PROMPT_COLUMNS = 32  # positions of a prompt read in one pass: enough that arithmetic, not memory, is the limit
FIRST_FRAMES = 128  # room for so many at first; it grows by half


@dataclass(frozen=True)
class Streams:
    """The random numbers of a batch: states of Mersenne Twisters, and which of them an item draws from."""

    states: NDArray[np.uint32]  # [streams, 625]: 624 words, and how many of them are used; moves on in place
    stream_of: NDArray[np.int64]  # [B]


def streams_of(generator: Generator, items: int) -> Streams:
    """A copy of the state of a generator: one stream for all items, or one each."""
    if isinstance(generator, ItemGenerators):
        return Streams(np.array([item.state for item in generator.items]), np.arange(items))
    assert isinstance(generator, TorchGenerator)
    return Streams(generator.state[None], np.zeros(items, np.int64))


class DecodeSession:
    """Writes the codes of one batch. ``max_new_tokens=N``, of all items or of each, is at most N - 1 frames.

    All widths that come in and go out are those of ``weights``: filled up with zeros to whole vectors.
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
        self._last_steps = np.broadcast_to(np.asarray(max_new_tokens) - 1, streams.stream_of.shape)  # [B]
        self._last_step = int(self._last_steps.max())
        self._streams = streams
        self._step = 0
        self._ended = False
        items = len(streams.stream_of)
        model = weights.model
        self._work = _new_work(model, max(PROMPT_COLUMNS, 2 * items), team.size, weights.text_projection[0].bias.size)
        self._columns = _new_columns(max(PROMPT_COLUMNS, 2 * items))
        vocabulary = max(config.vocab_size, config.code_predictor_config.vocab_size)
        self._choosing = kernels.Choosing(_rule(talker), _rule(subtalker), new_scratch(vocabulary))
        predictor = config.code_predictor_config
        self._predictor_cache = _new_cache(
            model.predictor.layers.sizes, items, predictor.num_code_groups, predictor.rope_theta
        )

    def project_text(self, ids: Ints) -> Array:
        """Text tokens at the talker's width: ``text_projection`` of their embeddings. ids [n] -> [n, H]."""
        fc1, fc2 = self._weights.text_projection
        embedded = self._weights.text_embedding[ids]  # [n, X]
        x = np.pad(embedded, ((0, 0), (0, fc1.bias.size - embedded.shape[1]))).astype(np.float32, copy=False)
        hidden, y = np.empty_like(x), np.empty((len(ids), fc2.bias.size), np.float32)
        for first in range(0, len(ids), PROMPT_COLUMNS):
            part = slice(first, first + PROMPT_COLUMNS)
            given, inside, out = (array[part].reshape(-1) for array in (x, hidden, y))
            self._team.run(kernels.project_text, fc1, fc2, given, len(x[part]), inside, out, self._work)
        return y

    def prefill(self, inputs: Sequence[Array], texts: Sequence[Array]) -> None:
        """Read the prompts.

        inputs: the talker inputs [T, H] of each item. texts: what is added to its frames [T', H], the last for ever.
        """
        lengths = np.array([len(x) for x in inputs])
        longest = int(lengths.max())
        self._batch = _new_batch(self._weights.model, lengths, texts, self._streams)
        self._make_room(longest, longest + min(self._last_step + 1, FIRST_FRAMES))
        everything = np.concatenate(inputs)  # [sum of T, H]
        item = np.repeat(np.arange(len(inputs)), lengths)
        position = np.concatenate([np.arange(length) for length in lengths])
        ends = (position == lengths[item] - 1).astype(np.int64)
        order = np.argsort(ends, kind="stable")  # the last positions of all prompts come last: one pass of the head
        work, columns, model = self._work, self._columns, self._weights.model
        for first in range(0, len(order), PROMPT_COLUMNS):
            part = order[first : first + PROMPT_COLUMNS]
            count = len(part)
            work.x[: everything[part].size] = everything[part].reshape(-1)
            columns.item[:count], columns.position[:count] = item[part], position[part]
            self._team.run(
                kernels.read_prompt,
                model.talker,
                self._batch,
                count,
                ends[part],
                self._cache,
                columns,
                work,
            )

    def more_text(self, text: Array) -> None:
        """Text [n, H] that has come meanwhile, for a batch of one: it goes before the row that stays for ever."""
        batch = self._batch
        rows = batch.text.reshape(-1, text.shape[1])
        first, last = int(batch.text_first[0]) + self._step, int(batch.text_last[0])  # what was read is let go
        rows = np.concatenate([rows[first:last], text, rows[last:]])
        self._batch = batch._replace(
            text=rows.reshape(-1), text_first=np.array([-self._step]), text_last=np.array([len(rows) - 1])
        )

    def frame(self) -> Frame | None:
        """Write the next frame; None when all items have ended or the limit is reached.

        RequestError if a choice had no probabilities to choose by.
        """
        if self._ended:
            return None
        batch, is_last = self._batch, self._step == self._last_step
        if not is_last:
            batch.finished[self._last_steps <= self._step] = True
        self._make_room(int(batch.length.max()) + self._step, int(batch.length.max()) + self._step + 1)
        self._team.run(
            kernels.write_frame,
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
            talker, subtalker = self._parameters
            raise RequestError(
                f"temperature={talker.temperature}, repetition_penalty={talker.repetition_penalty} and "
                f"subtalker_temperature={subtalker.temperature} take the logits out of the range of float32; "
                "use values nearer to 1"
            )
        going = batch.going[: batch.status[0]].copy()
        self._ended = is_last or len(going) == 0
        self._step += 1
        return None if self._ended else Frame(going, batch.codes[going])

    @property
    def logits(self) -> Array:
        """Logits [B, V] of the next code 0 of each item; an item that has ended keeps its last ones."""
        rows = self._batch.logits.reshape(len(self._batch.length), -1)
        return rows[:, : self._config.vocab_size].copy()

    @property
    def hidden(self) -> Array:
        """The talker's hidden state [B, H] of the last position of each item, after its final norm."""
        rows = self._batch.hidden.reshape(len(self._batch.length), -1)
        return rows[:, : self._config.hidden_size].copy()

    def _make_room(self, used: int, needed: int) -> None:
        """A cache of at least ``needed`` positions, of which ``used`` are kept."""
        sizes, items = self._weights.model.talker.layers.sizes, len(self._batch.length)
        old: Cache | None = getattr(self, "_cache", None)
        if old is not None and old.room >= needed:
            return
        room = needed if old is None else max(needed, old.room + old.room // 2)
        self._cache = _new_cache(sizes, items, -(-room // 16) * 16, self._config.rope_theta)
        if old is not None:
            shape = (items * sizes.layers * sizes.kv_heads, -1, 2 * sizes.half)
            for before, now in ((old.k, self._cache.k), (old.v, self._cache.v)):
                now.reshape(shape)[:, :used] = before.reshape(shape)[:, :used]
        self._work = self._work._replace(scores=np.empty((self._team.size, self._cache.room), np.float32))


def _rule(s: SamplingParameters) -> Rule:
    if not s.do_sample:
        return Rule(False, 1.0, 0, 1.0, float(s.repetition_penalty))
    top_p = 1.0 if s.top_p is None else float(s.top_p)
    return Rule(True, float(s.temperature), int(s.top_k or 0), top_p, float(s.repetition_penalty))


def _new_cache(sizes: Sizes, items: int, room: int, theta: float) -> Cache:
    shape = items * sizes.layers * sizes.kv_heads * room * 2 * sizes.half
    angles = rope_angles(np.arange(room), sizes.head_dim, theta)  # each [room, D/2]
    cos, sin = (np.pad(a, ((0, 0), (0, sizes.half - a.shape[1]))).reshape(-1) for a in angles)
    return Cache(np.empty(shape, np.float32), np.empty(shape, np.float32), room, cos, sin)


def _new_columns(count: int) -> Columns:
    return Columns(np.zeros(count, np.int64), np.zeros(count, np.int64))


def _new_work(model: kernels.Model, columns: int, threads: int, text_width: int) -> Work:
    """Room for passes of either transformer over so many columns, and for text of ``text_width``."""
    both = [model.talker.layers.sizes, model.predictor.layers.sizes]
    width = max(s.width for s in both)
    context = max(s.heads * 2 * s.half for s in both)
    qkv = max((s.heads + 2 * s.kv_heads) * 2 * s.half for s in both)
    gated = max(s.feed_forward for s in both)
    product = max(2 * gated, width, model.talker.vocabulary + 15, model.predictor.entries + 15)
    widest = max(width, context, gated, text_width)  # input of a matrix

    def shared(size: int) -> Array:
        return np.zeros(columns * size, np.float32)

    def own(size: int, dtype: Any) -> NDArray[Any]:
        return np.zeros((threads, columns * size), dtype)

    return Work(
        x=shared(width),
        qkv=shared(qkv),
        context=shared(context),
        gated=shared(gated),
        product=shared(product),
        normed=own(width, np.float32),
        scores=np.zeros((threads, model.predictor.layers.sizes.heads), np.float32),
        levels=own(widest, np.int8),
        scales=own(widest // 32, np.float32),
        zeros=own(widest // 32, np.int32),
    )


def _new_batch(
    model: kernels.Model, lengths: NDArray[np.int64], texts: Sequence[Array], streams: Streams
) -> kernels.Batch:
    items, width, vocabulary = len(lengths), model.tables.width, model.talker.vocabulary
    bounds = np.cumsum([0, *(len(text) for text in texts)])
    return kernels.Batch(
        logits=np.zeros(items * -(-vocabulary // 16) * 16, np.float32),
        hidden=np.zeros(items * width, np.float32),
        seen=np.zeros((items, vocabulary), np.bool_),
        finished=np.zeros(items, np.bool_),
        length=lengths,
        text=np.concatenate(texts).reshape(-1),
        text_first=bounds[:-1],
        text_last=bounds[1:] - 1,
        stream=streams.states,
        stream_of=streams.stream_of,
        codes=np.zeros((items, len(model.tables.first)), np.int64),
        going=np.zeros(items, np.int64),
        status=np.zeros(2, np.int64),
    )
