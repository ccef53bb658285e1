"""Pictures as SVG, drawn without a plotting package. Lengths are pixels; y grows downwards."""

from __future__ import annotations

from .markup import Markup, element, lines

XMLNS = "http://www.w3.org/2000/svg"


def document(width: float, height: float, /, *parts: str, **attributes: str | float | None) -> Markup:
    """The ``<svg>`` element, one part per line; valid as an element of a page and as a separate file."""
    box = f"0 0 {width:g} {height:g}"
    return Markup(element("svg", lines(["", *parts, ""]), xmlns=XMLNS, viewBox=box, **attributes) + "\n")


def title(content: str) -> Markup:
    """The title for screen readers, and the tooltip."""
    return element("title", content)


def text(x: float, y: float, content: str, **attributes: str | float | None) -> Markup:
    """One line of text whose baseline begins at (x, y)."""
    return element("text", content, x=x, y=y, **attributes)


def line(x1: float, y1: float, x2: float, y2: float, stroke: str) -> Markup:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, stroke=stroke)


def rectangle(x: float, y: float, width: float, height: float, **attributes: str | float | None) -> Markup:
    return element("rect", x=x, y=y, width=width, height=height, **attributes)


def background(fill: str) -> Markup:
    return element("rect", width="100%", height="100%", fill=fill)


def path(d: str, **attributes: str | float | None) -> Markup:
    return element("path", d=d, **attributes)
