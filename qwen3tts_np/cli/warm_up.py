"""``qwen3tts-np warm-up``: compile the kernels before they are needed."""

from __future__ import annotations

import argparse
import time

from qwen3tts_np_kernels import cpu

from ..compiled.engine import WEIGHT_FORMATS
from ..errors import RequestError
from ..verify.warm_up import compile_kernels
from .options import add_threads, new_parser

EXAMPLES = ("qwen3tts-np warm-up --format int4",)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = new_parser(
        commands,
        "warm-up",
        EXAMPLES,
        help="compile the kernels ahead",
        description="Compile the kernels for one weight format, or for all, so that the first call of a model does not "
        "wait for it: after an installation, or while an image for containers is built. Takes up to a minute, once.",
    )
    parser.add_argument("--format", choices=WEIGHT_FORMATS, metavar="FORMAT", help="of the weights (default: all)")
    add_threads(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    folder = cpu.cache_folder()
    if folder is None:
        raise RequestError("the compiler is switched off: unset NUMBA_DISABLE_JIT")
    start = time.monotonic()
    for name in compile_kernels([args.format] if args.format else WEIGHT_FORMATS, args.threads):
        print(f"{name}: ready after {time.monotonic() - start:.0f} s", flush=True)
    print(f"kept in {folder}")
