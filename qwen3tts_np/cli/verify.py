"""``qwen3tts-np verify``: whether a checkpoint is what it should be, and speaks as the official package does."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from ..errors import QwenTTSError, RequestError
from ..inspect.describe import Description, describe
from ..report.output import write_text
from ..verify.live import official_section
from ..verify.official_probe import SETUP
from ..verify.sections import SKIPPED, WRONG, Report, Section, files_section, judged, keys_section, statistics_section
from ..verify.text import as_json, as_markdown, as_text
from .info import tokenizer_problems
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
        help="whether a checkpoint is whole, and agrees with the official package",
        description="Compare the files with the published ones, the tensors with the key tables, every value with "
        "what weights look like and, with --official, codes, activations and audio with the official package. "
        "Exit status 1 if something is wrong.",
    )
    add_checkpoint(parser)
    parser.add_argument("--official", metavar="PYTHON", help="the Python of an environment that has qwen-tts")
    parser.add_argument("--fine-tuned", action="store_true", help="one's own weights: compare no file")
    parser.add_argument("--json", action="store_true", help="everything, for programs")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the report there too")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    report = verify(checkpoint(args), args.official, args.fine_tuned)
    if args.markdown:
        write_text(args.markdown, "\n".join(as_markdown(report)) + "\n")
    print(json.dumps(as_json(report), indent=2) if args.json else "\n".join(as_text(report)))
    return int(report.wrong)


def verify(folder: Path, python: str | None, fine_tuned: bool) -> Report:
    if python is not None and shutil.which(python) is None:
        raise RequestError(f"--official {python}: there is no such program; {SETUP}")
    found = describe(folder)
    sections = [
        files_section(found, fine_tuned),
        keys_section(found, tokenizer_problems(folder, found)),
        statistics_section(found),
    ]
    if python is not None:
        sections.append(_official(folder, found, python, loads=sections[1].status != WRONG))
    return Report(found.directory, found.released, sections)


def _official(folder: Path, found: Description, python: str, loads: bool) -> Section:
    title = "official package"
    if found.config is None:
        return Section(title, SKIPPED, "there is no talker in this directory")
    if not loads:
        return Section(title, SKIPPED, "the key tables are wrong, so the checkpoint does not load")
    if any(dtype.startswith("INT") for dtype in found.weights[0].dtypes):
        return Section(title, SKIPPED, "it does not read quantised weights")
    try:
        return official_section(folder, found.config, python)
    except QwenTTSError as e:  # of weights that are damaged, both sides may refuse to speak
        return judged(title, "", [str(e)])
