"""``qwen3tts-np encode``: audio becomes codes."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np

from ..codec.tokenizer import Qwen3TTSTokenizer
from ..errors import RequestError


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "encode", help="turn audio into codes", description="Write the codes of an audio file as .npy [frames, codes]."
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="checkpoint directory, or its speech_tokenizer")
    parser.add_argument("audio", help="anything libsndfile reads")
    parser.add_argument("-o", "--output", type=Path, default="codes.npy", metavar="FILE", help="(%(default)s)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    tokenizer = Qwen3TTSTokenizer.from_pretrained(args.model)
    (codes,) = tokenizer.encode(args.audio).audio_codes
    part = args.output.with_name(f".{args.output.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            np.save(file, codes)
        os.replace(part, args.output)
    except OSError as e:
        raise RequestError(f"{args.output}: {e.strerror}") from None
    finally:
        part.unlink(missing_ok=True)
    print(f"{args.output}: {codes.shape[0]} frames of {codes.shape[1]} codes")
