"""The checks of a checkpoint with real weights, as sections of one report.

Files are compared with the published ones, tensors with the key tables, values with the usual range of weights and,
where the official package is available, codes, activations and audio with it. A section never stops another one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..checkpoint.config_file import CODEC_DIR
from ..checkpoint.safetensors import Checkpoint
from ..errors import QwenTTSError
from ..layout.description import Description, unpublished_files
from .statistics import RowStatistics, problems_of, row_problems, row_statistics, summaries

OK, WRONG, SKIPPED = "ok", "wrong", "skipped"


@dataclass(frozen=True)
class Section:
    """One kind of check: a verdict, a sentence, the problems, and a table."""

    title: str
    status: str  # OK, WRONG or SKIPPED
    summary: str
    problems: list[str] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    rows: list[list[Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Report:
    """The result of ``verify`` for a directory."""

    directory: str
    released: str | None  # the published model of this layout
    sections: list[Section]

    @property
    def wrong(self) -> bool:
        return any(section.status == WRONG for section in self.sections)


def judged(title: str, summary: str, problems: Iterable[str], **table: Any) -> Section:
    """A section that is OK if there are no problems."""
    found = list(problems)
    return Section(title, WRONG if found else OK, f"problems: {len(found)}" if found else summary, found, **table)


def files_section(found: Description, fine_tuned: bool) -> Section:
    """Sizes and sha256 of all files, where the layout is that of a published model."""
    title = "published files"
    if found.released is None:
        return Section(title, SKIPPED, "the layout is none of the published ones")
    if fine_tuned:
        return Section(title, SKIPPED, f"the layout of {found.released}, with weights of one's own")
    return judged(title, f"byte for byte those of {found.released}", unpublished_files(found))


def keys_section(found: Description, tokenizer_problems: list[str]) -> Section:
    """Configuration, key tables, files that are needed."""
    tensors = sum(weights.tensors for weights in found.weights)
    return judged("key tables", f"all {tensors} tensors, none else", [*found.problems, *tokenizer_problems])


def statistics_section(found: Description) -> Section:
    """Every value of every tensor, read once."""
    root = Path(found.directory)
    statistics: dict[str, RowStatistics] = {}
    problems: list[str] = []
    for folder in (root, root / CODEC_DIR) if found.config is not None else (root,):
        try:
            for name, stored in Checkpoint.open(folder).items():
                if stored.size:
                    statistics[name] = row_statistics(stored)
        except QwenTTSError as e:
            problems.append(str(e))
    for name, s in statistics.items():
        problems += problems_of(name, s)
    if found.config is not None:
        problems += row_problems(found.config, statistics)
    rows = [[b.block, b.tensors, b.smallest_rms, b.largest_rms, b.peak, b.blank_rows] for b in summaries(statistics)]
    columns = ["block", "tensors", "smallest RMS", "largest RMS", "largest value", "blank rows"]
    return judged("statistics", f"{len(statistics)} tensors look like weights", problems, columns=columns, rows=rows)
