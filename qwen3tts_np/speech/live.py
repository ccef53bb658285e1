"""A text streamed as it is spoken: the pieces, pauses and codes of ``longform.narrate``, packet by packet."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import numpy as np

from ..audio.files import pcm16
from ..model import Qwen3TTSModel
from ..ops import Pcm
from ..talker.generator import check_seed, fresh_seed
from ..text.pace import milliseconds
from ..text.sentences import LONGEST, TARGET
from .delivery import Delivery, warn_of_designed_voices
from .edges import Edges
from .plan import plan
from .spoken import Spoken
from .take import Take

PACKET = 4  # frames


class TextStream:
    """A text of any length being spoken: an iterator over its samples as 16-bit integers, :class:`Pcm` packets.

    ``pieces`` are those that are over, ``share`` how much of the text is spoken, 0 to 1. Leaving the loop, or
    :meth:`close`, ends the speech.
    """

    def __init__(self, takes: list[Take], packet_frames: int) -> None:
        self.seed = takes[0].seed  # of the text
        self.sample_rate = takes[0].delivery.sample_rate  # Hz
        self.pieces: list[Spoken] = []
        self.share = 0.0
        self._samples = 0
        self._speech = self._speak(takes, packet_frames)

    def __iter__(self) -> Iterator[Pcm]:
        return self

    def __next__(self) -> Pcm:
        packet = next(self._speech)
        self._samples += len(packet)
        return packet

    @property
    def seconds(self) -> float:
        """How much of the speech has been handed out."""
        return self._samples / self.sample_rate

    @property
    def frames(self) -> int:
        """Of all pieces that are over."""
        return sum(piece.frames for piece in self.pieces)

    def close(self) -> None:
        """End the speech here; no packet follows."""
        self._speech.close()

    def _speak(self, takes: list[Take], packet_frames: int) -> Generator[Pcm, None, None]:
        lengths = [milliseconds(take.piece.text) / 1000 for take in takes]
        done, whole = 0.0, max(sum(lengths), 0.001)
        for take, usual in zip(takes, lengths, strict=True):
            if take.piece.pause:
                yield np.zeros(self.sample_rate * take.piece.pause // 1000, np.int16)
            start = self.seconds
            for packet in self._piece(take, packet_frames, start):
                self.share = (done + min(self.seconds + len(packet) / self.sample_rate - start, usual)) / whole
                yield packet
            done += usual
            self.share = done / whole

    def _piece(self, take: Take, packet_frames: int, start: float) -> Generator[Pcm, None, None]:
        """One piece. What has been heard cannot be taken back, so one that does not stop is cut at once."""
        speech = take.delivery.model.stream(take.request(), packet_frames=packet_frames)
        edges = None if take.alone else Edges(self.sample_rate)
        for wave in speech:
            ready = wave if edges is None else edges.feed(wave)
            if len(ready):
                yield pcm16(ready)
        if edges is not None and len(rest := edges.finish()):
            yield pcm16(rest)
        self.pieces.append(take.report(len(speech.codes), 1, start, self.seconds))


def stream(
    model: Qwen3TTSModel,
    text: str,
    *,
    seed: int | None = None,
    packet_frames: int = PACKET,
    target: float = TARGET,
    longest: float = LONGEST,
    runaway_guard: bool = False,
    **speech: Any,
) -> TextStream:
    """Speak a text of any length, ``packet_frames`` frames of 80 ms at once.

    Arguments, pieces, seeds, codes and samples are those of ``longform.narrate``, with one exception: a piece that does
    not stop has been heard by then, so it is cut and not spoken again. RequestError for whatever the model or the text
    cannot do, before the first packet is asked for.
    """
    drawn = fresh_seed() if seed is None else check_seed(seed)
    pieces = plan(text, str(speech.get("language") or "auto"), target, longest)
    delivery = Delivery.of(model, speech, runaway_guard)
    takes = [Take(piece, delivery, drawn, alone=len(pieces) == 1) for piece in pieces]
    model.stream(takes[0].request(), packet_frames=packet_frames).close()  # what the model does not have is said now
    warn_of_designed_voices(delivery, len(takes))
    return TextStream(takes, packet_frames)
