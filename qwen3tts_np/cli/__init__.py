"""The command line: ``qwen3tts-np COMMAND``. One file per command; it parses, calls the library and prints.

Exit status: 0 all is well, 1 ``doctor``, ``info``, ``verify``, ``fidelity``, ``evaluate`` or ``fixtures compare``
found problems, or a row of ``batch`` failed or is missing, 2 the request cannot be met (one line says why), 130
interrupted, 128 and the number of another signal that ended it.
"""

from __future__ import annotations

import argparse
import errno
import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from typing import Any

from qwen3tts_np_kernels.system import free_address_space, reader_is_gone

from .. import __version__
from ..errors import QwenTTSError, RequestError
from ..shown import printable
from .options import Formatter, Parser
from .signals import orderly_end
from .streams import standard_streams

PROGRAM = "qwen3tts-np"
COMMANDS = (
    *("say", "clone", "batch", "voice", "serve", "encode", "decode"),
    *("doctor", "warm-up", "convert", "export", "info", "inspect", "verify", "score", "fidelity", "evaluate"),
    *("bench", "synth", "train"),
    *("explain", "trace", "fixtures", "compare-audio"),
    "completion",
)


# What libraries say and show unasked. They read this when they are imported; what a user has set stays.
QUIET = {
    "HF_HUB_VERBOSITY": "error",  # asks for a token
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_EXPERIMENTAL_WARNING": "1",
    "TOKENIZERS_PARALLELISM": "false",  # warns after a fork
}

TEXTS = ("text", "instruct", "ref_text", "sentence", "speaker", "language")  # arguments that name no file

# What the system has run out of, and disks that fail, anywhere: no defect of ours has such an error.
EXHAUSTED = {errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EROFS}


def main(argv: list[str] | None = None) -> int:
    """Run one command and return the exit status."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    with standard_streams():
        if not sys.stderr.isatty():
            os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        try:
            with orderly_end():
                return _run(sys.argv[1:] if argv is None else argv)
        except KeyboardInterrupt:
            return 128 + signal.SIGINT


def _run(argv: list[str]) -> int:
    words = with_hyphens(argv)
    command = words[0] if words and words[0] in COMMANDS else None
    name = f"{PROGRAM} {command}" if command else PROGRAM
    try:
        args = _parsed(words, command)
        with warnings_of_one_line(name), notes_of_one_line(name), _network(args):
            status = args.run(args)
        sys.stdout.flush()  # imported here, where its errors are handled
    except QwenTTSError as e:
        print(f"{name}: {e}", file=sys.stderr)
        return 2
    except MemoryError as e:
        advice = "take a smaller model, or smaller weights with --format int4"
        if free_address_space() is not None:
            advice = f"{advice}, or raise the limit on address space (ulimit -v)"
        print(f"{name}: there is not enough memory: {e}; {advice}", file=sys.stderr)
        return 2
    except OSError as e:
        if reader_is_gone(e):
            return 0  # the reader of our output has closed the pipe
        if e.errno not in EXHAUSTED:
            raise
        where = "" if e.filename is None else f": {e.filename}"
        print(printable(f"{name}: {e.strerror}{where}"), file=sys.stderr)
        return 2
    return int(status or 0)


def _network(args: argparse.Namespace) -> AbstractContextManager[None]:
    """With --offline no clip is read from a URL either."""
    if not getattr(args, "offline", False):
        return nullcontext()
    from ..audio.url import without_network  # imports HTTP and TLS

    return without_network()


def _parsed(words: list[str], command: str | None) -> argparse.Namespace:
    """The arguments. SystemExit for wrong ones, and for --help and --version once these are written."""
    parser = program_parser(command if command in COMMANDS[:-1] else None)
    try:
        args, unknown = parser.parse_known_args(words)
    except SystemExit:
        sys.stdout.flush()
        raise
    for word in words[: words.index("--")] if "--" in words else words:
        if word.startswith("--") and word.endswith("=--"):  # trap: argparse makes an empty list of it
            args.own_parser.error(f"argument {word[:-3]}: expected a value, not --")
    if unknown:  # trap: parse_args shows the usage of the program here, not that of the command
        hint = "; a text that begins with '-' goes behind '--'" if getattr(args, "text", "") is None else ""
        args.own_parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    args.parser = parser
    _read_texts(args)
    return args


def _read_texts(args: argparse.Namespace) -> None:
    """Texts among the arguments are UTF-8, whatever the locale says. RequestError for what is not.

    Trap: in a locale of ASCII, with PYTHONUTF8=0, Python hands over every other byte as half a surrogate pair.
    """
    for name in TEXTS:
        value = getattr(args, name, None)
        if isinstance(value, str) and any("\udc80" <= c <= "\udcff" for c in value):
            content = value.encode(errors="surrogateescape")
            try:
                setattr(args, name, content.decode())
            except UnicodeDecodeError as e:
                shown = f"{name.replace('_', '-')} is not UTF-8 text: byte {e.start} is {content[e.start]:#04x}"
                raise RequestError(shown) from None


def with_hyphens(argv: list[str]) -> list[str]:
    """``argv`` with options as they are spelled here; the official names, such as --top_k, have underscores."""
    words, after = (argv, []) if "--" not in argv else (argv[: argv.index("--")], argv[argv.index("--") :])
    return [_with_hyphens(word) if word.startswith("--") else word for word in words] + after


def _with_hyphens(option: str) -> str:
    name, equals, value = option.partition("=")
    return name.replace("_", "-") + equals + value


@contextmanager
def warnings_of_one_line(name: str) -> Iterator[None]:
    """Warnings of one line, without the source that Python shows to programmers."""

    def one_line(message: Warning | str, category: Any, filename: Any, lineno: Any, line: Any = None) -> str:
        return f"{name}: warning: {printable(str(message))}\n"

    before, warnings.formatwarning = warnings.formatwarning, one_line
    try:
        with warnings.catch_warnings():
            if any(option.startswith("error") for option in sys.warnoptions):  # PYTHONWARNINGS=error
                warnings.simplefilter("default")  # they are for programmers' own code; here they are lines
            yield
    finally:
        warnings.formatwarning = before


@contextmanager
def notes_of_one_line(name: str) -> Iterator[None]:
    """What the package logs, such as what it downloads or compiles, on standard error."""
    handler = logging.StreamHandler()
    over = "\r\x1b[K" if sys.stderr.isatty() else ""  # whatever progress is shown there
    handler.setFormatter(logging.Formatter(f"{over}{name}: %(message)s"))
    logger = logging.getLogger(__package__.partition(".")[0])
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before


def program_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser of all commands, or of one, without the imports of the others: they take longer than its own."""
    parser = Parser(
        prog=PROGRAM,
        formatter_class=Formatter,
        description="Qwen3-TTS on NumPy and Numba, without a framework: text to speech on a CPU.",
        epilog="" if command else "\n".join(["examples:", *(f"  {line}" for line in _examples())]),
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in [command] if command else COMMANDS:
        import_module(f"{__name__}.{name.replace('-', '_')}").add_parser(commands)
    return parser


def _examples() -> tuple[str, ...]:
    from . import clone, say, voice

    return say.EXAMPLES[0], clone.EXAMPLES[0], voice.CREATE, "qwen3tts-np say --help"
