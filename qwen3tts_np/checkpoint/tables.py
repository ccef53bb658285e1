"""The key tables of both checkpoint files, one class a block. Read each beside the code that uses it.

``model.safetensors`` holds talker, code predictor and, in base models, speaker encoder (BF16);
``speech_tokenizer/model.safetensors`` holds codec decoder and encoder (F32). Letters as in ``config.py``; a pair of
letters is their product (ND = N * D). Sizes of blocks that change along the way (SEANet stages, waveform blocks) are
worked out by the small functions beside their tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..config import (
    CodecConfig,
    CodecDecoderConfig,
    CodecEncoderConfig,
    CodePredictorConfig,
    ModelConfig,
    SpeakerEncoderConfig,
    TalkerConfig,
)
from ..ops import Array
from .keys import Embedding, Sizes, TensorSpec, block, blocks, embedding, specs, tensor

# --- the Qwen3 layer: talker and code predictor ---------------------------------------------------


@dataclass(frozen=True)
class Qwen3Layer:
    """``Qwen3TTSTalkerDecoderLayer``, ``Qwen3TTSDecoderLayer``."""

    input_layernorm: Array = tensor("input_layernorm.weight", "H")
    q_proj: Array = tensor("self_attn.q_proj.weight", "ND H")
    k_proj: Array = tensor("self_attn.k_proj.weight", "KD H")
    v_proj: Array = tensor("self_attn.v_proj.weight", "KD H")
    o_proj: Array = tensor("self_attn.o_proj.weight", "H ND")
    q_norm: Array = tensor("self_attn.q_norm.weight", "D")
    k_norm: Array = tensor("self_attn.k_norm.weight", "D")
    post_attention_layernorm: Array = tensor("post_attention_layernorm.weight", "H")
    gate_proj: Array = tensor("mlp.gate_proj.weight", "F H")
    up_proj: Array = tensor("mlp.up_proj.weight", "F H")
    down_proj: Array = tensor("mlp.down_proj.weight", "H F")


@dataclass(frozen=True)
class CodeEmbedding:
    weight: Embedding = embedding("weight", "C TH")  # the TALKER's width, also where the predictor is narrower


@dataclass(frozen=True)
class CodeHead:
    weight: Array = tensor("weight", "C H")


@dataclass(frozen=True)
class CodePredictorWeights:
    """``Qwen3TTSTalkerCodePredictorModelForConditionalGeneration``. Embedding and head g belong to code g + 1."""

    codec_embedding: tuple[CodeEmbedding, ...] = blocks(CodeEmbedding, "model.codec_embedding.{}", "G-1")
    small_to_mtp_projection_weight: Array | None = tensor("small_to_mtp_projection.weight", "H TH", when="projects")
    small_to_mtp_projection_bias: Array | None = tensor("small_to_mtp_projection.bias", "H", when="projects")
    layers: tuple[Qwen3Layer, ...] = blocks(Qwen3Layer, "model.layers.{}", "L")
    norm: Array = tensor("model.norm.weight", "H")
    lm_head: tuple[CodeHead, ...] = blocks(CodeHead, "lm_head.{}", "G-1")


@dataclass(frozen=True)
class TalkerWeights:
    """``Qwen3TTSTalkerForConditionalGeneration``."""

    text_embedding: Embedding = embedding("model.text_embedding.weight", "W X")
    text_projection_fc1: Array = tensor("text_projection.linear_fc1.weight", "X X")
    text_projection_fc1_bias: Array = tensor("text_projection.linear_fc1.bias", "X")
    text_projection_fc2: Array = tensor("text_projection.linear_fc2.weight", "H X")
    text_projection_fc2_bias: Array = tensor("text_projection.linear_fc2.bias", "H")
    codec_embedding: Embedding = embedding("model.codec_embedding.weight", "V H")
    layers: tuple[Qwen3Layer, ...] = blocks(Qwen3Layer, "model.layers.{}", "L")
    norm: Array = tensor("model.norm.weight", "H")
    codec_head: Array = tensor("codec_head.weight", "V H")


def attention_sizes(c: TalkerConfig | CodePredictorConfig) -> dict[str, int]:
    """The letters of one Qwen3 layer."""
    return {
        "H": c.hidden_size,
        "F": c.intermediate_size,
        "L": c.num_hidden_layers,
        "D": c.head_dim,
        "ND": c.num_attention_heads * c.head_dim,
        "KD": c.num_key_value_heads * c.head_dim,
    }


def talker_sizes(c: TalkerConfig) -> Sizes:
    return {**attention_sizes(c), "V": c.vocab_size, "W": c.text_vocab_size, "X": c.text_hidden_size}


def code_predictor_sizes(c: TalkerConfig) -> Sizes:
    small = c.code_predictor_config
    return {
        **attention_sizes(small),
        "C": small.vocab_size,
        "G-1": small.num_code_groups - 1,
        "TH": c.hidden_size,
        "projects": int(small.hidden_size != c.hidden_size),
    }


# --- speaker encoder ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Conv:
    """A 1-D convolution with a bias: weight [out, in, kernel]."""

    weight: Array = tensor("weight", "out in kernel")
    bias: Array = tensor("bias", "out")


def conv(out: int, in_: int, kernel: int) -> Sizes:
    return {"out": out, "in": in_, "kernel": kernel}


@dataclass(frozen=True)
class Res2NetWeights:
    """``Res2NetBlock``: chunk 0 passes through, so there is one convolution less than chunks."""

    blocks: tuple[Conv, ...] = blocks(
        Conv, "blocks.{}.conv", "chunks-1", lambda s, _: conv(s["chunk"], s["chunk"], s["kernel"])
    )


@dataclass(frozen=True)
class SERes2NetWeights:
    """``SqueezeExcitationRes2NetBlock``."""

    tdnn1: Conv = block(Conv, "tdnn1.conv", lambda s: conv(s["out"], s["in"], 1))
    res2net_block: Res2NetWeights = block(Res2NetWeights, "res2net_block")
    tdnn2: Conv = block(Conv, "tdnn2.conv", lambda s: conv(s["out"], s["out"], 1))
    se_conv1: Conv = block(Conv, "se_block.conv1", lambda s: conv(s["se"], s["out"], 1))
    se_conv2: Conv = block(Conv, "se_block.conv2", lambda s: conv(s["out"], s["se"], 1))


@dataclass(frozen=True)
class SpeakerEncoderWeights:
    """``Qwen3TTSSpeakerEncoder``."""

    first: Conv = block(Conv, "blocks.0.conv", lambda s: conv(s["width0"], s["mel"], s["kernel0"]))
    blocks: tuple[SERes2NetWeights, ...] = blocks(
        SERes2NetWeights,
        "blocks.{}",
        "res2net_blocks",
        lambda s, i: {
            "in": s[f"width{i}"],
            "out": s[f"width{i + 1}"],
            "kernel": s[f"kernel{i + 1}"],
            "chunk": s[f"width{i + 1}"] // s["chunks"],
            "chunks-1": s["chunks"] - 1,
            "se": s["se"],
        },
        first=1,
    )
    mfa: Conv = block(Conv, "mfa.conv", lambda s: conv(s["last"], s["last"], s["last_kernel"]))
    asp_tdnn: Conv = block(Conv, "asp.tdnn.conv", lambda s: conv(s["attention"], 3 * s["last"], 1))
    asp_conv: Conv = block(Conv, "asp.conv", lambda s: conv(s["last"], s["attention"], 1))
    fc: Conv = block(Conv, "fc", lambda s: conv(s["H"], 2 * s["last"], 1))


def speaker_encoder_sizes(c: SpeakerEncoderConfig) -> Sizes:
    return {
        "mel": c.mel_dim,
        "H": c.enc_dim,
        "res2net_blocks": len(c.enc_channels) - 2,
        "chunks": c.enc_res2net_scale,
        "se": c.enc_se_channels,
        "attention": c.enc_attention_channels,
        "last": c.enc_channels[-1],
        "last_kernel": c.enc_kernel_sizes[-1],
        **{f"width{i}": width for i, width in enumerate(c.enc_channels)},
        **{f"kernel{i}": kernel for i, kernel in enumerate(c.enc_kernel_sizes)},
    }


# --- codec decoder --------------------------------------------------------------------------------


@dataclass(frozen=True)
class DecoderCodebook:
    """``EuclideanCodebook``: an entry is embedding_sum / max(cluster_usage, 1e-5)."""

    cluster_usage: Array = tensor("_codebook.cluster_usage", "C")
    embedding_sum: Array = tensor("_codebook.embedding_sum", "C Q/2")


@dataclass(frozen=True)
class DecoderQuantizer:
    """``ResidualVectorQuantizer``. ``input_proj`` is stored and never used when decoding."""

    input_proj: Array = tensor("input_proj.weight", "Q/2 Q 1")
    codebooks: tuple[DecoderCodebook, ...] = blocks(DecoderCodebook, "vq.layers.{}", "layers")
    output_proj: Array = tensor("output_proj.weight", "Q Q/2 1")


@dataclass(frozen=True)
class DecoderLayer:
    """``Qwen3TTSTokenizerV2DecoderTransformerLayer``: no q/k norm, a LayerScale on both residuals."""

    input_layernorm: Array = tensor("input_layernorm.weight", "H")
    q_proj: Array = tensor("self_attn.q_proj.weight", "ND H")
    k_proj: Array = tensor("self_attn.k_proj.weight", "KD H")
    v_proj: Array = tensor("self_attn.v_proj.weight", "KD H")
    o_proj: Array = tensor("self_attn.o_proj.weight", "H ND")
    self_attn_layer_scale: Array = tensor("self_attn_layer_scale.scale", "H")
    post_attention_layernorm: Array = tensor("post_attention_layernorm.weight", "H")
    gate_proj: Array = tensor("mlp.gate_proj.weight", "F H")
    up_proj: Array = tensor("mlp.up_proj.weight", "F H")
    down_proj: Array = tensor("mlp.down_proj.weight", "H F")
    mlp_layer_scale: Array = tensor("mlp_layer_scale.scale", "H")


@dataclass(frozen=True)
class PreTransformerWeights:
    """``Qwen3TTSTokenizerV2DecoderTransformerModel``."""

    input_proj: Array = tensor("input_proj.weight", "H Z")
    input_proj_bias: Array = tensor("input_proj.bias", "H")
    layers: tuple[DecoderLayer, ...] = blocks(DecoderLayer, "layers.{}", "L")
    norm: Array = tensor("norm.weight", "H")
    output_proj: Array = tensor("output_proj.weight", "Z H")
    output_proj_bias: Array = tensor("output_proj.bias", "Z")


@dataclass(frozen=True)
class TransposedConv:
    """A transposed 1-D convolution: weight [in, out, kernel], the other way round than ``Conv``."""

    weight: Array = tensor("weight", "in out kernel")
    bias: Array = tensor("bias", "out")


@dataclass(frozen=True)
class ConvNeXtWeights:
    """``Qwen3TTSTokenizerV2ConvNeXtBlock``."""

    dwconv: Array = tensor("dwconv.conv.weight", "Z 1 7")
    dwconv_bias: Array = tensor("dwconv.conv.bias", "Z")
    norm: Array = tensor("norm.weight", "Z")
    norm_bias: Array = tensor("norm.bias", "Z")
    pwconv1: Array = tensor("pwconv1.weight", "4Z Z")
    pwconv1_bias: Array = tensor("pwconv1.bias", "4Z")
    pwconv2: Array = tensor("pwconv2.weight", "Z 4Z")
    pwconv2_bias: Array = tensor("pwconv2.bias", "Z")
    gamma: Array = tensor("gamma", "Z")


@dataclass(frozen=True)
class UpsampleWeights:
    """One entry of ``decoder.upsample``: a transposed convolution, then a ConvNeXt block."""

    conv: TransposedConv = block(TransposedConv, "0.conv", lambda s: conv(s["Z"], s["Z"], s["rate"]))
    convnext: ConvNeXtWeights = block(ConvNeXtWeights, "1")


@dataclass(frozen=True)
class SnakeWeights:
    """``SnakeBeta``; both are stored as logarithms."""

    alpha: Array = tensor("alpha", "width")
    beta: Array = tensor("beta", "width")


@dataclass(frozen=True)
class ResidualUnitWeights:
    """``Qwen3TTSTokenizerV2DecoderDecoderResidualUnit``."""

    act1: SnakeWeights = block(SnakeWeights, "act1")
    conv1: Conv = block(Conv, "conv1.conv", lambda s: conv(s["width"], s["width"], 7))
    act2: SnakeWeights = block(SnakeWeights, "act2")
    conv2: Conv = block(Conv, "conv2.conv", lambda s: conv(s["width"], s["width"], 1))


@dataclass(frozen=True)
class WaveformBlockWeights:
    """``Qwen3TTSTokenizerV2DecoderDecoderBlock``: SnakeBeta, transposed convolution, units of dilation 1, 3, 9."""

    snake: SnakeWeights = block(SnakeWeights, "block.0", lambda s: {"width": s["wide"]})
    conv: TransposedConv = block(
        TransposedConv, "block.1.conv", lambda s: {"in": s["wide"], "out": s["width"], "kernel": 2 * s["rate"]}
    )
    units: tuple[ResidualUnitWeights, ...] = blocks(ResidualUnitWeights, "block.{}", "units", first=2)


@dataclass(frozen=True)
class CodecDecoderWeights:
    """``Qwen3TTSTokenizerV2Decoder``. The last two indices of ``decoder.decoder`` follow the waveform blocks."""

    rvq_first: DecoderQuantizer = block(DecoderQuantizer, "quantizer.rvq_first", lambda s: {**s, "layers": 1})
    rvq_rest: DecoderQuantizer = block(DecoderQuantizer, "quantizer.rvq_rest", lambda s: {**s, "layers": s["G"] - 1})
    pre_conv: Conv = block(Conv, "pre_conv.conv", lambda s: conv(s["Z"], s["Q"], 3))
    pre_transformer: PreTransformerWeights = block(PreTransformerWeights, "pre_transformer")
    upsample: tuple[UpsampleWeights, ...] = blocks(
        UpsampleWeights, "upsample.{}", "upsamples", lambda s, i: {**s, "rate": s[f"ratio{i}"]}
    )
    first_conv: Conv = block(Conv, "decoder.0.conv", lambda s: conv(s["W"], s["Z"], 7))
    waveform_blocks: tuple[WaveformBlockWeights, ...] = blocks(
        WaveformBlockWeights,
        "decoder.{}",
        "waveform_blocks",
        lambda s, i: {"wide": s["W"] >> i, "width": s["W"] >> (i + 1), "rate": s[f"rate{i}"], "units": 3},
        first=1,
    )
    last_snake: SnakeWeights = block(SnakeWeights, "decoder.{snake_at}", lambda s: {"width": s["last"]})
    last_conv: Conv = block(Conv, "decoder.{conv_at}.conv", lambda s: conv(1, s["last"], 7))


def codec_decoder_sizes(c: CodecDecoderConfig) -> Sizes:
    n = len(c.upsample_rates)
    return {
        "H": c.hidden_size,
        "F": c.intermediate_size,
        "L": c.num_hidden_layers,
        "ND": c.num_attention_heads * c.head_dim,
        "KD": c.num_key_value_heads * c.head_dim,
        "C": c.codebook_size,
        "G": c.num_quantizers,
        "Q": c.codebook_dim,
        "Q/2": c.codebook_dim // 2,
        "Z": c.latent_dim,
        "4Z": 4 * c.latent_dim,
        "W": c.decoder_dim,
        "upsamples": len(c.upsampling_ratios),
        "waveform_blocks": n,
        "snake_at": n + 1,
        "conv_at": n + 2,
        "last": c.decoder_dim >> n,
        **{f"ratio{i}": ratio for i, ratio in enumerate(c.upsampling_ratios)},
        **{f"rate{i}": rate for i, rate in enumerate(c.upsample_rates)},
    }


# --- codec encoder --------------------------------------------------------------------------------


@dataclass(frozen=True)
class SEANetStage:
    """A residual unit (``MimiResnetBlock``), then a strided convolution that doubles the channels."""

    narrow: Conv = block(Conv, "{unit_at}.block.1.conv", lambda s: conv(s["inner"], s["width"], s["residual_kernel"]))
    widen: Conv = block(Conv, "{unit_at}.block.3.conv", lambda s: conv(s["width"], s["inner"], 1))
    down: Conv = block(Conv, "{down_at}.conv", lambda s: conv(2 * s["width"], s["width"], 2 * s["ratio"]))


@dataclass(frozen=True)
class SEANetWeights:
    """``MimiEncoder``. Every third index is a residual unit; the ELUs between take up the other indices."""

    first: Conv = block(Conv, "0.conv", lambda s: conv(s["filters"], 1, s["kernel"]))
    stages: tuple[SEANetStage, ...] = blocks(
        SEANetStage,
        "",
        "stages",
        lambda s, i: {
            "unit_at": 1 + 3 * i,
            "down_at": 3 + 3 * i,
            "width": s["filters"] << i,
            "inner": (s["filters"] << i) // s["compress"],
            "residual_kernel": s["residual_kernel"],
            "ratio": s[f"ratio{i}"],
        },
    )
    last: Conv = block(Conv, "{last_at}.conv", lambda s: conv(s["H"], s["filters"] << s["stages"], s["last_kernel"]))


@dataclass(frozen=True)
class EncoderLayer:
    """``MimiTransformerLayer``: LayerNorm, an ungated GELU MLP, a LayerScale on both residuals."""

    input_layernorm: Array = tensor("input_layernorm.weight", "H")
    input_layernorm_bias: Array = tensor("input_layernorm.bias", "H")
    q_proj: Array = tensor("self_attn.q_proj.weight", "ND H")
    k_proj: Array = tensor("self_attn.k_proj.weight", "KD H")
    v_proj: Array = tensor("self_attn.v_proj.weight", "KD H")
    o_proj: Array = tensor("self_attn.o_proj.weight", "H ND")
    self_attn_layer_scale: Array = tensor("self_attn_layer_scale.scale", "H")
    post_attention_layernorm: Array = tensor("post_attention_layernorm.weight", "H")
    post_attention_layernorm_bias: Array = tensor("post_attention_layernorm.bias", "H")
    fc1: Array = tensor("mlp.fc1.weight", "F H")
    fc2: Array = tensor("mlp.fc2.weight", "H F")
    mlp_layer_scale: Array = tensor("mlp_layer_scale.scale", "H")


@dataclass(frozen=True)
class EncoderCodebook:
    """``MimiEuclideanCodebook``: an entry is embed_sum / max(cluster_usage, 1e-5)."""

    cluster_usage: Array = tensor("codebook.cluster_usage", "C")
    embed_sum: Array = tensor("codebook.embed_sum", "C E")
    initialized: Array = tensor("codebook.initialized", "1")  # training state, never read


@dataclass(frozen=True)
class EncoderQuantizer:
    """``MimiResidualVectorQuantizer``. ``output_proj`` is stored and never used when encoding."""

    input_proj: Array | None = tensor("input_proj.weight", "E H 1", when="projects")
    codebooks: tuple[EncoderCodebook, ...] = blocks(EncoderCodebook, "layers.{}", "layers")
    output_proj: Array | None = tensor("output_proj.weight", "H E 1", when="projects")


@dataclass(frozen=True)
class DownsampleConv:
    weight: Array = tensor("weight", "H H down_kernel")


@dataclass(frozen=True)
class CodecEncoderWeights:
    """``Qwen3TTSTokenizerV2Encoder``. All quantisers of the file are here; the model keeps the first G codes."""

    seanet: SEANetWeights = block(SEANetWeights, "encoder.layers")
    layers: tuple[EncoderLayer, ...] = blocks(EncoderLayer, "encoder_transformer.layers.{}", "L")
    downsample: DownsampleConv = block(DownsampleConv, "downsample.conv")
    semantic: EncoderQuantizer = block(
        EncoderQuantizer, "quantizer.semantic_residual_vector_quantizer", lambda s: {**s, "layers": 1}
    )
    acoustic: EncoderQuantizer = block(
        EncoderQuantizer, "quantizer.acoustic_residual_vector_quantizer", lambda s: {**s, "layers": s["quantizers"] - 1}
    )


def codec_encoder_sizes(c: CodecEncoderConfig) -> Sizes:
    strides = tuple(reversed(c.upsampling_ratios))  # the file states them in the decoder's order
    return {
        "H": c.hidden_size,
        "F": c.intermediate_size,
        "L": c.num_hidden_layers,
        "ND": c.num_attention_heads * c.head_dim,
        "KD": c.num_key_value_heads * c.head_dim,
        "C": c.codebook_size,
        "E": c.codebook_dim,
        "quantizers": c.num_quantizers,
        "projects": int(c.codebook_dim != c.hidden_size),
        "down_kernel": 2 * c.downsample_stride,
        "filters": c.num_filters,
        "kernel": c.kernel_size,
        "residual_kernel": c.residual_kernel_size,
        "last_kernel": c.last_kernel_size,
        "compress": c.compress,
        "stages": len(strides),
        "last_at": 3 * len(strides) + 2,
        **{f"ratio{i}": stride for i, stride in enumerate(strides)},
    }


# --- whole files ----------------------------------------------------------------------------------


def model_specs(c: ModelConfig) -> Iterator[TensorSpec]:
    """Every tensor of ``model.safetensors``."""
    yield from specs(TalkerWeights, talker_sizes(c.talker_config), "talker.", "BF16")
    yield from specs(CodePredictorWeights, code_predictor_sizes(c.talker_config), "talker.code_predictor.", "BF16")
    if c.speaker_encoder_config is not None:
        sizes = speaker_encoder_sizes(c.speaker_encoder_config)
        yield from specs(SpeakerEncoderWeights, sizes, "speaker_encoder.", "BF16")


def codec_specs(c: CodecConfig) -> Iterator[TensorSpec]:
    """Every tensor of ``speech_tokenizer/model.safetensors``."""
    yield from specs(CodecDecoderWeights, codec_decoder_sizes(c.decoder_config), "decoder.", "F32")
    yield from specs(CodecEncoderWeights, codec_encoder_sizes(c.encoder_config), "encoder.", "F32")
