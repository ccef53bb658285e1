"""Traces one request: everything that ``qwen3tts-np trace`` writes, in the order of execution."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..audio.files import write_audio
from ..checkpoint.safetensors import Checkpoint
from ..files.output import write_text
from ..model import Qwen3TTSModel
from ..ops import Ints
from ..trace import collect_into
from .attention_maps import Head, patterns, write_map
from .choices import KEEP, choices, entropy_bits, histogram, write_choices
from .collector import StreamedTrace, Total, seconds_by_block
from .golden import Golden
from .request import WrittenRequest, prepare

RESIDUAL = "talker.model"  # the residual stream whose growth is shown


@dataclass(frozen=True)
class Options:
    """Options of a trace. ``keep``: patterns of activations to store; ``top``: candidates listed per code."""

    heads: tuple[Head, ...] = ()
    keep: tuple[str, ...] = ()
    top: int = 5
    golden: Golden | None = None
    buffer: int = 1 << 20  # bytes


@dataclass(frozen=True)
class Traced:
    """The result of the run; everything else is written to the folder."""

    wave: NDArray[np.float32]
    rate: int
    codes: Ints  # [frames, G]
    frame_rate: float
    seconds: float
    totals: dict[str, Total]
    entropies: NDArray[np.float32]  # [frames + 1, G] bits
    end: NDArray[np.float64]  # [frames + 1] P(end of speech), before any sampling rule
    histogram: Ints  # [G, C]
    maps: dict[str, NDArray[np.float32]]  # [S, S]


def trace_request(model: Qwen3TTSModel, request: WrittenRequest, folder: Path, options: Options) -> Traced:
    """Run the request and write into ``folder``, which must exist. The model must use the reference backend."""
    kept = (*KEEP, *patterns(list(options.heads)), *options.keep)
    start = time.perf_counter()
    with StreamedTrace(folder, kept, options.golden, options.buffer) as stream, collect_into(stream):
        ((wave, codes),) = model.generate([prepare(model, request)])
    seconds = time.perf_counter() - start
    arrays = Checkpoint.open(folder / "activations.safetensors")
    shape = (len(codes) + 1, codes.shape[1])
    codec, eos = model.speech_tokenizer.config, model.config.talker_config.codec_eos_token_id
    found_choices = choices(arrays, codes, options.top, eos)
    entropies, end = write_choices(folder / "choices.csv", found_choices, shape)
    found = Traced(
        wave=wave,
        rate=codec.output_sample_rate,
        codes=codes,
        frame_rate=codec.frame_rate,
        seconds=seconds,
        totals=stream.totals,
        entropies=entropies,
        end=end,
        histogram=histogram(codes, codec.decoder_config.codebook_size),
        maps={
            str(head): write_map(
                folder / f"attention-{head.layer}-{head.head}.npy", arrays, head, model.config.talker_config
            )
            for head in options.heads
        },
    )
    np.save(folder / "codes.npy", found.codes)
    if len(found.wave):
        write_audio(folder / "speech.wav", found.wave, found.rate)
    write_text(folder / "summary.json", json.dumps(summary(found), indent=1))
    return found


def growth(totals: dict[str, Total]) -> dict[str, float]:
    """Root mean square of the talker's residual stream: at its input, then after each layer."""
    names = [f"{RESIDUAL}.inputs_embeds"]
    while f"{RESIDUAL}.layers.{len(names) - 1}" in totals:
        names.append(f"{RESIDUAL}.layers.{len(names) - 1}")
    return {name: totals[name].rms for name in names}


def summary(t: Traced) -> dict[str, Any]:
    """The summary as JSON. NaN, which JSON lacks, becomes null."""
    rms = growth(t.totals)
    return {
        "frames": len(t.codes),
        "speech_seconds": len(t.codes) / t.frame_rate,
        "run_seconds": t.seconds,
        "residual_stream": [
            {"name": name, "rms": value, "growth": value / before if before else None}
            for (name, value), before in zip(rms.items(), [0.0, *rms.values()], strict=False)
        ],
        "codebooks": [
            {
                "codebook": g,
                "different_codes": int((counts > 0).sum()),
                "entropy_of_codes_bits": entropy_bits(counts) if counts.any() else None,
                "mean_entropy_of_choice_bits": _mean(t.entropies[:, g]),
            }
            for g, counts in enumerate(t.histogram)
        ],
        "end_of_speech": [float(f"{p:.6g}") for p in t.end],
        "histogram": [{str(code): int(counts[code]) for code in np.flatnonzero(counts)} for counts in t.histogram],
        "seconds_by_block": seconds_by_block(t.totals),
        "golden": _golden(t.totals),
        "activations": {
            name: {
                "calls": total.calls,
                "mean": total.mean,
                "std": total.std,
                "min": total.lowest,
                "max": total.highest,
                "rms": total.rms,
                "seconds": total.seconds,
            }
            for name, total in t.totals.items()
        },
    }


def first_outside(totals: dict[str, Total]) -> str | None:
    """The first activation, in the order of execution, that is outside its golden's tolerance."""
    return next((name for name, total in totals.items() if total.worst is not None and total.worst.outside), None)


def _golden(totals: dict[str, Total]) -> dict[str, Any] | None:
    compared = {name: total.worst for name, total in totals.items() if total.worst is not None}
    if not compared:
        return None
    return {
        "compared": len(compared),
        "first_outside_tolerance": first_outside(totals),
        "worst_relative": max(compared, key=lambda name: compared[name].relative),
        "errors": {
            name: {"error": _finite(d.error), "relative": _finite(d.relative), "atol": d.atol}
            for name, d in compared.items()
        },
    }


def _mean(values: NDArray[np.float32]) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else None


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
