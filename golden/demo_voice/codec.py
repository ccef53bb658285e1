"""Shared by the training of both halves of the codec: clips, and the frozen codebooks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from codebooks import Codebooks, to_float
from corpus import FRAME
from layout import codec_config
from official import codec_code
from prepare import Corpus


def official_codec() -> Any:
    """Encoder and decoder with random weights."""
    return codec_code.Qwen3TTSTokenizerV2Model(codec_code.Qwen3TTSTokenizerV2Config(**codec_config()))


class Clips:
    """Random excerpts of the speech that was stored with its waveform."""

    def __init__(self, state: Path, device: str) -> None:
        self.corpus = Corpus.load(state / "speech.npz")
        self.books = Codebooks.load(state / "codebooks.pt", device)
        self.device = device

    def draw(
        self, draw: np.random.Generator, count: int, frames: int, beginnings: float = 0.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Waves [count, frames * FRAME] and codes [count, GROUPS, frames]; ``beginnings``: share from the start."""
        long_enough = np.flatnonzero(self.corpus.frames >= frames)
        waves, codes = [], []
        for i in draw.choice(long_enough, count):
            last = int(self.corpus.frames[i]) - frames
            start = 0 if draw.random() < beginnings else int(draw.integers(0, last + 1))
            waves.append(self.corpus.wave_of(i)[start * FRAME : (start + frames) * FRAME])
            codes.append(self.corpus.codes_of(i)[start : start + frames].T)
        return (
            to_float(np.stack(waves)).to(self.device),
            torch.from_numpy(np.stack(codes).astype(np.int64)).to(self.device),
        )


def fill_codebooks(quantisers: list[Any], sums: str, books: Codebooks) -> None:
    """Codebooks as the checkpoint stores them, usage and sums, never trained."""
    with torch.no_grad():
        for quantiser, entries, usage in zip(quantisers, books.entries, books.usage.clamp_min(1), strict=True):
            quantiser.cluster_usage.copy_(usage)
            getattr(quantiser, sums).copy_(entries * usage[:, None])
            for tensor in (quantiser.cluster_usage, getattr(quantiser, sums)):
                tensor.requires_grad_(False)


def initialise(module: torch.nn.Module) -> None:
    """Initialise convolutions and projections so that they preserve the variance of their input."""
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, torch.nn.Conv1d | torch.nn.Linear):
                torch.nn.init.kaiming_normal_(part.weight, nonlinearity="linear")
            elif isinstance(part, torch.nn.ConvTranspose1d):
                inputs, _, kernel = part.weight.shape
                part.weight.normal_(0, 1 / math.sqrt(inputs * kernel / part.stride[0]))
            else:
                continue
            if part.bias is not None:
                part.bias.zero_()
