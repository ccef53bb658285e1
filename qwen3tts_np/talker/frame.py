"""One frame of codes, as yielded by the frame loop."""

from __future__ import annotations

from dataclasses import dataclass

from ..ops import Ints


@dataclass(frozen=True)
class Frame:
    """One frame of the items that have not ended."""

    items: Ints  # [n] ascending
    codes: Ints  # [n, G]
