"""A source prepared: measured row by row into a journal, then judged and written.

Measuring is what takes time: every thread has a row of its own, and nothing of what they have measured is lost when the
program ends in any way, but for the rows that were in work. Judging needs the others of a row (the median of all rates,
the mean of a speaker), so it comes when all is measured, and reads the journal. In memory there are some hundred bytes
of a row: its key, its place in the journal and the numbers that are compared.
"""

from __future__ import annotations

import math
import os
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from qwen3tts_np_kernels.system import keep_free_memory

from ...arguments import whole_number
from ...errors import OutputError, RequestError
from ...files.journal import Journal
from ...files.name import shown_name
from ...ops import Array, Ints
from ...speech.store import hash_of
from ...text.prompt import language_id
from ..checkpoints import speaker_key
from ..settings import DEFAULT_SPEAKER
from .in_order import in_order
from .measure import DECODED, Measured, measure, reference, round_trip
from .rules import FEWEST_TRIPS, Finding, Range, alone, by_group, least_cosine
from .source import Source, Utterance, identity_of, limited
from .split import is_validation
from .tools import Tools

VERSION = 1  # of what is measured; another number means that it is measured anew
ROUND_TRIPS = 20
TRIP = f"/round trip of {DECODED:g} s"  # behind the key of a row

Progress = Callable[[int, float], None]  # called after every row, with their number and the seconds of speech so far


@dataclass(frozen=True)
class Settings:
    """``validation``: share of the texts. ``round_trips``: as many of the first clips go through the codec."""

    validation: float = 0.05
    speaker: str = DEFAULT_SPEAKER
    max_samples: int | None = None
    round_trips: int = ROUND_TRIPS

    def __post_init__(self) -> None:
        whole_number(self.round_trips, "--round-trips", 0)
        if self.max_samples is not None:
            whole_number(self.max_samples, "--max-samples")
        if not self.speaker.strip():
            raise RequestError("--speaker is empty, expected the name of the voice")
        speaker_key(self.speaker)


@dataclass(frozen=True)
class Prepared:
    """A row that is kept, as it is written."""

    fields: dict[str, Any]
    audio: str | None
    ref_audio: str | None
    frames: Ints
    validation: bool


@dataclass
class Speaker:
    """One voice."""

    name: str
    number: int  # from 0, in the order in which they come
    rows: int = 0
    seconds: float = 0.0
    references: dict[str, None] = field(default_factory=dict)  # keys of those that could be read, in their order
    sum: Array | None = None  # float64 [H], of the embeddings of its references, or of its clips
    embeddings: int = 0

    def add(self, embedding: Array) -> None:
        total = embedding.astype(np.float64)
        self.sum = total if self.sum is None else self.sum + total
        self.embeddings += 1

    @property
    def x_vector(self) -> Array | None:
        """float32 [H]: the mean."""
        return None if self.sum is None else (self.sum / self.embeddings).astype(np.float32)


@dataclass(frozen=True)
class _Task:
    """A row, and what of it is not in the journal yet."""

    row: Utterance
    key: str
    reference: str | None  # the key of its reference
    new: bool
    new_reference: bool


class Preparation:
    """One run. :meth:`measure` all rows, then :meth:`judge` them, then read :meth:`rows`."""

    def __init__(
        self, source: Source, tools: Tools, journal: Journal, settings: Settings, outputs: Iterable[Path] = ()
    ) -> None:
        """``outputs``: files that will be written, and are refused where a row names one as its own."""
        self.source, self.tools, self.journal, self.settings = source, tools, journal, settings
        self._replaced = {_file_of(path): path for path in outputs if path.exists()}
        self.keys: list[str] = []
        self.places: list[str] = []
        self.references: list[str | None] = []  # keys
        self.made, self.made_seconds = 0, 0.0  # rows that this run has measured itself, and their speech
        self.findings: list[Finding] = []
        self.speakers: dict[str, Speaker] = {}
        self.languages: dict[str, int] = {}  # rows of each; "auto" is none
        self.refused: set[int] = set()

    def measure(self, progress: Progress) -> None:
        """Measure what the journal does not have yet."""
        keep_free_memory()  # every clip takes and frees the same large arrays
        seconds, first = 0.0, dict[str, tuple[Utterance, Ints]]()
        for number, (task, (made, embedded)) in enumerate(in_order(self._make, self._tasks(), self.tools.threads), 1):
            measured = self._keep(task, made, embedded)
            if measured.codes is not None and task.row.audio is not None and len(first) < self.settings.round_trips:
                first[f"{task.key}{TRIP}"] = task.row, measured.frames()
            self.keys.append(task.key)
            self.places.append(task.row.where)
            self.references.append(task.reference)
            seconds += measured.seconds
            progress(number, seconds)
        if not self.keys:
            raise RequestError(f"{self.source.name} has no rows")
        self._round_trips({key: clip for key, clip in first.items() if key not in self.journal})

    def judge(self) -> None:
        """Find what is wrong with which row, and the mean of every speaker. RequestError if no row is left."""
        count = len(self.keys)
        self.rates, self.trips, self.seconds, self.noises = (np.full(count, np.nan) for _ in range(4))
        self._alone()
        if len(self.refused) == count:
            raise RequestError(
                f"{self.source.name}: none of its {count} rows can be used; the first: {self.findings[0].sentence()}"
            )
        self._together()
        self.findings.sort(key=lambda finding: self._order[finding.where])

    def rows(self) -> Iterator[Prepared]:
        """The rows that are kept, in their order."""
        for _, entry in self._kept():
            fields, measured = entry["row"], Measured(**entry["measured"])
            fields = {**fields, "speaker": self._speaker(fields).name}
            if self._language(fields) is None:
                fields.pop("language", None)
            validation = is_validation(fields["text"], self.settings.validation)
            yield Prepared(fields, entry["audio"], entry["ref_audio"], measured.frames(), validation)

    # --- measuring ----------------------------------------------------------------------------------------------------

    def _key(self, *parts: Any) -> str:
        return hash_of(VERSION, self.tools.fingerprint, *parts)[:32]

    def _tasks(self) -> Iterator[_Task]:
        """Of every row, in order. What a row in work makes already is not asked for again."""
        asked: deque[str] = deque(maxlen=4 * self.tools.threads)  # two keys of each row that is not in the journal yet

        def new(key: str | None) -> bool:
            if key is None or key in self.journal or key in asked:
                return False
            asked.append(key)
            self.tools.pack()
            return True

        for row in limited(self.source, self.settings.max_samples):
            self._check_apart(row)
            key = self._key("row", row.identity(), row.fault)
            heard = row.ref_audio if self.tools.voices is not None else None
            reference = None if heard is None else self._key("reference", identity_of(heard))
            yield _Task(row, key, reference, new(key), new(reference))

    def _check_apart(self, row: Utterance) -> None:
        """OutputError for a row whose clip or codes are in a file that will be replaced."""
        for value in (row.audio, row.ref_audio, row.audio_codes) if self._replaced else ():
            if isinstance(value, str) and (found := _file_of(value)) in self._replaced:
                replaced = shown_name(self._replaced[found])
                raise OutputError(f"{replaced} would overwrite what {row.where} reads; name another OUT")

    def _make(self, task: _Task) -> tuple[Measured | None, Measured | None]:
        """What is measured of a row and of its reference, where they are new. Many threads are here at once."""
        row, made, embedded = task.row, None, None
        if task.new:
            made = measure(row, self.tools) if row.fault is None else Measured(row.fault, "unreadable")
        if task.new_reference:
            assert row.ref_audio is not None
            embedded = reference(row.ref_audio, self.tools)
        return made, embedded

    def _keep(self, task: _Task, made: Measured | None, embedded: Measured | None) -> Measured:
        """Write what is new into the journal; returns what has been measured of the row, now or before."""
        row = task.row
        if made is not None:
            audio = None if isinstance(row.audio, bytes) else row.audio
            entry = {"row": row.fields, "audio": audio, "ref_audio": row.ref_audio, "measured": made.as_json()}
            self.journal.add(task.key, entry)
            self.made += 1
            self.made_seconds += made.seconds
        if embedded is not None:
            assert task.reference is not None
            self.journal.add(task.reference, {"audio": row.ref_audio, "measured": embedded.as_json()})
        return Measured(**self.journal[task.key]["measured"]) if made is None else made

    def _round_trips(self, clips: dict[str, tuple[Utterance, Ints]]) -> None:
        """Decode the codes of these clips, and note how far that is from what was encoded."""

        def distance(key: str) -> float | None:
            return round_trip(*clips[key], self.tools)

        if clips:
            self.tools.pack(decoder=True)
        for key, found in in_order(distance, clips, self.tools.threads):
            self.journal.add(key, {"distance": found})

    # --- judging ------------------------------------------------------------------------------------------------------

    def _alone(self) -> None:
        """What needs no median; numbers for those that do."""
        self._order = {where: i for i, where in enumerate(self.places)}
        self._number: dict[str, int] = {}  # of a language
        self._groups, self._voices = array("q", bytes(8 * len(self.keys))), array("q", bytes(8 * len(self.keys)))
        seen: dict[bytes, str] = {}  # a hash of the codes -> the first row that has them
        for i, (key, where) in enumerate(zip(self.keys, self.places, strict=True)):
            entry = self.journal[key]
            fields, measured = entry["row"], Measured(**entry["measured"])
            found = alone(where, measured, fields.get("text"), fields.get("speaker"))
            if not any(finding.refuses for finding in found):
                codes = bytes.fromhex(hash_of(measured.frames()))[:16]
                if (first := seen.setdefault(codes, where)) != where:
                    found = [Finding(where, "equal codes", f"has the codes of {first}")]
            if any(finding.refuses for finding in found):
                self.refused.add(i)
            else:
                found += self._numbers(i, where, fields, measured)
            self.findings += found

    def _numbers(self, i: int, where: str, fields: dict[str, Any], measured: Measured) -> Iterator[Finding]:
        """Take what is compared with other rows; yields what is wrong with the row's language and reference."""
        speaker, language = self._speaker(fields), self._language(fields)
        if language is None:
            yield Finding(where, "language", f"has the language {fields['language']!r}")
        name = language or "auto"
        self.languages[name] = self.languages.get(name, 0) + 1
        self._groups[i] = self._number.setdefault(name, len(self._number))
        self._voices[i] = speaker.number
        speaker.rows += 1
        speaker.seconds += measured.seconds
        self.seconds[i] = measured.seconds
        self.rates[i] = len(measured.frames()) / max(1, self.tools.text_tokens(fields["text"]))
        self.noises[i] = math.nan if measured.noise is None else measured.noise
        if (trip := f"{self.keys[i]}{TRIP}") in self.journal:
            self.trips[i] = self.journal[trip]["distance"]
        if (key := self.references[i]) is not None and key not in speaker.references:
            embedded = Measured(**self.journal[key]["measured"])
            if embedded.fault is not None:
                yield Finding(where, "reference", f"has a reference that cannot be used: {embedded.fault}")
            else:
                speaker.references[key] = None

    def _together(self) -> None:
        speakers, kept = list(self.speakers.values()), np.ones(len(self.keys), bool)
        kept[[*self.refused]] = False
        self._means(speakers)
        rates = by_group(self.rates, np.array(self._groups), len(self.languages), kept)
        ranges, trips = [Range.of(values) for values in rates], Range.of(self.trips, FEWEST_TRIPS)
        self.cosines = np.full(len(self.keys), np.nan)
        vectors = [speaker.x_vector for speaker in speakers]
        for i, entry in self._kept():
            mean, own = vectors[self._voices[i]], Measured(**entry["measured"]).x_vector()
            if mean is not None and own is not None:
                self.cosines[i] = _cosine(mean, own)
        least = [least_cosine(v) for v in by_group(self.cosines, np.array(self._voices), len(speakers), kept)]
        for i, where in enumerate(self.places):
            if i in self.refused:
                continue
            if (usual := ranges[self._groups[i]]) is not None and self.rates[i] not in usual:
                told = f"has {self.rates[i]:.2f} frames per text token, where the median is {usual.median:.2f}"
                self.findings.append(Finding(where, "rate", told))
            if (bound := least[self._voices[i]]) is not None and self.cosines[i] < bound:
                name = speakers[self._voices[i]].name
                told = f"sounds like another voice: its cosine to {name} is {self.cosines[i]:.2f}, below {bound:.2f}"
                self.findings.append(Finding(where, "voice", told))
            if trips is not None and self.trips[i] > trips.high:
                told = f"loses {self.trips[i]:.1f} dB in the codec, where the median is {trips.median:.1f} dB"
                self.findings.append(Finding(where, "round trip", told))

    def _means(self, speakers: list[Speaker]) -> None:
        """The mean over a speaker's references, or, where it has none, over its clips."""
        for speaker in speakers:
            for key in speaker.references:
                self._add(speaker, Measured(**self.journal[key]["measured"]))
        for i, entry in self._kept():
            speaker = speakers[self._voices[i]]
            if not speaker.references:
                self._add(speaker, Measured(**entry["measured"]))

    def _add(self, speaker: Speaker, measured: Measured) -> None:
        if (vector := measured.x_vector()) is not None:
            speaker.add(vector)

    def _kept(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for i, key in enumerate(self.keys):
            if i not in self.refused:
                yield i, self.journal[key]

    def _speaker(self, fields: dict[str, Any]) -> Speaker:
        name = speaker_key(fields.get("speaker") or self.settings.speaker)
        return self.speakers.setdefault(name, Speaker(name, len(self.speakers)))

    def _language(self, fields: dict[str, Any]) -> str | None:
        """The row's language; None for one that the model does not have."""
        language = fields.get("language") or "auto"
        try:
            language_id(self.tools.config.talker_config, language, None)
        except RequestError:
            return None
        return language


def _file_of(name: str | Path) -> tuple[int, int] | None:
    """What tells a file from all others, whatever its name; None where there is none."""
    try:
        found = os.stat(name)
    except (OSError, ValueError):  # of what cannot be the name of a file too
        return None
    return found.st_dev, found.st_ino


def _cosine(a: Array, b: Array) -> float:
    norm = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    return float(a @ b) / norm if norm else math.nan
