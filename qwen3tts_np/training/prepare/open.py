"""Which source RAW is: a manifest, a folder of Parquet files, or a data set of the hub."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ...errors import RequestError
from ...shown import shortened
from .hub_data import HUB, hub_files
from .parquet import FIELDS, ParquetSource
from .source import ManifestSource, Source


def open_source(raw: Path, split: str, columns: Sequence[str], cache_dir: Path | None, offline: bool) -> Source:
    """The source; nothing but names of files has been read. RequestError where there is none."""
    named = _columns(columns)
    if raw.as_posix().startswith(HUB):
        return ParquetSource(raw.as_posix(), hub_files(raw.as_posix(), split, cache_dir, offline), named)
    if not os.path.isdir(raw):
        if named:
            raise RequestError(
                f"--column {columns[0]}: {raw} is no data set; the fields of a manifest have their names"
            )
        return ManifestSource(raw)
    return ParquetSource.of_folder(raw, split, named)


def _columns(given: Sequence[str]) -> dict[str, str]:
    """FIELD=NAME, each."""
    found = {}
    for text in given:
        field, _, name = text.partition("=")
        if field not in FIELDS or not name:
            raise RequestError(f"--column {shortened(text)} must be one of {', '.join(FIELDS)}, '=' and a column")
        found[field] = name
    return found
