"""A manifest, or a shard of it, spoken from beginning to end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from ..errors import QwenTTSError
from ..manifest import BadRow, Manifest, Row
from .identity import Shard
from .speaker import Result, Speaker


@dataclass
class Summary:
    """What a run has done."""

    rows: int = 0
    spoken: int = 0
    kept: int = 0  # an earlier run had made them
    failed: int = 0
    seconds: float = 0.0  # of speech that this run has made

    def add(self, found: Result | BadRow) -> None:
        """One more row."""
        self.rows += 1
        if isinstance(found, BadRow) or found.line.get("error") is not None:
            self.failed += 1
        elif found.kept:
            self.kept += 1
        else:
            self.spoken += 1
            self.seconds += found.line["seconds"]


Progress = Callable[[Result | BadRow], None]  # called after every row


def run(speaker: Speaker, manifest: Manifest, shard: Shard, progress: Progress) -> Summary:
    """Speak a shard of a manifest that was surveyed, and write its done-file; with the last one, results.jsonl too.

    OutputError where the folder cannot be written, or another process speaks this shard into it.
    """
    summary = Summary()

    def note(found: Result | BadRow) -> None:
        summary.add(found)
        progress(found)

    def readable() -> Iterator[Row]:
        for row in manifest:
            if not shard.has(row):
                continue
            if isinstance(row, BadRow):
                note(row)
            else:
                yield row

    with speaker.folder.held(shard) as report:
        for result in speaker.speak(readable()):
            note(result)
        report.update(shard=str(shard), **asdict(summary))
    if speaker.folder.is_closed(shard.count):
        speaker.folder.write_results(manifest)
    return summary


def missing(speaker: Speaker, manifest: Manifest, shard: Shard) -> Iterator[Row | BadRow]:
    """The rows that a run would speak, or try to."""
    for row in manifest:
        if shard.has(row) and not (isinstance(row, Row) and _is_there(speaker, row)):
            yield row


def _is_there(speaker: Speaker, row: Row) -> bool:
    try:
        return speaker.finished(speaker.job(row)) is not None
    except QwenTTSError:
        return False
