"""``qwen3tts-np train``: what a checkpoint learns from, and how."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from ..checkpoint.pretrained import directory
from ..errors import RequestError
from ..notices import notify
from ..report.values import finite, si
from ..shown import shortened
from ..training.checkpoints import is_the_published_codec
from ..training.names import WITHOUT_EFFECT, Given, read_settings
from ..training.plan import Plan, plan
from ..training.remote import check_upload, upload, wandb_report
from ..training.run import Report
from ..training.run import run as run_training
from ..training.settings import KINDS, TrainingSettings
from ..training.state import State
from ..training.trainer import Trainer
from . import train_prepare
from .options import Parser, add_hub, add_json, new_parser
from .output import print_text, report
from .progress import note

TRAINED = "qwen3tts-np train Qwen/Qwen3-TTS-12Hz-0.6B-Base data.jsonl ada"
EXAMPLES = (
    TRAINED,
    f"{TRAINED} --dry-run",
    f"{TRAINED}-layers --add-new-layers 1 --num-epochs 1",
    f"{TRAINED}-last --train last:1 --config train.env",
    *train_prepare.EXAMPLES,
)
NAMED = {"model": "MODEL", "data": "DATA", "output": "OUT"}  # settings that the command names without an option


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = new_parser(
        commands,
        "train",
        EXAMPLES,
        help="fine-tune a model; prepare recordings for it",
        usage="%(prog)s MODEL DATA OUT [options]\n       %(prog)s prepare RAW OUT [options]",
        description="Fine-tune MODEL on DATA, which 'train prepare' makes of recordings, and write complete "
        "checkpoints into OUT: best, last and checkpoint-N, and beside them training_log.jsonl, validation_log.jsonl "
        "and loss.svg. By default it trains low-rank additions and the voices. Stopped or killed, the same command "
        "goes on where it was, and writes what it would have written. Options override --config.",
    )
    assert isinstance(parser, Parser)
    train_prepare.add_parser(parser)
    texts = {
        "model": "checkpoint directory, or a name to download",
        "data": "rows with text and audio_codes, .jsonl; DATA.validation.jsonl and DATA.safetensors beside it are used",
        "output": "the folder of the run; one that was interrupted goes on",
    }
    for name, metavar in NAMED.items():
        parser.add_argument(name, nargs="?", metavar=metavar, help=texts[name])
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="settings: TOML by its suffix, otherwise NAME=value lines (.env)"
    )
    for spec in fields(TrainingSettings):
        _add_setting(parser, spec.name, spec.metadata, spec.default)
    parser.add_argument("--freeze-speaker-encoder", action=argparse.BooleanOptionalAction, help=argparse.SUPPRESS)
    add_hub(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def _add_setting(parser: argparse.ArgumentParser, name: str, told: Mapping[str, Any], default: Any) -> None:
    """The option of a setting, under its own name and those of other scripts."""
    flags = [f"--{word}" for word in told["also"]]
    if name in NAMED:
        parser.add_argument(*flags, dest=f"{name}_option", help=argparse.SUPPRESS)
        return
    flags.insert(0, f"--{name.replace('_', '-')}")
    kind, shown = KINDS[name], "" if default is None or default == "" else f" ({default})"
    if kind is bool:
        parser.add_argument(
            *flags, dest=name, action=argparse.BooleanOptionalAction, default=None, help=f"{told['help']}{shown}"
        )
        return
    metavar = {int: "N", float: "X", str: "TEXT"}[kind]
    if name in ("validation", "codec", "ref_audio"):
        metavar = "FILE"
    choices = {"choices": told["choices"]} if told["choices"] else {"metavar": metavar}
    help_ = f"{told['help']}{shown}".replace("%", "%%")
    parser.add_argument(*flags, dest=name, type=kind, default=None, help=help_, **choices)


def run(args: argparse.Namespace) -> None:
    given = Given({}) if args.config is None else read_settings(args.config)
    settings = _settings(args, given)
    check_upload(settings)
    model = directory(settings.model or "", args.cache_dir, local_files_only=args.offline)
    codec = None
    if settings.codec is not None and not is_the_published_codec(settings.codec):
        codec = directory(settings.codec, args.cache_dir, local_files_only=args.offline)
    with note(f"reading {settings.data}"):
        trainer = Trainer(model, settings, codec)
    if settings.dry_run:
        found = plan(trainer)
        report(args, finite(asdict(found)), "\n".join(_shown(found)))
        return
    reports = [_Progress(trainer.schedule.steps, trainer.judge.impossible)]
    others = [one for one in [wandb_report(settings)] if one is not None]
    state = run_training(trainer, _all([*reports, *others]))
    uploaded = upload(settings, Path(settings.output or ""), given.token) if settings.upload_to_hub else []
    _report(args, settings, trainer, state, uploaded)


def _settings(args: argparse.Namespace, given: Given) -> TrainingSettings:
    """Options over the file over the defaults. RequestError for what is missing."""
    if args.freeze_speaker_encoder is not None:
        notify(f"--freeze-speaker-encoder has no effect here: {WITHOUT_EFFECT['FREEZE_SPEAKER_ENCODER']}")
    options = {name: value for name in KINDS if (value := getattr(args, name, None)) is not None}
    named = {name: value for name in NAMED if (value := getattr(args, f"{name}_option")) is not None}
    if twice := sorted(NAMED[name] for name in named if name in options):
        raise RequestError(f"{' and '.join(twice)} is given twice, as an option too")
    settings = TrainingSettings().updated({**given.values, **named, **options})
    if settings.data is None and (dataset := given.preparation.get("dataset")):
        train, held = (
            given.preparation.get(f"{part}split", word) for part, word in (("", "train"), ("validation_", ""))
        )
        asked = f"qwen3tts-np train prepare hub:{dataset} data.jsonl --split {train}"
        other = f", and held.jsonl of --split {held} for --validation" if held else ""
        raise RequestError(f"the data set {shortened(dataset)} is prepared first: {asked}{other}; then name data.jsonl")
    for name, metavar in NAMED.items():
        if getattr(settings, name) is None:
            raise RequestError(f"{metavar} is missing: qwen3tts-np train MODEL DATA OUT, or {name} in --config")
    return settings


def _all(reports: list[Report]) -> Report:
    def report(line: Mapping[str, Any]) -> None:
        for one in reports:
            one(line)

    return report


class _Progress:
    """A line on standard error for each line of either log, with the time left."""

    def __init__(self, steps: int, impossible: tuple[str, ...]) -> None:
        self._steps, self._start = steps, time.monotonic()
        self._first: int | None = None
        self._impossible = impossible

    def __call__(self, line: Mapping[str, Any]) -> None:
        if "metrics" in line:
            shown = "  ".join(f"{name} {value:.4g}" for name, value in line["metrics"].items() if value is not None)
            print(f"validation at step {line['step']}: loss {line['loss']:.4f}  {shown}", file=sys.stderr)
            for sentence in self._impossible:
                print(f"not measured: {sentence}", file=sys.stderr)
            self._impossible = ()
            return
        step, now = line["step"], time.monotonic()
        if self._first is None:
            self._first, self._start = step, now
        done = step - self._first
        left = f", {_duration((now - self._start) / done * (self._steps - step))} left" if done else ""
        losses = f"loss {line['loss']:.4f} (talker {line['talker']:.4f}, predictor {line['sub_talker']:.4f})"
        print(f"step {step}/{self._steps}: {losses}, rate {line['learning_rate']:.2e}{left}", file=sys.stderr)


def _duration(seconds: float) -> str:
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} hours"
    return f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} s"


def _shown(found: Plan) -> list[str]:
    memory = "unknown" if found.memory is None else f"{found.memory / 1e9:.2f} GB at the peak of one step"
    return [
        f"trains     {si(found.trainable)} weights ({found.mode}); {si(found.frozen)} stay as they are",
        f"learns     {found.clips} rows, {_duration(found.hours_of_speech * 3600)} of speech",
        f"voices     {', '.join(found.voices) or 'none of its own'}",
        f"takes      {found.steps} steps, {found.seconds_per_step:.2f} s each: {_duration(found.hours * 3600)}",
        f"memory     {memory}",
        f"disk       {found.disk / 1e9:.2f} GB at most",
        *(f"not measured: {sentence}" for sentence in found.left_out),
    ]


def _report(
    args: argparse.Namespace, settings: TrainingSettings, trainer: Trainer, state: State, uploaded: list[str]
) -> None:
    voices = list(trainer.learner.rows)
    found = {
        "folder": settings.output,
        "steps": state.step,
        "best_step": state.best_step,
        "best_loss": state.best_loss,
        "validation": state.losses,
        "speakers": trainer.learner.rows,
        "uploaded": uploaded,
    }
    speaker = f" --speaker {voices[0]}" if voices else ""
    line = f"{settings.output}: {state.step} steps, best at step {state.best_step} with a loss of {state.best_loss:.4f}"
    report(args, finite(found), f"{line}; try: qwen3tts-np say {settings.output}/best TEXT{speaker}")
    for repository in uploaded:
        if not args.json:
            print_text(f"uploaded to {repository}")
