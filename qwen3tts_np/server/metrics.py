"""Counters of a server, as Prometheus reads them (text format 0.0.4)."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

PREFIX = "qwen3tts_np"
FIRST_AUDIO = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # s, upper bounds
FACTORS = (0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 5.0)  # real-time factors
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass
class Histogram:
    """How often a value was at most each of the bounds."""

    bounds: tuple[float, ...]
    counts: list[int] = field(init=False)
    sum: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def lines(self, name: str) -> Iterable[str]:
        """Its samples."""
        so_far = 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            so_far += count
            yield f'{name}_bucket{{le="{bound}"}} {so_far}'
        yield f"{name}_sum {self.sum:.6f}"
        yield f"{name}_count {so_far}"


class Metrics:
    """What a server has done. Every method may be called by any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: dict[tuple[str, int], int] = {}
        self._frames: dict[str, int] = {}
        self._runaways = self._left = 0
        self._audio = 0.0
        self._first = Histogram(FIRST_AUDIO)
        self._factor = Histogram(FACTORS)

    def request(self, path: str, status: int) -> None:
        """A request that was answered; ``path`` is a route."""
        with self._lock:
            self._requests[path, status] = self._requests.get((path, status), 0) + 1

    def frames(self, model: str, count: int) -> None:
        """Frames that were written."""
        with self._lock:
            self._frames[model] = self._frames.get(model, 0) + count

    def frames_of(self, model: str) -> int:
        """Frames of a model so far."""
        with self._lock:
            return self._frames.get(model, 0)

    def first_audio(self, seconds: float) -> None:
        """The time from a request to its first samples."""
        with self._lock:
            self._first.observe(seconds)

    def answer(self, seconds: float, audio_seconds: float, cut: int) -> None:
        """An answer that is complete: how long it took, how long it is, how many of its pieces did not stop."""
        with self._lock:
            self._audio += audio_seconds
            self._runaways += cut
            if audio_seconds:
                self._factor.observe(seconds / audio_seconds)

    def left(self) -> None:
        """A client that went away before its answer was complete."""
        with self._lock:
            self._left += 1

    @property
    def usual_seconds(self) -> float:
        """How long an answer takes on average; a guess before there is one."""
        with self._lock:
            count = sum(self._factor.counts)
            return self._factor.sum / count * self._audio / count if count else 5.0

    def text(self, gauges: Mapping[str, Mapping[str, int]]) -> str:
        """All of it. ``gauges``: what is counted now, name -> model -> value."""
        with self._lock:
            return "\n".join([*self._lines(gauges), ""])

    def _lines(self, gauges: Mapping[str, Mapping[str, int]]) -> Iterable[str]:
        yield from _heading("requests_total", "counter", "Requests by route and status.")
        for (path, status), count in sorted(self._requests.items()):
            yield f'{PREFIX}_requests_total{{path="{_escaped(path)}",status="{status}"}} {count}'
        yield from _heading("frames_total", "counter", "Frames of 80 ms that were written.")
        for model, count in sorted(self._frames.items()):
            yield f'{PREFIX}_frames_total{{model="{_escaped(model)}"}} {count}'
        for name, (help_, values) in {
            "runaways_total": ("Pieces that did not stop and were cut.", self._runaways),
            "disconnections_total": ("Clients that went away before their answer was complete.", self._left),
            "audio_seconds_total": ("Seconds of speech in complete answers.", round(self._audio, 3)),
        }.items():
            yield from _heading(name, "counter", help_)
            yield f"{PREFIX}_{name} {values}"
        for name, by_model in gauges.items():
            yield from _heading(name, "gauge", f"{name.replace('_', ' ').capitalize()} now, by model.")
            for model, value in sorted(by_model.items()):
                yield f'{PREFIX}_{name}{{model="{_escaped(model)}"}} {value}'
        yield from _heading("first_audio_seconds", "histogram", "Time from a request to its first samples.")
        yield from self._first.lines(f"{PREFIX}_first_audio_seconds")
        yield from _heading("real_time_factor", "histogram", "Time of an answer over the length of its speech.")
        yield from self._factor.lines(f"{PREFIX}_real_time_factor")


def _heading(name: str, kind: str, help_: str) -> Iterable[str]:
    yield f"# HELP {PREFIX}_{name} {help_}"
    yield f"# TYPE {PREFIX}_{name} {kind}"


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
