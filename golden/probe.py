"""Run arbitrary requests with the official package: codes, waveforms and activations, in any dtype, codes forced or
free. Run by ``qwen3tts-np verify --official`` and ``benchmarks/ladder.py`` in the official environment.

    python golden/probe.py REQUEST.json OUT

REQUEST.json: ``{"checkpoint": DIR, "dtype": "float32", "runs": [RUN, ...]}`` with dtype float64, float32 or bfloat16.
RUN: ``{"name": ..., "method": "generate_custom_voice", "arguments": {...}, "seed": null, "activations": ["talker."],
"codes": null}``. ``{"audio": FILE.npy, "sample_rate": 24000}`` among the arguments is a clip, the file beside
REQUEST.json; ``activations`` are name prefixes; ``codes`` [frames][G] replace the chosen codes, in a greedy run. OUT
receives ``NAME.safetensors`` for each run, tensors named as in golden/README.md, and ``versions.json``.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import official
import torch
from hooks import Activations
from safetensors.numpy import save_file


def main() -> None:
    request_file, out = map(Path, sys.argv[1:3])
    request = json.loads(request_file.read_text(encoding="utf-8"))
    out.mkdir(parents=True, exist_ok=True)
    dtype = getattr(torch, request["dtype"])
    with official.float64() if dtype == torch.float64 else contextlib.nullcontext():
        model = official.load(Path(request["checkpoint"]), None if dtype == torch.float64 else dtype)
        for run in request["runs"]:
            save_file(answer(model, run, request_file.parent), out / f"{run['name']}.safetensors")
            print(run["name"], flush=True)
    (out / "versions.json").write_text(json.dumps(official.versions()), encoding="utf-8")


def answer(model: Any, run: dict[str, Any], folder: Path) -> dict[str, Any]:
    activations = Activations(model, tuple(run["activations"]))
    if run["seed"] is not None:
        torch.manual_seed(run["seed"])
    with torch.inference_mode(), activations.recording(), forced(run["codes"]):
        with official.watched(model.model, "generate") as whole:
            waves, _ = getattr(model, run["method"])(**filled(run["arguments"], folder))
        codes, _ = whole[0].result
    tensors = activations.values()
    for i, (code, wave) in enumerate(zip(codes, waves, strict=True)):
        tensors |= {f"codes.{i}": code.numpy().astype(np.int32), f"wav.{i}": wave}
    return {name: np.ascontiguousarray(value) for name, value in tensors.items()}


def filled(arguments: dict[str, Any], folder: Path) -> dict[str, Any]:
    clips = {k: v for k, v in arguments.items() if isinstance(v, dict)}
    return arguments | {k: (np.load(folder / v["audio"]), v["sample_rate"]) for k, v in clips.items()}


@contextlib.contextmanager
def forced(codes: list[list[int]] | None) -> Iterator[None]:
    """Teacher forcing: the choices of a greedy run are these codes, frame by frame; the token after them is 0."""
    if codes is None:
        yield
        return
    given = iter([code for frame in codes for code in frame] + [0])
    argmax = torch.argmax

    def next_code(scores: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if not scores.is_floating_point():
            return argmax(scores, *args, **kwargs)
        return torch.full((len(scores),), next(given))

    with mock.patch.object(torch, "argmax", next_code):
        yield


if __name__ == "__main__":
    main()
