"""Talker and code predictor as one function to be minimised: losses and gradients of a batch.

    text ids ── text embedding ── projection ──┐
    codec ids ── code 0's embedding ───────────┤
    frames ── sum of 16 code embeddings ───────┼─► talker ── hidden [P, H] ── codec_head ─► code 0 of each frame, end
    speaker's vector ──────────────────────────┘                 │
                                                                 ▼ state of each frame
                      [state, code 0, .. code 14], a sequence of 16 ── code predictor ── 15 heads ─► codes 1 .. 15

    loss = talker's mean cross-entropy + 0.3 * the code predictor's

The code predictor does all frames as one batch, forwards and backwards in chunks of frames, so that it never holds the
activations of more than one chunk. What its loss says of a state is added to the talker's gradient there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from qwen3tts_np_kernels.activation import silu_backward_ref
from qwen3tts_np_kernels.self_attention import flush
from qwen3tts_np_kernels.softmax import cross_entropy_backward_ref

from ..checkpoint.adapter import CODEC_EMBEDDING
from ..config import ModelConfig
from ..ops import Array, Ints, cross_entropy, silu
from ..talker.code_predictor import NAME as PREDICTOR
from ..talker.loss import NO_LABEL
from .batch import INFERENCE, Alignment, Batch, Counts
from .layer import Block
from .parameters import SPEAKER, TEXT_EMBEDDING, Parameters
from .stack import Stack

TALKER = "talker.model"
HEAD = "talker.codec_head"
CODE_0 = f"{CODEC_EMBEDDING}.weight"
PROJECTION = "talker.text_projection"
SMALL = f"{PREDICTOR}.small_to_mtp_projection"


@dataclass(frozen=True)
class Losses:
    """Mean cross-entropies in nats, and of how many labels."""

    talker: float
    predictor: float
    counts: Counts
    predictor_weight: float

    @property
    def total(self) -> float:
        """What is minimised."""
        return self.talker + self.predictor_weight * self.predictor


def mean_losses(found: Sequence[Losses]) -> dict[str, float]:
    """Means over all labels of several batches, by the names of the logs."""
    of = Counts.total(losses.counts for losses in found)
    talker = sum(losses.talker * losses.counts.talker for losses in found) / of.talker
    predictor = sum(losses.predictor * losses.counts.predictor for losses in found) / of.predictor
    return {"loss": talker + found[0].predictor_weight * predictor, "talker": talker, "sub_talker": predictor}


class _Text(NamedTuple):
    """The text projection of the different tokens of a batch: ``tts_pad``, which stands almost everywhere, once."""

    ids: Ints  # [U]
    inverse: Ints  # [P] which of them each position has
    embedded: Array  # [U, X]
    inner: Array  # [U, X]
    activated: Array  # [U, X]


@dataclass(frozen=True)
class Network:
    """``loss`` adds the gradients of a batch to those of ``parameters``."""

    parameters: Parameters
    config: ModelConfig
    alignment: Alignment = INFERENCE
    predictor_weight: float = 0.3
    recompute: bool = False  # keep the input of each layer only: less memory, more time
    chunk: int = 64  # frames that the code predictor does at once
    share: float = 1.0  # of the frames, drawn at random, that the code predictor learns from

    def loss(
        self,
        batch: Batch,
        *,
        counts: Counts | None = None,
        scale: float = 1.0,
        draw: np.random.Generator | None = None,
        learn: bool = True,
        frozen: Array | None = None,
    ) -> Losses:
        """The mean losses of a batch. With ``learn``, adds the gradients of

            scale * (sum of the talker's losses / counts.talker + 0.3 * sum of the predictor's / counts.predictor)

        ``counts`` are the batch's own, or the sums of several batches (``Counts.total``), whose gradients then add up
        to those of one batch of all their utterances. ``draw``: what draws the ``share`` of the frames; without it the
        code predictor reads all. ``frozen``: what ``frozen_part`` returned for this batch.
        """
        own = batch.counts(self.alignment, self.share if draw is not None else 1.0)
        divisors = counts or own
        lowest = self.lowest
        text: _Text | None = None
        if frozen is None:
            x, text = self._inputs(batch)
            frozen = self._talker.below(x, batch.blocks, lowest)
        hidden, found = self._talker.forward(frozen, batch.blocks, lowest, learn)  # [P, H]
        dhidden = np.zeros_like(hidden)
        at, labels = batch.talker_labels(self.alignment)
        talker, dhidden[at] = self._head(hidden[at], labels, HEAD, scale / divisors.talker if learn else None)
        weight = scale * self.predictor_weight / divisors.predictor if learn else None
        predictor = self._complete(batch, hidden, dhidden, draw, weight)
        if found is not None and self._reaches_talker:
            dx = self._talker.backward(dhidden, found)
            if text is not None and self._reaches_inputs:
                self._inputs_backward(dx, batch, text)
        return Losses(talker / own.talker, predictor / own.predictor, own, self.predictor_weight)

    @property
    def lowest(self) -> int:
        """The talker's first layer that the gradient reaches; those before it give the same output all along."""
        return self._talker.lowest(self._reaches_inputs)

    def frozen_part(self, batch: Batch) -> Array:
        """The input [P, H] of the talker's layer ``lowest``: worth keeping, since training does not change it."""
        return self._talker.below(self._inputs(batch)[0], batch.blocks, self.lowest)

    @cached_property
    def tables(self) -> list[str]:
        """The embeddings of codes 0 to 15."""
        rest = range(self.config.talker_config.num_code_groups - 1)
        return [CODE_0, *(f"{PREDICTOR}.model.codec_embedding.{i}.weight" for i in rest)]

    @cached_property
    def _talker(self) -> Stack:
        return Stack(self.parameters, TALKER, self.config.talker_config, self.recompute)

    @cached_property
    def _predictor(self) -> Stack:
        c = self.config.talker_config.code_predictor_config
        return Stack(self.parameters, f"{PREDICTOR}.model", c, self.recompute)

    @property
    def _reaches_inputs(self) -> bool:
        return self.parameters.trains(TEXT_EMBEDDING, PROJECTION, SPEAKER, *self.tables)

    @property
    def _reaches_talker(self) -> bool:
        return self._reaches_inputs or self.parameters.trains(f"{TALKER}.layers.", f"{TALKER}.norm.")

    # ---- what the talker reads ----

    def _inputs(self, batch: Batch) -> tuple[Array, _Text]:
        """The sum of text part and codec part of every position [P, H]."""
        w = self.parameters
        text = self._project(batch.text)
        x = w.linear(text.activated, f"{PROJECTION}.linear_fc2")[text.inverse]
        x[batch.codec_at] += w.rows(CODE_0, batch.codec)
        for table, codes in zip(self.tables, batch.read.T, strict=True):
            x[batch.read_at] += w.rows(table, codes)
        for at, speaker in batch.speakers:
            x[at] += w[SPEAKER + speaker] if isinstance(speaker, str) else speaker
        return x, text

    def _project(self, tokens: Ints) -> _Text:
        ids, inverse = np.unique(tokens, return_inverse=True)
        embedded = self.parameters.rows(TEXT_EMBEDDING, ids)
        inner = self.parameters.linear(embedded, f"{PROJECTION}.linear_fc1")
        return _Text(ids, inverse, embedded, inner, silu(inner))

    def _inputs_backward(self, dx: Array, batch: Batch, text: _Text) -> None:
        w = self.parameters
        w.learn_rows(CODE_0, batch.codec, dx[batch.codec_at])
        for table, codes in zip(self.tables, batch.read.T, strict=True):
            w.learn_rows(table, codes, dx[batch.read_at])
        for at, speaker in batch.speakers:
            if isinstance(speaker, str):
                w.learn(SPEAKER + speaker, dx[at])
        if w.trains(TEXT_EMBEDDING, PROJECTION):
            dy = np.zeros((len(text.ids), dx.shape[1]), dx.dtype)
            np.add.at(dy, text.inverse, dx)
            dactivated = w.linear_backward(dy, text.activated, f"{PROJECTION}.linear_fc2")
            dinner = silu_backward_ref(dactivated, text.inner)
            w.learn_rows(TEXT_EMBEDDING, text.ids, w.linear_backward(dinner, text.embedded, f"{PROJECTION}.linear_fc1"))

    # ---- heads ----

    def _head(self, x: Array, labels: Ints, head: str, weight: float | None) -> tuple[float, Array]:
        """The sum of the losses of a head, and dx of ``weight`` times it; the head learns. x [M, H], labels [M].

        Without a weight nothing is learnt, and dx is 0.
        """
        logits = self.parameters.linear(x, head)  # [M, V]
        loss = float(cross_entropy(logits, labels).sum())
        if weight is None:
            return loss, np.zeros_like(x)
        dlogits = flush(cross_entropy_backward_ref(logits, labels))
        dlogits *= dlogits.dtype.type(weight)
        return loss, self.parameters.linear_backward(dlogits, x, head)

    # ---- the code predictor ----

    def _complete(
        self, batch: Batch, hidden: Array, dhidden: Array, draw: np.random.Generator | None, weight: float | None
    ) -> float:
        """The sum of the code predictor's losses; adds to dhidden [P, H]."""
        frames = np.arange(len(batch.codes))
        if draw is not None:
            frames = np.sort(draw.choice(frames, batch.sampled(self.share), replace=False))
        states, labels = batch.states(self.alignment), batch.predictor_labels(self.alignment)
        total = 0.0
        for chunk in np.array_split(frames, -(-len(frames) // self.chunk)):  # of one size: a small one costs as much
            at = states[chunk]
            loss, dstates = self._frames(hidden[at], batch.codes[chunk], labels[chunk], weight)
            total += loss
            dhidden[at] += dstates
        return total

    def _frames(self, states: Array, codes: Ints, labels: Ints, weight: float | None) -> tuple[float, Array]:
        """Losses of n frames, and dstates [n, H]. states [n, H], codes [n, G], labels [n, G - 1]."""
        w, (n, groups) = self.parameters, codes.shape
        tables = self.tables[:-1]
        read = [states, *(w.rows(table, ids) for table, ids in zip(tables, codes.T, strict=False))]
        x = np.stack(read, axis=1).reshape(n * groups, -1)  # [n G, H]
        projects = f"{SMALL}.weight" in w
        reaches_inputs = self._reaches_talker or w.trains(SMALL)
        lowest, blocks = self._predictor.lowest(reaches_inputs), [Block(0, n * groups, groups)]
        inputs = self._predictor.below(w.linear(x, SMALL) if projects else x, blocks, lowest)
        y, found = self._predictor.forward(inputs, blocks, lowest, weight is not None)
        y = y.reshape(n, groups, -1)  # [n, G, h]
        dy, loss = np.zeros_like(y), 0.0
        for g in range(groups - 1):  # head g has read code g last, at position g + 1
            if labels[0, g] != NO_LABEL:
                of_head, dy[:, g + 1] = self._head(y[:, g + 1], labels[:, g], f"{PREDICTOR}.lm_head.{g}", weight)
                loss += of_head
        dstates = np.zeros_like(states)
        if found is not None and (reaches_inputs or w.trains(f"{PREDICTOR}.model.")):
            dx = self._predictor.backward(dy.reshape(n * groups, -1), found)
            if reaches_inputs:
                dx = (w.linear_backward(dx, x, SMALL) if projects else dx).reshape(n, groups, -1)
                for g, table in enumerate(tables):
                    w.learn_rows(table, codes[:, g], dx[:, g + 1])
                dstates = dx[:, 0]
        return loss, dstates
