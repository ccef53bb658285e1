"""``qwen3tts-np decode``: codes become audio."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from ..codec.tokenizer import Qwen3TTSTokenizer
from ..errors import RequestError
from .options import save_speech


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "decode", help="turn codes into audio", description="Turn a .npy array of codes [frames, codes] into audio."
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="checkpoint directory, or its speech_tokenizer")
    parser.add_argument("codes", type=Path, help="a .npy file, as 'encode' writes it")
    parser.add_argument("-o", "--output", type=Path, default="decoded.wav", metavar="FILE", help="(%(default)s)")
    parser.add_argument("--continuous", action="store_true", help="decode in one pass, without the official restarts")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    try:
        codes = np.load(args.codes, allow_pickle=False)
    except OSError as e:
        raise RequestError(f"{args.codes}: {e.strerror or e}") from None
    except ValueError:
        raise RequestError(f"{args.codes} is not a .npy array") from None
    tokenizer = Qwen3TTSTokenizer.from_pretrained(args.model)
    save_speech(tokenizer.decode(codes, continuous=args.continuous), args.output)
