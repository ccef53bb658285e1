"""The summary for people: a page with tables, plots, and a sentence for every row that has a fault."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...report.histogram import histogram
from ...report.html import page
from ...report.markup import Markup, element
from ...report.tables import Table, as_html
from .prepare import Preparation
from .rules import RULES

LISTED = 1000  # findings on the page


def tables(summary: dict[str, Any]) -> list[Table]:
    """What there is, by part and by speaker, and which rules were not met."""
    parts = [[name, str(summary[name]["rows"]), f"{summary[name]['hours']:.3f}"] for name in ("train", "validation")]
    refused = f"{summary['refused']} of {summary['rows']} rows refused, {summary['warned']} kept with a warning."
    speakers = [
        [name, str(s["rows"]), f"{s['hours']:.3f}", str(s["references"]), "yes" if s["x_vector"] else "no"]
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
    measured = (
        (done.seconds, "Length of the clips", "s"),
        (done.rates, "Frames per text token", "frames of 80 ms"),
        (done.noises, "From the noise up to the voice", "dB"),
        (done.cosines, "Cosine of each clip to its speaker's mean", "cosine"),
        (done.trips, "What the codec itself loses, of the first clips", "dB between mel spectrograms"),
    )
    plots = [histogram(*named) for named in measured if np.isfinite(named[0]).any()]
    return page(
        f"Prepared: {summary['source']}",
        *map(as_html, tables(summary)),
        element("h2", "Plots"),
        *plots,
        *_findings(summary["findings"]),
    )


def _findings(sentences: list[str]) -> list[Markup]:
    if not sentences:
        return [element("p", "Every row meets every rule.")]
    items = [element("li", sentence) for sentence in sentences[:LISTED]]
    found = [element("h2", "Findings"), element("ul", *items)]
    if (more := len(sentences) - LISTED) > 0:
        found.append(element("p", f"and {more} more, which the .json file beside this page has"))
    return found
