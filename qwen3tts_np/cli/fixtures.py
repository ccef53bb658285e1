"""``qwen3tts-np fixtures``: exact tensors for another implementation, and the first difference in its tensors."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from ..checkpoint.json_file import read_json
from ..errors import RequestError
from ..files.apart import check_outputs
from ..files.output import check_new_folder, write_text
from ..inspect.request_file import read_request
from ..inspect.stored_tensors import TENSOR_FORMATS
from ..parity.compare import Comparison, compare, weights_of
from ..parity.export import export
from ..parity.fixture import read_fixture
from ..parity.ladder import LIMITS
from ..parity.plot import error_plot
from ..parity.report import as_html, as_json, as_markdown, as_text
from ..parity.steps import KINDS, Step
from ..shown import shortened
from .options import add_checkpoint, add_hub, check_numbers, checkpoint, new_parser
from .output import print_text

REPORTS = {"json": "everything", "markdown": "summary", "html": "everything, with plot", "svg": "plot"}
EXPORT = (
    "qwen3tts-np fixtures export Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice request.json fixture",
    "qwen3tts-np fixtures export Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice request.json norms --tensors '*norm'",
    "qwen3tts-np fixtures export Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice request.json step --step code_predictor",
    "qwen3tts-np fixtures export Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice request.json padded --step talker --positions 64",
)
COMPARE = (
    "qwen3tts-np fixtures compare fixture norms",
    "qwen3tts-np fixtures compare fixture fixture --model Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice --html report.html",
)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = new_parser(
        commands,
        "fixtures",
        (EXPORT[0], "qwen3tts-np fixtures compare --help"),
        help="tensors for other implementations, and where theirs differ",
        description="Write what the model computes for a request, tensor by tensor, and compare such tensors with "
        "those of another implementation.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _add_export(actions)
    _add_compare(actions)


def _add_export(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = new_parser(
        actions,
        "export",
        EXPORT,
        help="write the tensors of a request",
        description="Run a request on the NumPy path and write its activations, results and tolerances. A request is "
        'a file such as {"method": "generate_custom_voice", "arguments": {"text": "Hello.", "speaker": "vivian"}, '
        '"seed": 1}. Methods are generate_custom_voice, generate_voice_design, generate_voice_clone, encode, decode '
        'and speaker_embedding; clips are {"audio": "clip.wav"} and codes {"codes": "codes.npy"}, beside the file. A '
        "golden case.json is a request too.",
    )
    add_checkpoint(parser)
    parser.add_argument("request", type=Path, metavar="REQUEST.json", help="what to run")
    parser.add_argument("target", type=Path, metavar="OUT", help="folder; must not exist, or be empty")
    parser.add_argument(
        "--tensors", nargs="+", default=(), metavar="PATTERN", help="activations to keep (default: all)"
    )
    parser.add_argument(
        "--tensor-format", choices=TENSOR_FORMATS, default="safetensors", help="of inputs and tensors (%(default)s)"
    )
    parser.add_argument(
        "--codes", type=Path, metavar="FILE.npy", help="follow these codes [frames, G]: teacher forcing"
    )
    parser.add_argument("--step", choices=KINDS, help="cut out one step, its state as inputs and outputs")
    parser.add_argument("--frame", type=int, default=1, metavar="N", help="of the step (%(default)s)")
    parser.add_argument("--positions", type=int, metavar="N", help="of padded caches, with mask and write index")
    parser.add_argument("--group", type=int, default=2, metavar="G", help="code of a code_predictor step (%(default)s)")
    parser.add_argument("--frames", type=int, default=2, metavar="N", help="of a codec step (%(default)s)")
    parser.add_argument(
        "--no-float64", action="store_true", help="skip the float64 run that gives tolerances (large models)"
    )
    parser.set_defaults(run=run_export)


def _add_compare(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = new_parser(
        actions,
        "compare",
        COMPARE,
        help="find the first tensor that differs, and why",
        description="Walk through the tensors in the order of execution and say which is the first outside its "
        "tolerance, and what known mistake makes it look so. Theirs may be a fixture, a .safetensors file (bfloat16 "
        "and float16 are widened) or a folder of .npy files, with fewer tensors than ours. A file of names is "
        '{"their.layer.*.q": "talker.model.layers.*.self_attn.q_proj@0"}. Exit status 1 if a tensor is outside its '
        "tolerance.",
    )
    parser.add_argument("ours", type=Path, metavar="OURS", help="a fixture or a folder of golden/cases")
    parser.add_argument("theirs", type=Path, metavar="THEIRS", help="what the other implementation computed")
    parser.add_argument("--names", type=Path, metavar="FILE.json", help="their names to ours, * for any part of a name")
    parser.add_argument("--model", type=Path, metavar="DIR", help="the checkpoint: names more causes")
    add_hub(parser)
    parser.add_argument(
        "--format", choices=LIMITS, help="of their weights: allow what golden/ladder says of it (default: as ours)"
    )
    parser.add_argument("--times", type=float, default=1.0, metavar="X", help="on every tolerance (%(default)s)")
    for name, what in REPORTS.items():
        parser.add_argument(f"--{name}", type=Path, metavar="FILE", help=f"write a report: {what}")
    parser.set_defaults(run=run_compare)


def run_export(args: argparse.Namespace) -> None:
    if args.positions is not None and not args.step:
        raise RequestError(f"--positions {args.positions} is for the caches of a step: give --step as well")
    step = Step(args.step, args.frame, args.group, args.frames, args.positions) if args.step else None
    request = read_request(args.request, args.codes)
    check_numbers(args, request.arguments, request.seed)
    patterns = tuple(args.tensors)
    check_new_folder(args.target)
    manifest = export(checkpoint(args), request, args.target, patterns, args.tensor_format, step, not args.no_float64)
    print_text(f"{args.target}: {len(manifest['tensors'])} tensors, {len(manifest['inputs'])} inputs")


def run_compare(args: argparse.Namespace) -> int:
    if not args.times > 0:
        raise RequestError(f"--times {args.times} must be above 0")
    names = _read_names(args.names) if args.names else {}
    reports = {f"--{name}": getattr(args, name) for name in REPORTS}
    check_outputs(reports, {"OURS": args.ours, "THEIRS": args.theirs, "--names": args.names, "--model": args.model})
    weights = weights_of(checkpoint(args)) if args.model else None
    found = compare(read_fixture(args.ours), read_fixture(args.theirs), names, weights, args.times, args.format)
    writers: dict[str, Callable[[Comparison], str]] = {
        "json": as_json,
        "markdown": as_markdown,
        "html": as_html,
        "svg": lambda c: error_plot(c.rows, f"{c.theirs} against {c.ours}"),
    }
    for name, text_of in writers.items():
        if path := getattr(args, name):
            write_text(path, text_of(found))
    print_text(as_text(found))
    return int(found.first is not None)


def _read_names(path: Path) -> dict[str, str]:
    """A file of names. RequestError, naming the first entry that is none, for any other object."""
    names = read_json(path, "file of names")
    for theirs, ours in names.items():
        if not isinstance(ours, str):
            raise RequestError(
                f"{path} is no file of names: {shortened(theirs)} is {shortened(ours)}, expected one of our names"
            )
    return names
