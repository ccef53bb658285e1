"""The plots of a trace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..audio.files import resample
from ..report import plots
from ..speaker.mel import SAMPLE_RATE
from .collector import seconds_by_block
from .comparison import log_mels
from .sound_plots import RANGE, spectrogram
from .tracing import Traced, growth

BLOCKS = 16  # bars shown
SMALLEST = 1e-12  # a logarithmic axis has no 0


def draw(t: Traced, folder: Path, suffix: str) -> Iterator[Path]:
    """Draw everything into ``folder``; ``suffix`` is "png" or "svg"."""

    def path(name: str) -> Path:
        return folder / f"{name}.{suffix}"

    if len(t.wave):
        yield _sound(t, path("sound"))
    yield _codes(t, path("codes"))
    yield _entropy(t, path("entropy"))
    yield _residual(t, path("residual"))
    yield _time(t, path("time"))
    for name, found in t.maps.items():
        yield _attention(name, found, path("attention-" + name.replace("layer ", "").replace(", head ", "-")))
    if any(total.worst is not None for total in t.totals.values()):
        yield _error(t, path("error"))


def _sound(t: Traced, path: Path) -> Path:
    mel = log_mels(resample(t.wave, t.rate, SAMPLE_RATE).astype(np.float64))
    peak = float(mel.max(initial=-RANGE))
    with plots.figure(path, "Speech", 2, (9, 6)) as axes:
        plots.waveform(axes[0], t.wave, t.rate)
        spectrogram(axes[1], mel, "Log-mel spectrogram", peak - RANGE, peak, "level (dB)")
    return path


def _codes(t: Traced, path: Path) -> Path:
    with plots.figure(path, "Codes", 2, (9, 7)) as axes:
        image = t.codes.T.astype(np.float64)
        plots.image(axes[0], image, "Codes of each frame", "frame (80 ms)", "codebook", "code")
        bins = min(t.histogram.shape[1], 128)
        counts = t.histogram.reshape(len(t.histogram), bins, -1).sum(2).astype(np.float64)
        wide = t.histogram.shape[1] // bins
        title = "How often each code occurs" + (f", {wide} codes together" if wide > 1 else "")
        plots.image(axes[1], counts, title, f"code / {wide}" if wide > 1 else "code", "codebook", "count")
    return path


def _entropy(t: Traced, path: Path) -> Path:
    with plots.figure(path, "How open each choice was: entropy of the raw logits", 3, (9, 10)) as axes:
        plots.image(axes[0], t.entropies.T.astype(np.float64), "", "frame (80 ms)", "codebook", "entropy (bits)")
        others = t.entropies[:, 1:]
        known = ~np.isnan(others).all(axis=1)
        mean = np.full(len(others), np.nan)
        mean[known] = np.nanmean(others[known], axis=1)
        series = {"code 0 (talker)": t.entropies[:, 0], "mean of codes 1.. (code predictor)": mean}
        plots.lines(axes[1], series, "", "frame (80 ms)", "entropy (bits)")
        plots.lines(axes[2], {"end of speech": t.end}, "End of speech", "frame (80 ms)", "probability")
    return path


def _residual(t: Traced, path: Path) -> Path:
    layers = growth(t.totals)
    series = {
        "residual stream": np.array(list(layers.values())),
        "largest |value|": np.array([max(abs(t.totals[n].lowest), abs(t.totals[n].highest)) for n in layers]),
    }
    with plots.figure(path, "Talker: growth of the residual stream", 1, (9, 4)) as axes:
        plots.lines(axes[0], series, "", "layers passed (0: the input)", "root mean square; size", log=True)
    return path


def _time(t: Traced, path: Path) -> Path:
    shown = dict(list(seconds_by_block(t.totals).items())[:BLOCKS])
    with plots.figure(path, "Time by block, NumPy reference path", 1, (9, 5)) as axes:
        plots.bars(axes[0], shown, f"{len(t.codes)} frames; the longest {len(shown)}", "time (s)")
    return path


def _attention(name: str, found: NDArray[np.float32], path: Path) -> Path:
    with plots.figure(path, f"Attention of the talker: {name}", 1, (7, 6)) as axes:
        title = f"{len(found)} positions: the prompt, then one per frame"
        plots.image(axes[0], np.sqrt(found), title, "position looked at", "position that looks", "sqrt of the weight")
    return path


def _error(t: Traced, path: Path) -> Path:
    compared = [total.worst for total in t.totals.values() if total.worst is not None]
    columns = {"greatest |difference|": [c.error for c in compared]}
    if all(c.atol is not None for c in compared):
        columns["tolerance of the golden"] = [c.atol or 0.0 for c in compared]
    columns["relative (root mean square)"] = [c.relative for c in compared]
    series = {name: np.maximum(values, SMALLEST) for name, values in columns.items()}
    with plots.figure(path, "Difference from the golden", 1, (9, 4.5)) as axes:
        title = f"{len(compared)} activations, the worst call of each; 0 is drawn at {SMALLEST:g}"
        plots.lines(axes[0], series, title, "activation, in the order of execution", "difference", log=True)
    return path
