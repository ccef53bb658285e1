"""The files that preparation writes, all named after OUT.jsonl.

OUT.jsonl               training, a row each: text, codes, speaker, and what else the row had
OUT.validation.jsonl    the same of the rows that are held out; not there where none is
OUT.safetensors         the x-vector float32 [H] of each speaker, under its name
OUT.json, OUT.html      the summary, for programs and for people
OUT.journal             what has been measured; only whoever prepares more rows, or again, needs it
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...errors import RequestError
from ...files.name import shown_name

SUFFIX = ".jsonl"


@dataclass(frozen=True)
class Names:
    """Of one OUT.jsonl."""

    train: Path

    def __post_init__(self) -> None:
        if self.train.suffix != SUFFIX:
            raise RequestError(f"OUT {shown_name(self.train)} must be named {SUFFIX}, for example train{SUFFIX}")

    @property
    def validation(self) -> Path:
        return self.train.with_suffix(f".validation{SUFFIX}")

    @property
    def x_vectors(self) -> Path:
        return self.train.with_suffix(".safetensors")

    @property
    def summary(self) -> Path:
        return self.train.with_suffix(".json")

    @property
    def report(self) -> Path:
        return self.train.with_suffix(".html")

    @property
    def journal(self) -> Path:
        return self.train.with_suffix(".journal")

    def outputs(self) -> dict[str, Path]:
        """All of them, under the names that a refusal has for them."""
        found = (self.train, self.validation, self.x_vectors, self.summary, self.report, self.journal)
        return {path.name: path for path in found}
