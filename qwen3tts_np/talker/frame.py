"""One frame of codes, as the frame loop yields it."""

from __future__ import annotations

from dataclasses import dataclass

from ..ops import Ints


@dataclass(frozen=True)
class Frame:
    """One frame of the items that have not ended."""

    items: Ints  # [n] ascending
    codes: Ints  # [n, G]
