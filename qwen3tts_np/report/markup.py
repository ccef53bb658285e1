"""HTML and SVG elements, and text for Markdown: the only place where text and attributes are escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape

from ..shown import printable


class Markup(str):
    """Text that already is markup. Every other string is escaped by the element that contains it."""

    __slots__ = ()


def element(tag: str, *content: str, **attributes: str | float | None) -> Markup:
    """One element, without an end tag where there is no ``content``.

    Names of attributes: ``font_size`` is font-size, ``class_`` is class. Values: None leaves the attribute out, numbers
    have at most one decimal.
    """
    given = {name: value for name, value in attributes.items() if value is not None}
    start = " ".join([tag, *(f'{_attribute(name)}="{_value(value)}"' for name, value in given.items())])
    return Markup(f"<{start}>{''.join(map(_escaped, content))}</{tag}>" if content else f"<{start}/>")


def lines(parts: Iterable[str]) -> Markup:
    """The parts, one per line."""
    return Markup("\n".join(map(_escaped, parts)))


def without_tags(text: str) -> str:
    """Markdown in which foreign names begin no element of HTML, and hold no control characters."""
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", printable(text, keep="\n"))


def _escaped(text: str) -> str:
    return text if isinstance(text, Markup) else escape(printable(text, keep="\n\t"))


def _attribute(name: str) -> str:
    return name.rstrip("_").replace("_", "-")


def _value(value: str | float) -> str:
    return escape(printable(value)) if isinstance(value, str) else f"{round(value, 1):.10g}"
