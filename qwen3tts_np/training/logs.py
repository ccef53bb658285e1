"""The logs of a run, a line of JSON each, and their plot.

training_log.jsonl     step, epoch, loss, learning_rate, timestamp; talker, sub_talker, gradient_norm, frames_per_second
validation_log.jsonl   step, epoch, loss, metrics, timestamp

All but the timestamp and the speed follow from the settings and the data, in a resumed run as well: whatever was
logged after the step from which it goes on is dropped first.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..files.output import write_text
from ..report import svg
from ..report.values import finite

TRAINING, VALIDATION, PLOT = "training_log.jsonl", "validation_log.jsonl", "loss.svg"
WIDTH, HEIGHT, EDGE = 720.0, 300.0, 48.0  # pixels
OF_THE_CLOCK = ("timestamp", "frames_per_second")


class Log:
    """One log. It is small, so that it is written as a whole whenever a line is added: complete, or as it was."""

    def __init__(self, path: Path, last_step: int) -> None:
        """Go on after ``last_step``."""
        self._path = path
        self.lines: list[dict[str, Any]] = []
        if path.is_file():
            found = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
            self.lines = [line for line in found if line["step"] <= last_step]

    def add(self, **values: Any) -> None:
        stamped = {**values, "timestamp": datetime.now(timezone.utc).isoformat(timespec="seconds")}
        self.lines.append(finite(stamped))
        self.write()

    def write(self) -> None:
        write_text(self._path, "".join(f"{json.dumps(line)}\n" for line in self.lines), sole=True)


def plot(path: Path, training: Sequence[dict[str, Any]], validation: Sequence[dict[str, Any]], steps: int) -> None:
    """The losses over the steps of a run: training as a line, validation as points."""
    points = [(line["step"], line["loss"]) for line in training]
    held = [(line["step"], line["loss"]) for line in validation]
    if not points and not held:
        return
    highest = max(loss for _, loss in points + held)
    top = highest if highest > 0 else 1.0

    def place(point: tuple[int, float]) -> tuple[float, float]:
        step, loss = point
        x = EDGE + (WIDTH - 2 * EDGE) * step / max(1, steps)
        return round(x, 1), round(HEIGHT - EDGE - (HEIGHT - 2 * EDGE) * loss / top, 1)

    drawn = [svg.title("loss over steps"), svg.background("white"), *_axes(steps, top)]
    if points:
        way = " L".join(f"{x} {y}" for x, y in map(place, points))
        drawn.append(svg.path(f"M{way}", fill="none", stroke="black"))
    for x, y in map(place, held):
        drawn.append(svg.rectangle(x - 3, y - 3, 6, 6, fill="white", stroke="black"))
    drawn.append(svg.text(EDGE, 24, "loss: training (line), validation (squares)", font_size=14))
    write_text(path, svg.document(WIDTH, HEIGHT, *drawn, font_family="sans-serif"), sole=True)


def _axes(steps: int, top: float) -> list[str]:
    bottom, right = HEIGHT - EDGE, WIDTH - EDGE
    found: list[str] = [svg.line(EDGE, bottom, right, bottom, "grey"), svg.line(EDGE, EDGE, EDGE, bottom, "grey")]
    digits = max(0, 1 - math.floor(math.log10(top)))
    for share in (0.0, 0.5, 1.0):
        y = bottom - (bottom - EDGE) * share
        found.append(svg.text(4, y + 4, f"{top * share:.{digits}f}", font_size=12))
        found.append(svg.text(EDGE + (right - EDGE) * share - 8, bottom + 18, f"{round(steps * share)}", font_size=12))
    return found
