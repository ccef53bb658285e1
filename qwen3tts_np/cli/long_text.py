"""Texts from wherever they come, and how the command line speaks long ones."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from ..errors import RequestError
from ..longform import Progress, narrate
from ..model import Qwen3TTSModel
from ..text.sentences import split

BAR = 24  # columns


def add_text(parser: argparse.ArgumentParser) -> None:
    """A text as an argument, from a file or through a pipe, and what only long ones need."""
    text = parser.add_argument("text", metavar="[TEXT]", help="what to say; '-', or nothing, reads it from a pipe")
    text.required = False  # trap: with nargs="?" argparse does not find a text behind an option
    parser.add_argument("--file", type=Path, metavar="FILE", help="speak a text file (UTF-8)")
    parser.add_argument("--srt", type=Path, metavar="FILE", help="write subtitles as well")
    parser.add_argument("--vtt", type=Path, metavar="FILE", help="the same, as WebVTT")
    parser.add_argument("--work", type=Path, metavar="DIR", help="keep the pieces of a long text here (OUTPUT.pieces)")
    parser.add_argument("--batch", type=int, default=4, metavar="N", help="pieces spoken at once (%(default)s)")


def read_text(args: argparse.Namespace) -> str:
    """The text to speak. RequestError if there is none, or more than one."""
    if args.file is not None and args.text is not None:
        raise RequestError("give a text or --file, not both")
    if args.file is not None:
        try:
            return _decoded(args.file.read_bytes(), str(args.file))
        except OSError as e:
            raise RequestError(f"{args.file} cannot be read: {e.strerror}") from None
    if args.text not in (None, "-"):
        return str(args.text)
    if args.text is None and sys.stdin.isatty():
        raise RequestError("there is no text: give one, or --file FILE, or one through a pipe")
    return _decoded(sys.stdin.buffer.read(), "standard input")


def _decoded(content: bytes, name: str) -> str:
    try:
        text = content.decode("utf-8-sig").strip()
    except UnicodeDecodeError as e:
        raise RequestError(f"{name} is not UTF-8 text: byte {e.start} is {content[e.start]:#04x}") from None
    if not text:
        raise RequestError(f"{name} is empty")
    return text


def is_long(text: str, args: argparse.Namespace) -> bool:
    """Whether a text is spoken in pieces: if it has more than one, or where subtitles are wanted."""
    return len(split(text, args.language)) > 1 or args.srt is not None or args.vtt is not None


def speak_long(model: Qwen3TTSModel, text: str, args: argparse.Namespace, speech: dict[str, Any]) -> None:
    """Speak ``text`` in pieces into ``args.output``, showing how far it is on a terminal."""
    work = args.work or args.output.with_name(f"{args.output.name}.pieces")
    subtitles = [path for path in (args.srt, args.vtt) if path is not None]
    bar = _Bar() if sys.stderr.isatty() else None
    try:
        made = narrate(
            model,
            text,
            args.output,
            work=args.work,
            batch_size=args.batch,
            subtitles=subtitles,
            progress=bar.show if bar else lambda _: None,
            **speech,
        )
    except KeyboardInterrupt:
        if work.is_dir():
            print(f"\nfinished pieces are kept in {work}; the same command goes on from there", file=sys.stderr)
        raise
    finally:
        if bar:
            bar.clear()
    print(f"{args.output}: {made.seconds:.2f} s at {made.sample_rate} Hz, in {len(made.pieces)} pieces")


class _Bar:
    """One line on a terminal."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def show(self, p: Progress) -> None:
        elapsed, new = time.monotonic() - self._start, p.share - p.reused
        full = round(BAR * p.share)
        line = f"[{'#' * full}{'.' * (BAR - full)}] {p.pieces}/{p.all_pieces}, {p.seconds:.0f} s of speech"
        if new > 0:
            left = elapsed * (1 - p.share) / new
            line += f", {p.seconds * new / p.share / elapsed:.2f} x real time, {left // 60:.0f}:{left % 60:02.0f} left"
        print(f"\r{line}\x1b[K", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
