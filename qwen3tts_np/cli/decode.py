"""``qwen3tts-np decode``: codes to audio."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..files.apart import check_outputs
from ..files.arrays import read_codes
from ..speech_tokenizer import Qwen3TTSTokenizer
from .options import add_checkpoint, add_json, add_threads, checkpoint, new_parser
from .output import PIPE, add_output, check_output, report, save

EXAMPLES = ("qwen3tts-np decode Qwen/Qwen3-TTS-12Hz-0.6B-Base ada.npy -o again.wav",)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = new_parser(
        commands,
        "decode",
        EXAMPLES,
        help="turn codes into audio",
        description="Turn codes, a .npy array [frames, codes] or a .rvq of qwentts.cpp, into audio.",
    )
    add_checkpoint(parser, what="checkpoint directory, its speech_tokenizer")
    add_threads(parser)
    add_json(parser)
    parser.add_argument("codes", type=Path, metavar="CODES", help="a .npy or .rvq file, as 'encode' writes it")
    add_output(parser, "decoded.wav")
    parser.add_argument("--continuous", action="store_true", help="decode in one pass, without the official restarts")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    check_output(args)
    target = None if args.output == PIPE else args.output
    check_outputs({"--output": target}, {"MODEL": args.model, "CODES": args.codes})
    codes = read_codes(args.codes)
    tokenizer = Qwen3TTSTokenizer.from_pretrained(checkpoint(args), threads=args.threads)
    (wave,), rate = tokenizer.decode(codes, continuous=args.continuous)
    save(args, wave, rate)
    seconds = len(wave) / rate
    frames = len(wave) // tokenizer.get_decode_upsample_rate()
    found = {"file": str(args.output), "seconds": seconds, "sample_rate": rate, "frames": frames}
    report(args, found, f"{args.output}: {seconds:.2f} s at {rate} Hz")
