"""Stage 5: the codec's encoder, trained to predict the features that the codebooks quantise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from codec import Clips, fill_codebooks, initialise, official_codec
from torch.nn import functional as F
from training import Losses, Schedule, Training

CLIPS = 4
FRAMES = 16
CONTEXT = 2  # frames excluded from the loss where a clip starts in the middle of a sentence
BEGINNINGS = 1 / 3  # share of the steps with clips from the start of sentences


def features(encoder: Any, waves: torch.Tensor) -> torch.Tensor:
    """[B, samples] -> [B, frames, FEATURES], the input of the quantisers."""
    hidden = encoder.encoder(waves[:, None])
    hidden = encoder.encoder_transformer(hidden.transpose(1, 2))[0].transpose(1, 2)
    return encoder.downsample(hidden).transpose(1, 2)


def train(state: Path, device: str, steps: int) -> None:
    torch.manual_seed(0)
    clips = Clips(state, device)
    encoder = official_codec().encoder.to(device)
    for part in (encoder.encoder, encoder.downsample):
        initialise(part)
    with torch.no_grad():
        encoder.encoder.layers[0].conv.weight.mul_(4)  # speech is quiet
    quantiser = encoder.quantizer
    layers = [
        *quantiser.semantic_residual_vector_quantizer.layers,
        *quantiser.acoustic_residual_vector_quantizer.layers,
    ]
    fill_codebooks([layer.codebook for layer in layers], "embed_sum", clips.books)
    for layer in layers:
        layer.codebook.initialized.fill_(1)

    def losses(draw: np.random.Generator, step: int) -> Losses:
        whole = draw.random() < BEGINNINGS
        waves, _ = clips.draw(draw, CLIPS, FRAMES, beginnings=float(whole))
        wanted, found = clips.books.features(waves), features(encoder, waves)
        judged = slice(0 if whole else CONTEXT, None)
        return {"loss": F.mse_loss(found[:, judged], wanted[:, judged])}

    schedule = Schedule(steps, rate=2e-3, warm_up=50, falling=0.9)
    Training("encoder", state, encoder, schedule, losses, betas=(0.9, 0.98), weight_decay=0.01).run()
