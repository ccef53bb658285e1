"""``qwen3tts-np convert``: a checkpoint in another weight format."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..checkpoint.quantised import BITS
from ..compiled.packed_copy import pack_rest
from ..files.output import check_new_folder
from ..layout.convert import STORED_FORMATS, convert
from .options import add_hub, add_json, checkpoint, new_parser
from .output import report

EXAMPLES = ("qwen3tts-np convert --format int4 Qwen/Qwen3-TTS-12Hz-0.6B-Base small",)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = new_parser(
        commands,
        "convert",
        EXAMPLES,
        help="write a checkpoint in another weight format",
        description="Write a checkpoint whose weights are stored in another format; every command reads the result. "
        "int8 to int4 quantise the matrices of talker and code predictor in groups of 32 (heads keep 8 bits); beside "
        "the codec, which stays float32, its decoder is written as the kernels read it, in 16 bits where frames share "
        "few rows (0.4 GB), and beside the vocabulary its tables, so that nothing is packed when the model is loaded.",
    )
    parser.add_argument("--format", choices=STORED_FORMATS, required=True, help="of the weights")
    parser.add_argument("source", type=Path, metavar="SRC", help="checkpoint directory, or a name to download")
    parser.add_argument("target", type=Path, metavar="DST", help="must not exist, or be empty")
    add_hub(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    check_new_folder(args.target)
    convert(checkpoint(args, "source"), args.target, args.format, pack_rest if args.format in BITS else None)
    size = (args.target / "model.safetensors").stat().st_size
    found = {"directory": str(args.target), "format": args.format, "model_bytes": size}
    report(args, found, f"{args.target}: {args.format}, model.safetensors {size / 1e6:.1f} MB")
