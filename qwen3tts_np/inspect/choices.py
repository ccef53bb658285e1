"""Entropy and best candidates of each code, from the logits that a trace stored on disk."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoint.safetensors import Checkpoint
from ..ops import Ints, softmax
from ..talker.loss import end_probability

KEEP = ("talker.codec_head", "talker.code_predictor.lm_head.*")  # patterns of the activations needed
CHOSEN = ("frame", "codebook", "entropy_bits", "code", "probability", "rank")
COLUMNS = (*CHOSEN, "best_codes", "best_probabilities", "end_of_speech")


@dataclass(frozen=True)
class Choice:
    """One code of one frame. Probabilities are the softmax of the raw logits, before any sampling rule."""

    frame: int
    codebook: int
    entropy: float  # bits
    code: int | None  # None: where speech ended
    probability: float | None
    rank: int | None  # 0 is the best
    best: list[int]
    best_probabilities: list[float]
    end: float | None  # P(end of speech), of code 0


def choices(arrays: Checkpoint, codes: Ints, top: int, end: int) -> Iterator[Choice]:
    """The choices frame by frame, code by code. codes [frames, G]; the talker makes one choice more than frames.

    ``end``: the id that ends speech.
    """
    for frame in range(len(codes) + 1):
        for codebook in range(codes.shape[1]):
            name = f"talker.code_predictor.lm_head.{codebook - 1}" if codebook else "talker.codec_head"
            if f"{name}@{frame}" in arrays:
                code = int(codes[frame, codebook]) if frame < len(codes) else None
                logits = arrays[f"{name}@{frame}"].data.reshape(-1).astype(np.float64)
                ending = None if codebook else float(end_probability(logits, end))
                yield _choice(frame, codebook, logits, code, top, ending)


def _choice(
    frame: int, codebook: int, logits: NDArray[np.float64], code: int | None, top: int, end: float | None
) -> Choice:
    p = softmax(logits)
    best = np.argsort(-p, kind="stable")[:top]
    known = code is not None
    return Choice(
        frame,
        codebook,
        entropy_bits(p),
        code,
        float(p[code]) if known else None,
        int((p > p[code]).sum()) if known else None,
        best.tolist(),
        p[best].tolist(),
        end,
    )


def entropy_bits(p: NDArray[Any]) -> float:
    """Entropy of a distribution, or of counts, in bits."""
    positive = p[p > 0] / p.sum()
    return float(-(positive * np.log2(positive)).sum()) + 0.0


def write_choices(
    path: Path, found: Iterator[Choice], shape: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Write them as a table, one line per code.

    Returns the entropies [frames + 1, G], NaN where nothing was chosen, and P(end of speech) [frames + 1].
    """
    entropies, ends = np.full(shape, np.nan, np.float32), np.full(shape[0], np.nan)
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for c in found:
            entropies[c.frame, c.codebook] = c.entropy
            if c.end is not None:
                ends[c.frame] = c.end
            best = " ".join(map(str, c.best)), " ".join(f"{p:.4f}" for p in c.best_probabilities)
            probability = "" if c.probability is None else f"{c.probability:.6f}"
            end = "" if c.end is None else f"{c.end:.6g}"
            rows.writerow([c.frame, c.codebook, f"{c.entropy:.4f}", c.code, probability, c.rank, *best, end])
    return entropies, ends


def histogram(codes: Ints, entries: int) -> Ints:
    """How often each entry of each codebook occurs: codes [frames, G] -> [G, entries]."""
    return np.stack([np.bincount(column, minlength=entries) for column in codes.T])
