"""The frame loop on compiled kernels: the codes of ``generate.py``, many times faster.

With float32 and bfloat16 weights the choices are those of ``generate.ReferenceSession``; int8 and int4 approximate.
Tracing is not possible here. One compiled call writes a frame (``talker/frame.py``); control returns to Python between
frames, so Ctrl-C and a reader of the stream wait for one frame at most.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import cast

import numpy as np
from qwen3tts_np_kernels.cpu import Bound, Kernel
from qwen3tts_np_kernels.team import Team
from qwen3tts_np_kernels.transformer_jit import Cache

from ..config import ModelConfig
from ..errors import RequestError
from ..ops import Array, Ints
from ..request import Limits, Request
from ..talker.frame import Step
from ..talker.generator import Generator, TorchGenerator
from .talker.batch import DRAWING, IDLE, SPEAKING, new_batch, new_cache, new_choosing, new_columns, new_work
from .talker.frame import write_frame
from .talker.inputs import PROMPT_COLUMNS, TalkerInputs
from .talker.openings import Opening, Openings, opening_of
from .talker.sampling import rule_of, set_rule
from .talker.talker import read_prompt
from .talker.text import TextRows
from .talker.weights import CompiledWeights, arrays_in

FIRST_FRAMES = 128  # initial capacity where it may grow, by half


class CompiledSession:
    """The requests at the places of a batch (``batch.Session``).

    All widths are those of the weights, zero padding included.
    """

    def __init__(
        self,
        weights: CompiledWeights,
        team: Team,
        config: ModelConfig,
        places: int,
        positions: int | None,
        openings: Openings,
    ) -> None:
        """``positions`` of each place; None lets them grow. ``openings`` of prompts that these weights have read."""
        self._weights, self._team, self._config, self._openings = weights, team, config, openings
        model, c = weights.model, config.talker_config
        self.groups: int = c.num_code_groups
        columns = max(PROMPT_COLUMNS, 2 * places)  # the code predictor's first pass has two for each place
        self._work = new_work(model, columns, team.size, weights.text_projection[0].bias.size)
        self._columns = new_columns(columns)
        self._inputs = TalkerInputs(weights, team, self._work)
        self._text = TextRows(places, model.tables.width, self._inputs.text, config.tts_pad_token_id)
        self._batch = new_batch(model, places, self._text.rows)
        self._choosing = new_choosing(model, places)
        predictor = c.code_predictor_config
        self._predictor_cache = new_cache(
            model.predictor.layers.sizes, places, predictor.num_code_groups, predictor.rope_theta
        )
        self._cache = self._new_cache(0)
        self._frame_call = self._bound_frame()
        self._grows = positions is None
        self._make_room(positions or 0)
        self._requests: list[Request | None] = [None] * places
        self._generators: list[Generator | None] = [None] * places

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays of this session."""
        parts = (self._batch, self._choosing, self._cache, self._predictor_cache, self._columns, self._work)
        return sum(array.nbytes for array in arrays_in(parts))

    def begin(self, place: int, request: Request, generator: Generator) -> None:
        """Draws use a copy of the state of ``generator``, which does not advance."""
        if request.limits.talker.do_sample and request.limits.talker.temperature > float(np.finfo(np.float32).max):
            raise _out_of_range(request.limits)  # as in the reference, where a token that is out, -inf / inf, is NaN
        assert isinstance(generator, TorchGenerator)
        batch, limits = self._batch, request.limits
        set_rule(self._choosing.talker, place, rule_of(limits.talker))
        set_rule(self._choosing.subtalker, place, rule_of(limits.subtalker))
        self._requests[place], self._generators[place] = request, generator
        batch.stream_of[place] = next(i for i, other in enumerate(self._generators) if other is generator)
        batch.stream[place] = generator.state
        batch.seen[place], batch.failed[place], batch.unread[place] = False, False, False
        batch.frames[place], batch.position[place] = 0, 0
        batch.last_step[place] = min(limits.max_new_tokens, sys.maxsize) - 1
        self._text.begin(place, request.prompt.trailing)
        if self._grows:
            self._make_room(len(request.prompt.prefill) + min(limits.max_new_tokens, FIRST_FRAMES))

    def end(self, place: int) -> None:
        self._requests[place] = self._generators[place] = None

    def recall(self, place: int) -> int:
        kept = self._openings.find(opening_of(self._request(place)))
        if kept is None:
            return 0
        end = kept[0].shape[1]
        for known, here in zip(kept, self._keys_and_values(self._cache), strict=True):
            here[place, :, :end] = known
        self._batch.position[place] = end
        return end

    def read_prompts(self, parts: Sequence[tuple[int, range]]) -> None:
        alike = self._opened_alike(parts)
        self._read_parts([part for part in parts if part not in alike])
        if alike:
            self._read_parts([(place, part[self.recall(place) :]) for place, part in alike])

    def _opened_alike(self, parts: Sequence[tuple[int, range]]) -> list[tuple[int, range]]:
        """Those whose opening another one reads before them, so that they begin behind it."""
        openings: set[Opening] = set()
        alike = []
        for place, part in parts:
            opening = opening_of(self._request(place))
            if part.start == 0 and part.stop > len(opening.positions):
                if opening in openings:
                    alike.append((place, part))
                openings.add(opening)
        return alike

    def _read_parts(self, parts: Sequence[tuple[int, range]]) -> None:
        columns = [(place, position) for place, part in parts for position in part]
        inputs = np.concatenate([self._inputs.prompt(self._request(place), part) for place, part in parts])
        item, position = np.array(columns).T
        ends = position == self._prompt_lengths(item) - 1
        order = np.argsort(ends, kind="stable")  # the final positions of all prompts come last: one pass of the head
        for first in range(0, len(order), PROMPT_COLUMNS):
            chosen = order[first : first + PROMPT_COLUMNS][::-1]  # and first in their pass, which only they need whole
            self._read(inputs[chosen], item[chosen], position[chosen], int(ends[chosen].sum()))
        for place, part in parts:
            self._batch.position[place] = part.stop
            self._keep_opening(place, part)

    def add_text(self, place: int, ids: Sequence[int]) -> None:
        self._text.add(place, ids)

    def write_frame(self, speaking: Sequence[int], drawing: Sequence[int]) -> Step:
        """Trap: what this computes with is cold, since a frame displaces it: each call of NumPy takes some 10 us."""
        batch, states = self._batch, [IDLE] * len(self._requests)
        unread, positions = batch.unread.tolist(), batch.position.tolist()
        for place in drawing:
            states[place] = DRAWING
        for place in speaking:
            states[place] = SPEAKING
            if unread[place]:
                batch.text_row[place] = self._text.take(place)
        batch.state[:] = states
        if self._grows:
            self._make_room(max(positions[place] for place in speaking) + 1)
        self._team.run(self._frame_call)
        going = batch.going[: batch.size[0]].copy()
        if len(going) == len(speaking):
            return Step(going, batch.codes[going])
        ended = tuple(sorted(set(speaking).difference(going.tolist())))
        failed = {place: _out_of_range(self._request(place).limits) for place in ended if batch.failed[place]}
        return Step(going, batch.codes[going], ended, failed)

    def talker_step(self, position: int) -> None:
        """One pass of the talker over one column at ``position`` of place 0, as in every frame; for benchmarks."""
        self._make_room(position + 1)
        width = self._weights.model.tables.width
        one = np.ones(1, np.int64)
        self._read(self._batch.hidden[None, :width], 0 * one, position * one, 1)

    def _keep_opening(self, place: int, part: range) -> None:
        """Keep the opening of a prompt whose positions ``part`` have been read, if its end is among them."""
        opening = opening_of(self._request(place))
        end = len(opening.positions)
        if part.start < end <= part.stop and self._openings.find(opening) is None:
            k, v = (here[place, :, :end].copy() for here in self._keys_and_values(self._cache))
            self._openings.keep(opening, (k, v))

    def _request(self, place: int) -> Request:
        request = self._requests[place]
        assert request is not None
        return request

    def _prompt_lengths(self, places: Ints) -> Ints:
        return np.array([len(self._request(place).prompt.prefill) for place in places])

    def _read(self, inputs: Array, item: Ints, position: Ints, ends: int) -> None:
        """Read columns of prompts. inputs [columns, width]; ends: see ``talker.read_prompt``."""
        columns, count = self._columns, len(item)
        self._work.x[: inputs.size] = inputs.reshape(-1)
        columns.item[:count], columns.position[:count] = item, position
        talker = self._weights.model.talker
        self._team.run(read_prompt, talker, self._batch, count, ends, self._cache, columns, self._work)

    def _make_room(self, needed: int) -> None:
        """A cache of at least ``needed`` positions, with what has been read kept."""
        old = self._cache
        if old.room >= needed:
            return
        self._cache = self._new_cache(max(needed, old.room + old.room // 2))
        used = int(self._batch.position.max())
        for before, now in zip(self._keys_and_values(old), self._keys_and_values(self._cache), strict=True):
            now[:, :, :used] = before[:, :, :used]
        self._work = self._work._replace(scores=np.empty((self._team.size, 2 * self._cache.room), np.float32))
        self._frame_call = self._bound_frame()

    def _bound_frame(self) -> Bound:
        """``write_frame`` with all arguments but the thread: arrays of this session, which are looked at once."""
        model, buffers = self._weights.model, (self._columns, self._work)
        return cast(Kernel, write_frame).bound(
            model, self._batch, self._choosing, self._cache, self._predictor_cache, *buffers
        )

    def _keys_and_values(self, cache: Cache) -> tuple[Array, Array]:
        """Views of a cache of the talker: [places, layers * K, room, head] each."""
        sizes = self._weights.model.talker.layers.sizes
        shape = len(self._batch.position), sizes.layers * sizes.kv_heads, cache.room, 2 * sizes.half
        return cache.k.reshape(shape), cache.v.reshape(shape)

    def _new_cache(self, room: int) -> Cache:
        talker = self._weights.model.talker
        return new_cache(talker.layers.sizes, len(self._batch.position), room, self._config.talker_config.rope_theta)


def _out_of_range(limits: Limits) -> RequestError:
    talker, subtalker = limits.talker, limits.subtalker
    return RequestError(
        f"temperature={talker.temperature}, repetition_penalty={talker.repetition_penalty} and "
        f"subtalker_temperature={subtalker.temperature} take the logits out of the range of float32; "
        "use values nearer to 1"
    )
