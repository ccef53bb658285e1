"""Spectrograms of one sound, and of two side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..ops import Array
from ..report.plots import GREYS, figure
from ..speaker.mel import HOP, MELS, SAMPLE_RATE, TOP, hz_to_mel

RANGE = 80  # dB shown of a spectrogram
TICKS = (0, 500, 1000, 2000, 4000, 8000, 12000)  # Hz


def spectrogram(axes: Any, mel_db: Array, title: str, low: float, high: float, label: str, cmap: str = GREYS) -> None:
    """Plot a spectrogram. mel_db [T, MELS] in dB."""
    seconds = max(len(mel_db) * HOP / SAMPLE_RATE, 1e-3)
    image = axes.imshow(
        mel_db.T, origin="lower", aspect="auto", cmap=cmap, vmin=low, vmax=high, extent=(0, seconds, 0, MELS)
    )
    axes.set(title=title, xlabel="time (s)", ylabel="frequency (Hz, mel scale)")
    top = hz_to_mel(TOP)
    axes.set_yticks([hz_to_mel(hz) / top * MELS for hz in TICKS], [str(hz) for hz in TICKS])
    axes.figure.colorbar(image, ax=axes, label=label)


def plot_sounds(path: Path, mel_a: Array, mel_b: Array, names: Sequence[str]) -> None:
    """Plot two aligned mel spectrograms [T, MELS] in dB, and |A - B|."""
    peak = max(float(mel.max(initial=-RANGE)) for mel in (mel_a, mel_b))
    with figure(path, f"A: {names[0]}\nB: {names[1]}", 3, (9, 9)) as axes:
        spectrogram(axes[0], mel_a, "A", peak - RANGE, peak, "level (dB)")
        spectrogram(axes[1], mel_b, "B, moved and scaled to fit", peak - RANGE, peak, "level (dB)")
        spectrogram(axes[2], np.abs(mel_a - mel_b), "|A - B|", 0, 20, "difference (dB)")
