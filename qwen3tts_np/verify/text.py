"""The report of ``verify`` for a terminal, as Markdown, and for programs."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from ..report import tables
from ..report.tables import Table
from ..report.values import listed
from .sections import WRONG, Report, Section


def as_text(report: Report) -> Iterator[str]:
    yield report.directory
    for section in report.sections:
        yield f"\n{section.title}: {_verdict(section)}"
        yield from (f"  {problem}" for problem in listed(section.problems))
        if section.rows:
            yield textwrap.indent(tables.as_text(_table(section)), "  ")
    yield "\n" + _conclusion(report)


def as_markdown(report: Report) -> Iterator[str]:
    yield f"# {report.directory}"
    yield f"\n{_conclusion(report)}"
    for section in report.sections:
        yield f"\n## {section.title}\n\n{_verdict(section)}"
        if section.problems:
            yield "\n" + "\n".join(f"- {problem}" for problem in listed(section.problems))
        if section.rows:
            yield "\n" + tables.as_markdown(_table(section))


def as_json(report: Report) -> dict[str, Any]:
    return {"wrong": report.wrong, **asdict(report)}


def _table(section: Section) -> Table:
    rows = [[f"{value:.3g}" if isinstance(value, float) else str(value) for value in row] for row in section.rows]
    align = "".join("l" if isinstance(value, str) else "r" for value in section.rows[0])
    return Table("", section.columns, align, rows)


def _verdict(section: Section) -> str:
    return f"{section.status}, {section.summary}"


def _conclusion(report: Report) -> str:
    wrong = [section.title for section in report.sections if section.status == WRONG]
    return f"wrong: {', '.join(wrong)}" if wrong else "nothing is wrong"
