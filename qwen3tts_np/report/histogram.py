"""Histograms as SVG, drawn without a plotting package."""

from __future__ import annotations

import math

import numpy as np

from ..ops import Array
from . import svg
from .markup import Markup

WIDTH, HEIGHT = 460, 190
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 28, 38
FEWEST_BINS, MOST_BINS = 8, 40
TICKS = 7  # at most


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
    bins = min(max(FEWEST_BINS, round(2 * math.sqrt(len(values)))), MOST_BINS)
    counts, edges = np.histogram(values, bins)
    across, up = (WIDTH - LEFT - RIGHT) / bins, (HEIGHT - TOP - BOTTOM) / counts.max()
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
    for tick in ticks(float(edges[0]), float(edges[-1])):
        place = LEFT + (tick - edges[0]) / (edges[-1] - edges[0]) * (WIDTH - LEFT - RIGHT)
        drawn.append(svg.line(place, base, place, base + 4, "#444444"))
        drawn.append(svg.text(place, base + 16, f"{tick:.6g}", text_anchor="middle"))
    middle = (LEFT + WIDTH - RIGHT) / 2
    drawn.append(svg.text(middle, HEIGHT - 6, f"{unit}; median {np.median(values):.3g}", text_anchor="middle"))
    return drawn


def ticks(low: float, high: float) -> list[float]:
    """Round numbers from low to high, up to TICKS of them: multiples of 1, 2 or 5 times a power of ten."""
    unit = 10.0 ** math.floor(math.log10((high - low) / TICKS))
    for step in (unit, 2 * unit, 5 * unit, 10 * unit):
        first, last = math.ceil(low / step), math.floor(high / step)
        if last - first < TICKS:
            break
    return [i * step for i in range(first, last + 1)]
