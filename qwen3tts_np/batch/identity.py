"""What a row's id decides: the names of its files, its seed, its shard. The ids of a manifest are checked before work.

printf SEED/ID | sha256sum     the first 8 hex digits: the seed of the row that is given none; SEED is --seed, or 0
printf ID | sha256sum          the first 8 hex digits, modulo n, plus 1: its shard of n
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from array import array
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import RequestError
from ..files.name import fault_of_name, shown_name
from ..manifest import BadRow, Manifest, Row
from ..shown import shortened
from ..text.pace import milliseconds

LONGEST = 180  # bytes of an id in UTF-8: its files are longer by their suffixes
NAMED = 5  # ids that a refusal names
# What no file name has on one system or another, so that a folder can be copied to any.
FORBIDDEN = re.compile(r'[/\\:*?"<>|\x00-\x1f\x7f]')
DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


@dataclass(frozen=True)
class Shard:
    """A part of a manifest, ``number`` of ``count``, from 1."""

    number: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise RequestError(f"shard {self.number}/{self.count}: the shards of {self.count} are 1 to {self.count}")

    def __str__(self) -> str:
        return f"{self.number}-of-{self.count}"

    def has(self, row: Row | BadRow) -> bool:
        """Whether the row belongs to the shard."""
        return self.has_name(row.name if isinstance(row, Row) else row.id or "")

    def has_name(self, name: str) -> bool:
        """Whether the row of this id belongs to the shard."""
        return number_of(name) % self.count + 1 == self.number


@dataclass(frozen=True)
class Extent:
    """How much of a manifest there is to do."""

    rows: int  # of the shard, those that cannot be read included
    milliseconds: int  # of speech, estimated from the texts


def number_of(text: str) -> int:
    """The first 32 bits of the SHA-256 of ``text``."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)


def seed_of(row: Row, seed: int) -> int:
    """The row's own seed, or the one that its id has in a run with this ``seed``."""
    return number_of(f"{seed}/{row.name}") if row.seed is None else row.seed


def shard_of_environment(environment: Mapping[str, str] = os.environ) -> Shard | None:
    """The shard of this task of a Slurm job array; None outside of one. RequestError for what is no such array."""
    names = [f"SLURM_ARRAY_TASK_{name}" for name in ("ID", "COUNT", "MIN", "STEP")]
    if not {*names[:2]} <= environment.keys():
        return None
    try:
        task, count, least, step = (int(environment.get(name, 1)) for name in names)
        if step < 1:
            raise ValueError
    except ValueError:
        found = ", ".join(f"{name}={environment[name]}" for name in names if name in environment)
        raise RequestError(f"{found}: a Slurm job array has whole numbers; give --shard") from None
    if "SLURM_ARRAY_TASK_MIN" not in environment:
        least = min(task, 1)  # an array begins with 0 or with 1
    return Shard((task - least) // step + 1, count)


def fault_of_id(name: str) -> str | None:
    """Why a row's id cannot be the name of its files on every system, and on this one, None where it can."""
    if found := FORBIDDEN.search(name):
        return f"it holds {found[0]!r}"
    if not name or name.startswith(".") or name.endswith((".", " ")):
        return "it is empty, begins with a dot, or ends with a dot or a blank"
    if DEVICES.fullmatch(name):
        return "Windows has a device of this name"
    if any("\ud800" <= character <= "\udfff" for character in name):
        return "it holds half a surrogate pair"
    if len(name.encode()) > LONGEST:
        return f"it has more than {LONGEST} bytes"
    return fault_of_name(name)


def survey(manifest: Manifest, shard: Shard, watch: Callable[[Row], None] = lambda row: None) -> Extent:
    """How much there is to do. RequestError names ids that cannot be names, and those that are not the only one.

    The manifest is read once, and once more where ids seem equal; 8 bytes of each row are kept. ``watch`` gets every
    row, of other shards too.
    """
    hashes, faults, rows, whole = array("Q"), list[str](), 0, 0
    for row in manifest:
        if isinstance(row, BadRow):
            rows += shard.has(row)
            continue
        if fault := fault_of_id(row.name):
            faults.append(f"line {row.line}: {shortened(row.name)} cannot be the name of a file: {fault}")
            if len(faults) > NAMED:
                break
        hashes.append(_hash_of(row.name))
        watch(row)
        if shard.has(row):
            rows, whole = rows + 1, whole + milliseconds(row.text or "")
    if not faults:
        faults = _equal(manifest, np.frombuffer(hashes, np.uint64) if hashes else np.zeros(0, np.uint64))
    if faults:
        more = "; and more" if len(faults) > NAMED else ""
        raise RequestError(
            f"{shown_name(manifest.path)}: ids have to be names of files: {'; '.join(faults[:NAMED])}{more}"
        )
    return Extent(rows, whole)


def _hash_of(name: str) -> int:
    """64 bits; names that are one on some file system are equal: in another case, or composed differently."""
    return int.from_bytes(hashlib.sha256(folded(name).encode()).digest()[:8], "little")


def folded(name: str) -> str:
    """The same for names that are one on some file system."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _equal(manifest: Manifest, hashes: np.ndarray[tuple[int], np.dtype[np.uint64]]) -> list[str]:
    """Sentences about rows with the same id."""
    ordered = np.sort(hashes)
    suspected = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
    seen: dict[str, int] = {}  # line
    faults: list[str] = []
    for row in readable(manifest) if suspected else ():
        if _hash_of(row.name) in suspected:
            first = seen.setdefault(folded(row.name), row.line)
            if first != row.line:
                faults.append(f"lines {first} and {row.line} both have {shortened(row.name)}")
            if len(faults) > NAMED:
                break
    return faults


def readable(manifest: Manifest) -> Iterable[Row]:
    """The rows that can be read."""
    return (row for row in manifest if isinstance(row, Row))
