"""Shared by ``say`` and ``clone``: speech of a text in a voice, to a file, a pipe, or a stream."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..arguments import whole_number
from ..audio.loudness import check_loudness
from ..audio.tempo import check_tempo
from ..errors import RequestError
from ..files.apart import check_outputs
from ..files.output import scratch_folder
from ..model import Qwen3TTSModel
from ..speech.longform import narrate
from ..speech.script import Script
from ..speech.store import pieces_folder
from ..speech.subtitles import subtitle_file
from .options import (
    add_json,
    add_loudness,
    add_model,
    add_sampling,
    add_seed,
    add_tempo,
    check_numbers,
    sampling,
)
from .output import PIPE, add_output, check_output, copy_to_pipe, report
from .progress import bar
from .stream import add_stream, check_stream, counts, speak_live
from .text_source import add_script, add_text, script_of

LONG_ONLY = ("srt", "vtt", "work", "loudness")


def add_speech(parser: argparse.ArgumentParser, model_required: bool = True) -> None:
    """Add the options of the model, the text, the output and sampling: everything but the voice."""
    add_model(parser, model_required)
    add_text(parser)
    add_output(parser, "speech.wav")
    parser.add_argument("--language", default="auto", help="language of the text (%(default)s)")
    add_tempo(parser)
    add_loudness(parser)
    add_seed(parser)
    add_json(parser)
    add_script(parser)
    long_text = parser.add_argument_group("long texts", "spoken in pieces; finished ones are kept until all are there")
    long_text.add_argument("--srt", type=Path, metavar="FILE", help="write subtitles as well")
    long_text.add_argument("--vtt", type=Path, metavar="FILE", help="the same, as WebVTT")
    long_text.add_argument("--work", type=Path, metavar="DIR", help="keep the pieces here (OUTPUT.pieces)")
    long_text.add_argument(
        "--batch-size", "--batch", type=int, default=4, metavar="N", help="pieces spoken at once (%(default)s)"
    )
    add_stream(parser)
    add_sampling(parser)


def read_request(args: argparse.Namespace) -> Script:
    """The text; RequestError for every mistake that can be found before a model is loaded."""
    script = script_of(args)
    check_tempo(args.tempo)
    if args.loudness is not None:
        check_loudness(args.loudness)
    check_output(args)
    check_stream(args, [name for name in LONG_ONLY if getattr(args, name) is not None])
    _check_files(args)
    whole_number(args.batch_size, "batch_size")
    check_numbers(args, sampling(args), args.seed)
    return script


def _check_files(args: argparse.Namespace) -> None:
    """RequestError if a file cannot be written, or is one that is read."""
    for path in (args.srt, args.vtt):
        if path is not None:
            subtitle_file(path)
    output = None if args.output == PIPE else args.output
    clip = getattr(args, "ref_audio", None)  # of clone alone
    check_outputs(
        {"--output": output, "--srt": args.srt, "--vtt": args.vtt},
        {
            "MODEL": args.model,
            "--file": args.file,
            "--voice": args.voice,
            "--ref-audio": clip,
            "--cast": args.cast,
            "--lexicon": args.lexicon,
        },
    )


def speak(model: Qwen3TTSModel, script: Script, args: argparse.Namespace, voice: dict[str, Any]) -> None:
    """Speak ``script`` according to the options and report it. ``voice``: what the model's method takes besides."""
    arguments = {**voice, **sampling(args), "language": args.language}
    start = time.monotonic()
    found = (speak_live if args.stream else _speak_into_file)(model, script, args, arguments)
    took, made = time.monotonic() - start, found.pop("made_seconds", found["seconds"])
    rtf = round(took / made, 3) if made else None
    found = {"file": str(args.output), **found, "time_seconds": round(took, 3), "rtf": rtf}
    count = len(found["pieces"])
    pieces = f", in {count} pieces" if count > 1 else ""
    speed = "" if rtf is None else f", RTF {rtf:.2f}"
    line = (
        f"{found['file']}: {found['seconds']:.2f} s at {found['sample_rate']} Hz{pieces}, seed {found['seed']}{speed}"
    )
    report(args, found, line)


def _speak_into_file(
    model: Qwen3TTSModel, script: Script, args: argparse.Namespace, arguments: dict[str, Any]
) -> dict[str, Any]:
    """A text into a file, or into a pipe once it is complete; interrupted, it prints where the finished pieces are."""
    kept = args.work or (None if args.output == PIPE else pieces_folder(args.output))
    with _file_for(args.output) as output, bar(script.text, model) as shown:
        try:
            made = narrate(
                model,
                script,
                output,
                seed=args.seed,
                work=args.work,
                batch_size=args.batch_size,
                subtitles=[path for path in (args.srt, args.vtt) if path is not None],
                runaway_guard=True,
                tempo=args.tempo,
                loudness=args.loudness,
                progress=shown.piece,
                writing=shown.writing,
                **arguments,
            )
        except KeyboardInterrupt:
            if kept is not None and kept.is_dir():
                print(f"\nfinished pieces are kept in {kept}; the same command goes on from there", file=sys.stderr)
            raise
    return {
        "seconds": made.seconds,
        "sample_rate": made.sample_rate,
        **counts(model, made.pieces),
        "seed": made.seed,
        "reused": made.reused,
        "pieces": [vars(piece) for piece in made.pieces],
        "made_seconds": made.seconds * shown.own,
    }


@contextmanager
def _file_for(output: Path) -> Iterator[Path]:
    """The file to write; that of a pipe is copied into it once it is complete."""
    if output != PIPE:
        yield output
        return
    with scratch_folder() as folder:
        yield folder / "speech.wav"
        copy_to_pipe(folder / "speech.wav")


def only_for(model: Qwen3TTSModel, kind: str, what: str) -> None:
    """RequestError unless the model is of this kind."""
    if model.config.tts_model_type != kind:
        raise RequestError(f"{what} needs a {kind} model; this is a {model.config.tts_model_type} model")
