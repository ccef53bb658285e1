"""``qwen3tts-np export``: the network as graphs for other runtimes."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from ..errors import RequestError
from ..export.onnx_export import export_onnx
from ..export.pieces import PIECES
from ..export.target import LENGTHS
from ..export.weights import EXPORT_FORMATS
from ..shown import shortened
from .options import add_checkpoint, add_json, checkpoint, new_parser
from .output import print_text, report

ONNX = (
    "qwen3tts-np export onnx Qwen/Qwen3-TTS-12Hz-0.6B-Base graphs",
    "qwen3tts-np export onnx Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice graphs-int4 --format int4",
    "qwen3tts-np export onnx Qwen/Qwen3-TTS-12Hz-0.6B-Base fixed --only talker --static places=1024",
)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = new_parser(
        commands,
        "export",
        (ONNX[0], "qwen3tts-np export onnx --help"),
        help="write the network as graphs for other runtimes",
        description="Write the network as graphs that other runtimes and converters read.",
    )
    actions = parser.add_subparsers(dest="action", metavar="TARGET", required=True)
    _add_onnx(actions)


def _add_onnx(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = new_parser(
        actions,
        "onnx",
        ONNX,
        help="ONNX",
        description="Write one ONNX graph for each piece of the network, without control flow and without PyTorch, its "
        "arrays beside it in files below 2 GB, and the configuration and tokenizer. Finished pieces stay when a later "
        "one fails.",
    )
    add_checkpoint(parser)
    parser.add_argument("target", type=Path, metavar="OUT", help="folder; a piece that is there already is refused")
    parser.add_argument(
        "--format",
        choices=EXPORT_FORMATS,
        default="float32",
        help="of the arrays (%(default)s); int8 and int4 are for ONNX Runtime (MatMulNBits); sums are float32 in all",
    )
    parser.add_argument("--only", nargs="+", metavar="PIECE", help=f"of {', '.join(PIECES)}")
    numbers = ", ".join(f"{name}={number}" for name, (number, _) in LENGTHS.items())
    parser.add_argument(
        "--static",
        nargs="*",
        metavar="LENGTH=N",
        help=f"fix all lengths, for converters that need it; those not named are {numbers}",
    )
    add_json(parser)
    parser.set_defaults(run=run_onnx)


def run_onnx(args: argparse.Namespace) -> None:
    lengths = None if args.static is None else dict(map(_length, args.static))
    sizes = {}
    for name, size in export_onnx(checkpoint(args), args.target, args.format, args.only or (), lengths):
        sizes[name] = size
        if not args.json:
            print_text(f"{args.target / name}: {PIECES[name].what}, {size / 1e6:.1f} MB")
    found = {"directory": str(args.target), "format": args.format, "bytes": sizes}
    report(args, found, f"{args.target}: {args.format}, {sum(sizes.values()) / 1e6:.1f} MB")


def _length(word: str) -> tuple[str, int]:
    if (form := re.fullmatch(r"(\w+)=(\d{1,9})", word)) is None:
        raise RequestError(f"--static {shortened(word)} must be a length and a number, such as places=1024")
    return form[1], int(form[2])
