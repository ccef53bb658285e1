"""One request to the official package: its inputs, its outputs, and the margins of its choices."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import store
import torch
from audio import as_float, clip
from cases import Case, Clip, Codes, FirstSeed, variations
from hooks import Activations
from numpy.typing import NDArray
from official import Choices, float64, load, mimi_code, versions, watched
from store import Json, Tensors

FRAME = 1920  # samples
LONGEST = 64  # frames of a waveform that is stored completely
CHUNK = 300  # frames per chunk of the official decoder
MARGIN = 4  # required lead of a chosen code, in float32 errors; each of two values may be off by one error


class FragileCase(Exception):
    """The choices are too close: another build of torch may choose other codes."""


@dataclass
class Result:
    seed: int | None
    inputs: Tensors
    tensors: Tensors = field(default_factory=dict)  # in the order of execution
    same: dict[str, Json] = field(default_factory=dict)  # further names of tensors
    flow: dict[str, list[str]] = field(default_factory=dict)  # call -> its inputs
    recorded: Tensors = field(default_factory=dict)  # every activation by every name
    outcome: Json = field(default_factory=dict)
    choices: Choices | None = None
    margins: list[NDArray[np.float64]] = field(default_factory=list)  # of the encoder: [clips * frames] per codebook
    seconds: float = 0.0


class Models:
    """One checkpoint in float32 and in float64."""

    def __init__(self, directory: Path) -> None:
        self.single = load(directory)
        with float64():
            self.double = load(directory)

    def record(self, case: Case, checkpoint: Json) -> tuple[Json, Result]:
        """case.json and its tensors, for ``case`` or a variation of it."""
        for varied in variations(case):
            single = perform(varied, self.single)
            with float64():
                double = perform(replace(varied, seed=single.seed), self.double)
            try:
                return describe(varied, checkpoint, single, double), single
            except FragileCase as reason:
                print(f"{case.name}, seed {single.seed}: {reason}")
        raise FragileCase(f"{case.name}: change its text in the table of cases")


def perform(case: Case, model: Any) -> Result:
    """``case`` on ``model``, in the dtype that the model has."""
    if isinstance(case.seed, FirstSeed):
        return _first_that_ends(case, model)
    started = time.perf_counter()
    result = Result(case.seed, _inputs(case, model))
    activations = Activations(model, case.activations)
    if case.seed is not None:
        torch.manual_seed(case.seed)
    with torch.inference_mode(), _codebook_margins(result.margins), activations.recording():
        if case.method == "encode":
            _encode(case, model, result)
        elif case.method == "decode":
            _decode(result, model)
        else:
            _generate(case, model, result)
    result.recorded = activations.values()
    kept, result.same, result.flow = activations.condensed()
    result.tensors = kept | result.tensors
    result.seconds = time.perf_counter() - started
    return result


def _first_that_ends(case: Case, model: Any) -> Result:
    assert isinstance(case.seed, FirstSeed)
    for seed in range(case.seed.start, case.seed.start + 100):
        result = perform(replace(case, seed=seed), model)
        frames = result.outcome["frames"]
        if all(result.outcome["ended"]) and min(frames) > 0 and len(set(frames)) == len(frames):
            return result
    raise FragileCase(f"{case.name}: no seed makes every item end by itself")


def _inputs(case: Case, model: Any) -> Tensors:
    """The inputs of a request besides its text: clips as 16 bit samples, codes."""
    inputs: Tensors = {}
    for item in _items(case.arguments):
        if isinstance(item, Clip):
            inputs[f"audio.{len(inputs)}"] = clip(item.sample_rate, item.samples, item.seed)
        elif isinstance(item, Codes):
            config = model.model.speech_tokenizer.model.config.decoder_config
            drawn = np.random.RandomState(item.seed).randint(
                0, config.codebook_size, (item.frames, config.num_quantizers)
            )
            inputs[f"given_codes.{len(inputs)}"] = drawn.astype(np.int32)
    return inputs


def _items(arguments: dict[str, Any]) -> Iterator[Any]:
    for value in arguments.values():
        yield from value if isinstance(value, list) else [value]


def _filled(case: Case, inputs: Tensors) -> dict[str, Any]:
    """The arguments with clips replaced by arrays, as the official methods take them."""
    arrays = iter(inputs.values())

    def fill(value: Any) -> Any:
        if not isinstance(value, Clip):
            return value
        wave = as_float(next(arrays))
        return wave if case.method == "encode" else (wave, value.sample_rate)

    return {k: [fill(i) for i in v] if isinstance(v, list) else fill(v) for k, v in case.arguments.items()}


def _generate(case: Case, model: Any, result: Result) -> None:
    result.choices = Choices(model)
    with (
        watched(model.model, "generate") as whole,
        watched(model.model.talker, "generate") as talker,
        result.choices.watching(),
    ):
        waves, rate = getattr(model, case.method)(**_filled(case, result.inputs))
    asked, (codes, hidden) = whole[0].arguments, whole[0].result
    given, loop = talker[0].arguments, talker[0].result
    clone = asked.get("voice_clone_prompt") or {}
    tensors = result.tensors
    for i in range(len(codes)):
        tensors[f"input_ids.{i}"] = asked["input_ids"][i][0].numpy()
        for ids in ("instruct_ids", "ref_ids"):
            if asked.get(ids) and asked[ids][i] is not None:
                tensors[f"{ids}.{i}"] = asked[ids][i][0].numpy()
        if clone:
            tensors[f"speaker_embedding.{i}"] = clone["ref_spk_embedding"][i].numpy()
            if clone["ref_code"][i] is not None:
                tensors[f"ref_codes.{i}"] = clone["ref_code"][i].numpy()
        real = given["attention_mask"][i].bool()
        tensors[f"inputs_embeds.{i}"] = given["inputs_embeds"][i][real].numpy()
        tensors[f"trailing_text_hidden.{i}"] = given["trailing_text_hidden"][i].numpy()
    tensors["tts_pad_embed"] = given["tts_pad_embed"][0].numpy()
    tensors["tokens"] = loop.sequences.numpy()
    uncut = torch.stack([step[-1] for step in loop.hidden_states if step[-1] is not None], dim=1)
    for i, wave in enumerate(waves):
        tensors[f"uncut_codes.{i}"] = uncut[i].numpy()
        tensors[f"codes.{i}"] = codes[i].numpy()
        tensors[f"hidden.{i}"] = hidden[i].numpy()
        _add_wave(tensors, i, wave)
    _narrow_integers(tensors)
    frames = [len(c) for c in codes]
    result.outcome = {
        "sample_rate": rate,
        "frames": frames,
        "ended": [n < uncut.shape[1] or loop.sequences[i, -1].item() == _eos(model) for i, n in enumerate(frames)],
        "samples": [len(wave) for wave in waves],
    }


def _eos(model: Any) -> int:
    return model.model.config.talker_config.codec_eos_token_id


def _encode(case: Case, model: Any, result: Result) -> None:
    tokenizer = model.model.speech_tokenizer
    arguments = _filled(case, result.inputs)
    resampled = tokenizer._normalize_audio_inputs(arguments["audios"], arguments["sr"])
    codes = tokenizer.encode(**arguments).audio_codes
    for i, (wave, found) in enumerate(zip(resampled, codes, strict=True)):
        if arguments["sr"] != 24000:
            result.tensors[f"resampled.{i}"] = wave
        result.tensors[f"codes.{i}"] = found.numpy()
    _narrow_integers(result.tensors)
    result.outcome = {"frames": [len(c) for c in codes]}


def _decode(result: Result, model: Any) -> None:
    items = [{"audio_codes": codes.astype(np.int64)} for codes in result.inputs.values()]
    waves, rate = model.model.speech_tokenizer.decode(items)
    for i, wave in enumerate(waves):
        _add_wave(result.tensors, i, wave)
    result.outcome = {"sample_rate": rate, "samples": [len(wave) for wave in waves]}


def _add_wave(tensors: Tensors, i: int, wave: NDArray[Any]) -> None:
    """Short ones completely; of long ones both ends, the chunk boundaries, and mean and deviation of every frame."""
    frames = len(wave) // FRAME
    if frames <= LONGEST:
        tensors[f"wav.{i}"] = wave
        return
    seams = [(seam - 1, seam + 2) for seam in range(CHUNK, frames, CHUNK)]
    for first, last in [(0, 2), *seams, (frames - 2, frames)]:
        start, stop = first * FRAME, min(last, frames) * FRAME
        tensors[f"wav.{i}[{start}:{stop}]"] = wave[start:stop]
    grid = wave[: frames * FRAME].reshape(frames, FRAME).astype(np.float64)
    tensors[f"wav.{i}.frames"] = np.stack([grid.mean(axis=1), grid.std(axis=1)], axis=1)


def _narrow_integers(tensors: Tensors) -> None:
    for name, value in tensors.items():
        if value.dtype == np.int64:
            tensors[name] = value.astype(np.int32)


@contextlib.contextmanager
def _codebook_margins(margins: list[NDArray[np.float64]]) -> Iterator[None]:
    """The margin of the nearest codebook entry over the next one, for every frame and quantiser."""
    codebook_class = mimi_code.MimiEuclideanCodebook
    official = codebook_class.quantize

    def quantize(codebook: Any, hidden: torch.Tensor) -> torch.Tensor:
        exact = torch.cdist(hidden.double(), codebook.embed.double(), compute_mode="donot_use_mm_for_euclid_dist")
        nearest = exact.topk(2, largest=False).values  # [clips * frames, 2]
        margins.append((nearest[:, 1] - nearest[:, 0]).numpy())
        return official(codebook, hidden)

    with mock.patch.object(codebook_class, "quantize", quantize):
        yield


def describe(case: Case, checkpoint: Json, single: Result, double: Result) -> Json:
    """case.json; raises FragileCase where float64 chooses other codes than float32, or nearly does."""
    wide = double.recorded | double.tensors
    integers = {name: value for name, value in single.tensors.items() if value.dtype.kind == "i"}
    for name, value in integers.items():
        if not np.array_equal(value, wide[name]):
            raise FragileCase(f"{name} differs in float64")
    floats = {name: value for name, value in single.tensors.items() if name not in integers}
    entries = {name: {"shape": list(value.shape)} for name, value in integers.items()} | store.tolerances(floats, wide)
    order = {name: entries.get(name, single.same.get(name)) for name in [*single.recorded, *single.tensors]}
    content = {
        "made_by": store.MADE_BY,
        "about": case.about,
        "checkpoint": checkpoint,
        "call": {"method": case.method, "arguments": _as_json(case, single.inputs), "seed": single.seed},
        "outcome": single.outcome | _sureness(single, double),
        "versions": versions(),
        "tolerance": store.TOLERANCE,
        "inputs": {name: {"shape": list(value.shape)} for name, value in single.inputs.items()},
        "tensors": {name: entry for name, entry in order.items() if entry is not None},
    }
    return content | ({"flow": single.flow} if single.flow else {})


def _sureness(single: Result, double: Result) -> Json:
    """The margin of every choice relative to the float32 error of its inputs."""
    found: Json = {}
    if single.choices is not None and double.choices is not None:
        pairs = zip(single.choices.logits, double.choices.logits, strict=True)
        error = max(float((a - b).abs().max()) for a, b in pairs)
        found |= _lead("closest_choice", single.choices.closest, "logit_error", error)
    if single.margins:
        pairs = list(zip(single.margins, double.margins, strict=True))
        error = max(float(np.abs(a - b).max()) for a, b in pairs)
        closest = min(float(margin.min()) for margin in single.margins)
        found |= _lead("closest_codebook_entries", closest, "distance_error", error)
    return found


def _lead(name: str, lead: float, error_name: str, error: float) -> Json:
    if lead < MARGIN * error:
        raise FragileCase(f"{name} {lead:.2g} with a float32 error of {error:.2g}")
    return {name: store.shorten(lead), error_name: store.shorten(error)}


def _as_json(case: Case, inputs: Tensors) -> Json:
    names = iter(inputs)

    def name(value: Any) -> Any:
        if isinstance(value, Clip):
            return {"audio": next(names), "sample_rate": value.sample_rate}
        return {"codes": next(names)} if isinstance(value, Codes) else value

    return {k: [name(i) for i in v] if isinstance(v, list) else name(v) for k, v in case.arguments.items()}
