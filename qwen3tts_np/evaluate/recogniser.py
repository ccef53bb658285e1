"""Recognisers of speech, behind one function: a sound and its language in, the words that were heard out."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from ..audio.files import write_audio
from ..errors import RequestError
from ..extras import imported
from ..files.output import scratch_folder
from ..ops import Wave
from ..shown import shortened
from ..text.languages import CODES
from .sphinx import Sphinx

RATE = 16000  # Hz, of all recognisers
WHISPER = "faster-whisper"
WHISPER_MODEL = "large-v3"
HOW_WHISPER = "pip install faster-whisper"
PATIENCE = 600  # s, for one run of a command
MOST, STEP = 1 << 20, 0.1  # bytes that it may print, and the seconds after which they are counted
CODE_OF = {name: code for code, name in reversed(CODES.items()) if len(code) == 2}  # english -> en


class Recogniser(Protocol):
    """``name`` is written into reports: an error rate is one of a voice and of a recogniser."""

    name: str

    def hear(self, wave: Wave, language: str) -> str:
        """The words of ``wave`` [samples at 16 kHz] in one of the ten languages."""
        ...


def recogniser(name: str, words: Path | None = None, grammar: Path | None = None) -> Recogniser:
    """``pocketsphinx``, ``faster-whisper`` (or ``faster-whisper:MODEL``), or a command.

    RequestError where it is not installed, or takes no ``words`` or ``grammar``.
    """
    if name == "pocketsphinx":
        return Sphinx(words, grammar)
    if words is not None or grammar is not None:
        raise RequestError(f"--words and --grammar restrict pocketsphinx; the recogniser is {shortened(name)}")
    kind, _, model = name.partition(":")
    return FasterWhisper(model or WHISPER_MODEL) if kind == WHISPER else Command(name)


class FasterWhisper:
    """Whisper on CTranslate2, greedy and without the text of the piece before, which would hide a repetition."""

    def __init__(self, model: str) -> None:
        package = imported("faster_whisper", f"the recogniser {WHISPER}", HOW_WHISPER)
        self.name: str = f"{WHISPER} {model}"
        self._model: Any = package.WhisperModel(model)

    def hear(self, wave: Wave, language: str) -> str:
        options = {"language": CODE_OF[language], "condition_on_previous_text": False}
        segments, _ = self._model.transcribe(wave, **options)
        return " ".join(segment.text.strip() for segment in segments)


class Command:
    """Any program that prints the words of a WAV file (16 kHz, mono, 16-bit).

    ``{audio}`` in the command is replaced by the file, which otherwise follows it; ``{language}`` by a code such as
    ``de``. It is run without a shell.
    """

    def __init__(self, command: str) -> None:
        self.name = command
        self._words = split_command(command, "the recogniser")

    def hear(self, wave: Wave, language: str) -> str:
        with scratch_folder() as folder:
            file = folder / "speech.wav"
            write_audio(file, wave, RATE)
            return " ".join(run_command(self._words, file, language=CODE_OF[language]).split())


def split_command(command: str, what: str) -> list[str]:
    """The words of a command whose program exists. RequestError otherwise."""
    try:
        words = shlex.split(command)
    except ValueError as e:
        raise RequestError(f"{what} {shortened(command)} is no command: {e}") from None
    if not words or shutil.which(words[0]) is None:
        known = f"pocketsphinx, {WHISPER}, or a command" if what == "the recogniser" else "a command"
        program = shortened(words[0] if words else command)
        raise RequestError(f"{what} must be {known}, and there is no program {program}")
    return words


def run_command(words: Sequence[str], audio: Path, **values: str) -> str:
    """What a command prints for a file. RequestError with its last line on standard error if it fails."""
    values = {"audio": str(audio), **values}
    given = words if any("{audio}" in word for word in words) else [*words, "{audio}"]
    filled = []
    for word in given:
        for name, value in values.items():
            word = word.replace(f"{{{name}}}", value)
        filled.append(word)
    try:
        process = subprocess.Popen(filled, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except OSError as e:
        raise RequestError(f"{words[0]} cannot be run: {e.strerror or e}") from None
    with process:
        try:
            out, err = _outcome(process, words[0])
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        said = err.strip().splitlines()
        raise RequestError(
            f"{words[0]} failed with status {process.returncode}: {said[-1] if said else 'it said nothing'}"
        )
    return out


def _outcome(process: subprocess.Popen[bytes], name: str) -> tuple[str, str]:
    """What a command prints on both of its streams. RequestError where it prints or runs without end."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            out, err = process.communicate(timeout=STEP)
            return out.decode(errors="replace"), err.decode(errors="replace")
        except subprocess.TimeoutExpired as e:  # it has what was printed so far, and the next call goes on
            if max(len(e.output or b""), len(e.stderr or b"")) > MOST:
                raise RequestError(f"{name} prints more than {MOST} bytes") from None
            if time.monotonic() >= until:
                raise RequestError(f"{name} has not ended within {PATIENCE} s") from None
