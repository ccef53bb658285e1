"""The five networks of a checkpoint: the key table of each, and how often a request uses each of its tensors.

A frame is 80 ms of speech. "Reads" counts how often a tensor is read from memory per frame when frames are generated
one by one; "positions" counts the vectors it is multiplied with. They differ where several vectors are processed at
once: the code predictor reads its layers 15 times per frame for 16 positions, and the last convolution of the codec
decoder is read once for 1920 samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ..checkpoint.keys import Sizes
from ..codec.decoder import CodecDecoderWeights, codec_decoder_sizes
from ..codec.encoder import CodecEncoderWeights, codec_encoder_sizes
from ..config import CodecConfig, CodecDecoderConfig, CodecEncoderConfig, ModelConfig
from ..speaker.encoder import SpeakerEncoderWeights, speaker_encoder_sizes
from ..speaker.mel import HOP
from ..talker.code_predictor import CodePredictorWeights, code_predictor_sizes
from ..talker.talker import TalkerWeights, talker_sizes

When = Literal["frame", "text", "reference", "never"]


@dataclass(frozen=True)
class Use:
    """The use of a tensor.

    ``when``: per frame of speech, per text token, per frame of a reference clip, or never (stored, and used in training
    only). ``reads`` and ``positions`` are per such frame or token.
    """

    when: When
    reads: float = 1
    positions: float = 1
    lookup: bool = False  # a table: one row per position, no arithmetic


@dataclass(frozen=True)
class Component:
    """One network: its name, its key table, and the use of each of its tensors by key."""

    name: str
    cls: type
    sizes: Sizes
    prefix: str
    dtype: str
    use: Callable[[str], Use]


def components(config: ModelConfig | None, codec: CodecConfig | None) -> list[Component]:
    """The networks of a checkpoint, in the order of their files; either half may be missing."""
    found = []
    if config is not None:
        c = config.talker_config
        found.append(Component("talker", TalkerWeights, talker_sizes(c), "talker.", "BF16", _talker))
        predictor = _code_predictor(c.num_code_groups)
        sizes = code_predictor_sizes(c)
        prefix = "talker.code_predictor."
        found.append(Component("code predictor", CodePredictorWeights, sizes, prefix, "BF16", predictor))
        if config.speaker_encoder_config is not None:
            speaker = config.speaker_encoder_config
            mel_frames = 0 if codec is None else codec.encode_downsample_rate / HOP
            found.append(
                Component(
                    "speaker encoder",
                    SpeakerEncoderWeights,
                    speaker_encoder_sizes(speaker),
                    "speaker_encoder.",
                    "BF16",
                    _speaker_encoder(mel_frames),
                )
            )
    if codec is not None:
        decoder, encoder = codec.decoder_config, codec.encoder_config
        sizes = codec_decoder_sizes(decoder)
        found.append(Component("codec decoder", CodecDecoderWeights, sizes, "decoder.", "F32", _codec_decoder(decoder)))
        sizes = codec_encoder_sizes(encoder)
        use = _codec_encoder(encoder, codec.encoder_valid_num_quantizers)
        found.append(Component("codec encoder", CodecEncoderWeights, sizes, "encoder.", "F32", use))
    return found


def _talker(key: str) -> Use:
    if key.startswith("talker.model.text_embedding."):
        return Use("text", lookup=True)
    if key.startswith("talker.text_projection."):
        return Use("text")
    return Use("frame", lookup=key.startswith("talker.model.codec_embedding."))


def _code_predictor(groups: int) -> Callable[[str], Use]:
    def use(key: str) -> Use:
        if ".model.codec_embedding." in key:
            return Use("frame", lookup=True)
        if ".lm_head." in key:
            return Use("frame")
        return Use("frame", reads=groups - 1, positions=groups)  # its first call reads two positions

    return use


def _speaker_encoder(mel_frames: float) -> Callable[[str], Use]:
    """``mel_frames``: per frame of the codec."""

    def use(key: str) -> Use:
        pooled = ".se_block." in key or key.startswith("speaker_encoder.fc.")  # pooled: one vector per clip
        return Use("reference", positions=0 if pooled else mel_frames)

    return use


def _codec_decoder(c: CodecDecoderConfig) -> Callable[[str], Use]:
    def use(key: str) -> Use:
        part, *rest = key.split(".")[1:]
        if part == "quantizer":
            if rest[1] == "input_proj":
                return Use("never")
            return Use("frame", lookup="_codebook" in rest)
        if part == "upsample":
            i = int(rest[0])
            return Use("frame", positions=math.prod(c.upsampling_ratios[: i + int(rest[1])]))
        if part == "decoder":
            return Use("frame", positions=_waveform_positions(c, int(rest[0]), rest[1:]))
        return Use("frame")

    return use


def _waveform_positions(c: CodecDecoderConfig, at: int, rest: list[str]) -> int:
    """Steps per frame at entry ``at`` of ``decoder.decoder``; of a transposed convolution, its input steps."""
    blocks = min(at, len(c.upsample_rates)) if at else 0
    upsampled = bool(at) and not (at <= len(c.upsample_rates) and rest[:2] in (["block", "0"], ["block", "1"]))
    done = c.upsample_rates[: blocks if upsampled else max(blocks - 1, 0)]
    return math.prod((*c.upsampling_ratios, *done))


def _codec_encoder(c: CodecEncoderConfig, used: int) -> Callable[[str], Use]:
    """``used``: the number of quantisers of the file whose codes are kept."""
    strides = tuple(reversed(c.upsampling_ratios))
    steps = c.downsample_stride  # per frame, between SEANet and the last convolution
    samples = math.prod(strides) * steps

    def use(key: str) -> Use:
        part, *rest = key.split(".")[1:]
        if part == "encoder":
            done = (int(rest[1]) if rest[0] == "layers" else 0) // 3  # strided convolutions passed, at 3, 6, ...
            return Use("reference", positions=samples / math.prod(strides[:done]))
        if part == "encoder_transformer":
            return Use("reference", positions=steps)
        if part == "quantizer":
            kept = 1 if rest[0].startswith("semantic") else used - 1
            unused = rest[1] == "output_proj" or rest[-1] == "initialized"
            if unused or (rest[1] == "layers" and int(rest[2]) >= kept):
                return Use("never")
        return Use("reference")

    return use
