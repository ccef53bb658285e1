"""Tables of text, and their rendering in the terminal, in Markdown and in HTML."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from ..shown import printable
from .html import paragraph
from .markup import Markup, element, lines

COLUMNS = 110  # of a note in the terminal


@dataclass(frozen=True)
class Table:
    """``align`` has one letter per column: "l" for words, "r" for numbers. ``classes``: per row, for HTML, if any."""

    title: str
    headers: Sequence[str]
    align: str
    rows: Sequence[Sequence[str]]
    note: str = ""
    classes: Sequence[str] = ()


def as_text(table: Table) -> str:
    """For a terminal, with columns as wide as needed."""
    cells = [table.headers, *table.rows]
    widths = [max(_width(row[i]) for row in cells) for i in range(len(table.headers))]

    def line(row: Sequence[str]) -> str:
        return "  ".join(_padded(*cell) for cell in zip(row, widths, table.align, strict=True)).rstrip()

    title = [table.title] if table.title else []
    parts = [*title, line(table.headers), line(["-" * width for width in widths]), *map(line, table.rows)]
    return "\n".join([*parts, *textwrap.wrap(table.note, COLUMNS)])


def as_markdown(table: Table) -> str:
    """In Markdown, without the title, which is a heading of the document."""
    marks = {"l": "---", "r": "--:"}
    rows = [table.headers, [marks[a] for a in table.align], *table.rows]
    text = "\n".join("| " + " | ".join(printable(cell).replace("|", "\\|") for cell in row) + " |" for row in rows)
    return text + (f"\n\n{table.note}" if table.note else "")


def as_html(table: Table) -> Markup:
    """Heading, table and note."""
    classes = table.classes or [""] * len(table.rows)
    head = element("thead", _row(table.headers, "th", table.align, ""))
    rows = (_row(row, "td", table.align, kind) for row, kind in zip(table.rows, classes, strict=True))
    drawn = element("div", element("table", lines(["", head, element("tbody", lines(["", *rows, ""])), ""])))
    heading = [element("h2", table.title)] if table.title else []
    return lines([*heading, drawn, *([paragraph(table.note)] if table.note else [])])


def _row(cells: Sequence[str], tag: str, align: str, kind: str) -> Markup:
    classes = {"l": None, "r": "n"}
    marked = [element(tag, cell, class_=classes[a]) for cell, a in zip(cells, align, strict=True)]
    return element("tr", *marked, class_=kind or None)


def _padded(cell: str, width: int, align: str) -> str:
    room = " " * (width - _width(cell))
    return room + cell if align == "r" else cell + room


def _width(text: str) -> int:
    """Columns in a terminal: East Asian characters take two, marks above others none."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
