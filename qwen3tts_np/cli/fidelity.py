"""``qwen3tts-np fidelity``: accuracy of a weight format."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from ..compiled.engine import WEIGHT_FORMATS
from ..errors import RequestError
from ..files.arrays import read_codes
from ..parity.fidelity import Fidelity, fidelity
from .options import add_checkpoint, checkpoint, new_parser
from .output import print_text

EXAMPLES = ("qwen3tts-np fidelity Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice --format int8 --frames 4",)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = new_parser(
        commands,
        "fidelity",
        EXAMPLES,
        help="what a weight format costs, against float32",
        description="Let float32 weights and others read the same codes, and say how often the best code is the same, "
        "how far the distributions are apart, and how far the hidden state of every layer is off. Exit status 1 beyond "
        "the limits (qwen3tts_np/parity/fidelity.py states them with their reasons).",
    )
    add_checkpoint(parser)
    parser.add_argument(
        "--format", nargs="+", choices=WEIGHT_FORMATS, default=["int8", "int4"], help="(default: int8 int4)"
    )
    parser.add_argument("--codes", type=Path, metavar="FILE.npy", help="codes [frames, G] to read (default: its own)")
    parser.add_argument("--frames", type=int, default=24, metavar="N", help="at most, of its own codes (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of its own codes (%(default)s)")
    parser.add_argument("--json", action="store_true", help="everything, for programs")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.frames < 1:
        raise RequestError(f"--frames {args.frames} must be at least 1")
    codes = read_codes(args.codes) if args.codes else None
    found = fidelity(checkpoint(args), args.format, codes, args.frames, args.seed)
    if args.json:
        print(json.dumps([f.as_json() for f in found], indent=1))
    else:
        print_text("\n".join(as_text(found)))
    return int(any(f.problems for f in found))


def as_text(found: list[Fidelity]) -> Iterator[str]:
    yield f"{found[0].frames} frames, same codes for all; top-1: the best code is that of float32; KL in nats"
    yield f"{'format':<10}{'talker':>9}{'KL':>10}{'predictor':>12}{'KL':>10}{'hidden, worst layer':>22}"
    for f in found:
        worst = max(f.hidden.values())
        yield (
            f"{f.format:<10}{f.talker.top1:>9.1%}{f.talker.divergence:>10.2g}"
            f"{f.code_predictor.top1:>12.1%}{f.code_predictor.divergence:>10.2g}{worst:>22.2%}"
        )
    yield ""
    yield "hidden state after each layer, RMS of the error / RMS"
    for layer in found[0].hidden:
        yield f"  {layer:<40}" + "".join(f"{f.hidden[layer]:>10.3%}" for f in found)
    for f in found:
        yield from (f"{f.format}: {problem}" for problem in f.problems)
