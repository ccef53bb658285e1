"""Data sets of the hub: ``hub:OWNER/NAME``, or ``hub:OWNER/NAME/SUBSET`` where there are several.

huggingface_hub lists the Parquet files of the data set, or of the branch where the hub keeps what it has converted
itself, and fetches each into its own cache when its turn comes. Nothing of the data set is executed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...checkpoint.hub import first_reason
from ...errors import MissingFileError, QwenTTSError, RequestError
from ...extras import imported, install
from ...shown import shortened
from .parquet import SUFFIX, Table, of_split

HUB = "hub:"
CONVERTED = "refs/convert/parquet"  # a branch
BLOCK = 1 << 16  # bytes that are transferred at least: footers and numbers are short, and lie far apart
_FORM = re.compile(r"hub:([\w.-]+/[\w.-]+)(?:/([\w.-]+))?")


def hub_files(name: str, split: str, cache_dir: Path | None, offline: bool) -> list[Table]:
    """The tables of a split. RequestError where there are none, or it is not said of which subset."""
    form = _FORM.fullmatch(name)
    if form is None:
        raise RequestError(f"{shortened(name)} must be hub:OWNER/NAME, or hub:OWNER/NAME/SUBSET")
    repository, subset = form.groups()
    hub = imported("huggingface_hub", name, install("hub"))
    if offline:
        raise MissingFileError(f"{name} cannot be listed: the network may not be used (--offline); name a folder")
    for revision in ("main", CONVERTED):
        with _in_one_sentence(name):
            listed = hub.HfApi().list_repo_files(repository, repo_type="dataset", revision=revision)
        if files := sorted(file for file in listed if file.endswith(SUFFIX)):
            break
    else:
        raise RequestError(f"{name} has no {SUFFIX} files")
    files = of_split(_of_subset(files, subset, name), split, name)
    return [_table(hub, repository, revision, file, cache_dir) for file in files]


def _of_subset(files: list[str], subset: str | None, name: str) -> list[str]:
    """The files of a subset: those in its folder. A data set with one folder, or with none, has no subsets."""
    folders = sorted({file.split("/")[0] for file in files if "/" in file})
    if subset is not None:
        found = [file for file in files if file.startswith(f"{subset}/")]
        if not found:
            raise RequestError(f"{name} has no subset {shortened(subset)}; it has {', '.join(folders) or 'none'}")
        return found
    if len(folders) > 1:
        raise RequestError(f"{name} has the subsets {', '.join(folders)}; name one: {name}/{folders[0]}")
    return files


def _table(hub: Any, repository: str, revision: str, file: str, cache_dir: Path | None) -> Table:
    where = {"repo_type": "dataset", "revision": revision}

    def fetch() -> Path:
        with _in_one_sentence(f"{HUB}{repository}"):
            kept = {} if cache_dir is None else {"cache_dir": cache_dir}
            return Path(hub.hf_hub_download(repository, file, **where, **kept))

    @contextmanager
    def open_footer() -> Iterator[Any]:
        """The file at the hub, of which only what is asked for is transferred."""
        place = f"datasets/{repository}@{revision.replace('/', '%2F')}/{file}"
        sentence = _in_one_sentence(f"{HUB}{repository}: {file}")
        with sentence, hub.HfFileSystem().open(place, block_size=BLOCK) as content:
            yield content

    return Table(file, fetch, open_footer)


@contextmanager
def _in_one_sentence(name: str) -> Iterator[None]:
    try:
        yield
    except QwenTTSError:
        raise
    except Exception as e:  # of huggingface_hub, of whichever HTTP library it uses, of the disk
        raise MissingFileError(f"{name} cannot be read: {first_reason(e)}") from None
