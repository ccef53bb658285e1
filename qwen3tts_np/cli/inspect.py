"""``qwen3tts-np inspect``: the architecture of a checkpoint in numbers, and as a picture."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..errors import RequestError
from ..files.apart import check_outputs
from ..files.output import write_text
from ..inspect.inspection import as_json, inspect_checkpoint
from ..inspect.report import to_html, to_text
from .options import add_checkpoint, checkpoint, new_parser
from .output import print_text

DEPTH, CONTEXT = 3, 10.0
EXAMPLES = (
    "qwen3tts-np inspect Qwen/Qwen3-TTS-12Hz-0.6B-Base",
    "qwen3tts-np inspect Qwen/Qwen3-TTS-12Hz-0.6B-Base --html architecture.html",
)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = new_parser(
        commands,
        "inspect",
        EXAMPLES,
        help="the blocks of a checkpoint: sizes, costs, caches, receptive fields",
        description="Print the tree of blocks under their official names with shapes, parameters and bytes, what a "
        "frame of speech reads and multiplies, how the caches grow and how far the codec hears, and hold the files "
        "against the key tables. Only headers are read; a directory with nothing but configurations will do. Exit "
        "status 1 if the files are not what the configuration says.",
    )
    add_checkpoint(parser, what="checkpoint or speech_tokenizer directory")
    parser.add_argument("--depth", type=int, default=DEPTH, metavar="N", help="levels of the tree (%(default)s)")
    parser.add_argument(
        "--context", type=float, default=CONTEXT, metavar="S", help="seconds that attention looks back on (%(default)s)"
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write one page with the diagram and all tables")
    parser.add_argument("--json", action="store_true", help="everything, for programs")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if not 0 < args.context <= 3600:
        raise RequestError(f"--context {args.context:g} must be above 0 and at most 3600 seconds")
    check_outputs({"--html": args.html}, {"MODEL": args.model})
    found = inspect_checkpoint(checkpoint(args), args.context)
    if args.html is not None:
        write_text(args.html, to_html(found))
    if args.json:
        print(json.dumps(as_json(found), indent=2))
    elif args.html is None:
        print_text(to_text(found, args.depth))
    else:
        print_text(f"{args.html}: written")
    return int(not found.ok())
