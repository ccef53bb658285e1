"""The recogniser that runs anywhere: pocketsphinx, whose wheel brings a model of US English.

With open vocabulary it mishears a third of clear speech, so absolute error rates are no quality of a voice; differences
between two runs on the same texts are. Where the texts have few words, ``words`` (a list) or ``grammar`` make it a good
listener: a grammar is a JSGF file (.jsgf, .gram), or a language model (.arpa, .lm, .bin).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import RequestError
from ..extras import imported
from ..files.input import read_text
from ..files.name import shown_name
from ..files.output import scratch_folder
from ..ops import Wave
from ..shown import shortened
from .wheels import INSTALL

RATE = 16000  # Hz
LANGUAGE = "english"
PURPOSE = "the recogniser pocketsphinx"
FLOOR = 3e-4  # of noise: the acoustic model was not trained on digital silence
AROUND = 0.2  # s of silence before and after
LEVEL = 32000  # of 16-bit samples, at full scale
GRAMMARS = {".jsgf": "jsgf", ".gram": "jsgf", ".arpa": "lm", ".lm": "lm", ".bin": "lm"}
WEIGHT = 6.5  # of the language model against the acoustic one
MOST_WORDS = 1 << 24  # bytes of a list


class Sphinx:
    """Pocketsphinx; ``words`` and ``grammar`` are files."""

    name: str = "pocketsphinx"

    def __init__(self, words: Path | None = None, grammar: Path | None = None) -> None:
        self._decoder = _decoder(words, grammar)
        if words is not None or grammar is not None:
            self.name = f"pocketsphinx, restricted by {' and '.join(p.name for p in (words, grammar) if p is not None)}"

    def hear(self, wave: Wave, language: str) -> str:
        """The words of ``wave`` [samples at 16 kHz]. RequestError for another language."""
        if language != LANGUAGE:
            how = "take --recogniser faster-whisper, or a command"
            raise RequestError(f"pocketsphinx hears English, and this text is {language}: {how}")
        self._decoder.reinit_feat()  # what it has learned of the noise of other clips, it forgets
        self._decoder.start_utt()
        self._decoder.process_raw(prepared(wave), full_utt=True)
        self._decoder.end_utt()
        found = self._decoder.hyp()
        return "" if found is None else str(found.hypstr)


def prepared(wave: Wave) -> bytes:
    """``wave`` [samples] as 16-bit samples, between silences, over quiet noise that is the same every time."""
    quiet = np.zeros(round(AROUND * RATE), np.float32)
    padded = np.concatenate([quiet, wave, quiet])
    noisy = padded + FLOOR * np.random.default_rng(0).standard_normal(len(padded))
    return (np.clip(noisy, -1, 1) * LEVEL).astype("<i2").tobytes()


def _decoder(words: Path | None, grammar: Path | None) -> Any:
    package = imported("pocketsphinx", PURPOSE, INSTALL)
    model = Path(package.get_model_path()) / "en-us"
    options: dict[str, Any] = {"hmm": str(model / "en-us"), "samprate": RATE, "loglevel": "FATAL", "lw": WEIGHT}
    dictionary = model / "cmudict-en-us.dict"
    if grammar is not None:
        if grammar.suffix.lower() not in GRAMMARS:
            raise RequestError(f"--grammar {shown_name(grammar)}: a grammar is one of {', '.join(GRAMMARS)}")
        read_text(grammar) if grammar.suffix.lower() != ".bin" else None
        options[GRAMMARS[grammar.suffix.lower()]] = str(grammar)
    elif words is None:
        options["lm"] = str(model / "en-us.lm.bin")
    with scratch_folder() as folder:  # the decoder reads its files at once
        if words is not None:
            known = vocabulary(words)
            options["dict"] = str(folder / "words.dict")
            (folder / "words.dict").write_text(pronunciations(known, dictionary), encoding="utf-8")
            if grammar is None:
                options["lm"] = str(folder / "words.arpa")
                (folder / "words.arpa").write_text(any_of(known), encoding="utf-8")
        else:
            options["dict"] = str(dictionary)
        try:
            return package.Decoder(**options)
        except RuntimeError:  # its sentence says only that it failed
            name = shown_name(grammar) if grammar is not None else "its own model"
            raise RequestError(
                f"pocketsphinx cannot use {name}: not of its format, or with words it cannot pronounce"
            ) from None


def vocabulary(path: Path) -> list[str]:
    """The words of a list, in lower case, each once. RequestError if there are none."""
    words = list(dict.fromkeys(read_text(path, MOST_WORDS).lower().split()))
    if not words:
        raise RequestError(f"--words {shown_name(path)} is empty")
    return words


def any_of(words: list[str]) -> str:
    """A language model, as an ARPA file, in which every word is as likely as any other after any other.

    Trap: a JSGF grammar that repeats a choice has no weight against the acoustic model, and adds short words.
    """
    share = -math.log10(len(words) + 1)
    entries = [(-99.0, "<s>"), *((share, word) for word in ["</s>", *words])]
    lines = [f"{value:.4f} {word}" for value, word in entries]
    return "\n".join(["\\data\\", f"ngram 1={len(lines)}", "", "\\1-grams:", *lines, "", "\\end\\", ""])


def pronunciations(words: list[str], dictionary: Path) -> str:
    """The lines of a dictionary for these words. RequestError names a word that it does not have."""
    lines = [(_word(line), line) for line in dictionary.read_text(encoding="utf-8").splitlines()]
    kept = [(word, line) for word, line in lines if word in set(words)]
    if missing := set(words) - {word for word, _ in kept}:
        raise RequestError(f"pocketsphinx cannot pronounce {shortened(min(missing))}, which --words has")
    return "\n".join(line for _, line in kept) + "\n"


def _word(line: str) -> str:
    """Of a line of a dictionary: "read R EH D", "read(2) R IY D"."""
    return line.split()[0].partition("(")[0]
