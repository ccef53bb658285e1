"""``qwen3tts-np doctor``: checks of this installation, with advice."""

from __future__ import annotations

import argparse
import dataclasses
import json

from ..verify.installation import Check, check_installation
from .options import add_json, new_parser

EXAMPLES = ("qwen3tts-np doctor --offline", "qwen3tts-np doctor --offline --json")


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = new_parser(
        commands,
        "doctor",
        EXAMPLES,
        help="whether the installation works on this machine, and what to do",
        description="Check Python, libraries, the compiler and its cache, cores, memory, audio formats, extras and the "
        "hub, and speak with the demo voice: one line each, with what to do. Exit status 1 if speech cannot work.",
    )
    parser.add_argument("--offline", action="store_true", help="do not ask the hub whether it can be reached")
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    found = []
    for check in check_installation(args.offline):
        found.append(check)
        if not args.json:
            print(as_line(check), flush=True)
    works = all(check.status != "fault" for check in found)
    if args.json:
        print(json.dumps({"works": works, "checks": [dataclasses.asdict(check) for check in found]}, indent=2))
    return int(not works)


def as_line(check: Check) -> str:
    advice = f" -> {check.advice}" if check.advice else ""
    return f"{check.status:<6} {check.name:<13} {check.found}{advice}"
