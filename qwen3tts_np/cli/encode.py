"""``qwen3tts-np encode``: audio to codes."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..files.apart import check_outputs
from ..files.arrays import codes_file
from ..files.output import write_bytes
from ..speech_tokenizer import Qwen3TTSTokenizer
from .options import add_checkpoint, add_json, add_threads, checkpoint, new_parser
from .output import report

EXAMPLES = ("qwen3tts-np encode Qwen/Qwen3-TTS-12Hz-0.6B-Base ada.wav -o ada.npy",)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = new_parser(
        commands,
        "encode",
        EXAMPLES,
        help="turn audio into codes",
        description="Write the codes of an audio file as .npy [frames, codes], or as .rvq, the form of qwentts.cpp.",
    )
    add_checkpoint(parser, what="checkpoint directory, its speech_tokenizer")
    add_threads(parser)
    add_json(parser)
    parser.add_argument("audio", metavar="AUDIO", help="anything libsndfile reads")
    parser.add_argument("-o", "--output", type=Path, default="codes.npy", metavar="FILE", help="(%(default)s)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    check_outputs({"--output": args.output}, {"MODEL": args.model, "AUDIO": args.audio})
    tokenizer = Qwen3TTSTokenizer.from_pretrained(checkpoint(args), threads=args.threads)
    (codes,) = tokenizer.encode(args.audio).audio_codes
    write_bytes(args.output, codes_file(args.output, codes))
    frames, groups = codes.shape
    found = {"file": str(args.output), "frames": frames, "codes_per_frame": groups, "codes": codes.size}
    report(args, found, f"{args.output}: {frames} frames of {groups} codes")
