"""Error along depth as SVG, drawn by hand: every tensor a point, in the order of execution."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby

from .compare import Row

WIDTH, HEIGHT = 960, 320
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 28, 44
LOWEST, HIGHEST = -9.0, 2.0  # powers of ten that are drawn; equal tensors lie on the lowest
COLOURS = {"equal": "#7a9e7e", "close": "#2f6f4f", "differs": "#c0392b", "shape": "#8e44ad"}
PARTS = ("talker.code_predictor", "talker", "speaker_encoder", "speech_tokenizer.encoder", "speech_tokenizer.decoder")


def part_of(name: str) -> str:
    """Which part of the model a tensor belongs to; "results" for what is no activation."""
    return next((part for part in PARTS if name.startswith(part)), "results")


def error_plot(rows: Sequence[Row], title: str) -> str:
    """An SVG document: greatest |difference| over greatest |value| of every tensor, and its tolerance."""
    compared = [row for row in rows if row.status != "missing"]
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"',
        ' font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="17" font-size="13">{escape(title)}</text>',
        *_grid(),
        *_parts(compared),
    ]
    tolerances = " ".join(f"{_x(i, compared):.1f},{_y(_tolerance(row)):.1f}" for i, row in enumerate(compared))
    lines.append(f'<polyline points="{tolerances}" fill="none" stroke="#bbbbbb"/>')
    lines += [_point(i, row, compared) for i, row in enumerate(compared)]
    first = next((i for i, row in enumerate(compared) if row.wrong), None)
    if first is not None:
        x = _x(first, compared)
        lines.append(f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{HEIGHT - BOTTOM}" stroke="#c0392b"/>')
        anchor = "end" if x > WIDTH / 2 else "start"
        shift = -6 if anchor == "end" else 6
        lines.append(
            f'<text x="{x + shift:.1f}" y="{TOP + 12}" text-anchor="{anchor}">{escape(compared[first].name)}</text>'
        )
    return "\n".join([*lines, "</svg>"]) + "\n"


def _grid() -> Iterable[str]:
    for power in range(int(LOWEST), int(HIGHEST) + 1):
        y = _y(10.0**power)
        yield f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#eeeeee"/>'
        label = "equal" if power == LOWEST else f"1e{power}"
        yield f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
    middle = (TOP + HEIGHT - BOTTOM) / 2
    yield f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">relative error</text>'


def _parts(compared: Sequence[Row]) -> Iterable[str]:
    """Where each part of the model begins; the label only where there is room for it."""
    at, free = 0, 0.0
    for part, rows in groupby(compared, key=lambda row: part_of(row.name)):
        x = _x(at, compared)
        yield f'<line x1="{x:.1f}" y1="{HEIGHT - BOTTOM}" x2="{x:.1f}" y2="{HEIGHT - BOTTOM + 6}" stroke="#888888"/>'
        if x >= free:
            yield f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}">{escape(part)}</text>'
            free = x + 7 * len(part)
        at += len(list(rows))
    yield f'<text x="{LEFT}" y="{HEIGHT - 8}">order of execution; grey: tolerance</text>'


def _point(i: int, row: Row, compared: Sequence[Row]) -> str:
    error = row.error.relative if row.error else math.inf
    shown = f"{row.name}: {error:.3g} of its peak" if row.error else f"{row.name}: shape {list(row.theirs)}"
    return (
        f'<circle cx="{_x(i, compared):.1f}" cy="{_y(error):.1f}" r="2" fill="{COLOURS[row.status]}">'
        f"<title>{escape(shown)}</title></circle>"
    )


def _tolerance(row: Row) -> float:
    """Relative, as the error is."""
    return row.atol * row.error.relative / row.error.greatest if row.error and row.error.greatest else 0.0


def _x(i: int, compared: Sequence[Row]) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * (i + 0.5) / max(len(compared), 1)


def _y(value: float) -> float:
    power = min(max(math.log10(value), LOWEST), HIGHEST) if value > 0 else LOWEST
    return TOP + (HEIGHT - TOP - BOTTOM) * (HIGHEST - power) / (HIGHEST - LOWEST)
