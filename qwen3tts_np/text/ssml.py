"""SSML: the part of it that changes silence. https://www.w3.org/TR/speech-synthesis11/

``<speak>``, ``<p>``, ``<s>`` and ``<break time="500ms"/>``. Every other element and attribute is refused by its name,
so that nothing is dropped without a word. White space is one space, as everywhere in XML. The parser is expat; a
document type is refused, and with it every entity of one's own.
"""

from __future__ import annotations

import re
from dataclasses import replace
from xml.parsers import expat

from ..errors import RequestError
from ..shown import shortened
from .markup import PAUSE_RULE, length_of
from .sentences import Break, one_line
from .spans import Span, SpanReader

_BEGINS = re.compile(r"\s*(?:<[?!][^<]*)*<speak[\s>/]")  # behind declarations and comments
ELEMENTS = "<speak>, <p>, <s> and <break time>"
_INSIDE = {"speak": (), "p": ("speak",), "s": ("speak", "p"), "break": ("speak", "p", "s")}
_OPENS = {"p": Break.PARAGRAPH, "s": Break.SENTENCE}
_OF_SPEAK = ("version", "xml:lang", "xsi:schemaLocation")  # what every document of the standard has; and name spaces


def is_ssml(text: str) -> bool:
    """Whether a text is meant to be SSML."""
    return _BEGINS.match(text) is not None


def read_ssml(text: str) -> list[Span]:
    """The spans of an SSML document. RequestError where it is not well-formed, or asks for more than is read here."""
    reader = _Reader()
    try:
        reader.parser.Parse(text.encode(), True)
    except expat.ExpatError as e:
        raise RequestError(
            f"the SSML is not well-formed at line {e.lineno}, column {e.offset + 1}: {expat.ErrorString(e.code)}"
        ) from None
    return [replace(span, text=one_line(span.text.strip())) for span in reader.spans.spans()]


class _Reader:
    """The handlers of expat. They keep no tree: depth costs nothing."""

    def __init__(self) -> None:
        self.spans = SpanReader()
        self._open: list[str] = []
        self.parser = expat.ParserCreate("utf-8")
        self.parser.buffer_text, self.parser.buffer_size = True, 1 << 20
        self.parser.StartDoctypeDeclHandler = _refuse_doctype
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self.parser.ProcessingInstructionHandler = _refuse_instruction

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if name not in _INSIDE:
            raise RequestError(f"the SSML has <{_short(name)}>; {ELEMENTS} are understood")
        parent = self._open[-1] if self._open else None
        if parent not in (_INSIDE[name] or (None,)):
            raise RequestError(f"the SSML has <{name}> in <{parent}>, where it cannot be")
        known = {"speak": _OF_SPEAK, "break": ("time",)}.get(name, ())
        for attribute in attributes:
            if attribute not in known and not (name == "speak" and attribute.split(":")[0] == "xmlns"):
                raise RequestError(
                    f"the SSML has <{name} {_short(attribute)}>, which is not understood; {ELEMENTS} are"
                )
        if name == "break":
            length = length_of(attributes.get("time", ""))
            if length is None:
                time = shortened(attributes["time"]) if "time" in attributes else "no time"
                raise RequestError(f"the SSML has a <break> of {time}: {PAUSE_RULE}")
            self.spans.pause(length)
        elif name in _OPENS:
            self.spans.border(_OPENS[name])
        self._open.append(name)

    def _end(self, name: str) -> None:
        self._open.pop()
        if name in _OPENS:
            self.spans.border(_OPENS[name])

    def _text(self, text: str) -> None:
        if self._open[-1] == "break" and text.strip():
            raise RequestError(f"the SSML has text in <break>: {shortened(text)}; a <break time/> is empty")
        self.spans.add(text)


def _refuse_doctype(*_: object) -> None:
    raise RequestError("the SSML has a document type (<!DOCTYPE>), which is not read: it could define entities")


def _refuse_instruction(target: str, _: str) -> None:
    raise RequestError(f"the SSML has a processing instruction, <?{_short(target)}?>; {ELEMENTS} are understood")


def _short(name: str) -> str:
    return shortened(name)[1:-1] if len(name) <= 100 else f"{name[:50]}..."
