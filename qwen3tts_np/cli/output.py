"""Output of speech (a file by its suffix, or a pipe) and the report on it (a line, or JSON)."""

from __future__ import annotations

import argparse
import io
import json
import os
import stat
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import soundfile
from qwen3tts_np_kernels.system import appends

from ..audio.encode import UNKNOWN, wav_header
from ..audio.files import format_of, open_audio, pcm16, write_audio
from ..errors import RequestError
from ..files.name import shown_name
from ..files.output import is_special, open_node
from ..ops import Pcm, Wave
from ..shown import printable

PIPE = Path("-")


def add_output(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=default,
        metavar="FILE",
        help="the suffix names the format: .wav, .flac, .ogg, .opus, .mp3; '-' is WAV to a pipe (%(default)s)",
    )


def check_output(args: argparse.Namespace) -> None:
    """Raises RequestError if there is no output to write to; called before the work, which may take long."""
    if args.output != PIPE:
        format_of(args.output)
        if not os.path.isdir(args.output.parent):  # trap: Path.is_dir raises where the name is too long
            parent = shown_name(args.output.parent)
            raise RequestError(f"{shown_name(args.output)} cannot be written: {parent} is no directory")
    elif args.json:
        raise RequestError("-o - and --json both want standard output; give one of them")
    elif sys.stdout.isatty():
        raise RequestError(
            "-o - writes audio to standard output, which is a terminal; put a program behind it: | aplay"
        )


def report(args: argparse.Namespace, found: dict[str, Any], line: str) -> None:
    """Report the result: ``found`` with --json, else ``line``, which is not written into an audio pipe."""
    if args.json:
        print(json.dumps(found, indent=2))
    elif getattr(args, "output", None) != PIPE:
        print_text(line)


def save(args: argparse.Namespace, wave: Wave, rate: int) -> None:
    """Write a complete waveform to ``args.output``."""
    if args.output == PIPE:
        content = io.BytesIO()
        soundfile.write(content, pcm16(wave), rate, format="WAV")
        _to_pipe(content.getvalue())
    else:
        write_audio(args.output, wave, rate)


def print_text(text: object) -> None:
    """Print what may contain foreign text (names, transcripts, contents of files). Control characters are escaped."""
    print(printable(str(text), keep="\n"))


class Sink(Protocol):
    """Takes samples in parts."""

    def write(self, samples: Pcm) -> None: ...


@contextmanager
def open_sink(args: argparse.Namespace, rate: int) -> Iterator[Sink]:
    """``args.output``, for speech that is written as it is generated."""
    if args.output == PIPE:
        pipe = _Pipe(sys.stdout.buffer, rate, args.raw)
        try:
            yield pipe
        finally:
            pipe.finish()
    elif is_special(args.output) and format_of(args.output) == "WAV":  # other formats are complete or nothing
        with open_node(args.output) as node:
            yield _Pipe(node, rate, raw=False)
    else:
        with open_audio(args.output, rate) as file:
            yield file


class _Pipe:
    """Standard output, a FIFO or a device as 16-bit mono, with a WAV header unless it is to be raw."""

    def __init__(self, node: BinaryIO, rate: int, raw: bool) -> None:
        self._node, self._start = node, None if raw else _position(node)
        self._bytes = 0
        if not raw:
            self._put(wav_header(rate))

    def write(self, samples: Pcm) -> None:
        content = samples.astype("<i2").tobytes()
        self._put(content)
        self._bytes += len(content)

    def finish(self) -> None:
        """Write the two lengths into the header, where standard output is a file."""
        if self._start is None or 36 + self._bytes > UNKNOWN:
            return
        for offset, length in ((4, 36 + self._bytes), (40, self._bytes)):
            self._node.seek(self._start + offset)
            self._put(struct.pack("<I", length))
        self._node.seek(0, io.SEEK_END)

    def _put(self, content: bytes) -> None:
        self._node.write(content)
        self._node.flush()


def _position(node: BinaryIO) -> int | None:
    """The position of the stream in its file; None if it is not a file, or is opened to append."""
    try:
        regular = stat.S_ISREG(os.fstat(node.fileno()).st_mode)
        return None if not regular or appends(node.fileno()) else node.tell()
    except OSError:  # a stream of another kind, in Python's memory
        return None


def copy_to_pipe(path: Path) -> None:
    with path.open("rb") as file:
        while part := file.read(1 << 16):
            _to_pipe(part)


def _to_pipe(content: bytes) -> None:
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()
