"""The configuration and tokenizer files of the demo voice: the official layout, every size small."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

from grammar import VOCABULARY

Json = dict[str, Any]

GROUPS = 16  # codes per frame
ENTRIES = 128  # of a codebook; the official encoder requires a power of two
FEATURES = 48  # width in which the codec quantises
CONTROL = 1024  # rows of the codec vocabulary after the codes; the official package suppresses these while sampling
SPEAKERS = {"oak": ENTRIES + 1000, "reed": ENTRIES + 1001}  # in the order of corpus.VOICES
ENGLISH = ENTRIES + 2

HIDDEN = 192  # of the talker
TEXT_HIDDEN = 128
SPECIAL_TOKENS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<tts_pad>",
    "<tts_text_bos>",
    "<tts_text_eod>",
    "<tts_text_bos_single>",
    "<|audio_start|>",
    "<|audio_end|>",
    "<|audio_pad|>",
]


def write_files(directory: Path, model_type: str) -> None:
    """All files of a checkpoint except the weights; ``model_type`` is custom_voice or base."""
    codec = directory / "speech_tokenizer"
    codec.mkdir(parents=True, exist_ok=True)
    ids = write_tokenizer(directory)
    files = {
        "config.json": model_config(ids, model_type),
        "generation_config.json": generation_config(),
        "preprocessor_config.json": {"padding_side": "left", "processor_class": "Qwen3TTSProcessor"},
        "speech_tokenizer/config.json": codec_config(),
        "speech_tokenizer/preprocessor_config.json": {
            "feature_extractor_type": "EncodecFeatureExtractor",
            "feature_size": 1,
            "padding_side": "right",
            "padding_value": 0.0,
            "return_attention_mask": True,
            "sampling_rate": 24000,
        },
    }
    for name, content in files.items():
        (directory / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8", newline="\n")


def generation_config() -> Json:
    sampling = {"temperature": 0.9, "top_p": 1.0, "top_k": 50}
    return {
        "do_sample": True,
        "repetition_penalty": 1.05,
        **sampling,
        "subtalker_dosample": True,
        **{f"subtalker_{name}": value for name, value in sampling.items()},
        "max_new_tokens": 512,
    }


def model_config(ids: dict[str, int], model_type: str = "custom_voice") -> Json:
    config: Json = {
        "architectures": ["Qwen3TTSForConditionalGeneration"],
        "assistant_token_id": ids["assistant"],
        "im_end_token_id": ids["<|im_end|>"],
        "im_start_token_id": ids["<|im_start|>"],
        "tts_bos_token_id": ids["<tts_text_bos>"],
        "tts_eos_token_id": ids["<tts_text_eod>"],
        "tts_pad_token_id": ids["<tts_pad>"],
        "model_type": "qwen3_tts",
        "tokenizer_type": "qwen3_tts_tokenizer_12hz",
        "tts_model_size": "0b6",
        "tts_model_type": model_type,
        "talker_config": talker_config(len(ids)),
        "transformers_version": "4.57.3",
    }
    if model_type == "base":
        config["talker_config"] |= {"spk_id": {}, "spk_is_dialect": {}}
        config["speaker_encoder_config"] = speaker_encoder_config()
    return config


def speaker_encoder_config() -> Json:
    return {
        "enc_dim": HIDDEN,
        "enc_channels": [32, 32, 32, 32, 96],
        "enc_attention_channels": 16,
        "enc_res2net_scale": 4,
        "enc_se_channels": 8,
        "sample_rate": 24000,
    }


def talker_config(tokens: int) -> Json:
    control = {"pad": 100, "bos": 101, "eos_token": 102, "think": 106, "nothink": 107}
    control |= {"think_bos": 108, "think_eos": 109}
    return {
        "code_predictor_config": code_predictor_config(),
        **{f"codec_{name}_id": ENTRIES + offset for name, offset in control.items()},
        "codec_language_id": {"english": ENGLISH},
        "spk_id": SPEAKERS,
        "spk_is_dialect": dict.fromkeys(SPEAKERS, False),
        **qwen3(hidden=HIDDEN, mlp=512, layers=4, heads=4, kv_heads=2, head_dim=48),
        "model_type": "qwen3_tts_talker",
        "text_hidden_size": TEXT_HIDDEN,
        "max_position_embeddings": 32768,
        "num_code_groups": GROUPS,
        "position_id_per_seconds": 13,
        "rope_scaling": {"interleaved": True, "mrope_section": [8, 8, 8], "rope_type": "default", "type": "default"},
        "text_vocab_size": -(-tokens // 32) * 32,
        "vocab_size": ENTRIES + CONTROL,
    }


def code_predictor_config() -> Json:
    layers = 2
    return {
        **qwen3(hidden=128, mlp=256, layers=layers, heads=4, kv_heads=2, head_dim=32),
        "model_type": "qwen3_tts_talker_code_predictor",
        "layer_types": ["full_attention"] * layers,
        "max_position_embeddings": 65536,
        "max_window_layers": 28,
        "num_code_groups": GROUPS,
        "rope_scaling": None,
        "vocab_size": ENTRIES,
    }


def qwen3(hidden: int, mlp: int, layers: int, heads: int, kv_heads: int, head_dim: int) -> Json:
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
        "hidden_size": hidden,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
    }


def codec_config() -> Json:
    return {
        "architectures": ["Qwen3TTSTokenizerV2Model"],
        "model_type": "qwen3_tts_tokenizer_12hz",
        "encoder_valid_num_quantizers": GROUPS,
        "input_sample_rate": 24000,
        "output_sample_rate": 24000,
        "decode_upsample_rate": 1920,
        "encode_downsample_rate": 1920,
        "encoder_config": encoder_config(),
        "decoder_config": decoder_config(),
        "transformers_version": "4.57.3",
    }


def decoder_config() -> Json:
    return {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "layer_scale_initial_scale": 0.1,  # the official 0.01 learns too slowly
        "max_position_embeddings": 8000,
        "num_quantizers": GROUPS,
        "num_semantic_quantizers": 1,
        "rms_norm_eps": 1e-05,
        "rope_theta": 10000,
        "semantic_codebook_size": 4096,
        "upsample_rates": [8, 5, 4, 3],
        "upsampling_ratios": [2, 2],
        "vector_quantization_hidden_dimension": 512,
        "latent_dim": 96,
        "codebook_dim": 2 * FEATURES,
        "codebook_size": ENTRIES,
        "decoder_dim": 128,
        "hidden_size": 96,
        "intermediate_size": 192,
        "head_dim": 24,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "num_hidden_layers": 3,
        "sliding_window": 24,
    }


def encoder_config() -> Json:
    return {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "audio_channels": 1,
        "compress": 2,
        "dilation_growth_rate": 2,
        "hidden_act": "gelu",
        "initializer_range": 0.02,
        "kernel_size": 7,
        "last_kernel_size": 3,
        "layer_scale_initial_scale": 0.1,
        "max_position_embeddings": 8000,
        "norm_eps": 1e-05,
        "num_quantizers": GROUPS,
        "num_residual_layers": 1,
        "num_semantic_quantizers": 1,
        "pad_mode": "constant",
        "residual_kernel_size": 3,
        "rope_theta": 10000.0,
        "sampling_rate": 24000,
        "trim_right_ratio": 1.0,
        "upsampling_ratios": [8, 6, 5, 4],
        "use_cache": False,
        "use_causal_conv": True,
        "use_conv_shortcut": False,
        "use_streaming": False,
        "_frame_rate": 12.5,
        "hidden_size": FEATURES,
        "num_filters": 8,
        "codebook_size": ENTRIES,
        "codebook_dim": FEATURES,
        "vector_quantization_hidden_dimension": FEATURES,
        "upsample_groups": FEATURES,
        "num_hidden_layers": 2,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "head_dim": 12,
        "sliding_window": 24,
    }


def write_tokenizer(directory: Path) -> dict[str, int]:
    """``vocab.json``, ``merges.txt`` and ``tokenizer_config.json``; token -> id.

    Every word is one token, with and without a space before it.
    """
    merges = byte_pairs([*(f"{space}{word}" for word in VOCABULARY for space in ("", "Ġ")), "assistant"])
    tokens = [*byte_symbols(), *(first + second for first, second in merges)]
    ids = {token: i for i, token in enumerate(tokens)}
    special = {token: len(ids) + i for i, token in enumerate(SPECIAL_TOKENS)}
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    config = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {str(i): {"content": token, **plain} for token, i in special.items()},
        "additional_special_tokens": SPECIAL_TOKENS[1:],
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 131072,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    files = {
        "vocab.json": json.dumps(ids, ensure_ascii=False),
        "merges.txt": "#version: 0.2\n" + "".join(f"{first} {second}\n" for first, second in merges),
        "tokenizer_config.json": json.dumps(config, indent=2) + "\n",
    }
    for name, content in files.items():
        (directory / name).write_text(content, encoding="utf-8", newline="\n")
    return ids | special


def byte_pairs(words: list[str]) -> list[tuple[str, str]]:
    """Byte-pair encoding until every word is one token: join the most frequent pair, of equals the last one."""
    pieces = [list(word) for word in words]
    merges: list[tuple[str, str]] = []
    while pairs := Counter(pair for word in pieces for pair in pairwise(word)):
        first, second = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append((first, second))
        for word in pieces:
            for i in range(len(word) - 2, -1, -1):
                if word[i : i + 2] == [first, second]:
                    word[i : i + 2] = [first + second]
    return merges


def byte_symbols() -> list[str]:
    """The characters that stand for bytes in the files of this family of tokenizers, by id."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = len(range(256)) - len(printable)
    return [*(chr(byte) for byte in printable), *(chr(0x100 + i) for i in range(others))]
