"""The frame loop: read the prompt, then write codes frame by frame until every item has ended.

One iteration, as in ``Qwen3TTSTalkerForConditionalGeneration.forward``: sample code 0 from the talker's logits, let
the code predictor complete the frame, and feed the talker the sum of the frame's embeddings and the next text token.
Items of a batch are processed one by one, each at its own positions: the official package pads them on the left and
masks the padding, which gives the same result. Only sampling covers all items at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .config import ModelConfig
from .ops import Array, Ints
from .request import Request
from .talker.code_predictor import CodePredictorWeights, predict_frame
from .talker.frame import Frame
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
    """Writes the codes of a batch: :func:`write_frames` with the weights of a model, or a substitute for it."""

    def frames(self, requests: Sequence[Request], generator: Generator) -> Iterator[Frame]:
        """The codes of requests that share one set of sampling rules, frame by frame; idle between two frames."""
        ...


class Item:
    """The state of one item of a batch between frames."""

    def __init__(self, request: Request, w: Weights, config: ModelConfig) -> None:
        self._w, self._config = w, config
        self._cache: Cache = new_cache(config.talker_config)
        x = embed_prefill(request, w)  # [T, H]
        self._incoming = request.incoming
        ids = [*request.prompt.trailing, config.tts_pad_token_id]
        self._trailing = text_projection(w.talker, np.array(ids))  # [T', H], the last one repeated indefinitely
        self._frames = 0
        self.last_step = request.limits.max_new_tokens - 1
        self.finished = False
        self.hidden, self.logits = read(x, w.talker, self._cache, config.talker_config)

    def read_frame(self, frame: Ints) -> None:
        """Read a complete frame [G] and the next text token."""
        more = self._incoming.more() if self._incoming else []
        if more:
            rows = text_projection(self._w.talker, np.array(more))
            self._trailing = np.concatenate([self._trailing[:-1], rows, self._trailing[-1:]])
        text = self._trailing[min(self._frames, len(self._trailing) - 1)]
        self._frames += 1
        x = embed_frame(frame, self._w) + text  # [H]
        self.hidden, self.logits = read(x[None], self._w.talker, self._cache, self._config.talker_config)


def write_frames(requests: Sequence[Request], w: Weights, config: ModelConfig, generator: Generator) -> Iterator[Frame]:
    """Write the codes of every request, frame by frame. All share the sampling rules; each has its own last frame."""
    c, limits = config.talker_config, requests[0].limits
    items = [Item(request, w, config) for request in requests]
    seen = np.zeros((len(items), c.vocab_size), dtype=np.bool_)  # [B, V] codes 0 so far

    for step in itertools.count():
        logits = np.stack([item.logits for item in items])  # [B, V]
        scores = talker_scores(logits, seen, step, c.codec_eos_token_id, limits.talker)
        code0 = choose(scores, limits.talker, generator)  # [B]
        record("talker.scores", scores)
        record("talker.token", code0)
        seen[np.arange(len(items)), code0] = True
        for item, code in zip(items, code0, strict=True):
            item.finished |= bool(code == c.codec_eos_token_id) or step == item.last_step
        if all(item.finished for item in items):
            return
        frames = _complete_frames(items, code0, w, config, limits.subtalker, generator)  # [B, G]
        going = np.array([i for i, item in enumerate(items) if not item.finished])
        for i in going:
            items[i].read_frame(frames[i])
        yield Frame(going, frames[going])


def collect(frames: Iterable[Frame], items: int, groups: int) -> list[Ints]:
    """The codes of each of the items, [frames, G] each."""
    codes: list[list[Ints]] = [[] for _ in range(items)]
    for frame in frames:
        for item, row in zip(frame.items, frame.codes, strict=True):
            codes[item].append(row)
    return [np.array(rows, dtype=np.int64).reshape(-1, groups) for rows in codes]


def numbered(groups: Iterable[tuple[Sequence[int], Iterator[Frame]]]) -> Iterator[Frame]:
    """The frames of groups of requests, group by group, with the requests' own numbers."""
    for numbers, frames in groups:
        for frame in frames:
            yield Frame(np.array(numbers)[frame.items], frame.codes)


def reported(frames: Iterable[Frame], progress: ProgressCallback) -> Iterator[Frame]:
    """``frames``, with ``progress`` called after each one."""
    for count, frame in enumerate(frames, start=1):
        if progress is not None:
            progress(count)
        yield frame


def _complete_frames(
    items: list[Item], code0: Ints, w: Weights, config: ModelConfig, s: SamplingParameters, generator: Generator
) -> Ints:
    """Codes 1..G-1 of every item that continues. code0 [B] -> [B, G]; rows of finished items are undefined."""
    going = np.array([not item.finished for item in items])  # [B]

    def choose_code(logits: Array) -> Ints:
        # A finished item keeps drawing: in the official package it does so until the batch ends.
        everyone = np.zeros((len(items), logits.shape[1]), logits.dtype)
        everyone[going] = logits
        scores = warp(everyone, s)
        tokens = choose(scores, s, generator)
        record("talker.code_predictor.scores", scores)
        record("talker.code_predictor.token", tokens)
        return tokens[going]

    hidden = np.stack([item.hidden for item in items])[going]
    predictor = config.talker_config.code_predictor_config
    frames = np.zeros((len(items), predictor.num_code_groups), dtype=np.int64)
    embedding = w.talker.codec_embedding[code0[going]]
    frames[going] = predict_frame(hidden, embedding, code0[going], w.code_predictor, predictor, choose_code)
    return frames


def embed_prefill(request: Request, w: Weights) -> Array:
    """The prompt's table as talker inputs [T, H]."""
    positions = request.prompt.prefill
    x = text_projection(w.talker, np.array([p.text for p in positions]))  # [T, H]
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
