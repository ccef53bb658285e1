"""Reports of a comparison: text, JSON, Markdown, one HTML file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from itertools import groupby

from ..report import tables
from ..report.html import page, paragraph
from ..report.markup import without_tags
from ..report.tables import Table
from ..report.values import finite
from ..shown import printable
from .compare import Comparison, Row
from .plot import error_plot, part_of

AROUND = 15  # tensors before and after the first wrong one in the Markdown table
COLUMNS = ("tensor", "shape", "status", "max", "tolerance", "relative", "RMS", "cosine", "SNR dB")
PARTS = ("part", "tensors", "off", "worst RMS", "worst relative")


def verdict(c: Comparison) -> str:
    """The verdict in one line."""
    first, wrong = c.first, sum(row.wrong for row in c.rows)
    if first is None:
        return f"{len(c.compared)} tensors compared, all within their tolerances"
    return f"{wrong} of {len(c.compared)} tensors compared are off, the first of them {first.name}"


def as_text(c: Comparison) -> str:
    """The output of the command."""
    return "\n".join([verdict(c), *_about_first(c), *_about_names(c)])


def as_json(c: Comparison) -> str:
    """Everything; null where a number is infinite."""
    return json.dumps(finite(c.as_json()), indent=1, ensure_ascii=False) + "\n"


def as_markdown(c: Comparison) -> str:
    """Verdict, diagnosis, a summary of every part, and the tensors around the first wrong one."""
    lines = [f"# {c.theirs} against {c.ours}", "", printable(verdict(c)) + ".", ""]
    lines += [f"- {printable(line.strip())}" for line in (*_about_first(c), *_about_names(c))] + [""]
    lines += [tables.as_markdown(Table("", PARTS, "lrrrr", list(_parts(c))))]
    place = c.compared.index(c.first) if c.first else 0
    shown = c.compared[max(0, place - AROUND) : place + AROUND + 1]
    lines += ["", tables.as_markdown(_table(shown))]
    return without_tags("\n".join(lines) + "\n")


def as_html(c: Comparison) -> str:
    """One file with the plot and all tensors."""
    about = [paragraph(line.strip()) for line in (*_about_first(c), *_about_names(c))]
    plot = error_plot(c.rows, "relative error of every tensor")
    classes = [f"{'wrong' if row.wrong else 'right'}{' first' if row is c.first else ''}" for row in c.compared]
    every = tables.as_html(_table(c.compared, classes))
    return page(f"{c.theirs} against {c.ours}", paragraph(f"{verdict(c)}."), *about, plot, every)


def _about_first(c: Comparison) -> Iterable[str]:
    first = c.first
    if first is None:
        return
    if first.error:
        e = first.error
        within = f" within {first.atol:.2g}" if first.limit is None else ""
        yield f"  worst at {list(e.at)}: {e.theirs:.9g}, expected {e.ours:.9g}{within}"
        if first.limit is not None:
            yield f"  its RMS error is {e.rms:.3g} of the tensor's; this format is allowed {first.limit:.3g}"
        yield f"  relative {e.relative:.3g}, RMS {e.rms:.3g}, cosine {e.cosine:.6f}, SNR {e.snr:.1f} dB"
    else:
        yield f"  its shape is {list(first.theirs)}, expected {list(first.shape)}"
    for finding in c.findings:
        left = f" (leaves {finding.left:.1%} of the difference)" if 0.001 <= finding.left < 1 else ""
        yield f"  looks like: {finding.cause}: {finding.message}{left}"
    if not c.findings:
        yield "  the cause is unknown: golden/README.md says what this tensor is made of"


def _about_names(c: Comparison) -> Iterable[str]:
    missing = [row.name for row in c.rows if row.status == "missing"]
    for names, what in ((missing, "not there"), (c.unknown, "unknown and not compared")):
        if names:
            yield f"  {len(names)} {what}: {', '.join(names[:3])}{' ...' if len(names) > 3 else ''}"


def _parts(c: Comparison) -> Iterable[tuple[str, ...]]:
    for part, found in groupby(sorted(c.compared, key=lambda r: part_of(r.name)), key=lambda r: part_of(r.name)):
        rows = list(found)
        errors = [row.error for row in rows if row.error]
        rms, relative = (max((getattr(e, what) for e in errors), default=math.inf) for what in ("rms", "relative"))
        yield part, str(len(rows)), str(sum(row.wrong for row in rows)), f"{rms:.2g}", f"{relative:.2g}"


def _cells(row: Row) -> tuple[str, ...]:
    shape, e = "x".join(map(str, row.shape)), row.error
    if e is None:
        return (row.name, shape, f"shape {'x'.join(map(str, row.theirs))}", *[""] * (len(COLUMNS) - 3))
    numbers = (f"{e.greatest:.2g}", f"{row.atol:.2g}", f"{e.relative:.2g}", f"{e.rms:.2g}", f"{e.cosine:.6f}")
    return (row.name, shape, row.status, *numbers, f"{e.snr:.1f}" if math.isfinite(e.snr) else "")


def _table(rows: Sequence[Row], classes: Sequence[str] = ()) -> Table:
    return Table("", COLUMNS, "lll" + "r" * (len(COLUMNS) - 3), [_cells(row) for row in rows], classes=classes)
