"""ECAPA-TDNN: maps a clip of speech to one vector that represents the voice.

    log-mel -> TDNN -> SE-Res2Net x 3 -> their outputs concatenated -> TDNN -> attentive statistics -> linear

Official: ``Qwen3TTSSpeakerEncoder``; paper: Desplanques et al., "ECAPA-TDNN", 2020. Trap: every convolution keeps the
length and uses REFLECTION padding, so a clip must have more frames than the widest padding.

Shapes: C channels, T mel frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..checkpoint.keys import Names, Sizes, block, blocks
from ..config import SpeakerEncoderConfig
from ..conv import Conv, conv, conv_sizes
from ..errors import RequestError
from ..ops import Array, sigmoid, softmax
from ..trace import Scope, record
from .mel import HOP, PAD, log_mel


@dataclass(frozen=True)
class Res2NetWeights:
    """Weights of a Res2Net block. Chunk 0 passes through, so there is one convolution fewer than chunks."""

    official: ClassVar[Names] = ("Res2NetBlock",)

    blocks: tuple[Conv, ...] = blocks(
        Conv, "blocks.{}.conv", "chunks-1", lambda s, _: conv_sizes(s["chunk"], s["chunk"], s["kernel"])
    )


@dataclass(frozen=True)
class SERes2NetWeights:
    official: ClassVar[Names] = ("SqueezeExcitationRes2NetBlock",)

    tdnn1: Conv = block(Conv, "tdnn1.conv", lambda s: conv_sizes(s["out"], s["in"], 1))
    res2net_block: Res2NetWeights = block(Res2NetWeights, "res2net_block")
    tdnn2: Conv = block(Conv, "tdnn2.conv", lambda s: conv_sizes(s["out"], s["out"], 1))
    se_conv1: Conv = block(Conv, "se_block.conv1", lambda s: conv_sizes(s["se"], s["out"], 1))
    se_conv2: Conv = block(Conv, "se_block.conv2", lambda s: conv_sizes(s["out"], s["se"], 1))


@dataclass(frozen=True)
class SpeakerEncoderWeights:
    official: ClassVar[Names] = ("Qwen3TTSSpeakerEncoder",)

    first: Conv = block(Conv, "blocks.0.conv", lambda s: conv_sizes(s["width0"], s["mel"], s["kernel0"]))
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
    mfa: Conv = block(Conv, "mfa.conv", lambda s: conv_sizes(s["last"], s["last"], s["last_kernel"]))
    asp_tdnn: Conv = block(Conv, "asp.tdnn.conv", lambda s: conv_sizes(s["attention"], 3 * s["last"], 1))
    asp_conv: Conv = block(Conv, "asp.conv", lambda s: conv_sizes(s["last"], s["attention"], 1))
    fc: Conv = block(Conv, "fc", lambda s: conv_sizes(s["H"], 2 * s["last"], 1))


def speaker_encoder_sizes(c: SpeakerEncoderConfig) -> Sizes:
    """The letters of ``SpeakerEncoderWeights``."""
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


def speaker_embedding(audio: Array, w: SpeakerEncoderWeights, c: SpeakerEncoderConfig) -> Array:
    """audio [samples], mono at ``c.sample_rate`` -> [H], computed in the type of the weights.

    ``RequestError`` for a clip shorter than :func:`shortest_clip`.
    """
    mel = speaker_mel(audio, c, w.fc.weight.dtype)
    record("speaker_encoder.mel", mel)
    return speaker_encoder(mel, w, c, "speaker_encoder")


def speaker_mel(audio: Array, c: SpeakerEncoderConfig, dtype: np.dtype[Any]) -> Array:
    """audio [samples], mono at ``c.sample_rate`` -> the log-mel input of the encoder [T, 128].

    ``RequestError`` for a clip shorter than :func:`shortest_clip`.
    """
    shortest = shortest_clip(c)
    if len(audio) < shortest:
        raise RequestError(
            f"the reference audio has {len(audio)} samples at {c.sample_rate} Hz; "
            f"the speaker encoder needs at least {shortest} ({1000 * shortest / c.sample_rate:.0f} ms)"
        )
    return log_mel(audio.astype(dtype))


def shortest_clip(c: SpeakerEncoderConfig) -> int:
    """The minimum number of samples for every reflection padding, of the waveform and inside the encoder."""
    behind = [paddings(k, d)[1] for k, d in zip(c.enc_kernel_sizes, c.enc_dilations, strict=True)]
    return max(HOP * (max(behind) + 1), PAD + 1)


def speaker_encoder(mel: Array, w: SpeakerEncoderWeights, c: SpeakerEncoderConfig, name: str) -> Array:
    """mel [T, 128] -> [H]."""
    t = Scope(name)
    x = tdnn(mel.T, w.first, c.enc_dilations[0], f"{name}.blocks.0")  # [C, T]
    outputs = []
    for i, part in enumerate(w.blocks, start=1):
        x = se_res2net_block(x, part, c.enc_dilations[i], f"{name}.blocks.{i}")
        outputs.append(x)
    x = t("mfa.input", np.concatenate(outputs))  # [3C, T]
    x = tdnn(x, w.mfa, c.enc_dilations[-1], f"{name}.mfa")  # [3C, T]
    x = attentive_statistics_pooling(x, w.asp_tdnn, w.asp_conv, f"{name}.asp")  # [6C, 1]
    return t.output(conv_same(x, w.fc, 1, f"{name}.fc")[:, 0])  # [H]


def se_res2net_block(x: Array, w: SERes2NetWeights, dilation: int, name: str) -> Array:
    """TDNN, Res2Net, TDNN, squeeze-excitation, and a residual connection around them. x [C, T] -> [C, T]."""
    y = tdnn(x, w.tdnn1, 1, f"{name}.tdnn1")
    y = res2net_block(y, w.res2net_block, dilation, f"{name}.res2net_block")
    y = tdnn(y, w.tdnn2, 1, f"{name}.tdnn2")
    y = squeeze_excitation(y, w.se_conv1, w.se_conv2, f"{name}.se_block")
    return record(name, y + x)


def res2net_block(x: Array, w: Res2NetWeights, dilation: int, name: str) -> Array:
    """Channels in chunks; each chunk is convolved after adding the previous result. x [C, T] -> [C, T].

    Trap: chunk 0 passes unchanged, and is not added to chunk 1.
    """
    t = Scope(name)
    chunks = np.split(x, len(w.blocks) + 1)  # each [C / chunks, T]
    outputs = chunks[:1]
    for i, (chunk, w_i) in enumerate(zip(chunks[1:], w.blocks, strict=True)):
        carried = t(f"blocks.{i}.input", chunk if i == 0 else chunk + outputs[-1])
        outputs.append(tdnn(carried, w_i, dilation, f"{name}.blocks.{i}"))
    return t.output(np.concatenate(outputs))


def squeeze_excitation(x: Array, conv1: Conv, conv2: Conv, name: str) -> Array:
    """Scale every channel by a gain from 0 to 1, computed from the means of all channels. x [C, T] -> [C, T]."""
    t = Scope(name)
    mean = t("conv1.input", x.mean(axis=1, keepdims=True))  # [C, 1]
    gain = t("relu", relu(conv_same(mean, conv1, 1, f"{name}.conv1")))  # [squeezed, 1]
    gain = t("sigmoid", sigmoid(conv_same(gain, conv2, 1, f"{name}.conv2")))  # [C, 1]
    return t.output(x * gain)


def attentive_statistics_pooling(x: Array, w_tdnn: Conv, w_conv: Conv, name: str) -> Array:
    """Attention-weighted mean and standard deviation of each channel over time. x [C, T] -> [2C, 1]."""
    t, even = Scope(name), np.full_like(x, 1 / x.shape[1])
    mean, deviation = (np.broadcast_to(s, x.shape) for s in weighted_statistics(x, even))
    context = t("tdnn.input", np.concatenate([x, mean, deviation]))  # [3C, T]
    scores = t("tanh", np.tanh(tdnn(context, w_tdnn, 1, f"{name}.tdnn")))  # [attention, T]
    attention = softmax(conv_same(scores, w_conv, 1, f"{name}.conv"))  # [C, T] over time, each channel its own
    return t.output(np.concatenate(weighted_statistics(x, attention)))


def weighted_statistics(x: Array, weights: Array) -> tuple[Array, Array]:
    """Mean and standard deviation over time. x and weights [C, T], weights sum to 1 over T -> each [C, 1]."""
    mean = (weights * x).sum(axis=1, keepdims=True)
    variance = (weights * (x - mean) ** 2).sum(axis=1, keepdims=True)
    return mean, np.sqrt(np.maximum(variance, 1e-12))


def tdnn(x: Array, w: Conv, dilation: int, name: str) -> Array:
    """``TimeDelayNetBlock``: convolution, ReLU. x [in, T] -> [out, T]."""
    t = Scope(name)
    return t.output(t("activation", relu(conv_same(x, w, dilation, f"{name}.conv"))))


def conv_same(x: Array, w: Conv, dilation: int, name: str) -> Array:
    """A convolution that keeps the length, with reflection padding. x [in, T] -> [out, T]."""
    padded = np.pad(x, ((0, 0), paddings(w.weight.shape[2], dilation)), mode="reflect")
    return record(name, conv(padded, w, dilation=dilation))


def relu(x: Array) -> Array:
    """max(x, 0). Any shape."""
    return np.maximum(x, 0)


def paddings(kernel: int, dilation: int) -> tuple[int, int]:
    """Padding before and after, in frames; an even kernel has the extra one after."""
    total = (kernel - 1) * dilation
    return total // 2, total - total // 2
