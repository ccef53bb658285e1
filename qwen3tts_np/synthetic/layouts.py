"""The configuration files of the five released models, and of tiny ones with the same parts.

The released numbers and ids are defined once; the tiny layouts are the released ones with smaller sizes, and every id
of the codec vocabulary shifted down with the size of the codebook. Keys that no class reads are omitted.
"""

from __future__ import annotations

from typing import Any

from ..checkpoint.published import VOICES, Like, ModelType
from .text import TextVocabulary

Json = dict[str, Any]

LIKES: tuple[Like, ...] = ("tiny", "tiny-1.7b", "0.6b", "1.7b")
TYPES: tuple[ModelType, ...] = ("base", "custom_voice", "voice_design")

RELEASED_TEXT = TextVocabulary(
    assistant_token_id=77091,
    im_start_token_id=151644,
    im_end_token_id=151645,
    tts_pad_token_id=151671,
    tts_bos_token_id=151672,
    tts_eos_token_id=151673,
    text_vocab_size=151936,
)

USER_ID = 872  # of the token "user" in the released vocabulary; not in config.json

CODEBOOK_SIZE = 2048  # released; the ids below follow the 2048 codes of code 0
CONTROL_IDS = {
    "codec_pad_id": 2148,
    "codec_bos_id": 2149,
    "codec_eos_token_id": 2150,
    "codec_think_id": 2154,
    "codec_nothink_id": 2155,
    "codec_think_bos_id": 2156,
    "codec_think_eos_id": 2157,
}
LANGUAGE_IDS = {
    "chinese": 2055,
    "english": 2050,
    "german": 2053,
    "italian": 2070,
    "portuguese": 2071,
    "spanish": 2054,
    "japanese": 2058,
    "korean": 2064,
    "french": 2061,
    "russian": 2069,
}
DIALECT_IDS = {"beijing_dialect": 2074, "sichuan_dialect": 2062}  # custom-voice models only
SPEAKER_IDS = {name: voice.id for name, voice in VOICES.items()}
SPEAKER_DIALECTS = {name: f"{voice.dialect.lower()}_dialect" for name, voice in VOICES.items() if voice.dialect}
CONTROL_ROWS = 1024  # of the codec vocabulary, after the codes

# What differs between the sizes. Tiny widths are unequal wherever the released ones may be, so that no two axes
# can be confused, and multiples of 32, so that they can be quantised in groups.
SIZES: dict[Like, Json] = {
    "0.6b": {"tts_model_size": "0b6", "hidden_size": 1024, "intermediate_size": 3072},
    "1.7b": {"tts_model_size": "1b7", "hidden_size": 2048, "intermediate_size": 6144},
    "tiny": {"tts_model_size": "0b6", "hidden_size": 64, "intermediate_size": 160},
    "tiny-1.7b": {"tts_model_size": "1b7", "hidden_size": 96, "intermediate_size": 160},
}
TINY_CODEBOOK_SIZE = 128  # the official encoder requires a power of two


def is_tiny(like: Like) -> bool:
    """Whether ``like`` is a tiny size, not a released one."""
    return like.startswith("tiny")


def model_config(like: Like, model_type: ModelType, text: TextVocabulary) -> Json:
    """``config.json``. ``text`` describes the tokenizer files beside it (released: ``RELEASED_TEXT``)."""
    config: Json = {
        "architectures": ["Qwen3TTSForConditionalGeneration"],
        "assistant_token_id": text.assistant_token_id,
        "im_end_token_id": text.im_end_token_id,
        "im_start_token_id": text.im_start_token_id,
        "tts_bos_token_id": text.tts_bos_token_id,
        "tts_eos_token_id": text.tts_eos_token_id,
        "tts_pad_token_id": text.tts_pad_token_id,
        "model_type": "qwen3_tts",
        "tokenizer_type": "qwen3_tts_tokenizer_12hz",
        "tts_model_size": SIZES[like]["tts_model_size"],
        "tts_model_type": model_type,
        "talker_config": _talker(like, model_type, text),
        "transformers_version": "4.57.3",
    }
    if model_type == "base":
        config["speaker_encoder_config"] = _speaker_encoder(like)
    return config


def _talker(like: Like, model_type: ModelType, text: TextVocabulary) -> Json:
    codes = TINY_CODEBOOK_SIZE if is_tiny(like) else CODEBOOK_SIZE
    custom = model_type == "custom_voice"
    attention = _heads(16, 8, 128)
    sizes: Json = {"text_hidden_size": 2048, "num_hidden_layers": 28, **attention}
    sections = [24, 20, 20]  # head_dim / 2 rotary pairs, divided among three equal rows of positions
    if is_tiny(like):
        sizes = {"text_hidden_size": 32, "num_hidden_layers": 3, **_heads(4, 2, 32)}
        sections = [6, 5, 5]

    def shifted(ids: dict[str, int]) -> dict[str, int]:
        return {name: i - CODEBOOK_SIZE + codes for name, i in ids.items()}

    return {
        "code_predictor_config": _code_predictor(like, codes),
        **shifted(CONTROL_IDS),
        "codec_language_id": shifted(LANGUAGE_IDS | (DIALECT_IDS if custom else {})),
        "spk_id": shifted(SPEAKER_IDS) if custom else {},
        "spk_is_dialect": {name: SPEAKER_DIALECTS.get(name, False) for name in SPEAKER_IDS} if custom else {},
        **_qwen3(),
        "model_type": "qwen3_tts_talker",
        "hidden_size": SIZES[like]["hidden_size"],
        "intermediate_size": SIZES[like]["intermediate_size"],
        **sizes,
        "max_position_embeddings": 32768,
        "num_code_groups": 16,
        "position_id_per_seconds": 13,
        "rope_scaling": {"interleaved": True, "mrope_section": sections, "rope_type": "default", "type": "default"},
        "text_vocab_size": text.text_vocab_size,
        "vocab_size": codes + CONTROL_ROWS,
    }


def _code_predictor(like: Like, codes: int) -> Json:
    sizes: Json = {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 5, **_heads(16, 8, 128)}
    if is_tiny(like):
        sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, **_heads(4, 2, 32)}
    return {
        **_qwen3(),
        "model_type": "qwen3_tts_talker_code_predictor",
        **sizes,
        "layer_types": ["full_attention"] * sizes["num_hidden_layers"],
        "max_position_embeddings": 65536,
        "max_window_layers": 28,
        "num_code_groups": 16,
        "rope_scaling": None,
        "vocab_size": codes,
    }


def _qwen3() -> Json:
    return {
        "attention_bias": False,
        "attention_dropout": 0,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000,
        "sliding_window": None,
        "use_cache": True,
        "use_sliding_window": False,
    }


def _speaker_encoder(like: Like) -> Json:
    config: Json = {"enc_dim": SIZES[like]["hidden_size"], "sample_rate": 24000}
    if is_tiny(like):  # the released files leave these to the class
        config |= {
            "enc_channels": [24, 24, 24, 24, 72],
            "enc_attention_channels": 16,
            "enc_res2net_scale": 4,
            "enc_se_channels": 8,
        }
    return config


def codec_config(like: Like) -> Json:
    """``speech_tokenizer/config.json``; one codec serves both released sizes, and one both tiny ones."""
    return {
        "architectures": ["Qwen3TTSTokenizerV2Model"],
        "model_type": "qwen3_tts_tokenizer_12hz",
        "encoder_valid_num_quantizers": 16,
        "input_sample_rate": 24000,
        "output_sample_rate": 24000,
        "decode_upsample_rate": 1920,
        "encode_downsample_rate": 1920,
        "encoder_config": _codec_encoder(is_tiny(like)),
        "decoder_config": _codec_decoder(is_tiny(like)),
        "transformers_version": "4.57.3",
    }


def _codec_decoder(tiny: bool) -> Json:
    released = {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "latent_dim": 1024,
        "codebook_dim": 512,
        "codebook_size": CODEBOOK_SIZE,
        "decoder_dim": 1536,
        "hidden_act": "silu",
        "hidden_size": 512,
        "intermediate_size": 1024,
        "layer_scale_initial_scale": 0.01,
        "max_position_embeddings": 8000,
        **_heads(16, 16, 64),
        "num_hidden_layers": 8,
        "num_quantizers": 16,
        "num_semantic_quantizers": 1,
        "rms_norm_eps": 1e-05,
        "rope_theta": 10000,
        "semantic_codebook_size": 4096,
        "sliding_window": 72,
        "upsample_rates": [8, 5, 4, 3],
        "upsampling_ratios": [2, 2],
        "vector_quantization_hidden_dimension": 512,
    }
    if not tiny:
        return released
    return released | {
        "latent_dim": 64,
        "codebook_dim": 48,
        "codebook_size": TINY_CODEBOOK_SIZE,
        "decoder_dim": 96,
        "hidden_size": 32,
        "intermediate_size": 64,
        **_heads(4, 4, 16),
        "num_hidden_layers": 2,
        "sliding_window": 24,
    }


def _codec_encoder(tiny: bool) -> Json:
    released = {
        "_frame_rate": 12.5,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "audio_channels": 1,
        "codebook_dim": 256,
        "codebook_size": CODEBOOK_SIZE,
        "compress": 2,
        "dilation_growth_rate": 2,
        "dtype": "float32",
        **_heads(8, 8, 64),
        "hidden_act": "gelu",
        "hidden_size": 512,
        "initializer_range": 0.02,
        "intermediate_size": 2048,
        "kernel_size": 7,
        "last_kernel_size": 3,
        "layer_scale_initial_scale": 0.01,
        "max_position_embeddings": 8000,
        "norm_eps": 1e-05,
        "normalize": False,
        "num_filters": 64,
        "num_hidden_layers": 8,
        "num_quantizers": 32,
        "num_residual_layers": 1,
        "num_semantic_quantizers": 1,
        "pad_mode": "constant",
        "residual_kernel_size": 3,
        "rope_theta": 10000.0,
        "sampling_rate": 24000,
        "sliding_window": 250,
        "trim_right_ratio": 1.0,
        "upsample_groups": 512,
        "upsampling_ratios": [8, 6, 5, 4],
        "use_cache": False,
        "use_causal_conv": True,
        "use_conv_shortcut": False,
        "use_streaming": False,
        "vector_quantization_hidden_dimension": 256,
    }
    if not tiny:
        return released
    return released | {
        "codebook_dim": 24,
        "codebook_size": TINY_CODEBOOK_SIZE,
        **_heads(4, 4, 16),
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_filters": 4,
        "num_hidden_layers": 2,
        "sliding_window": 12,
        "upsample_groups": 48,
        "vector_quantization_hidden_dimension": 24,
    }


def generation_config() -> Json:
    """``generation_config.json``, the same for all models."""
    return {
        "do_sample": True,
        "repetition_penalty": 1.05,
        "temperature": 0.9,
        "top_p": 1.0,
        "top_k": 50,
        "subtalker_dosample": True,
        "subtalker_temperature": 0.9,
        "subtalker_top_p": 1.0,
        "subtalker_top_k": 50,
        "max_new_tokens": 8192,
    }


def preprocessor_config() -> Json:
    """``preprocessor_config.json``."""
    return {
        "padding_side": "left",
        "padding_value": 0.0,
        "processor_class": "Qwen3TTSProcessor",
        "return_attention_mask": True,
    }


def codec_preprocessor_config() -> Json:
    """``speech_tokenizer/preprocessor_config.json``."""
    return {
        "chunk_length_s": None,
        "feature_extractor_type": "EncodecFeatureExtractor",
        "feature_size": 1,
        "overlap": None,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": True,
        "sampling_rate": 24000,
    }


def modelscope_configuration() -> Json:
    """``speech_tokenizer/configuration.json``, which is not read here."""
    return {"framework": "pytorch", "task": "feature-extraction", "allow_remote": True}


def safetensors_metadata(model_type: ModelType) -> dict[str, str] | None:
    """``__metadata__`` of model.safetensors: the base models were saved without it, and so was the codec."""
    return None if model_type == "base" else {"format": "pt"}


def _heads(queries: int, keys: int, dim: int) -> Json:
    return {"num_attention_heads": queries, "num_key_value_heads": keys, "head_dim": dim}
