"""Those who speak in a running batch: a text of one or more pieces, and a text that is still arriving."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Protocol

from ..audio.files import pcm16
from ..audio.tempo import Stretch
from ..errors import RequestError
from ..model import Qwen3TTSModel
from ..ops import Wave
from ..request import Request
from ..speech.delivery import most_frames
from ..speech.live import PACKET, LiveText
from ..speech.script import NO_WORDS, has_words
from ..streaming import ArrivingText, Packets
from ..text.clean import Cleaning
from ..text.lexicon import Lexicon, Respelling
from .outlet import End, Outlet, Piece
from .settings import FIRST_PACKET, MOST_PACKET, POSITIONS, READ_SECONDS, UNREAD_SECONDS


class Client(Protocol):
    """Somebody who speaks: its requests get a place one after another, and their frames come back to it.

    All is called by the engine's thread.
    """

    outlet: Outlet
    heard: bool  # whether samples have been handed out

    @property
    def packets(self) -> Packets:
        """Of the request that is spoken."""
        ...

    @property
    def due(self) -> bool:
        """Whether its frames that wait should be decoded now."""
        ...

    @property
    def ready(self) -> bool:
        """Whether its next request may have a place now."""
        ...

    @property
    def cut(self) -> bool:
        """Whether its request ends here, because it would not stop by itself."""
        ...

    def begin(self) -> Request | None:
        """The request to speak now. None where all is said; the outlet has had its end by then."""
        ...

    def hear(self, wave: Wave) -> None:
        """The samples of frames that waited."""
        ...

    def end(self) -> None:
        """The request is over."""
        ...


def within(request: Request, positions: int = POSITIONS) -> Request:
    """``request``, ending where a place ends. RequestError if its prompt does not fit into one."""
    most = positions - len(request.prompt.prefill) + 1  # N tokens are N - 1 frames
    if most < 2:
        raise RequestError(
            f"the prompt has {len(request.prompt.prefill)} positions and a place of this server has {positions}: "
            "shorten the text, the instructions or the reference clip"
        )
    limits = replace(request.limits, max_new_tokens=min(request.limits.max_new_tokens, most))
    return replace(request, limits=limits)


class TextClient:
    """A text that is there, spoken piece by piece. A reader who falls behind delays its own next piece.

    Packets grow: the first sounds come soon, and later ones cost the codec half as much per frame.
    """

    def __init__(self, text: LiveText, outlet: Outlet) -> None:
        self.text: LiveText = text
        self.outlet: Outlet = outlet
        self.heard: bool = False
        self.pieces: list[Piece] = []  # that are over
        self._most = UNREAD_SECONDS * text.sample_rate
        self._last = 0  # frame of the piece
        self._behind: float | None = None  # since when the reader is
        self._packet = FIRST_PACKET  # frames of the next one

    @property
    def packets(self) -> Packets:
        return self.text.packets

    @property
    def due(self) -> bool:
        return self.packets.fresh >= self._packet

    @property
    def ready(self) -> bool:
        if self.outlet.unread <= self._most:
            self._behind = None
            return True
        now = time.monotonic()
        self._behind = now if self._behind is None else self._behind
        self.outlet.left |= now - self._behind > READ_SECONDS  # whoever reads nothing for so long is not there
        return False

    @property
    def cut(self) -> bool:
        return False  # its requests have the bound as their limit

    def begin(self) -> Request | None:
        piece = self.text.begin()
        if piece is None:
            self.outlet.put(End(self.pieces))
            return None
        request = within(piece[0])
        self._last = request.limits.max_new_tokens - 1
        if len(piece[1]):
            self.outlet.put(piece[1])
        return request

    def hear(self, wave: Wave) -> None:
        self.heard = True
        for packet in self.text.decoded(wave):
            self.outlet.put(packet)
        self._packet = min(-(-self._packet * 3 // 2), MOST_PACKET)

    def end(self) -> None:
        for packet in self.text.end():
            self.outlet.put(packet)
        spoken = self.text.pieces[-1]
        self.pieces.append(Piece(spoken.text, spoken.frames, spoken.complete and spoken.frames < self._last))


class ArrivingClient:
    """A text that is still arriving. Feed it in the engine's thread. It is cleaned, and spoken once it has a word.

    Before the text is complete speech cannot run away: every frame waits for its token.
    """

    def __init__(
        self,
        model: Qwen3TTSModel,
        text: ArrivingText,
        outlet: Outlet,
        tempo: float = 1.0,
        lexicon: Lexicon | None = None,
    ) -> None:
        self.outlet: Outlet = outlet
        self.heard: bool = False
        self._cleaning = Cleaning()
        self._respelling = None if lexicon is None else Respelling(lexicon)
        self._stretch = None if tempo == 1 else Stretch(tempo, model.speech_tokenizer.get_output_sample_rate())
        self._model, self._text, self._spoken = model, text, ""
        self.packets: Packets = model.packets(text)
        self._last = 0  # frame
        self._begun = self._has_words = False

    @property
    def due(self) -> bool:
        fresh = self.packets.fresh
        return fresh >= PACKET or (fresh > 0 and self._text.waits(self.packets.written))

    @property
    def ready(self) -> bool:
        return self._has_words and self._text.request is not None

    @property
    def cut(self) -> bool:
        return self._text.finished and self.packets.written >= self._last

    def feed(self, text: str) -> None:
        """Add text. RequestError if it is not a proper string, or has a NUL."""
        self._respell(self._cleaning.feed(text))

    def finish(self) -> None:
        """The text is complete. Without a word in it that is the end, with an error."""
        self._respell(self._cleaning.finish())
        if self._respelling is not None:
            self._feed(self._respelling.finish())
        self._text.finish()
        if not self._has_words:
            self.outlet.put(End(error=RequestError(NO_WORDS)))
        bound = most_frames(self._model, self._spoken)
        self._last = min(self._last, bound) if self._begun else bound

    def begin(self) -> Request | None:
        if self._begun:
            self.outlet.put(End([Piece(self._spoken, self.packets.written, self.packets.written < self._last)]))
            return None
        assert self._text.request is not None
        self._begun = True
        request = within(self._text.request)
        last = request.limits.max_new_tokens - 1
        self._last = min(self._last, last) if self._text.finished else last
        return request

    def hear(self, wave: Wave) -> None:
        self.heard = True
        self._put(wave if self._stretch is None else self._stretch.feed(wave))

    def end(self) -> None:
        if self._stretch is not None:
            self._put(self._stretch.finish())

    def _respell(self, text: str) -> None:
        self._feed(text if self._respelling is None else self._respelling.feed(text))

    def _feed(self, text: str) -> None:
        self._has_words = self._has_words or has_words(text)
        self._text.feed(text)
        self._spoken += text

    def _put(self, wave: Wave) -> None:
        if len(wave):
            self.outlet.put(pcm16(wave))
