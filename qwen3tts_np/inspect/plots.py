"""Pictures with matplotlib, which is the extra ``plot``: titles, axes with units, and legible in grey.

Every function draws one figure and writes it to a file, whose suffix (.png or .svg) says how.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError
from ..speaker.mel import HOP, MELS, SAMPLE_RATE, TOP, hz_to_mel

HOW = "plots need matplotlib, which is not installed: pip install 'qwen3tts-np[plot]'"
GREYS = "Greys"  # of the images: a map whose lightness says everything
STYLES = ("-", "--", ":", "-.")  # of lines, which colour alone must not tell apart
RANGE = 80  # dB shown of a spectrogram
TICKS = (0, 500, 1000, 2000, 4000, 8000, 12000)  # Hz

Floats = NDArray[np.floating[Any]]


def have_matplotlib() -> bool:
    return find_spec("matplotlib") is not None


def require_matplotlib() -> None:
    """RequestError with what to install."""
    if not have_matplotlib():
        raise RequestError(HOW)


@contextmanager
def figure(path: Path, title: str, rows: int = 1, size: tuple[float, float] = (9, 4)) -> Iterator[list[Any]]:
    """The axes of a new figure, one below the other; written to ``path`` when the block ends."""
    require_matplotlib()
    if path.suffix not in (".png", ".svg"):
        raise RequestError(f"{path}: a plot is a .png or a .svg file")
    import matplotlib

    matplotlib.rcParams["svg.hashsalt"] = "qwen3tts-np"  # the same picture, the same file
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = Figure(figsize=size, layout="constrained", dpi=120)
    FigureCanvasAgg(drawn)
    drawn.suptitle(title, fontsize=12)
    yield [drawn.add_subplot(rows, 1, i + 1) for i in range(rows)]
    part = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        drawn.savefig(part, metadata={"Date": None} if path.suffix == ".svg" else {})
        os.replace(part, path)
    except OSError as e:
        raise RequestError(f"{path} cannot be written: {e.strerror}") from None
    finally:
        part.unlink(missing_ok=True)


def waveform(axes: Any, wave: Floats, rate: int, title: str = "Waveform") -> None:
    axes.plot(np.arange(len(wave)) / rate, wave, color="black", linewidth=0.4)
    axes.set(title=title, xlabel="time (s)", ylabel="amplitude (full scale = 1)", xlim=(0, max(len(wave) / rate, 1e-3)))
    axes.grid(alpha=0.3)


def spectrogram(axes: Any, mel_db: Floats, title: str, low: float, high: float, label: str, cmap: str = GREYS) -> None:
    """mel_db [T, MELS] in dB."""
    seconds = max(len(mel_db) * HOP / SAMPLE_RATE, 1e-3)
    image = axes.imshow(
        mel_db.T, origin="lower", aspect="auto", cmap=cmap, vmin=low, vmax=high, extent=(0, seconds, 0, MELS)
    )
    axes.set(title=title, xlabel="time (s)", ylabel="frequency (Hz, mel scale)")
    top = hz_to_mel(TOP)
    axes.set_yticks([hz_to_mel(hz) / top * MELS for hz in TICKS], [str(hz) for hz in TICKS])
    axes.figure.colorbar(image, ax=axes, label=label)


def plot_sounds(path: Path, mel_a: Floats, mel_b: Floats, names: Sequence[str]) -> None:
    """Two mel spectrograms [T, MELS] in dB, laid over each other, and |A - B|."""
    peak = max(float(mel.max(initial=-RANGE)) for mel in (mel_a, mel_b))
    with figure(path, f"A: {names[0]}\nB: {names[1]}", 3, (9, 9)) as axes:
        spectrogram(axes[0], mel_a, "A", peak - RANGE, peak, "level (dB)")
        spectrogram(axes[1], mel_b, "B, moved and scaled to fit", peak - RANGE, peak, "level (dB)")
        spectrogram(axes[2], np.abs(mel_a - mel_b), "|A - B|", 0, 20, "difference (dB)")


def image(axes: Any, values: Floats, title: str, xlabel: str, ylabel: str, label: str) -> None:
    """values [Y, X], row 0 at the bottom."""
    drawn = axes.imshow(values, origin="lower", aspect="auto", cmap=GREYS, interpolation="nearest")
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axes.figure.colorbar(drawn, ax=axes, label=label)


def lines(axes: Any, series: dict[str, Floats], title: str, xlabel: str, ylabel: str, log: bool = False) -> None:
    """Named rows over their index, told apart by dashes and shade."""
    for n, (name, values) in enumerate(series.items()):
        shade = str(0.55 * (n // len(STYLES)) / max(1, len(series) // len(STYLES)))
        marker = "o" if len(values) < 40 else None
        axes.plot(values, STYLES[n % len(STYLES)], color=shade, label=name, marker=marker, markersize=3, linewidth=1.2)
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axes.xaxis.get_major_locator().set_params(integer=True)
    if log:
        axes.set_yscale("log")
    if len(series) > 1:
        axes.legend(fontsize=8)
    axes.grid(alpha=0.3)


def bars(axes: Any, values: dict[str, float], title: str, xlabel: str) -> None:
    """One horizontal bar a name, the first on top."""
    axes.barh(list(values), list(values.values()), color="0.4")
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=8)
    axes.set(title=title, xlabel=xlabel)
    axes.grid(alpha=0.3, axis="x")
