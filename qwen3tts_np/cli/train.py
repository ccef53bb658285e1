"""``qwen3tts-np train``: what a checkpoint learns from, and how."""

from __future__ import annotations

import argparse

from . import train_prepare
from .options import Parser, new_parser

EXAMPLES = train_prepare.EXAMPLES


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = new_parser(
        commands,
        "train",
        EXAMPLES,
        help="prepare recordings for training",
        description="Prepare recordings for training: 'train prepare'.",
    )
    assert isinstance(parser, Parser)
    train_prepare.add_parser(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    args.own_parser.error("name what is to be done: prepare")
