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
    of_codec: bool = False  # its tensors are those of the codec's file
    exact: bool = False  # its arrays are float32 in every format
    there: Callable[[Network], bool] = lambda network: True
    lengths: Callable[[Network], dict[str, int]] = (
        lambda network: {}
    )  # where lengths are fixed, those it has of its own

    def format_of(self, model_format: str) -> str:
        """The format of its arrays in a model of ``model_format``."""
        return "float32" if self.exact else model_format


PIECES: dict[str, Piece] = {
    "text": Piece("text embedding and projection", lambda t, n: text.build(t, n.config.talker_config)),
    "talker": Piece("talker step", lambda t, n: talker.build(t, n.config.talker_config)),
    "code_predictor": Piece(
        "code predictor step",
        lambda t, n: code_predictor.build(t, n.config.talker_config),
        lengths=lambda n: {"places": n.config.talker_config.num_code_groups},
    ),
    "frame_embedding": Piece("sum of code embeddings", lambda t, n: frame_embedding.build(t, n.config.talker_config)),
}
"""By the name of their folder, in the order in which speech needs them."""
