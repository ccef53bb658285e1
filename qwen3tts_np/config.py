"""The configuration of a checkpoint as frozen dataclasses. No defaults: a checkpoint defines its sizes.

Letters in brackets are the ones that shape comments use everywhere in this package. ``FIXED`` are the values of keys
that select an architecture, where only one is implemented. ``checkpoint/config_file.py`` reads the files.

Official classes: ``Qwen3TTSConfig``, ``Qwen3TTSTokenizerV2Config``, ``MimiConfig``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from .errors import ConfigError
from .shown import shortened

MODEL_TYPES = ("base", "custom_voice", "voice_design")
_ROTARY = {"partial_rotary_factor": 1}  # every number of a head is rotated


@dataclass(frozen=True)
class CodePredictorConfig:
    """The small transformer that predicts codes 1..G-1 of a frame. In its own code its sizes are H, N, K, D, F too."""

    FIXED: ClassVar[dict[str, Any]] = {
        **_ROTARY,
        "hidden_act": "silu",
        "attention_bias": False,
        "use_sliding_window": False,
    }

    vocab_size: int  # [C] entries of one codebook
    hidden_size: int  # [H]
    intermediate_size: int  # [F]
    num_hidden_layers: int
    num_attention_heads: int  # [N]
    num_key_value_heads: int  # [K]
    head_dim: int  # [D]
    rms_norm_eps: float
    rope_theta: float
    num_code_groups: int  # [G]

    def __post_init__(self) -> None:
        _check_attention(self)


@dataclass(frozen=True)
class TalkerConfig:
    """The Qwen3 transformer that reads text and predicts code 0 of each frame."""

    FIXED: ClassVar[dict[str, Any]] = {
        **_ROTARY,
        "hidden_act": "silu",
        "attention_bias": False,
        "use_sliding_window": False,
    }

    vocab_size: int  # [V] code-0 entries, speakers, languages and control ids in one table
    hidden_size: int  # [H] width of the residual stream
    intermediate_size: int  # [F] width inside the SwiGLU
    num_hidden_layers: int  # [L]
    num_attention_heads: int  # [N] query heads
    num_key_value_heads: int  # [K] key/value heads; N is a multiple of K
    head_dim: int  # [D] stated on its own: not H / N
    rms_norm_eps: float
    rope_theta: float
    num_code_groups: int  # [G] codes per frame, 16 in every released model
    text_hidden_size: int  # [X] width of a text embedding, and of the hidden layer of text_projection
    text_vocab_size: int  # [W] rows of the text embedding
    max_position_embeddings: int  # positions the model was made for: those of the prompt, and one per frame
    codec_bos_id: int
    codec_eos_token_id: int
    codec_pad_id: int
    codec_think_id: int
    codec_nothink_id: int
    codec_think_bos_id: int
    codec_think_eos_id: int
    codec_language_id: dict[str, int]  # language or dialect -> id in the codec vocabulary
    spk_id: dict[str, int]  # speaker -> id in the codec vocabulary
    spk_is_dialect: dict[str, str | bool]  # speaker -> dialect spoken, or false
    code_predictor_config: CodePredictorConfig

    def __post_init__(self) -> None:
        _check_attention(self)
        groups = self.code_predictor_config.num_code_groups
        if groups != self.num_code_groups:
            raise ConfigError(f"num_code_groups={self.num_code_groups}, but the code predictor has {groups}")
        ids = {f"codec_language_id {shortened(name)}": i for name, i in self.codec_language_id.items()}
        ids |= {f"spk_id {shortened(name)}": i for name, i in self.spk_id.items()}
        _check_ids({**_ids(self), **ids}, self.vocab_size, "vocab_size")
        for speaker, dialect in self.spk_is_dialect.items():
            if isinstance(dialect, str) and dialect not in self.codec_language_id:
                raise ConfigError(
                    f"spk_is_dialect {shortened(speaker)}: {shortened(dialect)} is not in codec_language_id"
                )


@dataclass(frozen=True)
class SpeakerEncoderConfig:
    """ECAPA-TDNN, present in base checkpoints only."""

    FIXED: ClassVar[dict[str, Any]] = {"mel_dim": 128, "sample_rate": 24000}  # the mel front end has no others

    mel_dim: int
    enc_dim: int  # [H] the embedding takes the place of a talker input, so it is as wide
    enc_channels: tuple[int, ...]  # first TDNN, SE-Res2Net blocks, multi-layer aggregation
    enc_kernel_sizes: tuple[int, ...]
    enc_dilations: tuple[int, ...]
    enc_attention_channels: int
    enc_res2net_scale: int
    enc_se_channels: int
    sample_rate: int

    def __post_init__(self) -> None:
        _check_positive(self)
        lengths = {len(self.enc_channels), len(self.enc_kernel_sizes), len(self.enc_dilations)}
        if len(lengths) != 1 or len(self.enc_channels) < 3:
            raise ConfigError(
                f"enc_channels {list(self.enc_channels)}, enc_kernel_sizes {list(self.enc_kernel_sizes)} and "
                f"enc_dilations {list(self.enc_dilations)} must have one length, at least 3"
            )
        if sum(self.enc_channels[1:-1]) != self.enc_channels[-1]:
            raise ConfigError(
                f"enc_channels {list(self.enc_channels)}: the last is the concatenation of those between "
                f"the first and itself, {sum(self.enc_channels[1:-1])}"
            )
        if len(set(self.enc_channels[:-1])) > 1:
            raise ConfigError(f"enc_channels {list(self.enc_channels)}: all but the last must be equal (residual sums)")
        if self.enc_channels[0] % self.enc_res2net_scale:
            raise ConfigError(
                f"enc_res2net_scale={self.enc_res2net_scale} must divide the {self.enc_channels[0]} channels of a block"
            )


@dataclass(frozen=True)
class ModelConfig:
    """``config.json`` of a checkpoint directory."""

    FIXED: ClassVar[dict[str, Any]] = {"model_type": "qwen3_tts", "tokenizer_type": "qwen3_tts_tokenizer_12hz"}

    tts_model_type: str  # one of MODEL_TYPES
    tts_model_size: str  # "0b6" or "1b7"
    im_start_token_id: int
    im_end_token_id: int
    tts_pad_token_id: int
    tts_bos_token_id: int
    tts_eos_token_id: int
    talker_config: TalkerConfig
    speaker_encoder_config: SpeakerEncoderConfig | None

    def __post_init__(self) -> None:
        if self.tts_model_type not in MODEL_TYPES:
            raise ConfigError(f"tts_model_type {shortened(self.tts_model_type)} is none of {', '.join(MODEL_TYPES)}")
        encoder, width = self.speaker_encoder_config, self.talker_config.hidden_size
        if encoder is not None and encoder.enc_dim != width:
            raise ConfigError(f"speaker encoder enc_dim={encoder.enc_dim} must be the talker's hidden_size={width}")
        _check_ids(_ids(self), self.talker_config.text_vocab_size, "text_vocab_size")


@dataclass(frozen=True)
class CodecDecoderConfig:
    """Codes -> waveform (``Qwen3TTSTokenizerV2Decoder``)."""

    FIXED: ClassVar[dict[str, Any]] = {**_ROTARY, "hidden_act": "silu", "attention_bias": False}

    codebook_size: int  # [C]
    codebook_dim: int  # [Q] width of the summed codes; each codebook entry has half of it
    num_quantizers: int  # [G]
    latent_dim: int  # [Z] width between the blocks
    hidden_size: int  # [H] of the transformer
    intermediate_size: int  # [F]
    num_hidden_layers: int
    num_attention_heads: int  # [N]
    num_key_value_heads: int  # [K]
    head_dim: int  # [D]
    rms_norm_eps: float
    rope_theta: float
    sliding_window: int  # positions a query sees, itself included
    decoder_dim: int  # channels of the first waveform block; each block halves them
    upsample_rates: tuple[int, ...]  # of the waveform blocks
    upsampling_ratios: tuple[int, ...]  # of the ConvNeXt blocks before them

    def __post_init__(self) -> None:
        _check_attention(self)
        halvings = 2 ** len(self.upsample_rates)
        if self.decoder_dim % halvings:
            raise ConfigError(f"decoder_dim={self.decoder_dim} must be a multiple of {halvings}: each block halves it")
        if self.codebook_dim % 2:
            raise ConfigError(f"codebook_dim={self.codebook_dim} must be even: a codebook entry has half of it")


@dataclass(frozen=True)
class CodecEncoderConfig:
    """Waveform -> codes (``MimiModel`` without its decoder half)."""

    FIXED: ClassVar[dict[str, Any]] = {
        **_ROTARY,
        "hidden_act": "gelu",
        "attention_bias": False,
        "audio_channels": 1,
        "use_causal_conv": True,
        "use_conv_shortcut": False,
        "pad_mode": "constant",
        "num_residual_layers": 1,
        "num_semantic_quantizers": 1,
    }

    sampling_rate: int
    _frame_rate: float
    codebook_size: int  # [C]
    codebook_dim: int  # [E] width of a codebook entry
    vector_quantization_hidden_dimension: int
    num_quantizers: int  # in the file; encoder_valid_num_quantizers of them are used
    hidden_size: int  # [H]
    intermediate_size: int  # [F]
    num_hidden_layers: int
    num_attention_heads: int  # [N]
    num_key_value_heads: int  # [K]
    head_dim: int  # [D]
    norm_eps: float
    rope_theta: float
    num_filters: int  # channels of the first SEANet stage; each stage doubles them
    kernel_size: int
    residual_kernel_size: int
    last_kernel_size: int
    compress: int  # a residual block's inner width is its width divided by this
    upsampling_ratios: tuple[int, ...]  # strides, last first

    def __post_init__(self) -> None:
        _check_attention(self)
        if self.vector_quantization_hidden_dimension != self.codebook_dim:
            raise ConfigError(
                f"vector_quantization_hidden_dimension={self.vector_quantization_hidden_dimension} must be "
                f"codebook_dim={self.codebook_dim}"
            )

    @property
    def downsample_stride(self) -> int:
        """Stride of the last convolution: from the SEANet's frame rate to the codec's."""
        hop = math.prod(self.upsampling_ratios)
        return int(math.ceil(self.sampling_rate / hop) / self._frame_rate)


@dataclass(frozen=True)
class CodecConfig:
    """``speech_tokenizer/config.json``."""

    FIXED: ClassVar[dict[str, Any]] = {"model_type": "qwen3_tts_tokenizer_12hz"}

    encoder_valid_num_quantizers: int  # [G]
    input_sample_rate: int  # Hz
    output_sample_rate: int  # Hz
    encode_downsample_rate: int  # samples per frame
    decode_upsample_rate: int  # samples per frame
    encoder_config: CodecEncoderConfig
    decoder_config: CodecDecoderConfig

    @property
    def frame_rate(self) -> float:
        """Frames of codes per second."""
        return self.output_sample_rate / self.decode_upsample_rate

    def __post_init__(self) -> None:
        _check_positive(self)
        encoder, decoder = self.encoder_config, self.decoder_config
        product = math.prod((*decoder.upsample_rates, *decoder.upsampling_ratios))
        if product != self.decode_upsample_rate:
            raise ConfigError(f"decode_upsample_rate={self.decode_upsample_rate}, but the rates multiply to {product}")
        product = math.prod(encoder.upsampling_ratios) * encoder.downsample_stride
        if product != self.encode_downsample_rate:
            raise ConfigError(
                f"encode_downsample_rate={self.encode_downsample_rate}, but the strides multiply to {product}"
            )
        if decoder.num_quantizers != self.encoder_valid_num_quantizers:
            raise ConfigError(
                f"decoder num_quantizers={decoder.num_quantizers} and encoder_valid_num_quantizers="
                f"{self.encoder_valid_num_quantizers} must be equal"
            )
        if encoder.num_quantizers < self.encoder_valid_num_quantizers:
            raise ConfigError(
                f"encoder num_quantizers={encoder.num_quantizers} is less than encoder_valid_num_quantizers="
                f"{self.encoder_valid_num_quantizers}"
            )
        if encoder.codebook_size != decoder.codebook_size:
            raise ConfigError(
                f"codebook_size is {encoder.codebook_size} in the encoder and {decoder.codebook_size} in the decoder"
            )


@dataclass(frozen=True)
class GenerationConfig:
    """``generation_config.json``: the values of a request for which its caller gives none."""

    do_sample: bool
    temperature: float
    top_k: int
    top_p: float
    repetition_penalty: float
    subtalker_dosample: bool
    subtalker_temperature: float
    subtalker_top_k: int
    subtalker_top_p: float
    max_new_tokens: int


def _ids(c: Any) -> dict[str, int]:
    return {f.name: getattr(c, f.name) for f in fields(c) if f.name.endswith("_id") and f.type == "int"}


def _check_ids(ids: Mapping[str, int], limit: int, limit_name: str) -> None:
    for name, i in ids.items():
        if i >= limit:
            raise ConfigError(f"{name} = {i} lies outside the table of {limit_name}={limit}")


def _check_positive(c: Any) -> None:
    """Only ids may be 0."""
    for f in fields(c):
        value = getattr(c, f.name)
        numbers = value if isinstance(value, tuple) else (value,)
        if not f.name.endswith("_id") and any(isinstance(v, (int, float)) and v <= 0 for v in numbers):
            raise ConfigError(f"{f.name}={value} must be positive")


def _check_attention(c: Any) -> None:
    _check_positive(c)
    if c.num_attention_heads % c.num_key_value_heads:
        raise ConfigError(
            f"num_attention_heads={c.num_attention_heads} must be a multiple of "
            f"num_key_value_heads={c.num_key_value_heads} (grouped-query attention)"
        )
    if c.head_dim % 2:
        raise ConfigError(f"head_dim={c.head_dim} must be even (rotary pairs)")
