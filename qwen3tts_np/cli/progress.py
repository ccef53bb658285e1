"""A line on the terminal that shows how far the speech is; nothing where there is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ..longform import Progress
from ..model import Qwen3TTSModel
from ..text.pace import milliseconds

WIDTH = 24  # columns of the bar
EVERY = 0.1  # seconds between two looks
ALMOST = 0.99  # a text may take longer than texts of its length do


class Bar:
    """Seconds of speech made, real-time factor (seconds of work a second of speech), time left.

    How long the rest takes is guessed from the text (``text/pace.py``) and the speed so far.
    """

    def __init__(self, text: str, frame: float, shown: bool) -> None:
        self._whole, self._frame, self._shown = milliseconds(text) / 1000, frame, shown
        self._start, self._next = time.monotonic(), 0.0
        self._pieces = ""
        self._finished = 0.0  # seconds of audio in the file
        self._share = self._share_reused = 0.0  # of the text

    def frames(self, count: int) -> None:
        """So many frames of the only text."""
        seconds = count * self._frame
        self._show(seconds, seconds, seconds / max(self._whole, self._frame))

    def packet(self, seconds: float, share: float) -> None:
        """So many seconds of a stream, this part of the text."""
        self._show(seconds, seconds, share)

    def writing(self, texts: list[str], count: int) -> None:
        """So many frames of each of these pieces, none of which is in the file yet."""
        if not self._shown:
            return
        usual = [milliseconds(text) / 1000 for text in texts]
        made = sum(min(count * self._frame, seconds) for seconds in usual)
        share = self._share + made / max(self._whole, self._frame)
        self._show(self._finished + made, self._finished * self.own + made, share)

    def piece(self, p: Progress) -> None:
        """One more piece is in the file."""
        self._pieces, self._finished = f"{p.pieces}/{p.all_pieces} pieces, ", p.seconds
        self._share, self._share_reused, self._next = p.share, p.reused, 0.0
        self._show(p.seconds, p.seconds * self.own, p.share)

    @property
    def own(self) -> float:
        """What part of the file this run has made itself."""
        return 1 - self._share_reused / self._share if self._share else 1.0

    def _show(self, seconds: float, made: float, share: float) -> None:
        now = time.monotonic()
        if not self._shown or now < self._next:
            return
        self._next = now + EVERY
        elapsed, share = now - self._start, min(share, 1.0 if share == self._share else ALMOST)
        full = int(WIDTH * share)
        line = f"[{'#' * full}{'.' * (WIDTH - full)}] {self._pieces}{seconds:.1f} s of speech"
        if made > 0 and share > self._share_reused:
            minutes, seconds = divmod(round(elapsed * (1 - share) / (share - self._share_reused)), 60)
            line += f", RTF {elapsed / made:.2f}, {minutes}:{seconds:02} left"
        print(f"\r{line}\x1b[K", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


@contextmanager
def bar(text: str, model: Qwen3TTSModel) -> Iterator[Bar]:
    """A bar for ``text``, on a terminal; it leaves nothing behind."""
    shown = Bar(text, frame_seconds(model), sys.stderr.isatty())
    try:
        yield shown
    finally:
        shown.clear()


def frame_seconds(model: Qwen3TTSModel) -> float:
    """How long a frame sounds: 0.08 s in all released models."""
    codec = model.speech_tokenizer
    return codec.get_decode_upsample_rate() / codec.get_output_sample_rate()
