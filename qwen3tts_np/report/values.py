"""Formatting of values in reports."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

LISTED = 20  # problems that a report for people lists; JSON has all of them


def si(value: float, unit: str = "") -> str:
    """Three digits and a decimal prefix: 2.42 G."""
    if value < 1000 and value == round(value):
        return f"{value:.0f} {unit}".rstrip()
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * factor:
            return f"{_three(value / factor)} {prefix}{unit}"
    return f"{_three(value)} {unit}".rstrip()


def _three(value: float) -> str:
    digits = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    return f"{value:.{digits}f}"


def listed(problems: Sequence[str]) -> list[str]:
    """The first ``LISTED`` problems and how many more there are."""
    more = len(problems) - LISTED
    return [*problems[:LISTED], *([f"and {more} more (--json lists all)"] if more > 0 else [])]


def finite(value: Any) -> Any:
    """``value`` for JSON, which has neither infinity nor NaN: they become null."""
    if isinstance(value, dict):
        return {name: finite(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [finite(member) for member in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
