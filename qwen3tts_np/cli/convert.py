"""``qwen3tts-np convert``: a checkpoint in another weight format."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from ..calibration import calibrated
from ..checkpoint.quantised import BITS
from ..checkpoint.safetensors import Checkpoint
from ..compiled.packed_copy import pack_rest
from ..files.input import read_text
from ..files.output import check_new_folder
from ..layout.convert import STORED_FORMATS, convert
from .options import add_hub, add_json, checkpoint, new_parser
from .output import report
from .progress import note

EXAMPLES = (
    "qwen3tts-np convert --format int4 Qwen/Qwen3-TTS-12Hz-0.6B-Base small",
    "qwen3tts-np convert --format int4 --calibrate texts.txt Qwen/Qwen3-TTS-12Hz-0.6B-Base learned",
)
MOST_TEXT = 1 << 20  # bytes


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
    parser.add_argument(
        "--calibrate",
        type=Path,
        metavar="FILE",
        help="texts, one a line, which the model speaks to itself: int6 to int4 lose less, and take minutes to write",
    )
    add_hub(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    check_new_folder(args.target)
    source = checkpoint(args, "source")
    rounded = None if args.calibrate is None else _calibrated(source, args.format, args.calibrate)
    convert(source, args.target, args.format, pack_rest if args.format in BITS else None, rounded)
    size = (args.target / "model.safetensors").stat().st_size
    found = {"directory": str(args.target), "format": args.format, "model_bytes": size}
    report(args, found, f"{args.target}: {args.format}, model.safetensors {size / 1e6:.1f} MB")


def _calibrated(source: Path, model_format: str, file: Path) -> Callable[[Checkpoint], Checkpoint]:
    texts = [line for line in read_text(file, MOST_TEXT).splitlines() if line.strip()]
    with note(f"learning from {len(texts)} texts"):
        return calibrated(source, model_format, texts)
