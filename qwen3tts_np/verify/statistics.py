"""Checks that the values of a checkpoint are plausible weights: no non-finite, blank, constant or out-of-scale values.

After a lost block of a download, a flipped bit on disk or an overflow in a conversion, the key table is still right and
the model loads, but it produces noise. The limits are far outside anything that training produces, so a finding is
damage.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ..checkpoint.tensor import StoredTensor
from ..config import ModelConfig
from ..layout.description import CODEC_BLOCKS, MODEL_BLOCKS
from ..ops import Array

LARGEST = 1e4  # of a weight
LARGEST_SUM = 1e9  # of the sums that codebooks accumulate in training
SMALLEST_RMS = 1e-8
OUTLIER = 1000  # times the RMS of the other values of its matrix
BLANK_RUN = 8  # consecutive rows of zeros, in a matrix that is multiplied
CHUNK = 1 << 22  # values processed at a time
COUNTED = (".cluster_usage", ".embedding_sum", ".embed_sum")
CONSTANT = (".initialized",)  # a flag


@dataclass(frozen=True)
class RowStatistics:
    """Statistics of every row of a tensor (a vector has one row), float64 [rows]."""

    lowest: Array
    highest: Array
    square: Array  # sum of squares
    length: int

    @property
    def rms(self) -> float:
        return float(np.sqrt(self.square.sum() / max(self.square.size * self.length, 1)))

    @property
    def peak(self) -> float:
        """The largest magnitude; NaN if there is a NaN."""
        return float(np.maximum(np.abs(self.lowest), np.abs(self.highest)).max())


@dataclass(frozen=True)
class BlockSummary:
    """Summary of a block's tensors: the range of their RMS values, the largest value, rows of zeros only."""

    block: str
    tensors: int
    smallest_rms: float
    largest_rms: float
    peak: float
    blank_rows: int


def row_statistics(stored: StoredTensor) -> RowStatistics:
    """Read the tensor once, in chunks of rows."""
    rows = stored.shape[0] if len(stored.shape) > 1 else 1
    length = stored.size // rows
    parts = []
    step = max(CHUNK // length, 1)
    for start in range(0, rows, step):
        part = np.arange(start, min(start + step, rows))
        values = stored.rows(part, np.dtype(np.float32)) if rows > 1 else stored.widen(np.dtype(np.float32))
        x = values.reshape(len(part), length)
        with np.errstate(over="ignore", invalid="ignore"):
            square = np.einsum("ij,ij->i", x, x, dtype=np.float64, casting="unsafe", optimize=False)
        parts.append((x.min(axis=1), x.max(axis=1), square))
    with np.errstate(invalid="ignore"):
        lowest, highest, square = (np.concatenate(p).astype(np.float64) for p in zip(*parts, strict=True))
    return RowStatistics(lowest, highest, square, length)


def problems_of(name: str, s: RowStatistics) -> list[str]:
    """The problems of a tensor, one sentence each; [] if there are none."""
    finite = np.isfinite(s.lowest) & np.isfinite(s.highest)
    if not finite.all():
        first = int(np.argmin(finite))
        return [f"{name}: NaN or infinity in {np.sum(~finite)} of {finite.size} rows, the first in row {first}"]
    if s.peak == 0:
        return [] if name.endswith(".bias") else [f"{name}: all values are 0"]  # a bias may keep its initial value
    return [f"{name}: {what}" for what in _out_of_scale(name, s)]


def _out_of_scale(name: str, s: RowStatistics) -> Iterator[str]:
    size = s.square.size * s.length
    constant = s.lowest.min() == s.highest.max()
    if constant and size > 1 and not name.endswith(CONSTANT):
        yield f"all values are {s.lowest[0]:g}"
    largest = LARGEST_SUM if name.endswith(COUNTED) else LARGEST
    if s.peak > largest:
        yield f"a value of {s.peak:.3g} in row {_row_of_peak(s)}; no weight is beyond {largest:g}"
    elif s.rms < SMALLEST_RMS:
        yield f"RMS {s.rms:.3g}; nothing this small was trained"
    elif s.square.size > 1 and not name.endswith(COUNTED):
        others = math.sqrt(max(float(s.square.sum()) - s.peak**2, 0.0) / (size - 1))
        if s.peak > OUTLIER * others:
            yield f"a value of {s.peak:.3g} in row {_row_of_peak(s)}, where the others have RMS {others:.3g}"
    if name.endswith(".cluster_usage") and s.lowest.min() < 0:
        yield f"a usage of {s.lowest.min():.3g}; a count is not negative"
    if "embed" not in name and (run := _longest_blank(s.square == 0)) >= BLANK_RUN:
        yield f"{run} rows of zeros one after the other"


def _row_of_peak(s: RowStatistics) -> int:
    return int(np.argmax(np.maximum(np.abs(s.lowest), np.abs(s.highest))))


def _longest_blank(blank: Array) -> int:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], blank.astype(np.int8), [0]])))
    return int((edges[1::2] - edges[::2]).max(initial=0))


def row_problems(config: ModelConfig, tables: Mapping[str, RowStatistics]) -> list[str]:
    """Blank rows of the embedding tables that a prompt looks up: languages, speakers, marks."""
    c = config.talker_config
    marks = ("codec_pad_id", "codec_bos_id", "codec_think_id", "codec_nothink_id", "codec_think_bos_id")
    codec = {name: getattr(c, name) for name in marks}
    codec |= {f"language {name}": row for name, row in c.codec_language_id.items()}
    codec |= {f"speaker {name}": row for name, row in c.spk_id.items()}
    text = {name: getattr(config, name) for name in ("tts_pad_token_id", "tts_bos_token_id", "tts_eos_token_id")}
    found = []
    for key, rows in (("talker.model.codec_embedding.weight", codec), ("talker.model.text_embedding.weight", text)):
        square = tables[key].square if key in tables else np.zeros(0)
        blank = {what: row for what, row in rows.items() if row < len(square) and square[row] == 0}
        found += [f"{key}: the row of {what}, {row}, is all zeros" for what, row in blank.items()]
    return found


def summaries(statistics: Mapping[str, RowStatistics]) -> list[BlockSummary]:
    """One line per block, in the order of ``info``."""
    found = []
    for block, prefixes in {**MODEL_BLOCKS, **CODEC_BLOCKS}.items():
        of_block = [s for name, s in statistics.items() if name.startswith(prefixes)]
        if of_block:
            rms = [s.rms for s in of_block]
            blank = sum(int(np.sum(s.square == 0)) for s in of_block)
            found.append(BlockSummary(block, len(of_block), min(rms), max(rms), max(s.peak for s in of_block), blank))
    return found
