"""The text to speak: an argument, a file, or a pipe; its markup, its cast, and how words are respelled."""

from __future__ import annotations

import argparse
import codecs
import sys
from pathlib import Path
from typing import Any

from ..errors import RequestError
from ..files.input import read_bytes
from ..speech.cast import read_cast, read_lexicon
from ..speech.script import Script, read_script

MOST_TEXT = 64 << 20  # bytes: more than anybody reads aloud, and a pipe may never end


def add_text(parser: argparse.ArgumentParser) -> None:
    """A text as an argument, from a file or through a pipe."""
    text = parser.add_argument(
        "text",
        metavar="[TEXT]",
        help=("what to say, behind '--' where it begins with '-'; '-' alone, or nothing, reads it from a pipe"),
    )
    text.required = False  # trap: with nargs="?" argparse does not find a text behind an option
    parser.add_argument("--file", type=Path, metavar="FILE", help="speak a text file (UTF-8, or UTF-16 with its mark)")


def add_script(parser: argparse.ArgumentParser) -> None:
    """What of a text is not to be read as it stands."""
    group = parser.add_argument_group("markup and words", "without these a text is read as it stands")
    group.add_argument(
        "--markup", action="store_true", help="read [pause 0.5s] and [voice NAME] as marks, and <speak> as SSML"
    )
    group.add_argument(
        "--cast",
        type=Path,
        metavar="FILE",
        help="names and their voices, JSON; lines 'NAME: text' are spoken by them, and marks are read",
    )
    group.add_argument("--lexicon", type=Path, metavar="FILE", help="words and how to read them, JSON")


def script_of(args: argparse.Namespace) -> Script:
    """The text with what its options make of it. RequestError where it cannot be read."""
    text = read_text(args)
    return read_script(text, **script_options(args))


def script_options(args: argparse.Namespace) -> dict[str, Any]:
    """What :func:`read_script` takes besides the text."""
    cast = None if args.cast is None else read_cast(args.cast)
    lexicon = None if args.lexicon is None else read_lexicon(args.lexicon)
    return {"markup": args.markup, "cast": cast, "lexicon": lexicon}


def read_text(args: argparse.Namespace) -> str:
    """The text to speak. RequestError if there is none, or more than one."""
    if args.file is not None and args.text is not None:
        raise RequestError("give a text or --file, not both")
    if args.file is not None:
        return _decoded(read_bytes(args.file, MOST_TEXT), str(args.file))
    if args.text not in (None, "-"):
        return str(args.text)
    if args.text is None and sys.stdin.isatty():
        raise RequestError("there is no text: give one, or --file FILE, or one through a pipe")
    content = sys.stdin.buffer.read(MOST_TEXT + 1)
    if len(content) > MOST_TEXT:
        raise RequestError(f"standard input has more than {MOST_TEXT} bytes; a text has no more")
    return _decoded(content, "standard input")


def _decoded(content: bytes, name: str) -> str:
    """UTF-8, or UTF-16 that begins with its mark, as PowerShell writes it."""
    encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        text = content.decode(encoding).strip()
    except UnicodeDecodeError as e:
        shown = "UTF-16" if encoding == "utf-16" else "UTF-8"
        raise RequestError(f"{name} is not {shown} text: byte {e.start} is {content[e.start]:#04x}") from None
    if not text:
        raise RequestError(f"{name} is empty")
    return text
