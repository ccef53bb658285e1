"""The frame loop on compiled kernels: the codes of ``generate.py``, many times faster.

With float32 and bfloat16 weights the choices are those of ``generate.write_frames``; int8 and int4 approximate.
Tracing is not possible here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import numpy as np
from qwen3tts_np_kernels.threads_jit import Team

from ..config import ModelConfig
from ..ops import Array
from ..request import Request
from ..talker.frame import Frame
from ..talker.generator import Generator
from .talker.generator import streams_of
from .talker.session import DecodeSession
from .talker.weights import CompiledWeights


def write_frames(
    requests: Sequence[Request],
    w: CompiledWeights,
    config: ModelConfig,
    generator: Generator,
    team: Team,
) -> Iterator[Frame]:
    """Write the codes of every request, frame by frame. All share the sampling rules; each has its own last frame.

    Draws use a copy of the state of ``generator``, which does not advance: create one per call. The text of a single
    request may still be arriving.
    """
    streams = streams_of(generator, len(requests))
    c, limits, incoming = config.talker_config, requests[0].limits, requests[0].incoming
    tokens = [min(request.limits.max_new_tokens, sys.maxsize) for request in requests]
    session = DecodeSession(w, team, c, limits.talker, limits.subtalker, tokens, streams)
    session.prefill(*embed(requests, session, w, config))
    while True:
        if incoming is not None and (ids := incoming.more()):
            session.more_text(session.project_text(np.array(ids)))
        frame = session.frame()
        if frame is None:
            return
        yield frame


def embed(
    requests: Sequence[Request], session: DecodeSession, w: CompiledWeights, config: ModelConfig
) -> tuple[list[Array], list[Array]]:
    """Talker inputs [T, H] of each prompt, and its trailing text [T', H]."""
    ids = [
        np.array([*(p.text for p in r.prompt.prefill), *r.prompt.trailing, config.tts_pad_token_id]) for r in requests
    ]
    text = session.project_text(np.concatenate(ids))
    inputs, texts = [], []
    for request, part in zip(requests, np.split(text, np.cumsum([len(i) for i in ids[:-1]])), strict=True):
        positions = request.prompt.prefill
        x = part[: len(positions)].copy()
        for t, position in enumerate(positions):
            if position.codec is not None:
                x[t] += w.code_embedding(0, np.array(position.codec))
            elif position.frame is not None:
                rows = [w.code_embedding(g, np.array(code)) for g, code in enumerate(position.frame)]
                x[t] += np.sum(rows, axis=0)
            elif position.x_vector:
                assert request.x_vector is not None  # Request rejects that
                x[t, : len(request.x_vector)] += request.x_vector
        inputs.append(x)
        texts.append(part[len(positions) :])
    return inputs, texts
