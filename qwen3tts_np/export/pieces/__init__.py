"""The graphs, one file each, written against :class:`~qwen3tts_np.export.target.Target`; here is the list of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...config import CodecConfig, ModelConfig, SpeakerEncoderConfig
from ..target import Target
from ..weights import Tensors
from . import code_predictor, codec_decoder, codec_encoder, frame_embedding, speaker_encoder, talker, text


@dataclass(frozen=True)
class Network:
    """A checkpoint: what its two configurations say, and the tensors of its two files."""

    config: ModelConfig
    codec_config: CodecConfig
    model: Tensors
    codec: Tensors

    @property
    def speaker(self) -> SpeakerEncoderConfig | None:
        """What the configuration says of the speaker encoder, which base models have."""
        return self.config.speaker_encoder_config


@dataclass(frozen=True)
class Piece:
    """One graph."""

    what: str  # in a few words, for those who choose
    build: Callable[[Target[Any], Network], None]
    of_codec: bool = False  # its tensors are those of the codec's file
    exact: bool = False  # its arrays are float32 in every format
    there: Callable[[Network], bool] = lambda network: True
    lengths: Callable[[Network, Mapping[str, int]], dict[str, int]] = (
        lambda network, fixed: {}
    )  # where lengths are fixed, those it has of its own, and those that follow
    build_prompt: Callable[[Target[Any], Network], None] | None = (
        None  # where lengths are fixed, the second graph, for many positions
    )

    def format_of(self, model_format: str) -> str:
        """The format of its arrays in a model of ``model_format``."""
        return "float32" if self.exact else model_format


def _speaker_encoder(t: Target[Any], network: Network) -> None:
    assert network.speaker is not None
    speaker_encoder.build(t, network.speaker, network.model)


PIECES: dict[str, Piece] = {
    "text": Piece("text embedding and projection", lambda t, n: text.build(t, n.config.talker_config)),
    "talker": Piece(
        "talker step",
        lambda t, n: talker.build(t, n.config.talker_config),
        build_prompt=lambda t, n: talker.build_prompt(t, n.config.talker_config),
    ),
    "code_predictor": Piece(
        "code predictor step",
        lambda t, n: code_predictor.build(t, n.config.talker_config),
        lengths=lambda n, _: {"places": n.config.talker_config.num_code_groups},
    ),
    "frame_embedding": Piece("sum of code embeddings", lambda t, n: frame_embedding.build(t, n.config.talker_config)),
    "codec_decoder": Piece(
        "codec decoder: the samples of the next frames",
        lambda t, n: codec_decoder.build(t, n.codec_config.decoder_config, n.codec),
        of_codec=True,
        exact=True,
        lengths=lambda n, fixed: {"decoded_samples": fixed["frames"] * n.codec_config.decode_upsample_rate},
    ),
    "codec_encoder": Piece(
        "codec encoder: the codes of a clip",
        lambda t, n: codec_encoder.build(
            t, n.codec_config.encoder_config, n.codec_config.encoder_valid_num_quantizers, n.codec
        ),
        of_codec=True,
        exact=True,
        lengths=lambda n, fixed: {"encoded_frames": -(-fixed["samples"] // n.codec_config.encode_downsample_rate)},
    ),
    "speaker_encoder": Piece(
        "speaker encoder: the x-vector of a clip", _speaker_encoder, exact=True, there=lambda n: n.speaker is not None
    ),
}
"""By the name of their folder, in the order in which speech needs them."""
