"""Error along depth as SVG: every tensor a point, in the order of execution."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import groupby

from ..report import svg
from ..report.markup import Markup, element
from .compare import Row

WIDTH, HEIGHT = 960, 320
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 28, 44
LOWEST, HIGHEST = -9.0, 2.0  # powers of ten drawn; equal tensors are at the lowest
COLOURS = {"equal": "#7a9e7e", "close": "#2f6f4f", "differs": "#c0392b", "shape": "#8e44ad"}
PARTS = ("talker.code_predictor", "talker", "speaker_encoder", "speech_tokenizer.encoder", "speech_tokenizer.decoder")


def part_of(name: str) -> str:
    """The part of the model that a tensor belongs to; "results" if it is not an activation."""
    return next((part for part in PARTS if name.startswith(part)), "results")


def error_plot(rows: Sequence[Row], title: str) -> Markup:
    """An SVG document: greatest |difference| over greatest |value| of every tensor, and its tolerance."""
    compared = [row for row in rows if row.status != "missing"]
    tolerances = " ".join(f"{_x(i, compared):.1f},{_y(_tolerance(row)):.1f}" for i, row in enumerate(compared))
    return svg.document(
        WIDTH,
        HEIGHT,
        svg.background("white"),
        svg.text(LEFT, 17, title, font_size=13),
        *_grid(),
        *_parts(compared),
        element("polyline", points=tolerances, fill="none", stroke="#bbbbbb"),
        *(_point(i, row, compared) for i, row in enumerate(compared)),
        *_first(compared),
        font_family="sans-serif",
        font_size=11,
    )


def _grid() -> Iterable[Markup]:
    for power in range(int(LOWEST), int(HIGHEST) + 1):
        y = _y(10.0**power)
        yield svg.line(LEFT, y, WIDTH - RIGHT, y, "#eeeeee")
        yield svg.text(LEFT - 6, y + 4, "equal" if power == LOWEST else f"1e{power}", text_anchor="end")
    middle = (TOP + HEIGHT - BOTTOM) / 2
    turned = f"rotate(-90 14 {middle:g})"
    yield svg.text(14, middle, "relative error", text_anchor="middle", transform=turned)


def _parts(compared: Sequence[Row]) -> Iterable[Markup]:
    """Marks for the start of each part of the model, labelled where space permits."""
    at, free = 0, 0.0
    for part, rows in groupby(compared, key=lambda row: part_of(row.name)):
        x = _x(at, compared)
        yield svg.line(x, HEIGHT - BOTTOM, x, HEIGHT - BOTTOM + 6, "#888888")
        if x >= free:
            yield svg.text(x, HEIGHT - BOTTOM + 18, part)
            free = x + 7 * len(part)
        at += len(list(rows))
    yield svg.text(LEFT, HEIGHT - 8, "order of execution; grey: tolerance")


def _point(i: int, row: Row, compared: Sequence[Row]) -> Markup:
    error = row.error.relative if row.error else math.inf
    shown = f"{row.name}: {error:.3g} of its peak" if row.error else f"{row.name}: shape {list(row.theirs)}"
    return element("circle", svg.title(shown), cx=_x(i, compared), cy=_y(error), r=2, fill=COLOURS[row.status])


def _first(compared: Sequence[Row]) -> Iterable[Markup]:
    """A line through the first tensor that differs, with its name beside it."""
    at = next((i for i, row in enumerate(compared) if row.wrong), None)
    if at is not None:
        x = _x(at, compared)
        shift, anchor = (-6, "end") if x > WIDTH / 2 else (6, "start")
        yield svg.line(x, TOP, x, HEIGHT - BOTTOM, "#c0392b")
        yield svg.text(x + shift, TOP + 12, compared[at].name, text_anchor=anchor)


def _tolerance(row: Row) -> float:
    """Relative, as the error is."""
    return row.atol * row.error.relative / row.error.greatest if row.error and row.error.greatest else 0.0


def _x(i: int, compared: Sequence[Row]) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * (i + 0.5) / max(len(compared), 1)


def _y(value: float) -> float:
    power = min(max(math.log10(value), LOWEST), HIGHEST) if value > 0 else LOWEST
    return TOP + (HEIGHT - TOP - BOTTOM) * (HIGHEST - power) / (HIGHEST - LOWEST)
