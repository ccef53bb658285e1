"""Published models by name: ``Qwen/Qwen3-TTS-12Hz-0.6B-Base`` becomes a directory on this machine.

huggingface_hub downloads, resumes interrupted downloads, and keeps the files in its own cache (``HF_HOME`` moves it,
``HF_HUB_OFFLINE=1`` forbids the network). What is added here: the revision is the one that
``checkpoint/published.py`` describes, only the files of the model are fetched, each is compared with its published
size and SHA-256, and one that differs is fetched once more.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, MissingFileError, OutputError
from ..files.output import write_text
from ..notices import notify
from .published import CODEC_NAME, CODEC_REVISION, MODELS, PublishedFile, published_files, sha256_of

OWNER = "Qwen"
UNVERIFIED = "is none of the published models: no hashes of its files are known, and they are used unverified"
log: logging.Logger = logging.getLogger(__name__)  # says what is downloaded; the command line shows it
VERIFIED = ".qwen3tts-np-verified.json"  # in a snapshot: name -> [bytes, mtime in ns, sha256] of the files hashed

# The files of a model, in a repository that may hold others as well.
PATTERNS = [f"{folder}*.{kind}" for folder in ("", "speech_tokenizer/") for kind in ("json", "safetensors", "txt")]

# What is on this machine; what is missing; what is damaged, which would not be fetched otherwise.
ATTEMPTS: tuple[dict[str, bool], ...] = ({"local_files_only": True}, {}, {"force_download": True})


@dataclass(frozen=True)
class Repository:
    """The files published under one name."""

    name: str
    revision: str
    files: Mapping[str, PublishedFile]


def published_names() -> list[str]:
    """The names that can be downloaded, as the hub has them."""
    return [f"{OWNER}/{name}" for name in (*(model.name for model in MODELS), CODEC_NAME)]


def repository(name: str) -> Repository | None:
    """The repository ``Qwen/...``, or None where the name is none of :func:`published_names`."""
    for model in MODELS:
        if name == f"{OWNER}/{model.name}":
            return Repository(name, model.revision, published_files(model))
    if name == f"{OWNER}/{CODEC_NAME}":
        return Repository(name, CODEC_REVISION, published_files(None))
    return None


def snapshot(wanted: Repository, cache_dir: str | Path | None = None, *, local_files_only: bool = False) -> Path:
    """The directory with the files of ``wanted``, each verified; downloads what is not on this machine yet.

    ``cache_dir`` takes the place of huggingface_hub's own cache; with ``local_files_only`` nothing is downloaded. Once
    a file has been hashed, only its size and time are looked at. CheckpointError where huggingface_hub is not
    installed, the download fails, or a file is not the published one even when fetched again.
    """
    download = _downloader(wanted, {} if cache_dir is None else {"cache_dir": cache_dir})
    wrong: dict[str, str] = {}
    for options in ATTEMPTS[:1] if local_files_only else ATTEMPTS:
        names = list(wrong if "force_download" in options else wanted.files)
        if "local_files_only" not in options:
            log.info("downloading %s%s", wanted.name, ", what is missing or wrong" if wrong else "")
        try:
            folder = download(names, **options)
        except CheckpointError as e:
            if local_files_only:
                raise
            if "local_files_only" in options:
                continue
            known = "".join(f"{name} {difference}, and " for name, difference in [*wrong.items()][:1])
            raise CheckpointError(f"{known}{e}") from e.__cause__
        wrong = differences(folder, wanted.files)
        if not wrong:
            return folder
    name, difference = next(iter(wrong.items()))
    rest = "the network may not be used" if local_files_only else "downloading {} did not change that"
    raise CheckpointError(f"{folder / name} {difference}, and {rest.format(wanted.name)}")


def other_snapshot(
    name: str,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    *,
    local_files_only: bool = False,
    token: Any = None,
) -> Path:
    """The directory with the files of any model of the hub, as its owner has them; a warning says that they are
    unverified.

    CheckpointError where huggingface_hub is not installed, or the download fails.
    """
    where = {"cache_dir": cache_dir, "token": token}
    download = _downloader(Repository(name, revision or "main", {}), {k: v for k, v in where.items() if v is not None})
    if not local_files_only and cached(name, cache_dir) is None:
        log.info("downloading %s", name)
    folder = download(PATTERNS, local_files_only=local_files_only)
    notify(f"{name} {UNVERIFIED}")
    return folder


def cached(name: str, cache_dir: str | Path | None = None) -> Path | None:
    """The directory of a model that has been downloaded, complete or not; nobody is asked and nothing verified."""
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    published = repository(name)
    revision = published.revision if published else "main"
    try:
        found = try_to_load_from_cache(name, "config.json", cache_dir=cache_dir, revision=revision)
    except ValueError:  # none of the hub's names
        return None
    return Path(found).parent if isinstance(found, str) else None


@dataclass(frozen=True)
class Hub:
    """The settings of huggingface_hub."""

    cache: Path
    endpoint: str
    offline: bool  # the network may not be used


def hub_settings() -> Hub | None:
    """The settings of huggingface_hub, from its environment variables; None where it is not installed."""
    try:
        from huggingface_hub import constants
    except ImportError:
        return None
    return Hub(Path(constants.HF_HUB_CACHE), constants.ENDPOINT, bool(constants.HF_HUB_OFFLINE))


def differences(folder: Path, files: Mapping[str, PublishedFile]) -> dict[str, str]:
    """The published ``files`` that are missing or different in ``folder``: {name: kind of difference}."""
    hashed, wrong = _read_hashed(folder / VERIFIED), {}
    for name, published in files.items():
        try:
            status = (folder / name).stat()
        except OSError:
            wrong[name] = "is missing"
            continue
        if status.st_size != published.bytes:
            wrong[name] = f"has {status.st_size} bytes instead of {published.bytes}"
            continue
        entry = [status.st_size, status.st_mtime_ns, published.sha256]
        if hashed.get(name) == entry:
            continue
        if (digest := sha256_of(folder / name)) != published.sha256:
            wrong[name] = f"has the sha256 {digest} instead of {published.sha256}"
        else:
            hashed[name] = entry
            _write_hashed(folder / VERIFIED, hashed)
    return wrong


def _downloader(wanted: Repository, where: Mapping[str, Any]) -> Callable[..., Path]:
    """``download(names, **options)``, which is ``snapshot_download`` with its errors in one sentence."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise CheckpointError(
            f"{wanted.name} is a name, not a directory, and downloading it needs huggingface_hub: "
            "pip install 'qwen3tts-np[hub]'"
        ) from None

    def download(names: list[str], **options: Any) -> Path:
        try:
            found = snapshot_download(wanted.name, revision=wanted.revision, allow_patterns=names, **where, **options)
            return Path(found)
        except Exception as e:  # of huggingface_hub, of whichever HTTP library it uses, of the disk
            if options.get("local_files_only"):
                raise MissingFileError(f"{wanted.name} is not on this machine, and the network may not be used") from e
            raise CheckpointError(f"{wanted.name} cannot be downloaded: {first_reason(e)}") from e

    return download


def first_reason(error: BaseException) -> str:
    """The first line of the error that began it: those that it caused say that there was one before them."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def _read_hashed(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write_hashed(path: Path, hashed: Mapping[str, Any]) -> None:
    """Remember ``hashed``, where the cache may be written; where not, the files are hashed at every start."""
    with suppress(OutputError):
        write_text(path, json.dumps(hashed))
