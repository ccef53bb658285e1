"""A progress line on the terminal; nothing without a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ..model import Qwen3TTSModel
from ..speech.delivery import frame_seconds
from ..speech.longform import Progress
from ..text.pace import milliseconds

WIDTH = 24  # columns of the bar
EVERY = 0.1  # seconds between two updates
ALMOST = 0.99  # a text may take longer than texts of its length do


class Bar:
    """Seconds of speech made, real-time factor (seconds of work per second of speech), time left.

    The remaining time is estimated from the text (``text/pace.py``) and the speed since the first frame.
    """

    def __init__(self, text: str, frame: float, shown: bool) -> None:
        self._whole, self._frame, self._shown = milliseconds(text) / 1000, frame, shown
        self._next = 0.0  # time of the next update
        self._first: tuple[float, float, float] | None = None  # time, seconds made, share made at the first update
        self._pieces = ""
        self._finished = 0.0  # seconds of audio in the file
        self._share = self._share_reused = 0.0  # of the text

    def packet(self, seconds: float, share: float) -> None:
        """Report seconds of a stream, and the share of the text."""
        self._show(seconds, seconds, share)

    def writing(self, texts: list[tuple[str, int]]) -> None:
        """Report pieces that are not in the file yet, and the frames of each so far."""
        if not self._shown:
            return
        made = sum(frames for _, frames in texts) * self._frame
        likely = sum(min(frames * self._frame, milliseconds(text) / 1000) for text, frames in texts)
        share = self._share + likely / max(self._whole, self._frame)
        self._show(self._finished + made, self._finished * self.own + made, share)

    def piece(self, p: Progress) -> None:
        """One more piece is in the file."""
        self._pieces = f"{p.pieces}/{p.all_pieces} pieces, " if p.all_pieces > 1 else ""
        self._finished = p.seconds
        self._share, self._share_reused, self._next = p.share, p.reused, 0.0
        self._show(p.seconds, p.seconds * self.own, p.share)

    @property
    def own(self) -> float:
        """The share of the file that this run has made itself."""
        return 1 - self._share_reused / self._share if self._share else 1.0

    def _show(self, seconds: float, made: float, share: float) -> None:
        now = time.monotonic()
        if not self._shown or now < self._next:
            return
        self._next = now + EVERY
        share = min(share, 1.0 if share == self._share else ALMOST)
        new = share - self._share_reused
        if self._first is None:
            self._first = now, made, new
        start, made_before, new_before = self._first
        full = int(WIDTH * share)
        line = f"[{'#' * full}{'.' * (WIDTH - full)}] {self._pieces}{seconds:.1f} s of speech"
        if made > made_before and new > new_before:
            minutes, rest = divmod(round((now - start) * (1 - share) / (new - new_before)), 60)
            line += f", RTF {(now - start) / (made - made_before):.2f}, {minutes}:{rest:02} left"
        print(f"\r{line}\x1b[K", end="", file=sys.stderr, flush=True)


@contextmanager
def note(text: str) -> Iterator[None]:
    """A line on a terminal while something takes time; it is erased at the end."""
    shown = sys.stderr.isatty()
    if shown:
        print(f"\r{text}\x1b[K", end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


@contextmanager
def bar(text: str, model: Qwen3TTSModel) -> Iterator[Bar]:
    """A bar for ``text``, on a terminal; it leaves nothing behind."""
    with note("reading the text"):
        yield Bar(text, frame_seconds(model), sys.stderr.isatty())
