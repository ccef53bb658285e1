"""A request on the command line: a JSON file, options, or a file with options that override it."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import RequestError
from ..inspect.request import WrittenRequest
from ..inspect.request_file import read_request
from .options import check_numbers


def add_request(parser: argparse.ArgumentParser) -> None:
    """Add the options of a request: text, voice, and how to speak."""
    request = parser.add_argument(
        "request", type=Path, metavar="[REQUEST]", help="JSON file of the arguments, or the folder of a golden case"
    )
    request.required = False  # trap: with nargs="?" argparse does not find it behind an option
    parser.add_argument("--text", help="what to say")
    parser.add_argument("--speaker", help="a voice of the model's table (default: its first); custom-voice models")
    parser.add_argument("--instruct", help="how to say it, or the voice to design")
    parser.add_argument("--ref-audio", metavar="FILE", help="the reference clip; base models")
    parser.add_argument("--ref-text", metavar="TEXT", help="what the clip says; without it the x-vector alone is used")
    parser.add_argument("--voice", metavar="FILE", help="a voice that 'voice create' has saved; base models")
    streaming = parser.add_mutually_exclusive_group()
    streaming.add_argument("--streaming", action="store_true", help="the text is read one token per frame")
    streaming.add_argument("--non-streaming", action="store_true", help="all the text is read first")
    parser.add_argument("--language", help="language of the text (auto)")
    parser.add_argument("--seed", type=int, metavar="N", help="the same seed gives the same speech")
    parser.add_argument("--greedy", action="store_true", help="take the best code every time instead of sampling")
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help="at most N - 1 frames (the checkpoint's)")


def request_of(args: argparse.Namespace) -> WrittenRequest:
    """The request that file and options describe. RequestError if there is neither a file nor a text."""
    if args.request is None and args.text is None:
        raise RequestError("there is no request: give --text, or a JSON file with the arguments of generate_*")
    request = WrittenRequest({}) if args.request is None else read_request(args.request)
    names = ("text", "speaker", "instruct", "ref_audio", "ref_text", "language", "max_new_tokens")
    given = {name: getattr(args, name) for name in names} | {"voice_clone_prompt": args.voice}
    if args.streaming or args.non_streaming:
        given["non_streaming_mode"] = args.non_streaming
    if args.greedy:
        given |= {"do_sample": False, "subtalker_dosample": False}
    request = request.updated(given, args.seed)
    check_numbers(args, request.arguments, request.seed)
    return request
