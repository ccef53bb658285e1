"""``qwen3tts-np synth``: a checkpoint with random weights."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..synthetic.layouts import LIKES, TYPES
from ..synthetic.weights import write_checkpoint
from .options import new_parser

EXAMPLES = (
    "qwen3tts-np synth --like tiny --type custom_voice toy",
    "qwen3tts-np synth --like tiny-1.7b --type base --seed 1 another",
)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = new_parser(
        commands,
        "synth",
        EXAMPLES,
        help="write a checkpoint with random weights",
        description="Write a complete checkpoint in the official layout whose weights are random but sane, "
        "by a rule that any language can follow (golden/README.md).",
    )
    parser.add_argument(
        "--like", choices=LIKES, required=True, help="size: two tiny ones, or those of a released model"
    )
    parser.add_argument("--type", choices=TYPES, required=True, dest="model_type", help="kind of model")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other weights (default 0)")
    parser.add_argument(
        "--tokenizer", type=Path, metavar="DIR", help="take the real tokenizer files from this directory"
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="must not exist, or be empty")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    write_checkpoint(args.directory, args.like, args.model_type, args.seed, args.tokenizer)
