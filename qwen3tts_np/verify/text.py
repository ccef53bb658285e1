"""The report of ``verify`` for a terminal, as Markdown, and for programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from .sections import WRONG, Report, Section

LISTED = 20  # problems of a section that are shown; JSON has all of them


def as_text(report: Report) -> Iterator[str]:
    yield report.directory
    for section in report.sections:
        yield f"\n{section.title}: {_verdict(section)}"
        yield from (f"  {problem}" for problem in _listed(section))
        cells = [section.columns, *([_cell(value) for value in row] for row in section.rows)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(section.columns))]
        for row in cells if section.rows else []:
            yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    yield "\n" + _conclusion(report)


def as_markdown(report: Report) -> Iterator[str]:
    yield f"# {report.directory}"
    yield f"\n{_conclusion(report)}"
    for section in report.sections:
        yield f"\n## {section.title}\n\n{_verdict(section)}"
        if section.problems:
            yield "\n" + "\n".join(f"- {problem}" for problem in _listed(section))
        if section.rows:
            yield "\n| " + " | ".join(section.columns) + " |"
            yield "|" + "---|" * len(section.columns)
            yield from ("| " + " | ".join(map(_cell, row)) + " |" for row in section.rows)


def as_json(report: Report) -> dict[str, Any]:
    return {"wrong": report.wrong, **asdict(report)}


def _verdict(section: Section) -> str:
    return f"{section.status}, {section.summary}"


def _listed(section: Section) -> list[str]:
    more = len(section.problems) - LISTED
    return section.problems[:LISTED] + ([f"and {more} more (--json lists all)"] if more > 0 else [])


def _conclusion(report: Report) -> str:
    wrong = [section.title for section in report.sections if section.status == WRONG]
    return f"wrong: {', '.join(wrong)}" if wrong else "nothing is wrong"


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
