"""The frame loop on NumPy: the state of a request between two frames, and one frame of those that speak.

A frame, as in ``Qwen3TTSTalkerForConditionalGeneration.forward``: feed the talker the sum of the embeddings of the
frame before and the next text token, sample code 0 from its logits, and let the code predictor complete the frame.
Requests are processed one by one, each at its own positions: the official package pads a batch on the left and masks
the padding, which gives the same result. Which requests a frame has is decided by ``running_batch.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .config import ModelConfig
from .errors import RequestError
from .ops import Array, Ints
from .request import Limits, Request
from .talker.code_predictor import CodePredictorWeights, predict_frame
from .talker.frame import Frame, Step
from .talker.generator import Generator
from .talker.sampling import SamplingParameters, choose, talker_scores, warp
from .talker.talker import Cache, TalkerWeights, new_cache, read, text_projection
from .trace import record

# Called with the number of frames written so far, of the longest item; an exception it raises ends the generation.
ProgressCallback = Callable[[int], None] | None


@dataclass(frozen=True)
class Weights:
    """The weights of talker and code predictor."""

    talker: TalkerWeights
    code_predictor: CodePredictorWeights


class FrameWriter(Protocol):
    """Writes the codes of requests: the frame loop of a model, or a substitute for it."""

    def frames(self, requests: Sequence[Request], generator: Generator) -> Iterator[Frame]:
        """The codes of requests frame by frame; idle between two frames."""
        ...


class Item:
    """The state of one request between frames."""

    def __init__(self, request: Request, generator: Generator, w: Weights, config: ModelConfig, positions: int) -> None:
        """``positions``: how many are reserved in the cache."""
        self.limits: Limits = request.limits
        self.last_step: int = request.limits.max_new_tokens - 1
        self.failure: RequestError | None = None
        self._request, self._generator, self._w, self._config = request, generator, w, config
        self._cache: Cache = new_cache(config.talker_config, positions)
        self._seen = np.zeros(config.talker_config.vocab_size, dtype=np.bool_)  # [V] codes 0 so far
        self._frames = 0
        self.unread: Ints | None = None  # the last frame [G]: it is read when the next one is wanted
        self.hidden: Array  # [H] of the position read last
        self.logits: Array  # [V] of the next code 0

    def read_prompt(self) -> None:
        """Read the prompt, which gives the logits of the first code 0."""
        x = embed_prefill(self._request, self._w)  # [T, H]
        ids = [*self._request.prompt.trailing, self._config.tts_pad_token_id]
        self._trailing = text_projection(self._w.talker, np.array(ids))  # [T', H], the last one repeated indefinitely
        self.hidden, self.logits = read(x, self._w.talker, self._cache, self._config.talker_config)

    def add_text(self, ids: Sequence[int]) -> None:
        """Add text that has arrived since."""
        rows = text_projection(self._w.talker, np.array(ids))
        self._trailing = np.concatenate([self._trailing[:-1], rows, self._trailing[-1:]])

    def scores(self) -> Array:
        """The scores [V] of the next code 0."""
        eos = self._config.talker_config.codec_eos_token_id
        return talker_scores(self.logits, self._seen, self._frames, eos, self.limits.talker)

    def choose(self, scores: Array, s: SamplingParameters) -> int:
        """The code chosen from scores [V]; 0 once there were none to choose from, which is kept in ``failure``."""
        if self.failure is None:
            try:
                return int(choose(scores[None], s, self._generator)[0])
            except RequestError as failure:
                self.failure = failure
        return 0

    def ends_with(self, code0: int) -> bool:
        """Whether the speech ends instead of going on with this code 0."""
        self._seen[code0] = True
        eos = self._config.talker_config.codec_eos_token_id
        return code0 == eos or self._frames == self.last_step or self.failure is not None

    def read_frame(self, frame: Ints) -> None:
        """Read a complete frame [G] and the next text token."""
        text = self._trailing[min(self._frames, len(self._trailing) - 1)]
        self._frames += 1
        x = embed_frame(frame, self._w) + text  # [H]
        self.hidden, self.logits = read(x[None], self._w.talker, self._cache, self._config.talker_config)


class ReferenceSession:
    """The requests at the places of a batch (``batch.Session``)."""

    def __init__(self, w: Weights, config: ModelConfig, places: int, positions: int | None) -> None:
        self._w, self._config, self._positions = w, config, positions or 0
        self._items: dict[int, Item] = {}
        c = config.talker_config
        self.groups: int = c.num_code_groups
        values = 2 * c.num_hidden_layers * c.num_key_value_heads * c.head_dim  # of a position
        self.nbytes: int = places * self._positions * values * w.talker.norm.itemsize

    def begin(self, place: int, request: Request, generator: Generator) -> None:
        self._items[place] = Item(request, generator, self._w, self._config, self._positions)

    def end(self, place: int) -> None:
        del self._items[place]

    def recall(self, place: int) -> int:
        """Nothing is kept here."""
        return 0

    def read_prompts(self, parts: Sequence[tuple[int, range]]) -> None:
        """Trap: the last bits of a NumPy product depend on its shape, so a prompt is read whole, with its last part."""
        for place, part in parts:
            if part.stop == len(self._items[place]._request.prompt.prefill):
                self._items[place].read_prompt()

    def add_text(self, place: int, ids: Sequence[int]) -> None:
        self._items[place].add_text(ids)

    def write_frame(self, speaking: Sequence[int], drawing: Sequence[int]) -> Step:
        for item in (self._items[place] for place in speaking):
            if item.unread is not None:
                item.read_frame(item.unread)
        places = np.array(sorted([*speaking, *drawing]))
        items = [self._items[place] for place in places]  # B
        code0 = _choose_code0(items)  # [B]
        going = np.array([not item.ends_with(code) for item, code in zip(items, code0, strict=True)])
        going &= np.isin(places, speaking)
        frames = _complete_frames(items, going, code0, self._w, self._config)  # [B, G]
        going &= [item.failure is None for item in items]
        for i in np.flatnonzero(going):
            items[i].unread = frames[i]
        ended = [place for place in speaking if place not in places[going]]
        failed = {place: self._items[place].failure for place in ended}
        return Step(places[going], frames[going], tuple(ended), {p: why for p, why in failed.items() if why})


def _choose_code0(items: Sequence[Item]) -> Ints:
    scores = np.stack([item.scores() for item in items])  # [B, V]
    code0 = np.array([item.choose(row, item.limits.talker) for item, row in zip(items, scores, strict=True)])
    record("talker.scores", scores)
    return record("talker.token", code0)


def _complete_frames(
    items: Sequence[Item],
    going: NDArray[np.bool_],
    code0: Ints,
    w: Weights,
    config: ModelConfig,
) -> Ints:
    """Codes 1..G-1 of the items that are ``going``. code0 [B] -> [B, G]; rows of other items are undefined."""

    def choose_code(logits: Array) -> Ints:
        # Who has ended keeps drawing: in the official package an item does so until the batch ends.
        everyone = np.zeros((len(items), logits.shape[1]), logits.dtype)
        everyone[going] = logits
        scores = np.stack([warp(row, item.limits.subtalker) for item, row in zip(items, everyone, strict=True)])
        tokens = np.array([item.choose(row, item.limits.subtalker) for item, row in zip(items, scores, strict=True)])
        record("talker.code_predictor.scores", scores)
        record("talker.code_predictor.token", tokens)
        return tokens[going]

    predictor = config.talker_config.code_predictor_config
    frames = np.zeros((len(items), predictor.num_code_groups), dtype=np.int64)
    if going.any():
        hidden = np.stack([item.hidden for item in items])[going]
        embedding = w.talker.codec_embedding[code0[going]]
        frames[going] = predict_frame(hidden, embedding, code0[going], w.code_predictor, predictor, choose_code)
    return frames


def collect(frames: Iterable[Frame], items: int, groups: int) -> list[Ints]:
    """The codes of each of the items, [frames, G] each."""
    codes: list[list[Ints]] = [[] for _ in range(items)]
    for frame in frames:
        for item, row in zip(frame.items, frame.codes, strict=True):
            codes[item].append(row)
    return [np.array(rows, dtype=np.int64).reshape(-1, groups) for rows in codes]


def reported(frames: Iterable[Frame], progress: ProgressCallback) -> Iterator[Frame]:
    """``frames``, with ``progress`` called after each one."""
    for count, frame in enumerate(frames, start=1):
        if progress is not None:
            progress(count)
        yield frame


def embed_prefill(
    request: Request, w: Weights, embed_text: Callable[[TalkerWeights, Ints], Array] = text_projection
) -> Array:
    """The prompt's table as talker inputs [T, H]. ``embed_text``: text tokens [T] -> [T, H]."""
    positions = request.prompt.prefill
    x = embed_text(w.talker, np.array([p.text for p in positions]))  # [T, H]
    for t, position in enumerate(positions):
        if position.codec is not None:
            x[t] += w.talker.codec_embedding[position.codec]
        elif position.frame is not None:
            x[t] += embed_frame(np.array(position.frame), w)
        elif position.x_vector:
            x[t] += request.x_vector
    return x


def embed_frame(frame: Ints, w: Weights) -> Array:
    """The sum of a frame's G code embeddings. frame [G] -> [H]."""
    tables = [w.talker.codec_embedding, *(part.weight for part in w.code_predictor.codec_embedding)]
    return np.sum([table[code] for table, code in zip(tables, frame, strict=True)], axis=0)
