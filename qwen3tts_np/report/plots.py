"""Plots with matplotlib (extra ``plot``): titles, axes with units, legible in greyscale.

Every function draws one figure and writes it to a file in the format of its suffix (.png or .svg).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import RequestError
from ..extras import check_installed, install, obstacle
from ..files.output import output_file
from ..ops import Array

NEEDS = (("matplotlib",), "a plot", install("plot"))
GREYS = "Greys"  # of the images: a map by lightness alone
STYLES = ("-", "--", ":", "-.")  # of lines, which colour alone must not distinguish


def why_no_plots() -> str | None:
    """The sentence that says how matplotlib is installed; None where it is."""
    return obstacle(*NEEDS)


def require_matplotlib() -> None:
    """Raises RequestError with the command to install matplotlib."""
    check_installed(*NEEDS)


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
    with output_file(path) as file:
        drawn.savefig(file, format=path.suffix[1:], metadata={"Date": None} if path.suffix == ".svg" else {})


def waveform(axes: Any, wave: Array, rate: int, title: str = "Waveform") -> None:
    axes.plot(np.arange(len(wave)) / rate, wave, color="black", linewidth=0.4)
    axes.set(title=title, xlabel="time (s)", ylabel="amplitude (full scale = 1)", xlim=(0, max(len(wave) / rate, 1e-3)))
    axes.grid(alpha=0.3)


def image(axes: Any, values: Array, title: str, xlabel: str, ylabel: str, label: str) -> None:
    """values [Y, X], row 0 at the bottom."""
    drawn = axes.imshow(values, origin="lower", aspect="auto", cmap=GREYS, interpolation="nearest")
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axes.figure.colorbar(drawn, ax=axes, label=label)


def lines(axes: Any, series: Mapping[str, Array], title: str, xlabel: str, ylabel: str, log: bool = False) -> None:
    """Named rows over their index, distinguished by dashes and shade."""
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
    """One horizontal bar per name, the first on top."""
    axes.barh(list(values), list(values.values()), color="0.4")
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=8)
    axes.set(title=title, xlabel=xlabel)
    axes.grid(alpha=0.3, axis="x")
