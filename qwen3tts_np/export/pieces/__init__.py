"""The graphs, one file each, written against :class:`~qwen3tts_np.export.target.Target`; here is the list of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...config import CodecConfig, ModelConfig
from ..target import Target
from ..weights import Tensors
from . import code_predictor, frame_embedding, talker, text


@dataclass(frozen=True)
class Network:
    """A checkpoint: what its two configurations say, and the tensors of its two files."""

    config: ModelConfig
    codec_config: CodecConfig
    model: Tensors
    codec: Tensors


@dataclass(frozen=True)
class Piece:
    """One graph."""

    what: str  # in a few words, for those who choose
    build: Callable[[Target[Any], Network], None]
    of_codec: bool = False  # its tensors are those of the codec's file, and stay float32 in every format
    there: Callable[[Network], bool] = lambda network: True


PIECES: dict[str, Piece] = {
    "text": Piece("text embedding and projection", lambda t, n: text.build(t, n.config.talker_config)),
    "talker": Piece("talker step", lambda t, n: talker.build(t, n.config.talker_config)),
    "code_predictor": Piece("code predictor step", lambda t, n: code_predictor.build(t, n.config.talker_config)),
    "frame_embedding": Piece("sum of code embeddings", lambda t, n: frame_embedding.build(t, n.config.talker_config)),
}
"""By the name of their folder, in the order in which speech needs them."""
