"""A live comparison with the official package on a given checkpoint: codes, activations and audio.

Codes and audio come from the default path (compiled, where available); activations from the NumPy path, which is forced
to the official codes, so that a differing code does not affect later activations.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import ModelConfig
from ..files.output import scratch_folder
from ..inspect.request import WrittenRequest, prepare
from ..model import Qwen3TTSModel
from ..ops import Array, Ints
from ..parity.forced import forced
from ..request import Request
from ..trace import trace
from .official_probe import Answers, Run, ask
from .sections import Section, judged

TEXT = "Hello, this is a test of the voice."
GREEDY = {"do_sample": False, "subtalker_dosample": False}
FRAMES = 12  # of the runs whose codes and audio are compared
TRACED_FRAMES = 2
SEED = 0
RATE = 24000  # Hz of the reference clip
ACTIVATIONS = ("talker.", "speaker_encoder.", "speech_tokenizer.")
# We look up the prompt at once, the official package in parts; the talker's input is compared instead.
PIECES = ("talker.model.text_embedding", "talker.text_projection")
# The worst of the 4,600 tensors of a full-size 0.6B run differ by 1.1e-5, which is what two float32 runs may
# (golden/ladder); nine times that is no rounding.
LARGEST_ERROR = 1e-4
LEAST_DECIBELS = 80.0  # of the signal over the difference; float32 leaves about 100
TIE = 1e-3  # logits: a smaller lead may be reversed by float32 rounding; its error is below 1e-4


@dataclass(frozen=True)
class Compared:
    """One line of the comparison."""

    what: str
    found: str
    problem: str | None


def official_section(directory: Path, config: ModelConfig, python: str) -> Section:
    """Run the official package, then our model. Raises RequestError if the package cannot be run."""
    with scratch_folder() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the reference clip is not a good voice, and does not need to be
        answers = ask(python, directory, "float32", runs(config), scratch)
        lines = list(compare(Qwen3TTSModel.from_pretrained(directory), config, answers))
    problems = [f"{line.what}: {line.problem}" for line in lines if line.problem]
    package = ", ".join(f"{name} {answers.versions[name]}" for name in ("qwen-tts", "transformers", "torch"))
    rows = [[line.what, line.found, "differs" if line.problem else "agrees"] for line in lines]
    columns = ["what", "found", "verdict"]
    return judged("official package", f"agrees with {package}", problems, columns=columns, rows=rows)


def runs(config: ModelConfig) -> list[Run]:
    """The same request three times: greedy, sampled, and a short one with activations."""
    method, arguments = request(config)
    whole = {**arguments, "max_new_tokens": FRAMES + 1}
    short = {**arguments, "max_new_tokens": TRACED_FRAMES + 1, **GREEDY}
    return [
        Run("greedy", method, whole | GREEDY),
        Run("sampled", method, whole, seed=SEED),
        Run("activations", method, short, activations=ACTIVATIONS),
    ]


def request(config: ModelConfig) -> tuple[str, dict[str, Any]]:
    """A method of this type of model and its arguments."""
    if config.tts_model_type == "custom_voice":
        return "generate_custom_voice", {"text": TEXT, "speaker": min(config.talker_config.spk_id)}
    if config.tts_model_type == "voice_design":
        return "generate_voice_design", {"text": TEXT, "instruct": "Speak in a calm, slow voice."}
    return "generate_voice_clone", {"text": TEXT, "ref_audio": (clip(), RATE), "ref_text": "It is a very good song."}


def clip() -> NDArray[np.float32]:
    """1.25 seconds of a voice-like signal, in 16 bits; not an integer number of frames."""
    t = np.arange(30_000) / RATE
    turns = np.cumsum(140 + 40 * np.sin(2 * np.pi * 0.9 * t)) / RATE  # of a gliding pitch
    voice = np.sum([np.sin(2 * np.pi * k * turns) / k for k in range(1, 25)], axis=0)
    syllables = np.clip(np.sin(2 * np.pi * 3.3 * t) + 0.4, 0, None)
    breath = np.random.RandomState(0).standard_normal(t.size)
    sound = voice * syllables + 0.03 * breath
    return (np.round(sound / np.abs(sound).max() * 0.6 * 32767) / 32768).astype(np.float32)


def compare(model: Qwen3TTSModel, config: ModelConfig, answers: Answers) -> Iterator[Compared]:
    for run in runs(config)[:2]:
        theirs = answers.runs[run.name]
        ((wave, codes),) = model.generate([prepared(model, run)])
        yield compared_codes(model, run, codes, theirs["codes.0"])
        if np.array_equal(codes, theirs["codes.0"]):
            yield compared_audio(f"{run.name} audio", wave, theirs["wav.0"])
    run = runs(config)[2]
    theirs = answers.runs[run.name]
    with trace() as t:
        forced(model, theirs["codes.0"]).generate([prepared(model, run)])
    yield from compared_activations(t, theirs)


def prepared(model: Qwen3TTSModel, run: Run) -> Request:
    """The input of our model for a run."""
    return prepare(model, WrittenRequest(dict(run.arguments), run.method, run.seed))


def compared_codes(model: Qwen3TTSModel, run: Run, ours: Ints, theirs: Ints) -> Compared:
    what, frames = f"{run.name} codes", min(len(ours), len(theirs))
    different = np.argwhere(ours[:frames] != theirs[:frames])
    if not different.size and len(ours) == len(theirs):
        return Compared(what, f"{theirs.size} equal, {frames} frames", None)
    if not different.size:
        return Compared(what, f"{len(ours)} frames, official {len(theirs)}", "the speech ends in another place")
    frame, group = map(int, different[0])
    found = f"frame {frame}, code {group}: {ours[frame, group]}, official {theirs[frame, group]}"
    if run.seed is None:
        lead = lead_of_choice(model, run, theirs[: frame + 1], group)
        if lead < TIE:
            return Compared(what, f"{found}; a tie, {lead:.1e} apart", None)
    return Compared(what, found, f"the first difference is in {found}")


def lead_of_choice(model: Qwen3TTSModel, run: Run, codes: Ints, group: int) -> float:
    """The gap in logits between our best code and the official code of ``group`` in the last frame."""
    head = "talker.codec_head" if group == 0 else f"talker.code_predictor.lm_head.{group - 1}"
    with trace(head) as t:
        forced(model, codes).generate([prepared(model, run)])
    logits = t[f"{head}@{len(codes) - 1}"][0]
    return float(logits.max() - logits[codes[-1, group]])


def compared_audio(what: str, ours: Array, theirs: Array) -> Compared:
    if ours.shape != theirs.shape:
        return Compared(what, f"{len(ours)} samples, official {len(theirs)}", "another length")
    decibels = -20 * math.log10(max(relative_error(ours, theirs), 1e-30))
    found = f"{decibels:.0f} dB over {len(theirs)} samples"
    return Compared(what, found, None if decibels >= LEAST_DECIBELS else f"{found}, {LEAST_DECIBELS:.0f} are needed")


def compared_activations(ours: Mapping[str, Array], theirs: Mapping[str, Array]) -> Iterator[Compared]:
    """One line per part of the model: the number of tensors, the worst, and the first that differs."""
    shared = [name for name in ours if name in theirs and not name.startswith(PIECES)]
    for part in ("speaker_encoder", "speech_tokenizer.encoder", "talker", "speech_tokenizer.decoder"):
        errors = {name: relative_error(ours[name], theirs[name]) for name in shared if name.startswith(f"{part}.")}
        if errors:
            worst = max(errors, key=errors.__getitem__)
            off = next((name for name, error in errors.items() if not error <= LARGEST_ERROR), None)
            problem = off and f"the first that differs is {off}, by {errors[off]:.1e} of its RMS"
            found = f"{len(errors)} tensors, at most {errors[worst]:.1e} of their RMS ({worst})"
            yield Compared(f"activations of {part}", found, problem)


def relative_error(x: Array, y: Array) -> float:
    """RMS of the difference over the RMS of ``y``; infinite where the shapes differ, or integers do."""
    if x.size != y.size:
        return float("inf")
    difference = x.ravel().astype(np.float64) - y.ravel()
    if y.dtype.kind in "iu":
        return float("inf") if difference.any() else 0.0
    level = float(np.linalg.norm(y.astype(np.float64)))
    return float(np.linalg.norm(difference)) / max(level, 1e-30)
