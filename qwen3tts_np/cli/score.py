"""``qwen3tts-np score``: what a model says of speech that is given."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..errors import RequestError
from ..files.apart import check_outputs
from ..manifest import Manifest
from ..report.plots import require_matplotlib
from ..report.tables import as_text
from ..scoring.report import as_json, draw, tables
from ..scoring.score import score
from .options import add_json, add_model, load_model, new_parser
from .output import print_text
from .progress import note

EXAMPLES = (
    "qwen3tts-np score Qwen/Qwen3-TTS-12Hz-0.6B-Base train.jsonl",
    "qwen3tts-np score Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice held-out.jsonl --limit 20 --json",
)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = new_parser(
        commands,
        "score",
        EXAMPLES,
        help="judge a checkpoint by speech that is given, and name what its training did wrong",
        description="Let a model read speech with its text, and say how well it predicts every code: cross-entropy, "
        "perplexity and accuracy of each codebook, under the conditioning of generation; the same at neighbouring "
        "alignments; and the probability of the end of speech around the true end. From that it names known faults of "
        "training scripts. Exit status 1 if there are any.",
    )
    add_model(parser)
    parser.add_argument(
        "manifest",
        type=Path,
        metavar="MANIFEST",
        help="JSON Lines or CSV: text, audio or audio_codes, and what names the voice (speaker, instruct, ref_audio, "
        "ref_text, voice); the official training file is one",
    )
    parser.add_argument(
        "--non-streaming-mode",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="the layout of prompts: the complete text before the first frame, or one token per frame (default: as "
        "the row says, or as generation does)",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="score the first N rows")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw losses and ends of speech: .png or .svg")
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.limit is not None and args.limit < 1:
        raise RequestError(f"--limit {args.limit} must be at least 1")
    if args.plot is not None:
        require_matplotlib()
        check_outputs({"--plot": args.plot}, {"the manifest": args.manifest})
    manifest = Manifest(args.manifest)
    model = load_model(args)
    streaming = None if args.non_streaming_mode is None else not args.non_streaming_mode
    with note(f"scoring {args.manifest}"):
        found = score(model, manifest, streaming=streaming, limit=args.limit)
    if args.plot is not None:
        draw(found, args.plot)
    if args.json:
        print(json.dumps(as_json(found), indent=1))
    else:
        print_text("\n\n".join(map(as_text, tables(found))))
        for fault in found.diagnosis.faults:
            print_text(f"\n{fault.name}: {fault.sentence}")
        print_text(f"\nverdict: {found.diagnosis.verdict}")
    return int(bool(found.diagnosis.faults))
