"""How rows are spoken: what a row says, over what the run says for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..audio.files import check_encoding
from ..audio.loudness import check_loudness
from ..audio.tempo import check_tempo
from ..manifest import Row
from ..speech.script import Cast, Script, read_script
from ..talker.generator import check_seed
from ..text.lexicon import Lexicon

CLONED = ("voice", "ref_audio", "ref_text")  # a row that names one of them has all of them from the row
OTHERS = ("language", "speaker", "instruct")


@dataclass(frozen=True)
class Settings:
    """What holds for every row that does not say otherwise. Values are those of a row."""

    audio_format: str = "wav"  # the suffix of the audio files
    seed: int = 0  # takes part in the seeds of rows that are given none
    language: str | None = None
    speaker: str | None = None
    instruct: str | None = None
    voice: str | None = None
    ref_audio: str | None = None
    ref_text: str | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    markup: bool = False  # whether marks in texts are read; a cast and a lexicon as in ``speech/script.py``
    cast: Cast | None = None
    lexicon: Lexicon | None = None
    tempo: float = 1.0
    loudness: float | None = None  # LUFS
    runaway_guard: bool = True

    def __post_init__(self) -> None:
        check_seed(self.seed)
        check_tempo(self.tempo)
        if self.loudness is not None:
            check_loudness(self.loudness)

    def check(self, rate: int) -> None:
        """RequestError where speech at ``rate`` Hz cannot be written in the audio format."""
        check_encoding(Path(f"*.{self.audio_format}"), rate)

    def file_of(self, row: Row) -> str:
        """The name of a row's audio file."""
        return f"{row.name}.{self.audio_format}"

    def voice_of(self, row: Row) -> dict[str, str]:
        """What names the voice of a row: the fields that are given."""
        source = row if any(getattr(row, name) is not None for name in CLONED) else self
        found = {name: getattr(source, name) for name in CLONED}
        found |= {name: self._of(row, name) for name in OTHERS if name != "language"}
        return {name: value for name, value in found.items() if value is not None}

    def script_of(self, text: str) -> Script:
        """A text as it is to be spoken. RequestError where it cannot be read."""
        return read_script(text, self.markup, self.cast, self.lexicon)

    def language_of(self, row: Row) -> str:
        """The language of a row."""
        return self._of(row, "language") or "auto"

    def sampling_of(self, row: Row) -> dict[str, Any]:
        """The sampling arguments of a row."""
        return {**self.sampling, **row.sampling}

    def _of(self, row: Row, name: str) -> str | None:
        """A field of the row, or where it has none that of the run."""
        own: str | None = getattr(row, name)
        default: str | None = getattr(self, name)
        return default if own is None else own
