"""Tables as rows of text, and how they look in the terminal, in Markdown and in HTML."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

COLUMNS = 110  # of a note in the terminal


@dataclass(frozen=True)
class Table:
    """``align`` has one letter a column: "l" for words, "r" for numbers."""

    title: str
    headers: Sequence[str]
    align: str
    rows: Sequence[Sequence[str]]
    note: str = ""


def as_text(table: Table) -> str:
    """For a terminal, the columns as wide as they need to be."""
    cells = [table.headers, *table.rows]
    widths = [max(_width(row[i]) for row in cells) for i in range(len(table.headers))]

    def line(row: Sequence[str]) -> str:
        return "  ".join(_padded(*cell) for cell in zip(row, widths, table.align, strict=True)).rstrip()

    parts = [table.title, line(table.headers), line(["-" * width for width in widths]), *map(line, table.rows)]
    return "\n".join([*parts, *textwrap.wrap(table.note, COLUMNS)])


def as_markdown(table: Table) -> str:
    marks = {"l": "---", "r": "--:"}
    lines = [table.headers, [marks[a] for a in table.align], *table.rows]
    text = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines)
    return text + (f"\n\n{table.note}" if table.note else "")


def as_html(table: Table, level: int = 2) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        classes = {"l": "", "r": ' class="n"'}
        marked = "".join(
            f"<{tag}{classes[a]}>{escape(cell)}</{tag}>" for cell, a in zip(cells, table.align, strict=True)
        )
        return f"<tr>{marked}</tr>"

    body = "\n".join(row(cells, "td") for cells in table.rows)
    note = f"<p>{escape(table.note)}</p>" if table.note else ""
    heading = f"<h{level}>{escape(table.title)}</h{level}>" if table.title else ""
    whole = f"<table>\n<thead>{row(table.headers, 'th')}</thead>\n<tbody>\n{body}\n</tbody></table>"
    return f"{heading}\n<div>{whole}</div>\n{note}"


def page(title: str, body: str) -> str:
    """One HTML file that needs no other: the style is in it, and no script."""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f"<style>{STYLE}</style></head>\n<body>\n<h1>{escape(title)}</h1>\n{body}\n</body></html>\n"
    )


STYLE = """
body { font: 14px/1.45 system-ui, "DejaVu Sans", sans-serif; margin: 2em auto; max-width: 1400px; padding: 0 1em;
  color: #111; background: #fff }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin-top: 2em }
div { overflow-x: auto } td:last-child { white-space: pre-wrap }
table { border-collapse: collapse; font-size: 13px } th { text-align: left; border-bottom: 2px solid #444 }
td, th { padding: 2px 12px 2px 0; vertical-align: top } td { border-bottom: 1px solid #ddd }
td { white-space: pre; font-variant-numeric: tabular-nums } .n { text-align: right; white-space: nowrap }
svg { max-width: 100%; height: auto } p { max-width: 90ch; color: #333 }
"""


def si(value: float, unit: str = "") -> str:
    """Three digits and a decimal prefix: 2.42 G."""
    if value < 1000 and value == round(value):
        return f"{value:.0f} {unit}".rstrip()
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * factor:
            return f"{_three(value / factor)} {prefix}{unit}"
    return f"{_three(value)} {unit}".rstrip()


def _three(value: float) -> str:
    digits = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    return f"{value:.{digits}f}"


def _padded(cell: str, width: int, align: str) -> str:
    room = " " * (width - _width(cell))
    return room + cell if align == "r" else cell + room


def _width(text: str) -> int:
    """Columns in a terminal: East Asian characters take two, marks above others none."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
