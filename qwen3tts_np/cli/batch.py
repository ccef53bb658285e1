"""``qwen3tts-np batch``: a manifest of texts to a folder of audio."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from ..audio.files import format_of
from ..batch.apart import surveyed
from ..batch.folder import LINES, RESULTS, Folder
from ..batch.identity import Extent, Shard, shard_of_environment
from ..batch.run import Progress, missing, run
from ..batch.settings import Settings
from ..batch.speaker import BATCH_SIZE, Result, Speaker
from ..errors import RequestError
from ..manifest import BadRow, Manifest, Row
from ..shown import shortened
from ..text.pace import milliseconds
from .options import add_json, add_loudness, add_model, add_sampling, add_tempo, load_model, new_parser, sampling
from .output import print_text, report
from .text_source import add_script, script_options

SPOKEN = "qwen3tts-np batch Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice texts.jsonl speech"
EXAMPLES = (
    f"{SPOKEN} --language english --audio-format flac",
    f"{SPOKEN} --shard 2/5",
    f"{SPOKEN} --missing || echo not complete",
    "qwen3tts-np batch Qwen/Qwen3-TTS-12Hz-0.6B-Base texts.csv cloned --voice ada.safetensors",
)
VOICE = {
    "speaker": "a voice of the model's table; custom-voice models",
    "instruct": "how to say it, or the voice to design",
    "voice": "a voice that 'voice create' has saved; base models",
    "ref_audio": "a reference clip; base models",
    "ref_text": "what the clip says, word for word",
}


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = new_parser(
        commands,
        "batch",
        EXAMPLES,
        help="speak a manifest of texts, on one machine or many",
        description="Speak every row of a manifest (JSON Lines or CSV; fields id, text, speaker, voice, ref_audio, "
        "ref_text, language, instruct, seed, and the sampling options) into a file of OUT, and write "
        "OUT/results.jsonl. A row has the same bytes in any order, batch and shard. Run again, it speaks what is not "
        "finished, failed, or has changed. Exit status 1 if a row failed, or with --missing if one is not there.",
    )
    add_model(parser)
    parser.add_argument("manifest", type=Path, metavar="MANIFEST", help="a row for each text")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the audio files")
    parser.add_argument(
        "--audio-format", default="wav", metavar="SUFFIX", help="wav, flac, ogg, opus or mp3 (%(default)s)"
    )
    parser.add_argument(
        "--batch-size", "--batch", type=int, default=BATCH_SIZE, metavar="N", help="rows spoken at once (%(default)s)"
    )
    parser.add_argument(
        "--shard", metavar="I/N", help="speak the I-th of N parts; in a job array of Slurm that of the task"
    )
    parser.add_argument("--missing", action="store_true", help="speak nothing: print the ids that are not finished")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="with a row's id gives its seed, where it has none (0)"
    )
    add_json(parser)
    rows = parser.add_argument_group("for rows that do not say it themselves")
    rows.add_argument("--language", help="language of the text (auto)")
    for name, help_ in VOICE.items():
        metavar = "TEXT" if name in ("speaker", "instruct", "ref_text") else "FILE"
        rows.add_argument(f"--{name.replace('_', '-')}", metavar=metavar, help=help_)
    add_tempo(parser)
    add_loudness(parser)
    add_script(parser)
    add_sampling(parser)
    parser.set_defaults(run=speak)


def speak(args: argparse.Namespace) -> int:
    settings, shard = _settings(args), _shard(args)
    manifest = Manifest(args.manifest)
    Folder(args.out).check(manifest)
    extent = surveyed(manifest, shard, args.out, settings)
    speaker = Speaker(load_model(args), args.out, settings, args.batch_size)
    if args.missing:
        return _print_missing(args, missing(speaker, manifest, shard))
    start = time.monotonic()
    with _bar(extent) as progress:
        summary = run(speaker, manifest, shard, progress)
    took = time.monotonic() - start
    rtf = round(took / summary.seconds, 3) if summary.seconds else None
    found = {
        "folder": str(args.out),
        "shard": str(shard),
        **asdict(summary),
        "time_seconds": round(took, 3),
        "rtf": rtf,
    }
    speed = "" if rtf is None else f", RTF {rtf:.2f}"
    part = f", shard {shard.number}/{shard.count}" if shard.count > 1 else ""
    said = args.out / (RESULTS if speaker.folder.is_closed(shard.count) else LINES)
    why = f" ({said} says why)" if summary.failed else ""
    line = (
        f"{args.out}{part}: {summary.rows} rows, {summary.spoken} spoken, {summary.kept} there already, "
        f"{summary.failed} failed{why}; {summary.seconds:.1f} s of speech{speed}"
    )
    report(args, found, line)
    return int(summary.failed > 0)


def _settings(args: argparse.Namespace) -> Settings:
    """The settings of the run. RequestError for what no row could be spoken with."""
    if args.voice and (args.ref_audio or args.ref_text):
        raise RequestError("--voice goes without --ref-audio and --ref-text: a saved voice has its own")
    format_of(Path(f"speech.{args.audio_format}"))
    given = {name: getattr(args, name) for name in ("language", *VOICE)}
    return Settings(
        args.audio_format.lower(), args.seed, sampling=sampling(args), **given, **script_options(args), tempo=args.tempo
    )


def _shard(args: argparse.Namespace) -> Shard:
    """The shard that is asked for, or that of a Slurm task, or all."""
    if args.shard is None:
        shard = shard_of_environment()
        if shard is not None:
            print(f"qwen3tts-np batch: shard {shard.number}/{shard.count}, as this task of Slurm", file=sys.stderr)
        return shard or Shard()
    if not re.fullmatch("[0-9]{1,9}/[0-9]{1,9}", args.shard):
        raise RequestError(f"--shard {shortened(args.shard)} is not I/N, such as 2/5")
    return Shard(*map(int, args.shard.split("/")))


def _print_missing(args: argparse.Namespace, rows: Iterator[Row | BadRow]) -> int:
    """Print the ids of rows, each on a line; whether there is one."""
    names = (row.name if isinstance(row, Row) else row.id or f"line {row.line}" for row in rows)
    if args.json:
        found = list(names)
        print(json.dumps({"missing": found}, indent=2))
        return int(bool(found))
    count = 0
    for count, name in enumerate(names, start=1):  # noqa: B007
        print_text(name)
    return int(count > 0)


@contextmanager
def _bar(extent: Extent) -> Iterator[Progress]:
    """A bar on a terminal: seconds of speech, as the texts let expect, and the time left."""
    shown = "{percentage:3.0f}%|{bar:24}| {n:.0f}/{total:.0f} s of speech, {remaining} left{postfix}"
    options = {"bar_format": shown, "unit_scale": 1e-3, "disable": not sys.stderr.isatty(), "leave": False}
    with tqdm(total=extent.milliseconds, **options) as bar:
        rows = failed = 0

        def progress(found: Result | BadRow) -> None:
            nonlocal rows, failed
            rows += 1
            failed += isinstance(found, BadRow) or found.line.get("error") is not None
            bar.set_postfix_str(f"{rows}/{extent.rows} rows" + (f", {failed} failed" if failed else ""), refresh=False)
            length = 0 if isinstance(found, BadRow) else milliseconds(found.line["text"] or "")
            if isinstance(found, Result) and found.kept:
                bar.total -= length  # so that the time left is that of the others
            else:
                bar.update(length)

        yield progress
