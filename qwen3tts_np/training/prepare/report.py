"""The summary for people: a page with tables, plots, and a sentence for every row that has a fault."""

from __future__ import annotations

from typing import Any

from ...report.histogram import histogram
from ...report.html import page
from ...report.markup import element
from ...report.tables import Table, as_html
from .prepare import Preparation
from .rules import RULES


def tables(summary: dict[str, Any]) -> list[Table]:
    """What there is, by part and by speaker, and which rules were not met."""
    parts = [[name, str(summary[name]["rows"]), f"{summary[name]['hours']:.2f}"] for name in ("train", "validation")]
    refused = f"{summary['refused']} of {summary['rows']} rows refused, {summary['warned']} kept with a warning."
    speakers = [
        [name, str(s["rows"]), f"{s['hours']:.2f}", str(s["references"]), "yes" if s["x_vector"] else "no"]
        for name, s in summary["speakers"].items()
    ]
    found = [Table("Rows", ["part", "rows", "hours"], "lrr", parts, refused)]
    found.append(Table("Speakers", ["speaker", "rows", "hours", "references", "x-vector"], "lrrrl", speakers))
    if summary["rules"]:
        rules = [
            [name, str(count), "refused" if RULES[name].refuses else "kept", RULES[name].text]
            for name, count in summary["rules"].items()
        ]
        found.append(
            Table("Rules that were not met", ["rule", "rows", "the row is", "what holds of a good row"], "lrll", rules)
        )
    return found


def page_of(done: Preparation, summary: dict[str, Any]) -> str:
    """The page, complete in one file."""
    plots = (
        histogram(done.seconds, "Length of the clips", "s"),
        histogram(done.rates, "Frames per text token", "frames of 80 ms"),
        histogram(done.noises, "From the noise up to the voice", "dB"),
        histogram(done.cosines, "Cosine of each clip to its speaker's mean", "cosine"),
        histogram(done.trips, "What the codec itself loses, of the first clips", "dB between mel spectrograms"),
    )
    faults = [element("h2", "Findings"), element("ul", *(element("li", sentence) for sentence in summary["findings"]))]
    shown = faults if summary["findings"] else [element("p", "Every row meets every rule.")]
    return page(
        f"Prepared: {summary['source']}", *map(as_html, tables(summary)), element("h2", "Plots"), *plots, *shown
    )
