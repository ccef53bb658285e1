"""Rows spoken into files: many at a time in a running batch, each with the bytes that it has alone.

Rows wait in a pool, from which the longest is taken: so rows of like length are spoken together, and the last ones are
short. Nothing of a row depends on its company: ``say`` has the same samples for the same request.
"""

from __future__ import annotations

import heapq
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..arguments import whole_number
from ..errors import OutputError, QwenTTSError, RequestError
from ..manifest import FILES, Row, is_path
from ..model import Qwen3TTSModel
from ..notices import heard
from ..request import ClonedVoice
from ..speech.delivery import Delivery
from ..speech.longform import measurable
from ..speech.plan import PlannedPiece, plan
from ..speech.recorder import Booth
from ..speech.script import Script
from ..speech.spoken import Spoken
from ..speech.store import Recording, fingerprint, hash_of
from ..speech.take import KEY_VERSION, Take, takes_of
from ..speech.track import Track, open_track
from ..text.pace import milliseconds
from ..voice.prompt_item import VoiceClonePromptItem
from .folder import Folder
from .identity import seed_of
from .settings import Settings
from .voices import Voices, WantedVoice

BATCH_SIZE = 8
POOL = 32  # rows that wait, for each that is spoken
VERSION = 1  # of what is hashed; another number means rows that are made in another way


class Result(NamedTuple):
    """What became of a row."""

    line: dict[str, Any]  # of results.jsonl
    kept: bool  # whether an earlier run had made it


@dataclass(frozen=True)
class Job:
    """A row that can be spoken."""

    row: Row
    script: Script
    pieces: list[PlannedPiece]
    seed: int
    voice: WantedVoice
    made: str  # a hash of all that makes its bytes


class Speaker:
    """Speaks rows with one model into one folder. Also the class of a Ray Data actor (``ray.py``)."""

    def __init__(
        self,
        model: Qwen3TTSModel | str | os.PathLike[str],
        out: str | os.PathLike[str],
        settings: Settings | None = None,
        batch_size: int = BATCH_SIZE,
        **loading: Any,
    ) -> None:
        """``model``: loaded, or to be loaded, with the arguments ``loading`` of ``from_pretrained``.

        ``batch_size``: how many rows are spoken at once. RequestError for settings that cannot be.
        """
        if not isinstance(model, Qwen3TTSModel):
            model = Qwen3TTSModel.from_pretrained(model, **loading)
        self.model: Qwen3TTSModel = model
        self.settings: Settings = settings or Settings()
        self.folder: Folder = Folder(Path(out))
        self.batch_size: int = whole_number(batch_size, "batch_size")
        self._voices = Voices(self.model)
        self._check()

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the model; it reads all weights once."""
        return fingerprint(self.model)

    def speak(self, rows: Iterable[Row]) -> Iterator[Result]:
        """Speak ``rows``, and yield what became of each, in the order in which they are finished.

        A row that is finished already is not spoken again, and one that cannot be spoken has an ``error`` in its line.
        OutputError where the folder cannot be written; it ends the work.
        """
        self.folder.make()
        session = _Session(self)
        try:
            yield from session.run(iter(rows))
        finally:
            session.close()

    def __call__(self, block: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """:meth:`speak` for Ray Data: from a column ``row`` of rows to a column ``result`` of results, both JSON."""
        rows = [Row(**json.loads(row)) for row in block["row"]]
        results = [json.dumps(result) for result in self.speak(rows)]
        return {"result": np.array(results, dtype=object)}

    def job(self, row: Row) -> Job:
        """The row as it is to be spoken. QwenTTSError where it cannot be, as far as that is known beforehand."""
        if row.text is None:
            raise RequestError("there is no text")
        settings, seed, language = self.settings, seed_of(row, self.settings.seed), self.settings.language_of(row)
        script = settings.script_of(row.text)
        pieces, voice = plan(script, language, tempo=settings.tempo), self._voices.wanted(settings.voice_of(row))
        if settings.loudness is not None:
            measurable(settings.loudness, pieces, settings.tempo)
        cast = {name: script.cast.get(name) for name in script.names}
        how = (
            language,
            settings.sampling_of(row),
            settings.runaway_guard,
            settings.audio_format,
            settings.tempo,
            settings.loudness,
        )
        made = hash_of(VERSION, KEY_VERSION, self.fingerprint, row.name, pieces, voice.key, cast, seed, how)
        return Job(row, script, pieces, seed, voice, made)

    def finished(self, job: Job) -> dict[str, Any] | None:
        """The line of a row whose speech is there, made of what it would be made of now."""
        line = self.folder.line_of(job.row)
        return line if line is not None and line.get("made") == job.made else None

    def takes(self, job: Job) -> tuple[list[Take], list[str]]:
        """The pieces of a row, and the warnings about its voice. QwenTTSError where the model cannot speak it."""
        voice, warnings = self._voices.made(job.voice)
        arguments = {"language": self.settings.language_of(job.row), **self.settings.sampling_of(job.row)}
        guard, tempo = self.settings.runaway_guard, self.settings.tempo
        delivery = Delivery.of_voice(self.model, voice, arguments, guard, tempo)
        return takes_of(job.script, job.pieces, delivery, job.seed), list(warnings)

    def line(self, row: Row, **found: Any) -> dict[str, Any]:
        """A line of results.jsonl: what was found, and what the row says: it is a row of a manifest itself."""
        said = {"text": row.text, "language": self.settings.language_of(row), **self.settings.voice_of(row)}
        for name in FILES:
            if (value := said.get(name)) is not None and is_path(value):
                said[name] = self.folder.relative(value)
        return {"id": row.name, **found, **said, **self.settings.sampling_of(row)}

    def _check(self) -> None:
        """RequestError for settings that the model cannot follow, whatever the rows are."""
        self.settings.check(self.model.speech_tokenizer.get_output_sample_rate())
        row = Row(0, "", text="a")
        voice = self._voices.wanted(self.settings.voice_of(row))
        if self.model.config.tts_model_type == "base" and not self.settings.voice_of(row):  # rows have their own
            x_vector = np.zeros(self.model.config.talker_config.hidden_size, np.float32)
            voice = WantedVoice("", lambda: ClonedVoice(VoiceClonePromptItem(None, x_vector, True, False)))
        with heard():
            self.takes(Job(row, self.settings.script_of("a"), plan("a"), 0, voice, ""))


@dataclass
class _Speaking:
    """A row that is being spoken. Its pieces are written as soon as those before them are."""

    job: Job
    takes: list[Take]
    warnings: list[str]
    begun: int = 0  # takes
    waiting: dict[int, Recording] = field(default_factory=dict)  # finished before those before them
    spoken: list[Spoken] = field(default_factory=list)
    track: Track | None = None
    file: ExitStack = field(default_factory=ExitStack)


class _Session:
    """One call of :meth:`Speaker.speak`."""

    def __init__(self, speaker: Speaker) -> None:
        self._speaker, self._folder = speaker, speaker.folder
        self._booth = Booth(speaker.batch_size)
        self._pool: list[tuple[int, int, Job]] = []  # a heap: the longest first, then the first
        self._begun: dict[int, _Speaking] = {}  # in the order in which they began, by line

    def run(self, rows: Iterator[Row]) -> Iterator[Result]:
        """The results, as they come."""
        more = True
        while more or self._pool or self._begun:
            while more and len(self._pool) < POOL * self._booth.places:
                row = next(rows, None)
                more = row is not None
                if row is not None and (found := self._enter(row)) is not None:
                    yield found
            yield from self._begin()
            if self._begun:
                yield from self._step()

    def close(self) -> None:
        """End all speech; of what is not complete nothing stays."""
        self._booth.close()
        for one in self._begun.values():
            _drop(one)

    def _enter(self, row: Row) -> Result | None:
        """Let a row wait; or its result, if it has one."""
        try:
            job = self._speaker.job(row)
        except QwenTTSError as e:
            return self._failed(row, e)
        if (line := self._speaker.finished(job)) is not None:
            return Result(line, True)
        heapq.heappush(self._pool, (-milliseconds(job.script.text), row.line, job))
        return None

    def _begin(self) -> Iterator[Result]:
        """Give places to the next pieces of rows that have begun, then to rows that wait."""
        while self._booth.free:
            one = next((one for one in self._begun.values() if one.begun < len(one.takes)), None)
            if one is None and not self._pool:
                return
            job = heapq.heappop(self._pool)[-1] if one is None else one.job
            try:
                one = one or self._admit(job)
                with heard() as warnings:
                    self._booth.begin((job.row.line, one.begun), one.takes[one.begun])
            except QwenTTSError as e:
                yield self._failed(job.row, e)
            else:
                one.warnings += warnings
                one.begun += 1

    def _admit(self, job: Job) -> _Speaking:
        """A row that begins."""
        one = self._begun[job.row.line] = _Speaking(job, *self._speaker.takes(job))
        return one

    def _step(self) -> Iterator[Result]:
        """One frame; the results of the rows that it finishes."""
        for (line, number), found in self._booth.step():
            one = self._begun.get(line)
            if one is None:  # another piece could not go on
                continue
            try:
                if isinstance(found, RequestError):
                    raise found
                one.waiting[number] = found
                self._write(one)
                result = self._finish(one) if len(one.spoken) == len(one.takes) else None
            except OutputError:
                raise
            except QwenTTSError as e:
                result = self._failed(one.job.row, e)
            if result is not None:
                yield result

    def _write(self, one: _Speaking) -> None:
        """The pieces that are next."""
        while (number := len(one.spoken)) in one.waiting:
            recording, take = one.waiting.pop(number), one.takes[number]
            if one.track is None:
                self._folder.begin(one.job.row)
                path = self._folder.path / self._speaker.settings.file_of(one.job.row)
                one.track = one.file.enter_context(
                    open_track(path, take.delivery.sample_rate, self._speaker.settings.loudness, sole=True)
                )
            start = one.track.pause(take.piece.pause)
            end = one.track.append(recording.samples)
            with heard() as warnings:
                one.spoken.append(take.report(recording.frames, recording.attempts, start, end))
            one.warnings += warnings

    def _finish(self, one: _Speaking) -> Result:
        """The row is complete under its name."""
        row = one.job.row
        assert one.track is not None
        seconds = one.track.pause(one.takes[-1].piece.after)
        one.file.close()
        del self._begun[row.line]
        line = self._speaker.line(
            row,
            file=self._speaker.settings.file_of(row),
            seconds=seconds,
            frames=sum(piece.frames for piece in one.spoken),
            seed=one.job.seed,
            warnings=list(dict.fromkeys(one.warnings)),
            made=one.job.made,
        )
        self._folder.end(line)
        return Result(line, False)

    def _failed(self, row: Row, error: QwenTTSError) -> Result:
        """The row has no speech."""
        if (one := self._begun.pop(row.line, None)) is not None:
            self._booth.leave(row.line)
            _drop(one)
        line = self._speaker.line(row, error=str(error))
        self._folder.begin(row)
        self._folder.end(line)
        return Result(line, False)


def _drop(one: _Speaking) -> None:
    """Remove what has been written of a row."""
    error = RequestError("it was not finished")
    one.file.__exit__(type(error), error, None)
