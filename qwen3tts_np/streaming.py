"""Streamed speech: packets of samples out as they are generated and, in a session, pieces of text in.

Frames come from the loop that ``generate_*`` runs to completion (``FrameLoop.frames``), samples from a codec that keeps
its past inputs. Nothing runs between two packets: when iteration stops, the work stops.

The waveform is the *continuous* decode of the codes. The official decoder, and so ``generate_*``, restarts every 300
frames with 25 frames of context; up to frame 300 the two are identical.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import takewhile

import numpy as np

from .errors import RequestError
from .ops import Ints, Wave
from .request import Request
from .speech_tokenizer import CodeStream
from .talker.frame import Frame
from .text.feed import TextFeed, TextSource
from .text.prompt import Prompt
from .text.templates import ROLE, TEXT_TAIL, TextIds, split_text


@dataclass(frozen=True)
class Playback:
    """Decoding of frames into packets."""

    stream: CodeStream
    reference: Ints | None  # [frames, G], continued by in-context cloning: decoded first, samples dropped
    packet_frames: int
    groups: int  # codes per frame
    sample_rate: int


class Packets:
    """Collects frames and decodes them packet by packet.

    Whoever has several of them may :meth:`keep` frames instead, and decode those of all together:
    :func:`decode_waiting`.
    """

    def __init__(self, playback: Playback) -> None:
        self._playback = playback
        reference = playback.reference
        self._reference = 0 if reference is None else len(reference)  # frames
        self._codes: list[Ints] = [] if reference is None else list(reference)  # and those written
        self._decoded = 0  # frames

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self._playback.sample_rate

    @property
    def stream(self) -> CodeStream:
        """Their stream in the codec."""
        return self._playback.stream

    @property
    def written(self) -> int:
        """Frames written so far."""
        return len(self._codes) - self._reference

    @property
    def codes(self) -> Ints:
        """The codes [frames, G] written so far."""
        return np.array(self._codes[self._reference :], dtype=np.int64).reshape(-1, self._playback.groups)

    @property
    def waiting(self) -> int:
        """Frames that are not decoded, those of the reference included."""
        return len(self._codes) - self._decoded

    @property
    def fresh(self) -> int:
        """Those of them that were written."""
        return self.waiting - self.of_reference

    @property
    def of_reference(self) -> int:
        """How many of them are of the reference."""
        return max(self._reference - self._decoded, 0)

    def of(self, frames: Iterable[Frame]) -> Iterator[Wave]:
        """The packets that ``frames`` complete; an incomplete one is kept for :meth:`rest`."""
        for frame in frames:
            yield from self.add(frame.codes[0])

    def add(self, codes: Ints) -> Iterator[Wave]:
        """The packet that the next frame [G] completes, if it does; otherwise the frame is kept for :meth:`rest`."""
        self.keep(codes)
        if self.fresh == self._playback.packet_frames:
            yield from self.rest()

    def keep(self, codes: Ints) -> None:
        """The next frame [G], which waits."""
        self._codes.append(codes)

    def take(self, count: int) -> Ints:
        """The next frames that wait [count, G], to be decoded now."""
        codes = self._codes[self._decoded : self._decoded + count]
        self._decoded += len(codes)
        return np.array(codes, dtype=np.int64).reshape(-1, self._playback.groups)

    def rest(self) -> Iterator[Wave]:
        """The incomplete packet, if there is one."""
        if self.fresh:
            yield from decode_waiting([(self, self.waiting)])

    def decode_reference(self) -> None:
        """Decode the reference once; its samples are dropped."""
        if self.of_reference:
            decode_waiting([(self, self.of_reference)])


def decode_waiting(wanted: Sequence[tuple[Packets, int]]) -> list[Wave]:
    """Decode frames that wait of several requests together, so many of each -> the samples of each: a packet.

    Samples of a reference are dropped, so a packet may be empty.
    """
    if not wanted:
        return []
    tokenizer = wanted[0][0].stream.tokenizer
    dropped = [min(packets.of_reference, count) * tokenizer.get_decode_upsample_rate() for packets, count in wanted]
    waves = tokenizer.decode_together([(packets.stream, packets.take(count)) for packets, count in wanted])
    return [wave[start:].astype(np.float32, copy=False) for wave, start in zip(waves, dropped, strict=True)]


class SpeechStream:
    """The speech of one text: an iterator over packets of float32 samples [packet_frames * samples per frame].

    The last packet may be shorter. ``sample_rate`` is in Hz; ``codes`` are those written so far. Leaving the loop, or
    :meth:`close`, ends the generation.
    """

    def __init__(self, frames: Iterator[Frame], playback: Playback) -> None:
        self._packets = Packets(playback)
        self._closed = False
        self._speech = self._speak(frames)

    def _speak(self, frames: Iterator[Frame]) -> Generator[Wave, None, None]:
        yield from self._packets.of(takewhile(lambda _: not self._closed, frames))
        if not self._closed:
            yield from self._packets.rest()

    def __iter__(self) -> Iterator[Wave]:
        return self

    def __next__(self) -> Wave:
        return next(self._speech)

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self._packets.sample_rate

    @property
    def codes(self) -> Ints:
        """The codes [frames, G] written so far."""
        return self._packets.codes

    def close(self) -> None:
        """End the speech here; no packet follows. While another thread waits for one, the next frame is the last."""
        self._closed = True
        with suppress(ValueError):  # another thread is in the generator
            self._speech.close()


class ArrivingText:
    """A request whose text is still arriving: :attr:`request` can be spoken as soon as it is there.

    The prompt is the streaming one, which reads one text token per frame. Only tokens that later text cannot change are
    read: a word once another word follows it, and in a script without spaces a phrase once its punctuation has arrived.
    A frame loop that speaks the request waits where the text that its next frame needs has not arrived.
    """

    def __init__(self, feed: TextFeed, empty: Request, lay_out: Callable[[TextIds], Prompt], end_of_text: int) -> None:
        """``empty``: the request without text; ``lay_out``: builds the prompt of a text."""
        self._feed, self._empty, self._lay_out, self._end_of_text = feed, empty, lay_out, end_of_text
        self._ids: list[int] = []  # of the template, until there is a prompt
        self._source = TextSource()  # what follows the prompt, a token per frame
        self.request: Request | None = None

    @property
    def reference_codes(self) -> Ints | None:
        """[frames, G] what cloning in context continues."""
        return self._empty.reference_codes

    @property
    def finished(self) -> bool:
        """Whether the text is complete."""
        return self._source.finished

    def feed(self, text: str) -> None:
        """Add a piece of text. RequestError if it is not a proper string."""
        ids = self._feed.feed(text)
        if self.request is not None:
            self._source.add(ids)
            return
        self._ids += ids
        so_far = TextIds(self._ids[:ROLE], self._ids[ROLE:], tail=[])
        prompt = self._lay_out(so_far) if so_far.text else None
        if prompt is not None and prompt.trailing:  # otherwise the end of the text, or padding, would be read
            self._begin(replace(prompt, trailing=prompt.trailing[:-1]))

    def finish(self) -> None:
        """End the text."""
        ids = self._feed.finish()
        if self.request is None:
            self._begin(self._lay_out(split_text(self._ids + ids)))
        else:
            self._source.add([*ids[:-TEXT_TAIL], self._end_of_text])
        self._source.finish()

    def waits(self, frames: int) -> bool:
        """Whether text that the frame after ``frames`` needs has not arrived."""
        return self.request is None or self.request.waits(frames)

    def _begin(self, prompt: Prompt) -> None:
        self.request = replace(self._empty, prompt=prompt, incoming=self._source)


class SpeechSession:
    """Speech of a text that is still arriving; a context manager.

        with model.open_custom_voice(speaker="ryan") as session:
            for piece in language_model:
                for samples in session.feed(piece): play(samples)
            for samples in session.finish(): play(samples)

    Speech continues until the text that has arrived is used up (:class:`ArrivingText`), and waits there. Codes and
    samples are those of the complete text with ``non_streaming_mode=False``, however it was divided.
    """

    def __init__(self, text: ArrivingText, start: Callable[[Request], Iterator[Frame]], playback: Playback) -> None:
        """``start``: the frame loop."""
        self._text, self._start = text, start
        self._packets = Packets(playback)
        self._packets.decode_reference()
        self._frames: Iterator[Frame] | None = None
        self._ended = self._closed = False

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self._packets.sample_rate

    @property
    def codes(self) -> Ints:
        """The codes [frames, G] written so far."""
        return self._packets.codes

    @property
    def ended(self) -> bool:
        """Whether generation has ended: by end of speech or at ``max_new_tokens``. Text fed later is not spoken."""
        return self._ended

    def feed(self, text: str) -> Iterator[Wave]:
        """Add a piece of text and return the packets that can be generated now.

        The text is added by the call itself; packets not consumed are returned by the next call. Raises RequestError
        if ``text`` is not a proper string, or after ``finish`` or ``close``.
        """
        self._require_open()
        self._text.feed(text)
        return self._speak()

    def finish(self) -> Iterator[Wave]:
        """End the text and return all remaining packets. Raises RequestError after ``finish`` or ``close``."""
        self._require_open()
        self._text.finish()
        return self._speak()

    def close(self) -> None:
        """End the speech here; no packet follows."""
        self._closed = self._ended = True
        self._frames = None

    def __enter__(self) -> SpeechSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _require_open(self) -> None:
        if self._text.finished or self._closed:
            raise RequestError(f"this session is {'closed' if self._closed else 'finished'}; open another one")

    def _speak(self) -> Iterator[Wave]:
        if self._frames is None and self._text.request is not None and not self._closed:
            self._frames = self._start(self._text.request)
        return self._packets_now()

    def _packets_now(self) -> Iterator[Wave]:
        try:
            yield from self._packets.of(self._next_frames())
            if (self._text.finished or self._ended) and not self._closed:
                yield from self._packets.rest()
        except GeneratorExit:  # the caller left the loop: the next call returns the rest
            raise
        except BaseException:  # for example an interrupt has cut a frame short
            self.close()
            raise

    def _next_frames(self) -> Iterator[Frame]:
        """The frames whose text has arrived."""
        while self._frames is not None and not self._ended and not self._text.waits(self._packets.written):
            frame = next(self._frames, None)
            if frame is None:
                self._ended = True
                return
            yield frame
