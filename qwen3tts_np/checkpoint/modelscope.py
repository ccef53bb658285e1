"""Models from ModelScope, which serves them where the hub of Hugging Face is slow or blocked.

``QWEN3TTS_NP_HUB=modelscope`` chooses it. Its own package is not needed: files are kept where that package keeps them
(``MODELSCOPE_CACHE`` moves them), so what it has downloaded is found. ``MODELSCOPE_DOMAIN`` names a mirror.

Every file is held against a size and a SHA-256: for the published models those of ``checkpoint/published.py``, for
others those that the server states, which only show that the file has arrived.
"""

from __future__ import annotations

import http.client
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, urlencode

from ..errors import CheckpointError, MissingFileError
from ..files.output import output_file
from ..notices import notify
from ..shown import shortened
from .hub import PATTERNS, UNVERIFIED, differences, log, repository
from .published import PublishedFile, sha256_of

CHOICE = "QWEN3TTS_NP_HUB"  # environment variable
DOMAIN = "www.modelscope.cn"
TIMEOUT = 60  # s without a byte
ATTEMPTS = 5  # at a file, each of which goes on where the last one stopped
BLOCK = 1 << 20  # bytes
MOST_LIST = 16 << 20  # bytes of a list of files


def is_chosen() -> bool:
    """Whether models come from ModelScope. CheckpointError where the variable names another hub."""
    choice = os.environ.get(CHOICE, "").strip().lower()
    if choice not in ("", "huggingface", "modelscope"):
        raise CheckpointError(f"{CHOICE}={shortened(choice)} is neither 'huggingface' nor 'modelscope'")
    return choice == "modelscope"


def folder_of(name: str, cache_dir: str | Path | None = None) -> Path:
    """Where the files of ``owner/name`` are kept. ModelScope writes a dot of a name as three underscores."""
    base = cache_dir or os.environ.get("MODELSCOPE_CACHE") or os.path.expanduser("~/.cache/modelscope/hub")
    return Path(base, "models", *name.replace(".", "___").split("/"))


def modelscope_snapshot(
    name: str, revision: str | None = None, cache_dir: str | Path | None = None, *, local_files_only: bool = False
) -> Path:
    """The directory with the files of ``owner/name``, verified; downloads what is not on this machine yet.

    CheckpointError if the download fails or a file is not what it should be; with ``local_files_only`` nobody is asked.
    """
    folder, published = folder_of(name, cache_dir), repository(name)
    if local_files_only and not (folder / "config.json").exists():
        raise MissingFileError(f"{name} is not in {folder.parent}, and the network may not be used")
    if published is None:
        if local_files_only:
            return folder
        notify(f"{name} {UNVERIFIED}")
    files = _listed(name, revision or "master") if published is None else published.files
    wrong = differences(folder, files)
    if wrong and local_files_only:
        first, difference = next(iter(wrong.items()))
        raise CheckpointError(f"{folder / first} {difference}, and the network may not be used")
    for file in wrong:
        log.info("downloading %s of %s from ModelScope", file, name)
        _fetch(name, "master" if published else revision or "master", file, files[file], folder / file)
    differences(folder, files)  # remembers what was verified
    return folder


def _listed(name: str, revision: str) -> dict[str, PublishedFile]:
    """The files of a model that are of use here, as the server lists them."""
    query = urlencode({"Revision": revision, "Recursive": "True"})
    with _opened(name, f"repo/files?{query}") as response:
        try:
            entries = json.loads(response.read(MOST_LIST))["Data"]["Files"]
            found = {str(e["Path"]): PublishedFile(int(e["Size"]), str(e["Sha256"])) for e in entries if "Sha256" in e}
        except (ValueError, LookupError, TypeError):
            raise CheckpointError(f"{name} cannot be downloaded: the server's list of files is none") from None
    kept = {path: file for path, file in found.items() if any(fnmatch(path, pattern) for pattern in PATTERNS)}
    return {path: file for path, file in kept.items() if path.count("/") < 2 and ".." not in Path(path).parts}


def _fetch(name: str, revision: str, file: str, wanted: PublishedFile, target: Path) -> None:
    """Download one file. A connection that breaks is taken up where it broke."""
    target.parent.mkdir(parents=True, exist_ok=True)
    query = urlencode({"Revision": revision, "FilePath": file})
    with output_file(target) as content:
        for attempt in range(ATTEMPTS):
            try:
                _append(name, f"repo?{query}", content, wanted.bytes)
                break
            except CheckpointError:
                if attempt == ATTEMPTS - 1:
                    raise
        content.flush()
        if (digest := sha256_of(Path(content.name))) != wanted.sha256:
            raise CheckpointError(f"{name}: {file} arrives with the sha256 {digest}, not {wanted.sha256}")


def _append(name: str, path: str, content: BinaryIO, size: int) -> None:
    """Append what is missing of ``size`` bytes; CheckpointError where the server sends less, or more."""
    at = content.seek(0, os.SEEK_END)
    with _opened(name, path, {"Range": f"bytes={at}-"} if at else {}) as response:
        if at and response.status != http.client.PARTIAL_CONTENT:
            at = content.seek(0)
            content.truncate()
        while at <= size and (block := response.read(BLOCK)):
            content.write(block)
            at += len(block)
    if at > size:
        content.truncate(0)
    if at != size:
        raise CheckpointError(f"{name} cannot be downloaded: the server sent {at} of {size} bytes")


@contextmanager
def _opened(name: str, path: str, headers: Mapping[str, str] | None = None) -> Iterator[Any]:
    """A response of ModelScope; CheckpointError in one sentence for whatever goes wrong, here or while it is read."""
    domain = os.environ.get("MODELSCOPE_DOMAIN") or DOMAIN
    base = domain if domain.startswith(("http://", "https://")) else f"https://{domain}"
    request = urllib.request.Request(f"{base}/api/v1/models/{quote(name)}/{path}", headers=dict(headers or {}))
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            yield response
    except (OSError, http.client.HTTPException, ValueError) as e:
        if isinstance(e, CheckpointError):
            raise
        reason = getattr(e, "reason", None) or str(e) or type(e).__name__
        raise CheckpointError(f"{name} cannot be downloaded from {domain}: {reason}") from None
