"""``qwen3tts-np train prepare``: recordings to codes, x-vectors and a split, with every row checked."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..checkpoint.pretrained import directory
from ..errors import RequestError
from ..files.apart import check_outputs
from ..files.journal import open_journal
from ..report.tables import as_text
from ..report.values import listed
from ..training.prepare.names import Names
from ..training.prepare.open import open_source
from ..training.prepare.outputs import write
from ..training.prepare.prepare import ROUND_TRIPS, Preparation, Progress, Settings
from ..training.prepare.report import tables
from ..training.prepare.source import Info, Source
from ..training.prepare.split import share_of
from ..training.prepare.tools import Tools
from ..training.settings import DEFAULT_SPEAKER
from .options import Parser, add_hub, add_json, add_threads
from .output import print_text
from .progress import EVERY, note

MODEL = "Qwen/Qwen3-TTS-12Hz-0.6B-Base"
EXAMPLES = (
    f"qwen3tts-np train prepare raw.jsonl data.jsonl --model {MODEL}",
    "qwen3tts-np train prepare raw.jsonl --info",
)


def add_parser(train: Parser) -> None:
    """Below ``train``, whose first argument may also be a model."""
    parser = train.add_command(
        "prepare",
        EXAMPLES,
        description="Prepare recordings for training: codes of every clip, an x-vector of every speaker, a split by "
        "text into training and validation, and a report on every row that breaks a rule: errors refuse the row, "
        "warnings keep it. "
        "Stopped and started again, it continues where it was. Beside OUT.jsonl it writes OUT.validation.jsonl, "
        "OUT.safetensors (x-vectors), OUT.json, OUT.html, and OUT.journal, where it keeps what it has measured.",
    )
    parser.add_argument(
        "raw",
        type=Path,
        metavar="RAW",
        help="JSON Lines or CSV with text and audio, perhaps ref_audio, speaker and language (the official training "
        "file is one); a folder of .parquet files; or hub:OWNER/NAME, a data set of the hub",
    )
    parser.add_argument("out", type=Path, metavar="OUT", nargs="?", help="the prepared file, .jsonl")
    parser.add_argument("--info", action="store_true", help="say what RAW holds, and do nothing else")
    parser.add_argument(
        "--model", type=Path, metavar="DIR", default=Path(MODEL), help="the model that will be trained (%(default)s)"
    )
    parser.add_argument(
        "--speaker-encoder",
        type=Path,
        metavar="DIR",
        help="the base model whose encoder to borrow, for a model without one",
    )
    parser.add_argument(
        "--speaker", metavar="NAME", default=DEFAULT_SPEAKER, help="of rows that name none (%(default)s)"
    )
    parser.add_argument("--validation", metavar="SHARE", default="5%", help="of the texts, held out (%(default)s)")
    parser.add_argument(
        "--round-trips",
        type=int,
        metavar="N",
        default=ROUND_TRIPS,
        help="clips that go through the codec and back (%(default)s)",
    )
    parser.add_argument("--max-samples", type=int, metavar="N", help="the first N rows")
    parser.add_argument("--split", metavar="NAME", default="train", help="of a data set (%(default)s)")
    parser.add_argument(
        "--column",
        metavar="FIELD=NAME",
        action="append",
        default=[],
        help="of a data set: the column of text, audio, speaker, language or id",
    )
    add_hub(parser)
    add_threads(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    if args.out is None and not args.info:
        args.own_parser.error("name OUT, or give --info")
    settings = Settings(share_of(args.validation), args.speaker, args.max_samples, args.round_trips)
    source = open_source(args.raw, args.split, args.column, args.cache_dir, args.offline)
    if args.info:
        _print_info(args, source)
        return
    names = Names(args.out)
    inputs = {"RAW": args.raw, "--model": args.model, "--speaker-encoder": args.speaker_encoder}
    check_outputs(names.outputs(), inputs)
    folders = [
        None if name is None else directory(name, args.cache_dir, local_files_only=args.offline)
        for name in (args.model, args.speaker_encoder)
    ]
    assert folders[0] is not None
    with note(f"loading {args.model}"):
        tools = Tools.load(folders[0], folders[1], args.threads)
    with open_journal(names.journal) as journal:
        done = Preparation(source, tools, journal, settings, names.outputs().values())
        start = time.monotonic()
        with _progress() as progress:
            done.measure(progress)
        took = time.monotonic() - start
        done.judge()
        summary = write(done, names)
    if args.json:
        print(json.dumps(summary, indent=1, ensure_ascii=False))
        return
    print_text("\n\n".join(map(as_text, tables(summary))))
    for sentence in listed(summary["findings"]):
        print_text(sentence)
    if tools.voices is None:
        print_text("no x-vectors: the model has no speaker encoder; --speaker-encoder borrows that of a base model")
    if done.made_seconds:
        speed = f"{took:.1f} s for {done.made_seconds / 60:.1f} minutes, {took / done.made_seconds:.3f} of real time"
        print_text(f"{done.made} rows measured: {speed}")
    print_text(f"{names.train}: ready; {names.report} has the plots")


def _print_info(args: argparse.Namespace, source: Source) -> None:
    info: Info = source.info()
    if not info.rows:
        raise RequestError(f"{source.name} has no rows")
    if args.json:
        print(json.dumps({"source": source.name, **info._asdict()}, indent=1))
        return
    hours = "unknown" if info.hours is None else f"{info.hours:.2f}"
    unread = f"\n  {info.unread} rows of unknown length" if info.unread else ""
    print_text(f"{source.name}\n  {info.rows} rows\n  columns: {', '.join(info.columns)}\n  hours: {hours}{unread}")


@contextmanager
def _progress() -> Iterator[Progress]:
    """Rows and seconds of speech so far, on a terminal."""
    shown, last = sys.stderr.isatty(), 0.0

    def show(rows: int, seconds: float) -> None:
        nonlocal last
        if shown and (now := time.monotonic()) > last + EVERY:
            last = now
            print(f"\r{rows} rows, {seconds / 60:.1f} minutes of speech\x1b[K", end="", file=sys.stderr, flush=True)

    with note("preparing"):
        yield show
