"""Spans: the parts of a text between its marks."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .sentences import Break


@dataclass(frozen=True)
class Span:
    """A part of a text in one voice, and what comes before it."""

    text: str  # "" where silence ends the text
    voice: str | None = None  # a name; None is the voice of the request
    silence: int | None = None  # ms before it, exactly; None: as long as ``opens`` says
    opens: Break = Break.WORD  # the kind of break before it


class SpanReader:
    """Spans that are read part by part."""

    def __init__(self) -> None:
        self._spans = [Span("")]
        self._parts: list[list[str]] = [[]]  # of the text of each
        self._blank = True  # whether the last one has no text yet

    @property
    def voice(self) -> str | None:
        """The voice of the last one."""
        return self._spans[-1].voice

    def add(self, text: str) -> None:
        """More text."""
        self._parts[-1].append(text)
        self._blank = self._blank and not text.strip()

    def pause(self, ms: int) -> None:
        """Silence."""
        voice = self.voice
        if self._idle:
            self._drop()
        self._begin(Span("", voice, ms))

    def speaker(self, name: str | None) -> None:
        """Another voice."""
        if not self._blank:
            if name != self.voice:
                self._begin(Span("", name))
        elif self._idle and self._spans[-2].voice == name:
            self._drop()
        else:
            self._spans[-1] = replace(self._spans[-1], voice=name)

    def border(self, kind: Break) -> None:
        """A paragraph or a sentence begins or ends; of two borders the stronger counts."""
        last = self._spans[-1]
        if not self._blank:
            self._begin(Span("", last.voice, opens=kind))
        elif last.silence is None:
            self._spans[-1] = replace(last, opens=max(last.opens, kind))

    def spans(self) -> list[Span]:
        """All of them."""
        return [replace(span, text="".join(parts)) for span, parts in zip(self._spans, self._parts, strict=True)]

    def _begin(self, span: Span) -> None:
        self._spans.append(span)
        self._parts.append([])
        self._blank = True

    @property
    def _idle(self) -> bool:
        """Whether the last span neither says anything nor is silence; the one before does, then."""
        return self._blank and self._spans[-1].silence is None and len(self._spans) > 1

    def _drop(self) -> None:
        """Forget the last span; its white space belongs to the one before."""
        self._spans.pop()
        white_space = self._parts.pop()
        self._parts[-1] += white_space
        self._blank = False
