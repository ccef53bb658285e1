"""Receptive fields of the codec, from the kernel sizes, strides, dilations and windows of its layers.

Both halves are causal, so each field ends at the current position. In the decoder it is counted forwards: the steps of
a layer's output that one frame of codes can change. In the encoder backwards: the samples that one step of a layer's
output depends on. Kernel sizes come from the key tables, the rest from the configuration.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ..checkpoint.keys import Sizes, specs
from ..codec.decoder import DILATIONS, CodecDecoderWeights, codec_decoder_sizes
from ..codec.encoder import CodecEncoderWeights, codec_encoder_sizes
from ..config import CodecConfig, CodecDecoderConfig, CodecEncoderConfig

Kind = Literal["convolution", "transposed", "attention"]


@dataclass(frozen=True)
class Layer:
    """A layer that mixes time steps."""

    name: str  # of its activation, as in ``trace.py``
    kind: Kind
    taps: int  # of attention: the window, the position itself included; 0 if unlimited
    stride: int = 1
    dilation: int = 1


@dataclass(frozen=True)
class Field:
    """The receptive field at a layer's output."""

    layer: Layer
    rate: float  # steps per second at the layer's output
    steps: int | None  # decoder: of the layer's output, encoder: samples; None if unbounded
    seconds: float | None


def decoder_layers(c: CodecDecoderConfig) -> Iterator[Layer]:
    """Every layer of the decoder that mixes time, in the order of execution."""
    name = "speech_tokenizer.decoder"
    taps = _taps(CodecDecoderWeights, codec_decoder_sizes(c))
    yield Layer(f"{name}.pre_conv", "convolution", taps["pre_conv.conv"])
    for i in range(c.num_hidden_layers):
        yield Layer(f"{name}.pre_transformer.layers.{i}", "attention", c.sliding_window)
    for i, ratio in enumerate(c.upsampling_ratios):
        yield Layer(f"{name}.upsample.{i}.0", "transposed", taps[f"upsample.{i}.0.conv"], ratio)
        yield Layer(f"{name}.upsample.{i}.1", "convolution", taps[f"upsample.{i}.1.dwconv.conv"])
    yield Layer(f"{name}.decoder.0", "convolution", taps["decoder.0.conv"])
    for i, rate in enumerate(c.upsample_rates, start=1):
        block = f"decoder.{i}.block"
        yield Layer(f"{name}.{block}.1", "transposed", taps[f"{block}.1.conv"], rate)
        for j, dilation in enumerate(DILATIONS, start=2):
            yield Layer(f"{name}.{block}.{j}", "convolution", taps[f"{block}.{j}.conv1.conv"], dilation=dilation)
    last = f"decoder.{len(c.upsample_rates) + 2}"
    yield Layer(f"{name}.{last}", "convolution", taps[f"{last}.conv"])


def encoder_layers(c: CodecEncoderConfig) -> Iterator[Layer]:
    """Every layer of the encoder that mixes time, in the order of execution."""
    name = "speech_tokenizer.encoder"
    taps = _taps(CodecEncoderWeights, codec_encoder_sizes(c))
    yield Layer(f"{name}.encoder.layers.0", "convolution", taps["encoder.layers.0.conv"])
    for i, stride in enumerate(reversed(c.upsampling_ratios)):
        unit, down = f"encoder.layers.{3 * i + 1}", f"encoder.layers.{3 * i + 3}"
        yield Layer(f"{name}.{unit}", "convolution", taps[f"{unit}.block.1.conv"])
        yield Layer(f"{name}.{down}", "convolution", taps[f"{down}.conv"], stride)
    last = f"encoder.layers.{3 * len(c.upsampling_ratios) + 2}"
    yield Layer(f"{name}.{last}", "convolution", taps[f"{last}.conv"])
    for i in range(c.num_hidden_layers):
        yield Layer(f"{name}.encoder_transformer.layers.{i}", "attention", 0)
    yield Layer(f"{name}.downsample", "convolution", taps["downsample.conv"], c.downsample_stride)


def decoder_fields(codec: CodecConfig) -> list[Field]:
    """The steps of each layer's output that one frame of codes affects, the first of them at its own time."""
    rate, steps, found = codec.output_sample_rate / codec.decode_upsample_rate, 1, []
    for layer in decoder_layers(codec.decoder_config):
        if layer.kind == "transposed":
            steps, rate = (steps - 1) * layer.stride + layer.taps, rate * layer.stride
        else:
            steps += (layer.taps - 1) * layer.dilation
        found.append(Field(layer, rate, steps, steps / rate))
    return found


def encoder_fields(codec: CodecConfig) -> list[Field]:
    """The samples that one step of each layer's output depends on, the last of them at the end of the step."""
    sample_rate, stride, found = float(codec.input_sample_rate), 1, []
    samples: int | None = 1
    for layer in encoder_layers(codec.encoder_config):
        if layer.kind == "attention":
            samples = None
        elif samples is not None:
            samples += (layer.taps - 1) * layer.dilation * stride
        stride *= layer.stride
        seconds = None if samples is None else samples / sample_rate
        found.append(Field(layer, sample_rate / stride, samples, seconds))
    return found


def frames_of_a_sample(codec: CodecConfig, attention: bool = True) -> int:
    """The number of frames of codes that a sample of the decoder's output depends on, at most."""
    layers = [f for f in decoder_fields(codec) if f.steps]
    steps = layers[-1].steps or 0
    if not attention:
        windows = sum(f.layer.taps - 1 for f in layers if f.layer.kind == "attention")
        steps -= windows * codec.decode_upsample_rate
    return math.ceil(steps / codec.decode_upsample_rate)


def _taps(cls: type, sizes: Sizes) -> dict[str, int]:
    """Kernel size of every convolution, by the name of its module."""
    found = specs(cls, sizes, "", "F32")
    return {spec.key.removesuffix(".weight"): spec.shape[2] for spec in found if len(spec.shape) == 3}
