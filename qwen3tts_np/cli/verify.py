"""``qwen3tts-np verify``: checks a checkpoint, and compares its speech with the official package."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..files.apart import check_outputs
from ..files.output import write_text
from ..report.markup import without_tags
from ..verify.health import check_health
from ..verify.text import as_json, as_markdown, as_text
from .options import add_checkpoint, checkpoint, new_parser

EXAMPLES = (
    "qwen3tts-np verify Qwen/Qwen3-TTS-12Hz-0.6B-Base --fine-tuned",
    "qwen3tts-np verify Qwen/Qwen3-TTS-12Hz-0.6B-Base --official .venv-official/bin/python",
)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = new_parser(
        commands,
        "verify",
        EXAMPLES,
        help="checks of a checkpoint: complete, undamaged, in agreement with the official package",
        description="Compare the files with the published ones, the tensors with the key tables, every value with "
        "what weights look like and, with --official, codes, activations and audio with the official package. "
        "Exit status 1 if something is wrong.",
    )
    add_checkpoint(parser)
    parser.add_argument("--official", metavar="PYTHON", help="the Python of an environment that has qwen-tts")
    parser.add_argument(
        "--fine-tuned", action="store_true", help="weights of your own: files are not compared with the published ones"
    )
    parser.add_argument("--json", action="store_true", help="everything, for programs")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the report there too")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    check_outputs({"--markdown": args.markdown}, {"MODEL": args.model})
    report = check_health(checkpoint(args), args.official, args.fine_tuned)
    if args.markdown:
        write_text(args.markdown, without_tags("\n".join(as_markdown(report)) + "\n"))
    print(json.dumps(as_json(report), indent=2) if args.json else "\n".join(as_text(report)))
    return int(report.wrong)
