"""The speaker encoder with its mel spectrogram: a clip's x-vector.

As ``speaker/encoder.py`` and ``speaker/mel.py``. In: ``waveform`` [samples] at 24 kHz, of any length above the reach of
the paddings (``shortest_clip``). Out: ``speaker_encoder`` [H]. The Fourier transform is a product with the windowed
sines and cosines, in float64 as there, where a target has it. Trap: in float32 the logarithm shows the rounding, in
bands that are nearly silent beside a loud sound.
"""

from __future__ import annotations

import numpy as np

from ...config import SpeakerEncoderConfig
from ...ops import Array
from ...speaker.encoder import paddings
from ...speaker.mel import HOP, PAD, WINDOW, hann_window, mel_filters
from ..target import Target, V
from ..weights import Tensors
from .codebooks import values_of

NAME = "speaker_encoder"


def build(t: Target[V], c: SpeakerEncoderConfig, tensors: Tensors) -> None:
    mel = _log_mel(t, t.input("waveform", ["samples"]), f"{NAME}.mel")
    x = _tdnn(t, mel, tensors, c.enc_dilations[0], f"{NAME}.blocks.0")  # [1, C, T]
    outputs = []
    for i in range(1, len(c.enc_channels) - 1):
        x = _se_res2net(t, x, c, tensors, c.enc_dilations[i], f"{NAME}.blocks.{i}")
        outputs.append(x)
    x = _tdnn(t, t.concat(outputs, 1, f"{NAME}.mfa.input"), tensors, c.enc_dilations[-1], f"{NAME}.mfa")  # [1, 3C, T]
    x = _pooled(t, x, c.enc_channels[-1], tensors, f"{NAME}.asp")  # [1, 6C, 1]
    x = _conv_same(t, x, tensors, 1, f"{NAME}.fc")
    t.output(t.reshape(x, [-1], f"{NAME}/x_vector"), NAME, [c.enc_dim])


def _log_mel(t: Target[V], wave: V, name: str) -> V:
    """wave [samples] -> [1, 128, T]."""
    bins = WINDOW // 2 + 1
    frames = t.cast(_frames(t, wave, name), "float64", f"{name}/exact")  # [1, WINDOW, T]
    parts = t.matmul(t.constant(_transform(), f"{name}/transform"), frames, f"{name}/spectrum")
    squares = t.mul(parts, parts, f"{name}/squares")
    real, imaginary = (
        t.slice(squares, 1, at, at + bins, f"{name}/{of}") for at, of in ((0, "real"), (bins, "imaginary"))
    )
    power = t.add(
        t.add(real, imaginary, f"{name}/power"), t.constant(np.array(1e-9), f"{name}/added"), f"{name}/raised"
    )
    filters = t.constant(mel_filters().astype(np.float64), f"{name}/filters")
    mel = t.matmul(filters, t.sqrt(power, f"{name}/magnitude"), f"{name}/sums")
    floor = t.maximum(mel, t.constant(np.array(1e-5), f"{name}/least"), f"{name}/floor")
    return t.cast(t.log(floor, f"{name}/exact_log"), "float32", f"{name}/channels")


def _frames(t: Target[V], wave: V, name: str) -> V:
    """The frames of a clip as columns [1, WINDOW, T]: pieces of a hop each, one below the other."""
    x = t.pad(t.reshape(wave, [1, 1, -1], f"{name}/wave"), 2, PAD, PAD, f"{name}/padded", mode="reflect")
    columns = t.constant(np.eye(HOP, dtype=np.float32)[:, None], f"{name}/columns")  # a convolution that only cuts
    hops, count = t.conv1d(x, columns, None, f"{name}/hops", stride=HOP), WINDOW // HOP  # [1, HOP, T + count - 1]
    parts = [t.slice(hops, 2, i, i - count + 1 or None, f"{name}/hops_from_{i}") for i in range(count)]
    return t.concat(parts, 1, f"{name}/frames")


def _transform() -> Array:
    """Windowed cosines, then sines, of the discrete Fourier transform [2 * bins, WINDOW]."""
    # The product n k is reduced before it becomes an angle: its sine is then as exact as that of a small one.
    turns = np.outer(np.arange(WINDOW // 2 + 1), np.arange(WINDOW)) % WINDOW
    angles = 2 * np.pi * turns / WINDOW
    return np.concatenate([np.cos(angles), np.sin(angles)]) * hann_window()


def _tdnn(t: Target[V], x: V, tensors: Tensors, dilation: int, name: str) -> V:
    """Convolution, ReLU. x [1, in, T] -> [1, out, T]."""
    return t.relu(_conv_same(t, x, tensors, dilation, f"{name}.conv"), f"{name}.activation")


def _conv_same(t: Target[V], x: V, tensors: Tensors, dilation: int, name: str) -> V:
    """A convolution that keeps the length, with reflection padding."""
    before, after = paddings(tensors[f"{name}.weight"].shape[2], dilation)
    if before or after:
        x = t.pad(x, 2, before, after, f"{name}/padded", mode="reflect")
    return t.conv1d(x, t.weight(f"{name}.weight"), t.weight(f"{name}.bias"), name, dilation=dilation)


def _se_res2net(t: Target[V], x: V, c: SpeakerEncoderConfig, tensors: Tensors, dilation: int, name: str) -> V:
    """TDNN, Res2Net, TDNN, squeeze-excitation, and a residual connection around them."""
    y = _tdnn(t, x, tensors, 1, f"{name}.tdnn1")
    y = _res2net(t, y, c.enc_res2net_scale, tensors, dilation, f"{name}.res2net_block")
    y = _tdnn(t, y, tensors, 1, f"{name}.tdnn2")
    y = _squeeze_excitation(t, y, tensors, f"{name}.se_block")
    return t.add(y, x, name)


def _res2net(t: Target[V], x: V, chunks: int, tensors: Tensors, dilation: int, name: str) -> V:
    """Channels in chunks; chunk 0 passes, and each further one is convolved after adding the previous result."""
    width = tensors[f"{name}.blocks.0.conv.weight"].shape[1]
    outputs = [t.slice(x, 1, 0, width, f"{name}/0")]
    for i in range(chunks - 1):
        part = t.slice(x, 1, (i + 1) * width, (i + 2) * width, f"{name}/{i + 1}")
        carried = part if i == 0 else t.add(part, outputs[-1], f"{name}.blocks.{i}.input")
        outputs.append(_tdnn(t, carried, tensors, dilation, f"{name}.blocks.{i}"))
    return t.concat(outputs, 1, name)


def _squeeze_excitation(t: Target[V], x: V, tensors: Tensors, name: str) -> V:
    """Scale every channel by a gain from 0 to 1, computed from the means of all channels."""
    mean = t.mean(x, 2, f"{name}.conv1.input")  # [1, C, 1]
    gain = t.relu(_conv_same(t, mean, tensors, 1, f"{name}.conv1"), f"{name}.relu")
    return t.mul(x, t.sigmoid(_conv_same(t, gain, tensors, 1, f"{name}.conv2"), f"{name}.sigmoid"), name)


def _pooled(t: Target[V], x: V, width: int, tensors: Tensors, name: str) -> V:
    """Attention-weighted mean and standard deviation of each channel over time. x [1, C, T] -> [1, 2C, 1]."""
    mean = t.mean(x, 2, f"{name}/mean")
    deviation = _deviation(t, t.mean(_squared_distance(t, x, mean, f"{name}/even"), 2, f"{name}/variance"), name)
    scores = t.tanh(_attention_tdnn(t, x, mean, deviation, width, tensors, f"{name}.tdnn"), f"{name}.tanh")
    weights = t.softmax(_conv_same(t, scores, tensors, 1, f"{name}.conv"), f"{name}/attention")  # over time
    mean = t.sum(t.mul(weights, x, f"{name}/weighted"), 2, f"{name}/weighted_mean")
    distance = t.mul(weights, _squared_distance(t, x, mean, f"{name}/own"), f"{name}/weighted_distance")
    deviation = _deviation(t, t.sum(distance, 2, f"{name}/weighted_variance"), f"{name}/weighted_deviation")
    return t.concat([mean, deviation], 1, name)


def _attention_tdnn(t: Target[V], x: V, mean: V, deviation: V, width: int, tensors: Tensors, name: str) -> V:
    """The TDNN over x, its mean and its deviation, one after the other along the channels: a product for each of them,
    since two do not change over time."""
    weight = values_of(tensors, f"{name}.conv.weight")  # [attention, 3C, 1]
    total: V | None = None
    for i, (part, what) in enumerate(((x, "x"), (mean, "mean"), (deviation, "deviation"))):
        own = t.constant(weight[:, i * width : (i + 1) * width], f"{name}.conv.weight/{what}")
        product = t.conv1d(part, own, t.weight(f"{name}.conv.bias") if i == 0 else None, f"{name}.conv/{what}")
        total = product if total is None else t.add(total, product, f"{name}.conv/with_{what}")
    assert total is not None
    return t.relu(total, f"{name}.activation")


def _squared_distance(t: Target[V], x: V, mean: V, name: str) -> V:
    off = t.sub(x, mean, f"{name}/off")
    return t.mul(off, off, f"{name}/squared")


def _deviation(t: Target[V], variance: V, name: str) -> V:
    return t.sqrt(t.maximum(variance, 1e-12, f"{name}/floor"), f"{name}/deviation")
