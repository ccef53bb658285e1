"""A text streamed as it is spoken: the pieces, pauses and codes of ``longform.narrate``, packet by packet.

:class:`LiveText` is the policy, for whoever runs the frames: a :class:`TextStream` runs them for one text, a server for
many in one batch.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import Any

import numpy as np

from ..arguments import require_type
from ..audio.files import pcm16
from ..audio.tempo import Stretch, check_tempo
from ..model import Qwen3TTSModel
from ..ops import Ints, Pcm, Wave
from ..request import Request
from ..streaming import Packets
from ..talker.generator import check_seed, fresh_seed
from ..text.pace import milliseconds
from ..text.sentences import LONGEST, TARGET
from .delivery import Delivery, warn_of_designed_voices
from .edges import Edges
from .plan import plan
from .script import Script, as_script
from .spoken import Spoken
from .take import Take, takes_of

PACKET = 4  # frames


class LiveText:
    """A text being spoken, piece by piece: takes the frames of its requests and gives 16-bit samples.

        while (piece := text.begin()) is not None:
            request, silence = piece
            play(silence)
            for codes in ...:  # the frames [G] of the request
                for packet in text.add(codes): play(packet)
            for packet in text.end(): play(packet)

    ``pieces`` are the finished ones, ``packets`` those of the piece that is spoken, ``share`` is the part of the text
    that is spoken, 0 to 1. Samples that were played cannot be withdrawn, so a piece that does not stop is cut at once.
    """

    def __init__(self, takes: Sequence[Take], packet_frames: int) -> None:
        self.seed: int = takes[0].seed  # of the text
        self.sample_rate: int = takes[0].delivery.sample_rate  # Hz
        self.pieces: list[Spoken] = []
        self.share: float = 0.0
        self._takes, self._packet_frames = takes, packet_frames
        tempo = takes[0].delivery.tempo
        self._lengths = [milliseconds(take.piece.text) / 1000 / tempo for take in takes]  # usual ones, s
        self._whole = max(sum(self._lengths), 0.001)
        self._samples = 0  # handed out
        self._start = 0.0  # of the piece, s

    @property
    def seconds(self) -> float:
        """Seconds of speech yielded so far."""
        return self._samples / self.sample_rate

    @property
    def usual_seconds(self) -> float:
        """The usual duration of the text when spoken, without its pauses."""
        return sum(self._lengths)

    def begin(self) -> tuple[Request, Pcm] | None:
        """The next piece, to be spoken now, and the silence before it, which may be empty. None after the last."""
        if len(self.pieces) == len(self._takes):
            return None
        take = self._takes[len(self.pieces)]
        request = take.request()
        self.packets: Packets = take.delivery.model.packets(request, packet_frames=self._packet_frames)
        self._stretch = None if take.delivery.tempo == 1 else Stretch(take.delivery.tempo, self.sample_rate)
        self._edges = None if take.alone else Edges(self.sample_rate)
        silence = self._silence(take.piece.pause)
        self._start = self.seconds
        return request, silence

    def add(self, codes: Ints) -> Iterator[Pcm]:
        """The packets that are ready with the piece's next frame [G]."""
        for wave in self.packets.add(codes):
            yield from self.decoded(wave)

    def decoded(self, wave: Wave) -> Iterator[Pcm]:
        """The packets that are ready with the next samples of the piece, where somebody else decodes ``packets``."""
        yield from self._trim(wave if self._stretch is None else self._stretch.feed(wave))

    def end(self) -> Iterator[Pcm]:
        """End the piece: its last packets."""
        for wave in self.packets.rest():
            yield from self.decoded(wave)
        if self._stretch is not None:
            yield from self._trim(self._stretch.finish())
        if self._edges is not None:
            yield from self._hand_out(self._edges.finish())
        take = self._takes[len(self.pieces)]
        self.pieces.append(take.report(self.packets.written, 1, self._start, self.seconds))
        self.share = sum(self._lengths[: len(self.pieces)]) / self._whole
        if take.piece.after:
            yield self._silence(take.piece.after)

    def _silence(self, ms: int) -> Pcm:
        silence = np.zeros(self.sample_rate * ms // 1000, np.int16)
        self._samples += len(silence)
        return silence

    def _trim(self, wave: Wave) -> Iterator[Pcm]:
        return self._hand_out(wave if self._edges is None else self._edges.feed(wave))

    def _hand_out(self, wave: Wave) -> Iterator[Pcm]:
        if len(wave):
            self._samples += len(wave)
            piece = len(self.pieces)
            spoken = min(self.seconds - self._start, self._lengths[piece])
            self.share = (sum(self._lengths[:piece]) + spoken) / self._whole
            yield pcm16(wave)


class TextStream:
    """A :class:`LiveText` being spoken: an iterator over its :class:`Pcm` packets.

    Leaving the loop, or :meth:`close`, ends the speech.
    """

    def __init__(self, text: LiveText, model: Qwen3TTSModel) -> None:
        self._text = text
        self._speech = self._speak(model)

    def __iter__(self) -> Iterator[Pcm]:
        return self

    def __next__(self) -> Pcm:
        return next(self._speech)

    @property
    def seed(self) -> int:
        """Of the text."""
        return self._text.seed

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self._text.sample_rate

    @property
    def pieces(self) -> list[Spoken]:
        """Those that are over."""
        return self._text.pieces

    @property
    def share(self) -> float:
        """How much of the text is spoken, 0 to 1."""
        return self._text.share

    @property
    def seconds(self) -> float:
        """How much of the speech has been handed out."""
        return self._text.seconds

    @property
    def frames(self) -> int:
        """Frames of all finished pieces."""
        return sum(piece.frames for piece in self.pieces)

    def close(self) -> None:
        """End the speech here; no packet follows."""
        self._speech.close()

    def _speak(self, model: Qwen3TTSModel) -> Generator[Pcm, None, None]:
        while (piece := self._text.begin()) is not None:
            request, silence = piece
            if len(silence):
                yield silence
            for frame in model.frames([request]):
                yield from self._text.add(frame.codes[0])
            yield from self._text.end()


def live_text(
    model: Qwen3TTSModel,
    text: str | Script,
    *,
    seed: int | None = None,
    packet_frames: int = PACKET,
    target: float = TARGET,
    longest: float = LONGEST,
    runaway_guard: bool = False,
    tempo: float = 1.0,
    **speech: Any,
) -> LiveText:
    """A text of any length, ready to be spoken. Arguments and errors are those of :func:`stream`."""
    require_type(model, Qwen3TTSModel, "model")
    drawn = fresh_seed() if seed is None else check_seed(seed)
    script, tempo = as_script(text), check_tempo(tempo)
    pieces = plan(script, speech.get("language"), target, longest, tempo)
    takes = takes_of(script, pieces, Delivery.of(model, speech, runaway_guard, tempo), drawn)
    model.packets(takes[0].request(), packet_frames=packet_frames)  # what the model does not have is said now
    warn_of_designed_voices([take.delivery for take in takes])
    return LiveText(takes, packet_frames)


def stream(model: Qwen3TTSModel, text: str | Script, **arguments: Any) -> TextStream:
    """Speak a text of any length, in packets of ``packet_frames`` frames of 80 ms.

    Arguments, pieces, seeds, codes and samples are those of ``longform.narrate``, with two exceptions: a piece that
    does not stop has been played by then, so it is cut and not spoken again; and there is no ``loudness``, which is
    measured over all of the speech. RequestError for whatever the model or the text cannot do, before the first packet
    is asked for.
    """
    return TextStream(live_text(model, text, **arguments), model)
