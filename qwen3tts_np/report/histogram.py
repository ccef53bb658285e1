"""Histograms as SVG, drawn without a plotting package."""

from __future__ import annotations

import numpy as np

from ..ops import Array
from . import svg
from .markup import Markup

WIDTH, HEIGHT = 460, 190
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 28, 38
BINS = 40


def histogram(values: Array, title: str, unit: str) -> Markup:
    """How often values [N] occur: an SVG document. NaN is left out; without any value it says so."""
    values = values[np.isfinite(values)]
    parts = [svg.background("white"), svg.text(LEFT, 17, title, font_size=13)]
    if not len(values):
        parts.append(svg.text(LEFT, HEIGHT / 2, "nothing was measured"))
    else:
        parts += _bars(values, unit)
    return svg.document(WIDTH, HEIGHT, *parts, font_family="sans-serif", font_size=11, width=WIDTH)


def _bars(values: Array, unit: str) -> list[Markup]:
    counts, edges = np.histogram(values, BINS)
    across, up = (WIDTH - LEFT - RIGHT) / BINS, (HEIGHT - TOP - BOTTOM) / counts.max()
    base = HEIGHT - BOTTOM
    drawn = [
        svg.rectangle(LEFT + i * across, base - count * up, across - 1, count * up, fill="#4c6a86")
        for i, count in enumerate(counts)
        if count
    ]
    drawn += [svg.line(LEFT, base, WIDTH - RIGHT, base, "#444444"), svg.line(LEFT, TOP, LEFT, base, "#444444")]
    drawn += [
        svg.text(LEFT - 5, TOP + 8, str(counts.max()), text_anchor="end"),
        svg.text(LEFT - 5, base, "0", text_anchor="end"),
    ]
    for place, edge, anchor in ((LEFT, edges[0], "start"), (WIDTH - RIGHT, edges[-1], "end")):
        drawn.append(svg.text(place, base + 15, f"{edge:.3g}", text_anchor=anchor))
    middle = (LEFT + WIDTH - RIGHT) / 2
    drawn.append(svg.text(middle, HEIGHT - 8, f"{unit}; median {np.median(values):.3g}", text_anchor="middle"))
    return drawn
