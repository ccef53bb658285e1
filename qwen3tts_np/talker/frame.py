"""What the frame loop hands out."""

from __future__ import annotations

from dataclasses import dataclass

from ..ops import Ints


@dataclass(frozen=True)
class Frame:
    """One frame of the items that go on."""

    items: Ints  # [n] ascending
    codes: Ints  # [n, G]
