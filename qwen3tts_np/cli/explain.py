"""``qwen3tts-np explain``: the talker's input for a request, position by position."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..files.apart import check_outputs
from ..files.output import write_text
from ..inspect.explanation import Explanation, as_json, explain
from ..model import Qwen3TTSModel
from ..report.html import page, paragraph
from ..report.tables import as_html, as_text
from .options import add_checkpoint, checkpoint, new_parser
from .output import print_text
from .request_options import add_request, request_of

EXAMPLES = (
    'qwen3tts-np explain Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice --text "Hello." --speaker ryan --language english',
    'qwen3tts-np explain Qwen/Qwen3-TTS-12Hz-0.6B-Base --text "Hello." --voice ada.safetensors --html prompt.html',
)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = new_parser(
        commands,
        "explain",
        EXAMPLES,
        help="the prompt of a request, position by position",
        description="Print what the talker reads for a request: at each position the text token, the codec part, what "
        "is summed, and why. Nothing is generated, and of the weights only those that a reference clip needs are read.",
    )
    add_checkpoint(parser)
    add_request(parser)
    parser.add_argument("--html", type=Path, metavar="FILE", help="write one page with the tables")
    parser.add_argument("--json", action="store_true", help="everything, for programs")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    request = request_of(args)
    check_outputs(
        {"--html": args.html},
        {"MODEL": args.model, "REQUEST": args.request, "--ref-audio": args.ref_audio, "--voice": args.voice},
    )
    found = explain(Qwen3TTSModel.for_prompts(checkpoint(args)), request)
    if args.html is not None:
        parts = paragraph(heading(found)), *map(as_html, found.tables())
        write_text(args.html, page("The prompt, position by position", *parts))
    if args.json:
        print(json.dumps(as_json(found), indent=2, ensure_ascii=False))
    elif args.html is None:
        print_text("\n\n".join([heading(found), *map(as_text, found.tables())]))
    else:
        print_text(f"{args.html}: written")


def heading(e: Explanation) -> str:
    way = (
        "streaming: the text is beside the frames" if e.streaming else "non-streaming: the complete text is read first"
    )
    return f"{e.mode.replace('_', ' ')}, {way}"
