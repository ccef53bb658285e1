"""``qwen3tts-np evaluate``: measures of speech, with intervals, and the comparison of two runs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from ..errors import RequestError
from ..evaluate.evaluation import Comparison, Evaluation, compared, evaluate, load, obstacle
from ..evaluate.judge import Judges
from ..evaluate.measures import GROUPS, MEASURES, groups
from ..evaluate.normalise import NORMALISERS
from ..evaluate.page import html
from ..evaluate.recogniser import recogniser
from ..evaluate.requirement import Requirement
from ..evaluate.seed_tts import PROTOCOL, manifest, rows
from ..evaluate.text import comparison_table, tables
from ..files.apart import check_outputs
from ..files.output import write_text
from ..manifest import Manifest, Row
from ..model import Qwen3TTSModel
from ..report.tables import as_text
from ..shown import shortened
from ..speech_tokenizer import Qwen3TTSTokenizer
from ..text.languages import CODES, language_name
from .options import add_hub, new_parser
from .output import print_text
from .progress import note

T = TypeVar("T")

EXAMPLES = (
    'qwen3tts-np evaluate spoken.jsonl --html evaluation.html -o bfloat16.json --require "runaway<=0.01"',
    "qwen3tts-np evaluate spoken.jsonl --name int4 --against bfloat16.json",
    "qwen3tts-np evaluate meta.lst --protocol seed-tts --to-manifest requests.jsonl",
)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = new_parser(
        commands,
        "evaluate",
        EXAMPLES,
        help="how good speech is: errors of words, voice, quality, pace; and two runs compared",
        description="Measure the audio of a manifest against its texts and reference clips. Exit status 1 if a "
        f"--require is not met. Measures: {'; '.join(f'{group}: {_names(group)}' for group in GROUPS)}.",
    )
    parser.add_argument(
        "manifest",
        type=Path,
        metavar="MANIFEST",
        help="JSON Lines or CSV with text, audio and, for the voice, ref_audio; results.jsonl of batch; a .json of -o",
    )
    parser.add_argument(
        "--measure", nargs="+", metavar="GROUP", choices=GROUPS, help="which (default: all that are possible here)"
    )
    hearing = parser.add_argument_group("recogniser")
    hearing.add_argument(
        "--recogniser",
        default="pocketsphinx",
        metavar="R",
        help="pocketsphinx (English), faster-whisper[:MODEL], or a command that prints what {audio} says (%(default)s)",
    )
    hearing.add_argument("--words", type=Path, metavar="FILE", help="pocketsphinx: the only words there are")
    hearing.add_argument("--grammar", type=Path, metavar="FILE", help="pocketsphinx: a JSGF grammar, or an ARPA model")
    hearing.add_argument(
        "--normaliser", choices=NORMALISERS, help="of texts, before they are compared (language; with --words plain)"
    )
    hearing.add_argument("--language", metavar="L", help="of all texts (default: the row's, or the likely one)")
    judges = parser.add_argument_group("other judges")
    judges.add_argument("--model", type=Path, metavar="BASE", help="a base model, whose speaker encoder judges too")
    judges.add_argument("--codec", type=Path, metavar="MODEL", help="encode and decode, and measure what that costs")
    judges.add_argument(
        "--plug",
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="a measure of your own, such as utmos: a command that prints a number for {audio}; repeatable",
    )
    add_hub(judges)  # type: ignore[arg-type]
    benchmark = parser.add_argument_group("benchmark")
    benchmark.add_argument("--protocol", choices=[PROTOCOL], help="MANIFEST is the meta.lst of Seed-TTS-eval")
    benchmark.add_argument("--audio-dir", type=Path, metavar="DIR", help="where its ID.wav are")
    benchmark.add_argument("--to-manifest", type=Path, metavar="FILE", help="write it as a manifest for batch")
    out = parser.add_argument_group("results")
    out.add_argument("--name", help="of this run, in tables (default: the manifest's)")
    out.add_argument("--against", type=Path, metavar="RUN", help="compare with another run, a .json of -o")
    out.add_argument(
        "--margin", action="append", default=[], metavar="NAME=X", help="a loss that matters, for 'as good'; repeatable"
    )
    out.add_argument("--require", action="append", default=[], metavar="RULE", help='such as "wer<=0.25"; repeatable')
    out.add_argument("-o", "--output", type=Path, metavar="FILE", help="write everything as JSON")
    out.add_argument("--html", type=Path, metavar="FILE", help="write one page with players and spectrograms")
    out.add_argument("--json", action="store_true", help="print everything, for programs")
    parser.set_defaults(run=run)


def _names(group: str) -> str:
    return ", ".join(name for name, one in MEASURES.items() if one.group == group)


def run(args: argparse.Namespace) -> int:
    inputs = {"MANIFEST": args.manifest, "--against": args.against, "--words": args.words, "--grammar": args.grammar}
    outputs = {"--output": args.output, "--html": args.html, "--to-manifest": args.to_manifest}
    check_outputs(outputs, inputs)
    if args.to_manifest is not None:
        return _write_manifest(args, outputs)
    plugs = _pairs(args.plug, "--plug", str, "a command")
    required = [Requirement.parse(text, tuple(plugs)) for text in args.require]
    margins = _pairs(args.margin, "--margin", float, "a number")
    other = load(args.against) if args.against is not None else None
    found = _run(args, plugs, outputs)
    comparison = compared(other, found, margins) if other is not None else None
    problems = [problem for one in required if (problem := one.problem(found.means)) is not None]
    everything = {**found.as_json(), **({"against": comparison.as_json()} if comparison else {}), "problems": problems}
    if args.output is not None:
        write_text(args.output, json.dumps(everything, ensure_ascii=False, indent=1) + "\n")
    if args.html is not None:
        write_text(args.html, html(found, comparison))
    if args.json:
        print(json.dumps(everything, indent=1))
    else:
        print_text("\n\n".join(_text(found, comparison)))
    for problem in problems:
        print_text(problem) if not args.json else print(problem, file=sys.stderr)
    return int(bool(problems))


def _text(found: Evaluation, comparison: Comparison | None) -> list[str]:
    shown = [*tables(found), *([comparison_table(comparison)] if comparison else [])]
    return [as_text(table) for table in shown]


def _write_manifest(args: argparse.Namespace, outputs: Mapping[str, Path | None]) -> int:
    if args.protocol is None:
        raise RequestError("--to-manifest writes the benchmark that --protocol names; give --protocol seed-tts")
    _keep_apart(outputs, rows(args.manifest))
    write_text(args.to_manifest, manifest(args.manifest))
    print_text(f"{args.to_manifest}: speak it with 'qwen3tts-np batch', then evaluate the results.jsonl")
    return 0


def _keep_apart(outputs: Mapping[str, Path | None], read: Iterable[Row]) -> None:
    """Refuse outputs over the audio of a row."""
    if any(path is not None and path.exists() for path in outputs.values()):  # a new file is over none
        for row in read:
            check_outputs(outputs, {f"audio of {row.name}": row.audio, f"ref_audio of {row.name}": row.ref_audio})


def _run(args: argparse.Namespace, plugs: dict[str, str], outputs: dict[str, Path | None]) -> Evaluation:
    if args.manifest.suffix.lower() == ".json" and args.protocol is None:
        run = load(args.manifest)
        return Evaluation(args.name or run.name, run.judges, run.utterances, run.missing, run.left_out)
    read = list(_rows(args))
    _keep_apart(outputs, read)
    chosen, left_out = _groups(args, read)
    judges = _judges(args, chosen, plugs)
    with note(f"measuring {len(read)} utterances"):
        return evaluate(read, judges, args.name or _name(args.manifest), left_out)


def _rows(args: argparse.Namespace) -> Sequence[Row]:
    if args.protocol is None:
        if args.audio_dir is not None:
            raise RequestError("--audio-dir is where the benchmark of --protocol has its audio; a manifest names it")
        return list(Manifest(args.manifest).rows())
    if args.audio_dir is None:
        raise RequestError("--protocol seed-tts needs --audio-dir, the folder of its ID.wav")
    return list(rows(args.manifest, args.audio_dir))


def _name(path: Path) -> str:
    return path.parent.name if path.name == "results.jsonl" and path.parent.name else path.stem


def _groups(args: argparse.Namespace, read: Sequence[Row]) -> tuple[tuple[str, ...], list[str]]:
    """The groups to measure, and why others are not. RequestError for one that was asked for and is impossible."""
    without = {
        "words": None if any(row.text for row in read) else "no row has a text",
        "speaker": None if any(row.ref_audio for row in read) else "no row has ref_audio",
        "codec": None if args.codec is not None else "no --codec is given",
    }
    chosen, left_out = [], []
    for group in args.measure or GROUPS:
        reason = without.get(group) or obstacle(group)
        if reason is None:
            chosen.append(group)
        elif group == "speaker" and without["speaker"] is None and args.model is not None:
            chosen.append(group)  # the model's own encoder needs nothing
            left_out.append(f"similarity ({reason})")
        elif args.measure:
            raise RequestError(f"--measure {group}: {reason}")
        elif without.get(group) is None:
            left_out.append(f"{group} ({reason})")
    if "sound" in chosen and (reason := obstacle("level")) is not None:
        left_out.append(f"level ({reason})")
    if args.codec is not None and "codec" not in chosen and args.measure:
        raise RequestError("--codec is given, and --measure has no codec")
    return groups(chosen), left_out


def _judges(args: argparse.Namespace, chosen: tuple[str, ...], plugs: dict[str, str]) -> Judges:
    if args.language is not None and language_name(args.language) not in {*CODES.values(), "auto"}:
        known = ", ".join(sorted(set(CODES.values())))
        raise RequestError(f"--language {shortened(args.language)} must be one of {known}")
    from ..checkpoint.pretrained import directory

    def folder(name: Path) -> Path:
        return directory(name, args.cache_dir, local_files_only=args.offline)

    cloner = None
    if args.model is not None:
        model = Qwen3TTSModel.from_pretrained(folder(args.model))
        if model.speaker_encoder is None:
            raise RequestError(f"--model {args.model} has no speaker encoder; base models have one")
        cloner = model.cloner
    return Judges(
        groups=chosen,
        recogniser=recogniser(args.recogniser, args.words, args.grammar) if "words" in chosen else None,
        normaliser=args.normaliser or ("language" if args.words is None else "plain"),
        language=args.language,
        cloner=cloner,
        codec=None if args.codec is None else Qwen3TTSTokenizer.from_pretrained(folder(args.codec)),
        independent=obstacle("speaker") is None,
        level=obstacle("level") is None,
        plugs=plugs,
    )


def _pairs(given: Sequence[str], option: str, kind: Callable[[str], T], what: str) -> dict[str, T]:
    """NAME=VALUE, each. RequestError for anything else; ``what`` is said of the value."""
    found = {}
    for text in given:
        name, _, value = text.partition("=")
        try:
            if not name.isidentifier() or not value:
                raise ValueError
            found[name] = kind(value)
        except ValueError:
            raise RequestError(f"{option} {shortened(text)} must be a name, '=' and {what}") from None
    return found
