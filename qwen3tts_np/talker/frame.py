"""One frame of codes, as yielded by the frame loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import RequestError
from ..ops import Ints


@dataclass(frozen=True)
class Frame:
    """One frame of the items that have not ended."""

    items: Ints  # [n] ascending
    codes: Ints  # [n, G]


@dataclass(frozen=True)
class Step:
    """One step of a running batch: a frame of each request that could write one, and which requests have ended."""

    places: Ints  # [n] that wrote a frame, ascending
    codes: Ints  # [n, G]
    ended: tuple[int, ...] = ()  # places whose speech is over: their last frame came in an earlier step
    failed: Mapping[int, RequestError] = field(default_factory=dict)  # of those, the ones that could not go on, and why
