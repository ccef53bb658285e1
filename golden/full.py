"""Full-size runs of the 0.6B structure, of which only fingerprints are kept: full/<model>.json and the reference clips.

The fingerprint of a tensor: shape, first values, mean, standard deviation, L2 norm (of the float32 values, summed in
float64), and as everywhere the tolerance of a value. The codes are stored completely.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import store
from cases import DECODER, ENCODER, ENGLISH, GREEDY, SPEAKER, TALKER, Case, Checkpoint, Clip
from numpy.typing import NDArray
from run import Models
from safetensors.numpy import save
from store import Json

FIRST = 8  # values of a tensor that are stored

BASE = Checkpoint("0.6b", "base")
CUSTOM = Checkpoint("0.6b", "custom_voice")
VOICE = Clip(24000, 30000, seed=40)  # 1.25 s, 15.6 frames
CLONE = {"text": ENGLISH, "language": "english", "ref_audio": VOICE, "max_new_tokens": 13}
X_VECTOR = {**CLONE, "x_vector_only_mode": True}
CONTEXT = {**CLONE, "ref_text": "It is a very good song"}
SPEAK = {"text": ENGLISH, "speaker": "vivian", "language": "english", "max_new_tokens": 21}

CASES = [
    Case("activations_clone", "In context, two frames, with activations.", BASE, "generate_voice_clone",
         {**CONTEXT, "max_new_tokens": 3, **GREEDY}, activations=(*SPEAKER, *ENCODER, *TALKER)),
    Case("x_vector", "Greedy.", BASE, "generate_voice_clone", {**X_VECTOR, **GREEDY}),
    Case("x_vector_sampled", "Sampled.", BASE, "generate_voice_clone", X_VECTOR, seed=0),
    Case("context", "In context, greedy.", BASE, "generate_voice_clone", {**CONTEXT, **GREEDY}),
    Case("context_sampled", "In context, sampled.", BASE, "generate_voice_clone", CONTEXT, seed=1),
    Case("activations_custom_voice", "Two frames, with activations.", CUSTOM, "generate_custom_voice",
         {**SPEAK, "max_new_tokens": 3, **GREEDY}, activations=(*TALKER, *DECODER)),
    Case("plain", "Greedy.", CUSTOM, "generate_custom_voice", {**SPEAK, **GREEDY}),
    Case("sampled", "Sampled.", CUSTOM, "generate_custom_voice", SPEAK, seed=2),
]  # fmt: skip

# Of the many identical layers: the first, a middle and the last in detail; of the others only the output.
DETAILED = {"talker.model": {"0", "13", "27"}, "talker.code_predictor.model": {"0", "4"}}
CALLS = {"talker.model": {"0", "1"}, "talker.code_predictor.model": {"0", "1", "14"}}


def kept(name: str) -> bool:
    found = re.fullmatch(r"(talker(?:\.code_predictor)?\.model)\.(?:layers\.(\d+)(\..*)?|.*)@(\d+)", name)
    if found is None:
        return True
    model, layer, inside, call = found.groups()
    return call in CALLS[model] and (inside is None or layer in DETAILED[model])


def record_full(smith: Any, out: Path) -> None:
    for checkpoint in (CUSTOM, BASE):
        models = Models(smith.make(checkpoint))
        head, runs, clips = smith.describe(checkpoint), {}, {}
        for case in (case for case in CASES if case.checkpoint == checkpoint):
            content, result = models.record(case, head)
            run = {key: content[key] for key in ("about", "call", "outcome")}
            share_clips(run["call"]["arguments"], result.inputs, clips)
            kept_values = {name: value for name, value in result.tensors.items() if kept(name)}
            tensors = {name: content["tensors"][name] | fingerprint(value) for name, value in kept_values.items()}
            runs[case.name] = run | {"tensors": tensors}
            print(f"{case.name}: {result.seconds:.0f} s in float32", flush=True)
        write(out / f"{checkpoint.like}-{checkpoint.type}", content, runs, clips)
        del models  # the next ones take as much memory


def fingerprint(value: NDArray[Any]) -> Json:
    if value.dtype.kind == "i":
        return {"values": value.tolist()}
    wide = value.astype(np.float64)
    first = [float(np.format_float_positional(x, unique=True)) for x in value.ravel()[:FIRST]]
    return {"first": first, "mean": wide.mean(), "std": wide.std(), "norm": float(np.linalg.norm(wide))}


def share_clips(arguments: Json, inputs: store.Tensors, clips: store.Tensors) -> None:
    """Add the clips of one run to those of the others, without duplicates."""
    for value in arguments.values():
        if isinstance(value, dict):
            clip = inputs[value["audio"]]
            equal = [name for name, known in clips.items() if np.array_equal(known, clip)]
            value["audio"] = equal[0] if equal else f"audio.{len(clips)}"
            clips[value["audio"]] = clip


def write(path: Path, content: Json, runs: Json, clips: store.Tensors) -> None:
    path.parent.mkdir(exist_ok=True)
    head: Json = {key: content[key] for key in ("made_by", "checkpoint", "versions", "tolerance")}
    body = {name: {k: v for k, v in run.items() if k != "tensors"} for name, run in runs.items()}
    tables = {f"tensors of {name}": run["tensors"] for name, run in runs.items()}
    path.with_name(f"{path.name}.json").write_text(store.dump(head | {"runs": body} | tables), encoding="utf-8")
    if clips:
        path.with_name(f"{path.name}.safetensors").write_bytes(save(clips))
