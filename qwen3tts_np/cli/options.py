"""Options that several commands share."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

from ..checkpoint.adapter import Adapter
from ..checkpoint.config_file import GENERATION_DEFAULTS, read_generation_config
from ..checkpoint.pretrained import directory
from ..compiled.engine import WEIGHT_FORMATS
from ..config import GenerationConfig
from ..model import Qwen3TTSModel
from ..request import limits_of
from ..shown import LONGEST, printable, shortened, with_short_words, without_passwords
from ..speech import demo
from ..talker.generator import check_seed
from .progress import note

_QUOTED = re.compile(rf"'((?:[^'\\]|\\.){{{LONGEST},}})'|\"((?:[^\"\\]|\\.){{{LONGEST},}})\"")

# The sampling arguments of ``generate_*``, under their official names: name -> (type, what it does).
NUMBERS: dict[str, tuple[type, str]] = {
    "temperature": (float, "code 0 of a frame: above 1 livelier, below 1 steadier"),
    "top_k": (int, "choose among the K best codes; 0 is all of them"),
    "top_p": (float, "choose among the best codes that hold this probability"),
    "repetition_penalty": (float, "above 1 makes repeated codes rarer"),
    "subtalker_temperature": (float, "the same for the other codes of a frame"),
    "subtalker_top_k": (int, "the same for the other codes"),
    "subtalker_top_p": (float, "the same for the other codes"),
    "max_new_tokens": (int, "stop after so many frames, less one, of 80 ms"),
}
SWITCHES = {
    "do_sample": "draw code 0, or take the best",
    "subtalker_dosample": "the same for the other codes",  # spelled so officially
    "non_streaming_mode": "read the complete text before the first frame, or one token per frame",
}


class Parser(argparse.ArgumentParser):
    """Wrong usage is one line, as every other error, in which long values are shortened.

    ``commands``: parsers of what comes after a first word, where otherwise a positional argument stands: ``train
    prepare RAW OUT`` beside ``train MODEL DATA OUT``. argparse itself has either subcommands or positionals.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.commands: dict[str, Parser] = {}

    def add_command(self, name: str, examples: Sequence[str], **texts: Any) -> Parser:
        """One of ``commands``, with its examples below its help."""
        parser = Parser(prog=f"{self.prog} {name}", formatter_class=Formatter, epilog=_epilog(examples), **texts)
        parser.set_defaults(own_parser=parser)
        self.commands[name] = parser
        return parser

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if args and args[0] in self.commands:
            return self.commands[args[0]].parse_known_args(args[1:], namespace)
        return super().parse_known_args(args, namespace)

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        """Trap: ``Path("")`` is the current folder, and ``"$OUT"`` of a variable that is not set is empty."""
        if action.type is Path and not arg_string:
            raise argparse.ArgumentError(action, "it is empty, expected the name of a file or a folder")
        return super()._get_value(action, arg_string)

    def error(self, message: str) -> NoReturn:
        shown = _QUOTED.sub(lambda value: shortened(value[1] or value[2]), message)
        shown = printable(with_short_words(without_passwords(shown), LONGEST))
        self.exit(2, f"{self.prog}: {shown}; see '{self.prog} --help'\n")


class Formatter(argparse.HelpFormatter):
    """Descriptions are wrapped, examples are not."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith("examples:") else super()._fill_text(text, width, indent)


def new_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, examples: Sequence[str], **texts: Any
) -> argparse.ArgumentParser:
    """The parser of a command, with its examples below its help."""
    parser = commands.add_parser(name, formatter_class=Formatter, epilog=_epilog(examples), **texts)
    parser.set_defaults(own_parser=parser)
    return parser


def _epilog(examples: Sequence[str]) -> str:
    return "\n".join(["examples:", *(f"  {line}" for line in examples)])


def add_checkpoint(
    parser: argparse.ArgumentParser, what: str = "checkpoint directory", *, required: bool = True
) -> None:
    """The options of a checkpoint that is not run."""
    help_ = f"{what}, or a name to download: Qwen/Qwen3-TTS-12Hz-0.6B-Base"
    parser.add_argument("model", type=Path, metavar="MODEL", help=help_).required = required
    add_hub(parser)


def add_hub(parser: argparse.ArgumentParser) -> None:
    """The options of a model that has a name."""
    parser.add_argument("--cache-dir", type=Path, metavar="DIR", help="keep downloaded models here")
    parser.add_argument(
        "--offline", action="store_true", help="take models that are here, download nothing and no clip"
    )


def add_model(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """The options of a checkpoint and of running it."""
    add_checkpoint(parser, required=required)
    add_threads(parser)
    add_format(parser)


def add_format(parser: argparse.ArgumentParser) -> None:
    """The options of the weights in memory."""
    parser.add_argument(
        "--format",
        choices=("auto", *WEIGHT_FORMATS),
        default="auto",
        metavar="FORMAT",
        help=f"of the weights in memory: auto is the checkpoint's own, or one of {', '.join(WEIGHT_FORMATS)}; int8 and "
        "below are smaller, faster and approximate",
    )
    parser.add_argument(
        "--cache-packed",
        action="store_true",
        default=None,
        help="with --format int8 or int4: keep the packed weights in your cache, so that the next start maps them; "
        "QWEN3TTS_NP_CACHE_PACKED=1 does it always",
    )


def add_threads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=int, metavar="N", help="cores to use (default: all)")


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object, for programs")


def add_seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, metavar="N", help="the same seed gives the same speech")


def add_tempo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tempo", type=float, default=1.0, metavar="X", help="0.25 to 4: slower or faster, at the same pitch"
    )


def add_loudness(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--loudness",
        type=float,
        metavar="LUFS",
        help="give the file this loudness: -16 for podcasts, -23 for broadcast",
    )


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """The sampling options; defaults are those of the checkpoint."""
    group = parser.add_argument_group(
        "sampling", "what is not given comes from the checkpoint's generation_config.json"
    )
    group.add_argument("--greedy", action="store_true", help="the best code every time: neither do-sample")
    for name, (kind, help_) in NUMBERS.items():
        group.add_argument(_option(name), type=kind, metavar="N" if kind is int else "X", help=help_)
    for name, help_ in SWITCHES.items():
        group.add_argument(_option(name), action=argparse.BooleanOptionalAction, default=None, help=help_)


def sampling(args: argparse.Namespace) -> dict[str, Any]:
    """The keyword arguments of ``generate_*`` that the sampling options stand for."""
    given = {name: value for name in (*NUMBERS, *SWITCHES) if (value := getattr(args, name)) is not None}
    greedy = {"do_sample": False, "subtalker_dosample": False} if args.greedy else {}
    return {**greedy, **given}


def check_numbers(args: argparse.Namespace, given: Mapping[str, Any], seed: int | None) -> None:
    """RequestError for sampling arguments and a seed that no request can have; before a model is fetched or loaded.

    What is allowed depends on the model in one case: where its generation_config.json is greedy, temperature, top_k and
    top_p are ignored, also impossible ones.
    """
    if seed is not None:
        check_seed(seed)
    here = os.path.isdir(args.model)  # trap: Path.is_dir raises where the name is too long
    defaults = read_generation_config(args.model) if here else GenerationConfig(**GENERATION_DEFAULTS)
    names = {field.name for field in fields(GenerationConfig)}
    limits_of(defaults, {name: value for name, value in given.items() if name in names})


def checkpoint(args: argparse.Namespace, name: str = "model") -> Path:
    """The directory of the checkpoint that the arguments name, downloaded if need be."""
    return directory(getattr(args, name), args.cache_dir, local_files_only=args.offline)


def add_adapter(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--adapter", type=Path, metavar="DIR", help="a low-rank adapter of the model (train, PEFT)")


def load_model(args: argparse.Namespace, adapter: Adapter | None = None) -> Qwen3TTSModel:
    folder = checkpoint(args)
    with note(f"loading {args.model}"):
        return Qwen3TTSModel.from_pretrained(
            folder,
            threads=args.threads,
            weights_format=args.format,
            cache_packed=args.cache_packed,
            adapter=adapter,
        )


def load_demo(args: argparse.Namespace) -> Qwen3TTSModel:
    """The demo voice, in plain NumPy: so small a model speaks faster than its kernels are compiled the first time."""
    return Qwen3TTSModel.from_pretrained(
        demo.CHECKPOINT,
        threads=args.threads,
        weights_format=args.format,
        backend="reference" if args.format == "auto" else "auto",
    )


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
