"""What preparation writes: rows, x-vectors and the summary. OUT.jsonl comes last, so it is there once all is."""

from __future__ import annotations

import json
import os
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from ...checkpoint.keys import TensorSpec
from ...checkpoint.writer import write_safetensors
from ...files.output import output_file, remove_file, write_text
from ...manifest import is_path
from ...report.values import finite
from .names import Names
from .prepare import Preparation, Prepared
from .report import page_of
from .rules import RULES

FORMAT = "qwen3tts-np prepared 1"
X_VECTORS = "qwen3tts-np x-vectors 1"


def write(done: Preparation, names: Names) -> dict[str, Any]:
    """Write all of it, and return the summary."""
    totals = {name: {"rows": 0, "frames": 0} for name in ("train", "validation")}
    with ExitStack() as open_files:
        train = open_files.enter_context(output_file(names.train))
        held = None
        for row in done.rows():
            if row.validation and held is None:
                held = open_files.enter_context(output_file(names.validation))
            file = held if row.validation and held is not None else train
            file.write(f"{json.dumps(_line(row, names.train.parent), ensure_ascii=False)}\n".encode())
            total = totals["validation" if row.validation else "train"]
            total["rows"] += 1
            total["frames"] += len(row.frames)
        if held is None:
            remove_file(names.validation)  # of another split
        _write_x_vectors(done, names.x_vectors)
        summary = _summary(done, totals)
        write_text(names.report, page_of(done, summary))
        write_text(names.summary, f"{json.dumps(summary, indent=1, ensure_ascii=False)}\n")
    return summary


def _line(row: Prepared, folder: Path) -> dict[str, Any]:
    files = {"audio": row.audio, "ref_audio": row.ref_audio}
    named = {name: _relative(value, folder) for name, value in files.items() if value is not None}
    return {**row.fields, **named, "audio_codes": row.frames.tolist()}


def _relative(file: str, folder: Path) -> str:
    if not is_path(file):
        return file
    try:
        return Path(os.path.relpath(file, folder)).as_posix()
    except ValueError:  # on another drive
        return os.path.abspath(file)


def _write_x_vectors(done: Preparation, path: Path) -> None:
    vectors = {name: vector for name, s in done.speakers.items() if (vector := s.x_vector) is not None}
    if not vectors:
        remove_file(path)
        return
    specs = [TensorSpec(name, vector.shape, "H", "F32") for name, vector in vectors.items()]
    write_safetensors(path, specs, lambda spec: [vectors[spec.key].astype("<f4")], {"format": X_VECTORS})


def _summary(done: Preparation, totals: dict[str, dict[str, int]]) -> dict[str, Any]:
    """Nothing of the run itself is in it, so a resumed one writes the same."""
    rate = done.tools.codec.get_output_sample_rate() / done.tools.codec.get_decode_upsample_rate()  # frames/s
    parts = {name: {**total, "hours": round(total["frames"] / rate / 3600, 4)} for name, total in totals.items()}
    rules = Counter(finding.rule for finding in done.findings)
    trips = done.trips[np.isfinite(done.trips)]
    return finite(
        {
            "format": FORMAT,
            "source": done.source.name,
            "rows": len(done.keys),
            "refused": len(done.refused),
            "warned": len({finding.where for finding in done.findings if not finding.refuses}),
            **parts,
            "speakers": {
                name: {
                    "rows": s.rows,
                    "hours": round(s.seconds / 3600, 4),
                    "references": len(s.references),
                    "x_vector": s.x_vector is not None,
                }
                for name, s in done.speakers.items()
            },
            "languages": done.languages,
            "frames_per_text_token": float(np.nanmedian(done.rates)),
            "round_trip": {
                "clips": len(trips),
                "median_db": float(np.median(trips)) if len(trips) else None,
                "worst_db": float(trips.max()) if len(trips) else None,
            },
            "rules": {name: rules[name] for name in RULES if name in rules},
            "findings": [finding.sentence() for finding in done.findings],
        }
    )
