"""Errors of what was heard against what was to be said: words and characters, counted by ``jiwer``."""

from __future__ import annotations

from dataclasses import dataclass

from ..extras import imported
from .normalise import BY_CHARACTERS, normalised
from .wheels import INSTALL

PURPOSE = "the word error rate"


@dataclass(frozen=True)
class Errors:
    """Substituted, left out and added units, of so many that were to be said."""

    count: int
    of: int

    @property
    def rate(self) -> float:
        """May exceed 1: more can be added than was to be said."""
        return self.count / self.of


@dataclass(frozen=True)
class Heard:
    """One text and what a recogniser heard, both normalised, with the errors of two units."""

    said: str
    heard: str
    words: Errors
    characters: Errors
    by_characters: bool  # whether the official tables count this language in characters

    @property
    def mixed(self) -> Errors:
        """In the unit of the official tables."""
        return self.characters if self.by_characters else self.words


def compare(text: str, heard: str, language: str, how: str) -> Heard | None:
    """Count the errors. None if nothing of ``text`` is left to be said, such as of punctuation alone."""
    jiwer = imported("jiwer", PURPOSE, INSTALL)
    said, heard = normalised(text, language, how), normalised(heard, language, how)
    if not said.strip():
        return None

    def errors(process: object) -> Errors:
        found = process(said, heard)  # type: ignore[operator]
        wrong = found.substitutions + found.deletions + found.insertions
        return Errors(wrong, found.hits + found.substitutions + found.deletions)

    return Heard(said, heard, errors(jiwer.process_words), errors(jiwer.process_characters), language in BY_CHARACTERS)
