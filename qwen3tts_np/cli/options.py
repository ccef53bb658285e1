"""Options that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..audio import write_audio
from ..model import Qwen3TTSModel, Speech

_SAMPLING = ("temperature", "top_p", "repetition_penalty", "subtalker_temperature", "subtalker_top_p")
_COUNTS = ("top_k", "subtalker_top_k", "max_new_tokens")
MODEL_HELP = "checkpoint directory, or a name to download: Qwen/Qwen3-TTS-12Hz-0.6B-Base"


def add_model(parser: argparse.ArgumentParser) -> None:
    """Which checkpoint, and how to run it."""
    parser.add_argument("model", type=Path, metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("--threads", type=int, metavar="N", help="threads for matrix products (default: all cores)")


def add_speech(parser: argparse.ArgumentParser) -> None:
    """What every speaking command takes."""
    parser.add_argument("-o", "--output", type=Path, default="speech.wav", metavar="FILE", help="(%(default)s)")
    parser.add_argument("--language", default="auto", help="language of the text (%(default)s)")
    parser.add_argument("--seed", type=int, metavar="N", help="the same seed gives the same speech")
    parser.add_argument("--greedy", action="store_true", help="take the best code every time instead of sampling")
    for name in _SAMPLING:
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, metavar="X", help="(default: the checkpoint's)")
    for name in _COUNTS:
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, metavar="N", help="(default: the checkpoint's)")


def load_model(args: argparse.Namespace) -> Qwen3TTSModel:
    return Qwen3TTSModel.from_pretrained(args.model, threads=args.threads)


def sampling(args: argparse.Namespace) -> dict[str, Any]:
    """The keyword arguments of ``generate_*`` that the options stand for."""
    values = {name: getattr(args, name) for name in (*_SAMPLING, *_COUNTS)}
    if args.greedy:
        values |= {"do_sample": False, "subtalker_dosample": False}
    return {**values, "seed": args.seed, "language": args.language}


def save_speech(speech: Speech, path: Path) -> None:
    """Write the one waveform of ``speech`` and say what was written."""
    (wave,), rate = speech[0], speech[1]
    write_audio(path, wave, rate)
    print(f"{path}: {len(wave) / rate:.2f} s at {rate} Hz")
