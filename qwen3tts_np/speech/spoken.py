"""A spoken piece: its words, times and seed, and the warning about one that did not stop."""

from __future__ import annotations

from dataclasses import dataclass

from ..notices import notify


@dataclass(frozen=True)
class Spoken:
    """A piece of the finished speech."""

    text: str
    start: float  # seconds
    end: float
    frames: int
    seed: int  # of the attempt that is heard
    attempts: int
    complete: bool  # False: it did not stop by itself and was cut


def warn_of_runaway(piece: Spoken, cut: bool) -> None:
    """Say that a piece did not stop: whether it was ``cut``, or spoken again with another seed."""
    attempts = f" in {piece.attempts} attempts" if piece.attempts > 1 else ""
    where = f", {piece.start:.1f} s from the beginning" if piece.start else ""
    if cut:
        outcome = f"did not stop{attempts}; it was cut after {piece.end - piece.start:.1f} s{where}"
    else:
        outcome = f"did not stop and was spoken again{where}; attempt {piece.attempts} is heard, with seed {piece.seed}"
    notify(f"{shown(piece.text)} {outcome}")


def shown(text: str) -> str:
    """``text`` in quotes, as messages name a piece."""
    return repr(text if len(text) <= 50 else f"{text[:50]}...")
