"""The network of ``encoder.py`` on compiled kernels: the same blocks in the same order.

Activations are rows [T, channels], channels zero-padded. A clip takes milliseconds, so only the wide convolutions are
worth dividing among threads.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from qwen3tts_np_kernels.activation_jit import NOTHING, RELU, Activation
from qwen3tts_np_kernels.conv_jit import Convolution, conv, pack_conv
from qwen3tts_np_kernels.team import Team
from qwen3tts_np_kernels.threads_jit import Member

from ...config import SpeakerEncoderConfig
from ...conv import Conv
from ...ops import F32, Array, linear, sigmoid, softmax
from ...speaker.encoder import SERes2NetWeights, SpeakerEncoderWeights, paddings, speaker_mel

DIVIDED = 1 << 25  # products; fewer are done before a second thread has started


@dataclass(frozen=True)
class SameConv:
    """A convolution that keeps the length, with reflection padding."""

    weight: Convolution
    dilation: int
    team: Team

    @classmethod
    def pack(cls, w: Conv, team: Team, dilation: int = 1) -> SameConv:
        return cls(pack_conv(w.weight, w.bias), dilation, team)

    def __call__(self, x: F32, activation: Activation = RELU) -> F32:
        """x [T, in] -> [T, width(out)]."""
        padding = paddings(self.weight.taps, self.dilation)
        y = np.empty((len(x), len(self.weight.bias)), np.float32)
        padded = np.pad(x, (padding, (0, 0)), mode="reflect")

        def rows(me: Member) -> None:
            first, end = (len(x) * i // me.count for i in (me.index, me.index + 1))
            seen = padded[first : end + sum(padding)]
            conv(seen, self.weight, y[first:end], dilation=self.dilation, activation=activation)

        if len(x) * self.weight.weight.size > DIVIDED:
            self.team.run(rows)
        else:
            conv(padded, self.weight, y, dilation=self.dilation, activation=activation)
        return y


@dataclass(frozen=True)
class Block:
    """``SqueezeExcitationRes2NetBlock``."""

    tdnn1: SameConv
    res2net: tuple[SameConv, ...]
    tdnn2: SameConv
    se_conv1: Conv
    se_conv2: Conv

    @classmethod
    def pack(cls, w: SERes2NetWeights, dilation: int, team: Team) -> Block:
        res2net = tuple(SameConv.pack(b, team, dilation) for b in w.res2net_block.blocks)
        return cls(SameConv.pack(w.tdnn1, team), res2net, SameConv.pack(w.tdnn2, team), w.se_conv1, w.se_conv2)

    def __call__(self, x: F32) -> F32:
        """[T, C] -> [T, C]."""
        channels = len(self.se_conv2.bias)
        y = self.tdnn1(x)
        chunks = np.split(y[:, :channels], len(self.res2net) + 1, axis=1)  # views: each is replaced in y
        for i, (convolution, chunk) in enumerate(zip(self.res2net, chunks[1:], strict=True)):
            chunk[:] = convolution(chunk + chunks[i] if i else chunk)[:, : chunk.shape[1]]
        y = self.tdnn2(y)
        mean = y[:, :channels].mean(axis=0)
        gain = np.maximum(linear(mean, self.se_conv1.weight[:, :, 0], self.se_conv1.bias), 0)
        y[:, :channels] *= sigmoid(linear(gain, self.se_conv2.weight[:, :, 0], self.se_conv2.bias))
        y += x
        return y


@dataclass(frozen=True)
class CompiledSpeakerEncoder:
    """The weights of ``Qwen3TTSSpeakerEncoder``, packed for the kernels."""

    config: SpeakerEncoderConfig
    first: SameConv
    blocks: tuple[Block, ...]
    mfa: SameConv
    asp_tdnn: Conv
    asp_scores: SameConv  # asp_tdnn for the frames alone
    asp_conv: SameConv
    fc: Conv

    @classmethod
    def pack(cls, w: SpeakerEncoderWeights, c: SpeakerEncoderConfig, team: Team) -> CompiledSpeakerEncoder:
        """Pack float32 weights."""
        frames = w.asp_tdnn.weight[:, : w.asp_tdnn.weight.shape[1] // 3]
        return cls(
            c,
            SameConv.pack(w.first, team, c.enc_dilations[0]),
            tuple(Block.pack(block, d, team) for block, d in zip(w.blocks, c.enc_dilations[1:-1], strict=True)),
            SameConv.pack(w.mfa, team, c.enc_dilations[-1]),
            w.asp_tdnn,
            SameConv(pack_conv(frames), 1, team),
            SameConv.pack(w.asp_conv, team),
            w.fc,
        )

    def embedding(self, audio: Array) -> F32:
        """``speaker_embedding`` of a clip: audio [samples], mono at the rate of the configuration -> [H]."""
        return self(speaker_mel(audio, self.config, np.dtype(np.float32)))

    def __call__(self, mel: F32) -> F32:
        """mel float32 [T, 128] -> [H]."""
        x, outputs = self.first(mel), []
        for block in self.blocks:
            x = block(x)
            outputs.append(x[:, : len(block.se_conv2.bias)])
        x = self.mfa(np.concatenate(outputs, axis=1))
        pooled = self._attentive_statistics_pooling(x[:, : self.asp_conv.weight.outputs])  # [6C]
        return linear(pooled, self.fc.weight[:, :, 0], self.fc.bias)

    def _attentive_statistics_pooling(self, x: F32) -> F32:
        """Mean and deviation of each channel over the frames it attends to. x [T, 3C] -> [6C].

        Mean and deviation over all frames are the same at every frame, so their part of asp_tdnn is computed once.
        """
        own, tdnn = x.shape[1], self.asp_tdnn
        even = np.full((len(x), 1), 1 / len(x), np.float32)
        context = linear(np.concatenate(_weighted_statistics(x, even)), tdnn.weight[:, own:, 0], tdnn.bias)
        scores = self.asp_scores(x, NOTHING)[:, : len(context)]
        scores = np.tanh(np.maximum(scores + context, 0))  # [T, attention]
        attention = softmax(self.asp_conv(scores, NOTHING)[:, :own].T).T  # [T, 3C] over time, each channel its own
        return np.concatenate(_weighted_statistics(x, attention))


def _weighted_statistics(x: F32, weights: F32) -> tuple[F32, F32]:
    """Mean and standard deviation over time. x [T, C], weights [T, C] or [T, 1], of sum 1 over T -> each [C]."""
    weights = np.broadcast_to(weights, x.shape)
    mean = np.einsum("tc,tc->c", weights, x)
    away = x - mean
    variance = np.einsum("tc,tc->c", weights * away, away)
    return mean, np.sqrt(np.maximum(variance, 1e-12))
