"""``qwen3tts-np compare-audio``: objective comparison of two sounds."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path

from ..audio.files import read_audio
from ..files.apart import check_outputs
from ..inspect.comparison import AudioComparison, Sound, compare_audio, fitted_mels
from ..inspect.sound_plots import plot_sounds
from ..report.plots import require_matplotlib
from ..report.tables import Table, as_text
from ..report.values import finite
from .options import new_parser
from .output import print_text

EXAMPLES = ("qwen3tts-np compare-audio ada.wav anything.wav --json",)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = new_parser(
        commands,
        "compare-audio",
        EXAMPLES,
        help="how two sounds differ",
        description="Align two recordings and report their differences: length, level, lag, sample by sample "
        "(signal-to-noise ratio) and perceptual (distance of mel spectrograms).",
    )
    parser.add_argument("a", metavar="A", help="anything libsndfile reads")
    parser.add_argument("b", metavar="B", help="the same")
    parser.add_argument("--dtw", action="store_true", help="also compare along the best warping of time")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw both spectrograms and the difference; png or svg"
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    if args.plot is not None:
        require_matplotlib()
    check_outputs({"--plot": args.plot}, {"A": args.a, "B": args.b})
    a, b = read_audio(args.a), read_audio(args.b)
    found = compare_audio(a, b, (args.a, args.b), args.dtw)
    if args.plot is not None:
        plot_sounds(args.plot, *fitted_mels(a, b), (args.a, args.b))
    if args.json:
        print(json.dumps({**finite(dataclasses.asdict(found)), "verdict": found.verdict()}, indent=2))
    else:
        print_text("\n\n".join([as_text(sounds(found)), as_text(differences(found)), found.verdict()]))


def sounds(c: AudioComparison) -> Table:
    def row(mark: str, s: Sound) -> list[str]:
        return [mark, s.name, f"{s.seconds:.3f}", f"{s.samples:,}", str(s.rate), f"{s.rms_db:.1f}", f"{s.peak_db:.1f}"]

    headers = ["", "file", "length (s)", "samples", "rate (Hz)", "RMS (dB)", "peak (dB)"]
    return Table("Sounds", headers, "llrrrrr", [row("A", c.a), row("B", c.b)])


def differences(c: AudioComparison) -> Table:
    return Table("Differences of B from A", ["measure", "value", "meaning"], "lrl", list(_rows(c)))


def _rows(c: AudioComparison) -> Iterator[list[str]]:
    yield ["length", f"{c.seconds_longer:+.3f} s", "B is longer"]
    yield ["level", f"{c.louder_db:+.2f} dB", "B is louder, over everything"]
    yield ["lag", f"{c.lag_seconds * 1000:+.2f} ms", f"B comes later: {c.lag_samples:+d} samples at 24 kHz"]
    yield ["overlap", f"{c.overlap_seconds:.3f} s", "compared below, B moved by the lag"]
    yield ["correlation", f"{c.correlation:.4f}", "1 is the same but for the level"]
    upside = ", upside down" if c.inverted else ""
    yield ["gain", f"{c.gain_db:+.2f} dB", f"the factor of B that fits best{upside}"]
    yield ["SNR", _snr(c.snr_db), "of A to A - B, as they are"]
    yield ["SNR, gain removed", _snr(c.snr_fitted_db), "the same with B scaled to fit"]
    yield ["mel distance", f"{c.mel_db:.2f} dB", "mean |difference| of log-mel spectrograms"]
    yield ["spectral convergence", f"{c.spectral_convergence:.4f}", "norm of the mel difference over that of A"]
    if c.dtw_mel_db is not None and c.dtw_stretch_seconds is not None:
        yield ["mel distance, warped", f"{c.dtw_mel_db:.2f} dB", "along the best warping of time"]
        yield ["warping", f"{c.dtw_stretch_seconds:.3f} s", "greatest detour of that warping from a straight line"]


def _snr(value: float) -> str:
    return "no difference" if math.isinf(value) else f"{value:.2f} dB"
