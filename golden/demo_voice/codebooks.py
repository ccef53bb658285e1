"""Codes without training: log-mel patches -> principal components -> split residual k-means.

A frame of 80 ms is described by 8 log-mel spectra. Their first principal components are the space in which the
codec quantises; quantiser 0 (semantic) codes them alone, quantisers 1 to 15 (acoustic) code them again from the start,
residual by residual, like the official split residual quantiser.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import librosa
import numpy as np
import torch
from layout import ENTRIES, FEATURES, GROUPS
from torch.nn.functional import pad

SPECTRA = 8  # per frame
HOP = 240
WINDOW = 512
MELS = 64
FLOOR = 2e-2
SAMPLE = 40_000  # frames used by k-means
ROUNDS = 20


def log_mel_patches(wave: torch.Tensor) -> torch.Tensor:
    """[..., frames * 1920] -> [..., frames, 512]; spectrum i of a frame is centred on its sample 120 + 240 i."""
    filters = librosa.filters.mel(sr=24000, n_fft=WINDOW, n_mels=MELS, fmin=50, fmax=10000)
    padded = pad(wave, (WINDOW // 2 - HOP // 2, WINDOW))
    windows = padded.unfold(-1, WINDOW, HOP)[..., : wave.shape[-1] // HOP, :]
    spectra = torch.fft.rfft(windows * torch.hann_window(WINDOW, device=wave.device)).abs()
    mels = spectra @ torch.from_numpy(filters).to(wave).T
    return torch.log(mels.clamp_min(FLOOR)).unflatten(-2, (-1, SPECTRA)).flatten(-2)


@dataclass(frozen=True)
class Codebooks:
    mean: torch.Tensor  # [512]
    components: torch.Tensor  # [512, FEATURES], scaled so that the features have a deviation of 1
    entries: torch.Tensor  # [GROUPS, ENTRIES, FEATURES]
    usage: torch.Tensor  # [GROUPS, ENTRIES], how often each was nearest

    def features(self, wave: torch.Tensor) -> torch.Tensor:
        return (log_mel_patches(wave) - self.mean) @ self.components

    def codes(self, features: torch.Tensor) -> torch.Tensor:
        """[frames, FEATURES] -> [frames, GROUPS]."""
        found = [nearest(features, self.entries[0])]
        residual = features
        for entries in self.entries[1:]:
            found.append(nearest(residual, entries))
            residual = residual - entries[found[-1]]
        return torch.stack(found, 1)

    def save(self, path: Path) -> None:
        torch.save(vars(self), path)

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> Codebooks:
        return cls(**torch.load(path, map_location=device))


def fit(patches: torch.Tensor, seed: int) -> Codebooks:
    """From [frames, 512] log-mel patches of enough speech."""
    draw = torch.Generator().manual_seed(seed)
    mean = patches.mean(0)
    centred = patches - mean
    _, vectors = torch.linalg.eigh(centred.T @ centred / len(patches))
    components = vectors.flip(1)[:, :FEATURES]
    components = components / (centred @ components).std()
    features = centred @ components
    first = k_means(features, draw)
    entries, usage = [first], [count(nearest(features, first))]
    residual = features.clone()
    for group in range(1, GROUPS):
        entries.append(k_means(residual, draw))
        chosen = nearest(residual, entries[-1])
        usage.append(count(chosen))
        residual -= entries[-1][chosen]
        print(f"quantiser {group}: {residual.var() / features.var():.4f} of the variance is left", flush=True)
    return Codebooks(mean, components, torch.stack(entries), torch.stack(usage))


def k_means(points: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """[n, D] -> [ENTRIES, D] centres; one that has lost all its points restarts at a point."""
    sample = points[torch.randperm(len(points), generator=draw)[:SAMPLE]]
    centres = sample[:ENTRIES].clone()
    for _ in range(ROUNDS):
        chosen = nearest(sample, centres)
        sums = torch.zeros_like(centres).index_add_(0, chosen, sample)
        members = count(chosen)[:, None]
        elsewhere = sample[torch.randint(len(sample), (ENTRIES,), generator=draw)]
        centres = torch.where(members > 0, sums / members.clamp_min(1), elsewhere)
    return centres


def nearest(points: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    return torch.cat([(centres.square().sum(1) - 2 * part @ centres.T).argmin(1) for part in points.split(20_000)])


def count(chosen: torch.Tensor) -> torch.Tensor:
    return torch.bincount(chosen, minlength=ENTRIES).float()


def to_float(wave: np.ndarray) -> torch.Tensor:
    """16-bit samples -> [-1, 1)."""
    return torch.from_numpy(wave.astype(np.float32) / 32768)
