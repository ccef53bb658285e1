"""``qwen3tts-np export``: the network as graphs for other runtimes."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from ..errors import RequestError
from ..export.coreml_export import COREML_FORMATS, export_coreml
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

COREML = (
    "qwen3tts-np export coreml Qwen/Qwen3-TTS-12Hz-0.6B-Base packages --format float16 int4 --only talker",
    "qwen3tts-np export coreml Qwen/Qwen3-TTS-12Hz-0.6B-Base short --format int8 --only talker --static places=1024",
)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = new_parser(
        commands,
        "export",
        (ONNX[0], COREML[0], "qwen3tts-np export onnx --help"),
        help="write the network as graphs for other runtimes",
        description="Write the network as graphs that other runtimes and converters read.",
    )
    actions = parser.add_subparsers(dest="action", metavar="TARGET", required=True)
    _add_onnx(actions)
    _add_coreml(actions)


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
    _add_choices(parser, "fix all lengths, for converters that need it; those not named are")
    add_json(parser)
    parser.set_defaults(run=run_onnx)


def _add_coreml(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = new_parser(
        actions,
        "coreml",
        COREML,
        help="Core ML",
        description="Write one Core ML package for each piece of the network, for iOS 18 and macOS 15, in a folder for "
        "each weight format with the configuration and tokenizer. Runs anywhere; the packages run on Apple's systems. "
        "Finished packages stay when a later one fails.",
    )
    add_checkpoint(parser)
    parser.add_argument("target", type=Path, metavar="OUT", help="folder; a package that is there already is refused")
    parser.add_argument(
        "--format",
        nargs="+",
        default=COREML_FORMATS,
        metavar="FORMAT",
        help=f"of {', '.join(COREML_FORMATS)} (default: all); arithmetic is float16 in all",
    )
    _add_choices(parser, "lengths other than")
    add_json(parser)
    parser.set_defaults(run=run_coreml)


def _add_choices(parser: argparse.ArgumentParser, of_lengths: str) -> None:
    parser.add_argument("--only", nargs="+", metavar="PIECE", help=f"of {', '.join(PIECES)}")
    numbers = ", ".join(f"{name}={number}" for name, (number, _) in LENGTHS.items())
    parser.add_argument("--static", nargs="*", metavar="LENGTH=N", help=f"{of_lengths} {numbers}")


def run_onnx(args: argparse.Namespace) -> None:
    lengths = None if args.static is None else dict(map(_length, args.static))
    sizes = {}
    for name, size in export_onnx(checkpoint(args), args.target, args.format, args.only or (), lengths):
        sizes[name] = size
        if not args.json:
            print_text(f"{args.target / name}: {PIECES[name].what}, {size / 1e6:.1f} MB")
    found = {"directory": str(args.target), "format": args.format, "bytes": sizes}
    report(args, found, f"{args.target}: {args.format}, {sum(sizes.values()) / 1e6:.1f} MB")


def run_coreml(args: argparse.Namespace) -> None:
    lengths = dict(map(_length, args.static or ()))
    sizes: dict[str, dict[str, int]] = {}
    for form, name, size in export_coreml(checkpoint(args), args.target, args.format, args.only or (), lengths):
        sizes.setdefault(form, {})[name] = size
        if not args.json:
            print_text(f"{args.target / form / name}: {PIECES[name].what}, {size / 1e6:.1f} MB")
    total = sum(size for pieces in sizes.values() for size in pieces.values())
    found = {"directory": str(args.target), "bytes": sizes}
    report(args, found, f"{args.target}: {', '.join(sizes)}, {total / 1e6:.1f} MB; not run: that takes a Mac")


def _length(word: str) -> tuple[str, int]:
    if (form := re.fullmatch(r"(\w+)=(\d{1,9})", word)) is None:
        raise RequestError(f"--static {shortened(word)} must be a length and a number, such as places=1024")
    return form[1], int(form[2])
