"""A run, and the comparison of two, as tables."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..report.tables import Table
from ..shown import shortened
from .evaluation import Comparison, Evaluation
from .measures import measure

WORST = 5  # utterances that are shown
ARROWS = {-1: "lower", 0: "", 1: "higher"}
VERDICTS = {"same": "the same", "different": "different"}


def number(value: float, name: str, sign: str = "") -> str:
    """With the digits of its measure; ``sign`` "+" also shows that of a positive number."""
    return f"{value:{sign}.{measure(name).digits}f}"


def tables(run: Evaluation) -> Iterator[Table]:
    """The means; then what was heard most wrongly."""
    rows = []
    for name, mean in run.means.items():
        one = measure(name)
        interval = f"{number(mean.low, name)} to {number(mean.high, name)}"
        rows.append([name, number(mean.value, name), interval, str(mean.count), ARROWS[one.better], one.meaning])
    judges = "; ".join(f"{key}: {value}" for key, value in run.judges.items())
    notes = [f"Interval: 95 %, bootstrap over utterances. {judges}."]
    notes += [f"Left out: {reason}." for reason in run.left_out]
    if run.missing:
        notes.append(
            f"Not measured, for want of audio: {len(run.missing)} of {len(run.missing) + len(run.utterances)}."
        )
    headers = ["measure", "mean", "interval", "of", "better", "meaning"]
    yield Table(run.name, headers, "lrrrll", rows, " ".join(notes))
    if "mixed" in run.means:
        yield misheard(run)


def misheard(run: Evaluation) -> Table:
    """The utterances with the most errors, as many as ``WORST``."""
    heard = [u for u in run.utterances if "mixed" in u.values and u.values["mixed"].value]
    heard.sort(key=lambda u: -u.values["mixed"].value * u.values["mixed"].weight)
    rows = [
        [shortened(u.id)[1:-1], f"{u.values['mixed'].value:.2f}", u.said or "", u.heard or ""] for u in heard[:WORST]
    ]
    note = "Every text was heard as it is." if not rows else ""
    return Table("Heard most wrongly", ["id", "errors", "said", "heard"], "lrll", rows, note)


def comparison_table(found: Comparison) -> Table:
    """One row for each measure that both runs have."""
    rows = []
    for c in found.measures:
        name, d = c.measure.name, c.difference
        interval = f"{number(d.low, name, '+')} to {number(d.high, name, '+')}"
        margin = number(c.margin, name) if c.measure.better else ""
        values = [number(d.a, name), number(d.b, name), number(d.value, name, "+")]
        p = "" if math.isnan(d.p) else f"{d.p:.3f}"
        rows.append([name, *values, interval, p, str(d.count), margin, VERDICTS.get(c.verdict, c.verdict)])
    headers = ["measure", found.a, found.b, "difference", "interval", "p", "pairs", "margin", found.b]
    note = (
        f"{found.sentence()}. Interval: 95 %, bootstrap over pairs; p: permutation of pairs. Better: the interval "
        "excludes 0. As good: it excludes a loss of the margin. Worse: it does not, and excludes 0."
    )
    return Table(f"{found.b} against {found.a}", headers, "lrrrrrrrl", rows, note)
