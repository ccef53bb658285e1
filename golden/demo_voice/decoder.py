"""Stage 4: the codec's decoder, codes to waves. Losses on spectra only, so the phase is unconstrained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import librosa
import numpy as np
import torch
from codec import Clips, fill_codebooks, initialise, official_codec
from corpus import FRAME
from official import codec_code
from torch.nn import functional as F
from training import Losses, Schedule, Training

CLIPS = 3
FRAMES = 14
CONTEXT = 2  # frames at the start of a clip excluded from the loss: the decoder lacks the frames before them
SPECTRA = ((256, 32), (512, 64), (2048, 128))  # window and mel bands of each resolution
FLOOR = 1e-2


class FastSnake(torch.autograd.Function):
    """SnakeBeta with a hand-written backward pass: less memory traffic, the bottleneck of the training."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, alpha: torch.Tensor, inverse_beta: torch.Tensor) -> torch.Tensor:
        angle = x * alpha
        sine = torch.sin(angle)
        ctx.save_for_backward(x, alpha, inverse_beta, angle, sine)
        return torch.addcmul(x, sine * sine, inverse_beta)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x, alpha, inverse_beta, angle, sine = ctx.saved_tensors
        slope = gradient * torch.sin(2 * angle) * inverse_beta  # d sin^2(a) = sin(2a) da
        return (
            torch.addcmul(gradient, slope, alpha),
            (slope * x).sum((0, 2), keepdim=True),
            (gradient * sine * sine).sum((0, 2), keepdim=True),
        )


def fast_snake(self: Any, x: torch.Tensor) -> torch.Tensor:
    """Replacement for the official SnakeBeta.forward."""
    inverse_beta = 1 / (self.beta.exp() + self.no_div_by_zero)
    return FastSnake.apply(x, self.alpha.exp()[None, :, None], inverse_beta[None, :, None])


class SpectralLoss:
    """Log-mel, log-magnitude and relative magnitude distances at three resolutions."""

    def __init__(self, device: str) -> None:
        self._scales = []
        for size, bands in SPECTRA:
            mels = librosa.filters.mel(sr=24000, n_fft=size, n_mels=bands, fmin=20, fmax=12000)
            window = torch.hann_window(size, device=device)
            self._scales.append((size, window, torch.from_numpy(mels).to(device).T))

    def __call__(self, made: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        total = made.new_zeros(())
        for size, window, mels in self._scales:
            a, b = (magnitudes(wave, size, window) for wave in (made, wanted))
            total = total + distance(a @ mels, b @ mels) + 0.3 * distance(a, b)
            total = total + 0.5 * (a - b).norm() / (b.norm() + 1e-3)
        return total / len(self._scales)


def magnitudes(wave: torch.Tensor, size: int, window: torch.Tensor) -> torch.Tensor:
    """[B, samples] -> [B, windows, size / 2 + 1]."""
    windows = F.pad(wave, (size // 2, size // 2)).unfold(-1, size, size // 4) * window
    spectrum = torch.fft.rfft(windows)
    return (spectrum.real.square() + spectrum.imag.square() + 1e-7).sqrt()


def distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a.clamp_min(FLOOR).log() - b.clamp_min(FLOOR).log()).abs().mean()


def prepare_weights(decoder: Any) -> None:
    """Initialise residual branches small but not negligible, and a quiet output."""
    initialise(decoder)
    with torch.no_grad():
        for stage in decoder.upsample:
            stage[1].gamma.fill_(0.1)  # the official 1e-6 stays inactive
        for block in list(decoder.decoder)[1:5]:
            for unit in list(block.block)[2:]:
                unit.conv2.conv.weight.mul_(0.3)
        decoder.decoder[-1].conv.weight.mul_(0.1)


def train(state: Path, device: str, steps: int) -> None:
    torch.manual_seed(0)
    clips, loss = Clips(state, device), SpectralLoss(device)
    codec_code.SnakeBeta.forward = fast_snake
    decoder = official_codec().decoder.to(device)
    prepare_weights(decoder)
    quantiser = decoder.quantizer
    layers = [*quantiser.rvq_first.vq.layers, *quantiser.rvq_rest.vq.layers]
    fill_codebooks([layer._codebook for layer in layers], "embedding_sum", clips.books)

    def losses(draw: np.random.Generator, step: int) -> Losses:
        waves, codes = clips.draw(draw, CLIPS, FRAMES)
        made = decoder(codes)[:, 0]
        return {"loss": loss(made[:, CONTEXT * FRAME :], waves[:, CONTEXT * FRAME :])}

    schedule = Schedule(steps, rate=2e-3, falling=1 / 3)
    Training("decoder", state, decoder, schedule, losses, betas=(0.8, 0.95), weight_decay=0.01).run()
