"""The tables and plots of the precision ladder, as Markdown and SVG; no plotting package is needed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from qwen3tts_np.report import svg
from qwen3tts_np.report.markup import Markup, element
from qwen3tts_np.report.tables import Table, as_markdown

Json = dict[str, Any]

# rung -> line style: grey level, dashes, marker. Nothing depends on colour.
LINES = {
    "official float64": ("#000", "1 4", "+"),
    "float32": ("#000", "", "o"),
    "official float32": ("#777", "6 3", "s"),
    "bfloat16 weights": ("#777", "2 2", "x"),
    "int8 weights": ("#444", "8 2 2 2", "^"),
    "official bfloat16": ("#777", "", "d"),
    "int4 weights": ("#000", "3 2", "*"),
}
STAGES = {
    "prompt": "talker, prompt",
    "frames": "talker, frames after it",
    "predictor": "code predictor",
}
WIDTH, HEIGHT, LEFT, TOP, BOTTOM, GAP = 900, 420, 70, 40, 60, 26
LEGEND = 150
LOWEST, HIGHEST = -9, 0  # powers of ten; smaller values are drawn on the axis


def table(sizes: Mapping[str, Json]) -> str:
    """README.md of golden/ladder."""
    return "\n".join(_readme(sizes)) + "\n"


def _readme(sizes: Mapping[str, Json]) -> Iterator[str]:
    yield from INTRODUCTION.strip().splitlines()
    for like, content in sizes.items():
        yield from ["", f"## {like}", "", f"![relative RMS error along the depth, {like}]({like}.svg)", ""]
        errors = content["errors"]
        rungs = [rung for rung in LINES if rung in errors]
        rows = [_row(point, [errors[rung][point] for rung in rungs]) for point in errors[rungs[0]]]
        yield as_markdown(Table("", ["", *rungs], "l" + "r" * len(rungs), rows))


def _row(point: str, errors: Sequence[float]) -> list[str]:
    if point == "choices":
        return ["best codes that differ", *(f"{share:.0%}" for share in errors)]
    return [point, *(f"{error:.1e}" for error in errors)]


def plot(content: Json) -> str:
    """One panel per stage, depth from left to right, the error on a logarithmic axis."""
    about = svg.title(content["about"])
    style = {"font_family": "sans-serif", "font_size": "11", "fill": "#000"}
    return svg.document(WIDTH, HEIGHT, about, svg.background("#fff"), *_drawing(content), **style)


def _drawing(content: Json) -> Iterator[Markup]:
    errors = content["errors"]
    rungs = [rung for rung in LINES if rung in errors]
    names = {stage: [p for p in errors[rungs[0]] if p.startswith(f"{stage}, ")] for stage in STAGES}
    unit = (WIDTH - LEFT - LEGEND - GAP * len(STAGES)) / sum(len(points) for points in names.values())
    yield _turned(16, HEIGHT / 2, "relative RMS error", "middle")
    left = float(LEFT)
    for stage, title in STAGES.items():
        right = left + unit * len(names[stage])
        yield from _panel(left, right, title, [p.partition(", ")[2] for p in names[stage]], first=left == LEFT)
        for rung in rungs:
            xs = [left + unit * (i + 0.5) for i in range(len(names[stage]))]
            yield from _line(rung, [(x, errors[rung][p]) for x, p in zip(xs, names[stage], strict=True)])
        left = right + GAP
    for i, rung in enumerate(reversed(rungs)):
        y, x = TOP + 10 + 22 * i, WIDTH - LEGEND + 4
        yield _stroke(rung, [(x, y), (x + 34, y)])
        yield _marker(rung, x + 17, y)
        yield svg.text(x + 42, y + 4, rung)


def _panel(left: float, right: float, title: str, points: list[str], first: bool) -> Iterator[Markup]:
    bottom = HEIGHT - BOTTOM
    middle = (left + right) / 2
    yield svg.text(middle, TOP - 14, title, text_anchor="middle")
    yield svg.rectangle(left, TOP, right - left, bottom - TOP, fill="none", stroke="#000")
    for power in range(LOWEST, HIGHEST + 1):
        y = _height(10.0**power)
        yield svg.line(left, y, right, y, "#ddd")
        if first:
            yield svg.text(left - 6, y + 4, f"1e{power}", text_anchor="end")
    unit = (right - left) / len(points)
    numbers = [i for i, p in enumerate(points) if p.startswith("layer ")]
    for i, point in enumerate(points):
        x, number = left + unit * (i + 0.5), point.removeprefix("layer ")
        if point.startswith("layer ") and len(numbers) > 8 and int(number) % 9:
            continue
        yield _turned(x + 4, bottom + 6, number, "end")
    yield svg.text(middle, HEIGHT - 6, "layer", text_anchor="middle")


def _turned(x: float, y: float, text: str, anchor: str) -> Markup:
    """Text rotated by 90 degrees."""
    return element("text", text, transform=f"translate({x:.1f} {y:.1f}) rotate(-90)", text_anchor=anchor)


def _line(rung: str, values: list[tuple[float, float]]) -> Iterator[Markup]:
    """A line. Points without any error are below the axis: the line starts after them."""
    spots = [(x, _height(value)) for x, value in values if value > 0]
    if spots:
        yield _stroke(rung, spots)
        yield from (_marker(rung, x, y) for x, y in spots[:: 3 if len(spots) > 10 else 1])


def _height(value: float) -> float:
    part = (math.log10(value) - LOWEST) / (HIGHEST - LOWEST)
    return TOP + (1 - min(max(part, 0.0), 1.0)) * (HEIGHT - BOTTOM - TOP)


def _stroke(rung: str, spots: list[tuple[float, float]]) -> Markup:
    grey, dashes, _ = LINES[rung]
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in spots)
    return svg.path(f"M{path}", fill="none", stroke=grey, stroke_width=1.3, stroke_dasharray=dashes or None)


def _marker(rung: str, x: float, y: float) -> Markup:
    grey, _, marker = LINES[rung]
    strokes = {"+": "M-3 0H3M0-3V3", "x": "M-3-3L3 3M-3 3L3-3", "*": "M-3-3L3 3M-3 3L3-3M-4 0H4"}
    shapes = {"s": "M-3-3H3V3H-3Z", "^": "M0-4L4 3H-4Z", "d": "M0-4L4 0 0 4-4 0Z"}
    shapes["o"] = "M-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0"
    fill = "none" if marker in strokes else "#fff"
    path = strokes.get(marker) or shapes[marker]
    return svg.path(path, transform=f"translate({x:.1f} {y:.1f})", fill=fill, stroke=grey)


INTRODUCTION = """
# The precision ladder

What error is normal. One request is read with the same given codes (teacher forcing) in every kind of arithmetic, and
each is compared with our float64 run, layer by layer: `rms(x - x64) / rms(x64)`, over all positions of the prompt, all
frames after it, or all 15 calls per frame of the code predictor. `layer n` is the residual stream after it.

- `official float64`: the package with its casts to float32 taken out. What is left is the rotary table, which ours
  keeps in float32 as the package does (see `rope_angles`); it is the error of that table alone, and grows with length.
- `float32`: our NumPy path; `official float32` beside it. A port in float32 belongs here, within a few times of it.
- `bfloat16 weights`: bfloat16 in the file, float32 in the arithmetic. The checkpoints are bfloat16 already, so nothing
  is lost, and the numbers are those of float32.
- `official bfloat16`: weights and activations, as the package runs on a GPU. It is four orders of magnitude above
  float32: codes drawn in bfloat16 are not those of float32, and neither are a reference for the other.
- `int8 weights`, `int4 weights`: groups of 32 with float16 scales (heads keep 8 bits), float32 activations.

`best codes that differ` counts, over all choices of the run, how often the largest logit is another than in float64.
The weights are synthetic, with logits closer together than trained ones: take the errors as a guide, and the codes
that differ as a pessimistic one. Made by `benchmarks/ladder.py`; the official package by `golden/probe.py`.
"""
