"""``qwen3tts-np trace``: every activation of one request."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from ..errors import RequestError
from ..files.output import check_new_folder, output_folder
from ..inspect.attention_maps import heads_of
from ..inspect.collector import seconds_by_block
from ..inspect.golden import Golden
from ..inspect.trace_plots import draw
from ..inspect.tracing import Options, Traced, first_outside, growth, trace_request
from ..model import Qwen3TTSModel
from ..report.plots import require_matplotlib, why_no_plots
from ..report.tables import Table, as_text
from .options import add_checkpoint, add_threads, checkpoint, new_parser
from .output import print_text
from .request_options import add_request, request_of

SHOWN = 12  # blocks in the table of times
SUFFIXES = ("png", "svg", "none")
EXAMPLES = (
    'qwen3tts-np trace Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice --text "Hello." --seed 1 --max-new-tokens 5 -o traced',
)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = new_parser(
        commands,
        "trace",
        EXAMPLES,
        help="run a request and look inside: activations, attention, choices, times",
        description="Run a request on the NumPy path and write what happens inside to a folder: statistics of every "
        "activation (statistics.csv), entropy and candidates of every choice (choices.csv), attention maps, codes, "
        "speech, a summary, and plots. Everything goes to disk as it comes, so long speech needs no more memory.",
    )
    add_checkpoint(parser)
    add_threads(parser)
    add_request(parser)
    parser.add_argument(
        "-o", "--output", type=Path, default="trace", metavar="DIR", help="must not exist (%(default)s)"
    )
    parser.add_argument("--heads", metavar="L:H,...", help="attention maps of these heads (0 of first, middle, last)")
    parser.add_argument(
        "--keep", action="append", default=[], metavar="PATTERN", help="keep the values of these activations as well"
    )
    parser.add_argument("--top", type=int, default=5, metavar="N", help="candidates listed for a code (%(default)s)")
    parser.add_argument(
        "--golden", type=Path, metavar="PATH", help="compare with a golden case, or another trace's activations"
    )
    parser.add_argument("--plots", choices=SUFFIXES, help="draw pictures (png, where matplotlib is installed)")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32", help="(%(default)s)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    if args.plots in ("png", "svg"):
        require_matplotlib()
    if args.top < 1:
        raise RequestError(f"--top {args.top} must be at least 1")
    check_new_folder(args.output)
    request = request_of(args)
    golden = None if args.golden is None else Golden(args.golden)
    model = Qwen3TTSModel.from_pretrained(checkpoint(args), backend="reference", threads=args.threads, dtype=args.dtype)
    heads = tuple(heads_of(args.heads, model.config.talker_config))
    without = why_no_plots()
    suffix = args.plots or ("none" if without else "png")
    with output_folder(args.output) as folder:
        found = trace_request(model, request, folder, Options(heads, tuple(args.keep), args.top, golden))
        if suffix != "none":
            list(draw(found, folder, suffix))
    print_text("\n\n".join(report(found)))
    print_text(f"\n{args.output}: {', '.join(sorted(path.name for path in args.output.iterdir()))}")
    if args.plots is None and without:
        print_text(without)


def report(t: Traced) -> Iterator[str]:
    """The summary for the terminal; the complete result is in the folder."""
    yield f"{len(t.codes)} frames, {len(t.codes) / t.frame_rate:.2f} s of speech, in {t.seconds:.1f} s"
    yield as_text(residual(t))
    yield as_text(codebooks(t))
    before = f", {t.end[:-1].max():.3g} at most before" if len(t.codes) else ""
    yield f"P(end of speech): {t.end[-1]:.3g} after the last frame{before}; choices.csv has every frame"
    times = list(seconds_by_block(t.totals).items())
    whole = sum(seconds for _, seconds in times)
    rows = [[name, f"{seconds:.3f}", f"{seconds / whole:.1%}"] for name, seconds in times[:SHOWN]]
    note = (
        f"From one activation to the next, on the NumPy path; the {t.seconds - whole:.1f} s of the trace are left out."
    )
    yield as_text(Table("Time by block", ["block", "s", "share"], "lrr", rows, note))
    compared = sum(total.worst is not None for total in t.totals.values())
    if compared:
        outside = first_outside(t.totals)
        verdict = "all within their tolerances" if outside is None else f"the first outside its tolerance is {outside}"
        yield f"golden: {compared} activations compared, {verdict}"


def residual(t: Traced) -> Table:
    layers = growth(t.totals)
    rows, before = [], 0.0
    for name, rms in layers.items():
        s = t.totals[name]
        factor = f"x{rms / before:.2f}" if before else ""
        rows.append([name, *(f"{v:.4g}" for v in (s.mean, s.std, max(abs(s.lowest), abs(s.highest)), rms)), factor])
        before = rms
    headers = ["residual stream after", "mean", "std", "max |x|", "rms", "growth"]
    return Table("Talker, layer by layer", headers, "lrrrrr", rows)


def codebooks(t: Traced) -> Table:
    rows = []
    for g, counts in enumerate(t.histogram):
        known = t.entropies[: len(t.codes), g]
        entropy = f"{known.mean():.2f}" if len(known) else ""
        common = " ".join(str(code) for code in (-counts).argsort(kind="stable")[:5] if counts[code])
        rows.append([str(g), entropy, str(int((counts > 0).sum())), common])
    return Table("Codes", ["codebook", "entropy of the choice (bits)", "different codes", "commonest"], "rrrl", rows)
