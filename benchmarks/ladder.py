"""The precision ladder: the error of each arithmetic relative to float64, layer by layer, for the same codes.

    python benchmarks/ladder.py --official .venv-official/bin/python       both sizes -> golden/ladder/
    python benchmarks/ladder.py --official ... --like tiny                 half a minute; 0.6b takes three, and 9 GB

One request is read with given codes (teacher forcing), so that different choices do not affect later errors: by the
official package in float64, float32 and bfloat16, and by ours in float64, float32 and with bfloat16, int8 and int4
weights. The error of a point is the relative RMS error against our float64: rms(x - x64) / rms(x64), over all positions
of the prompt, or over all calls of the frames. Writes LIKE.json and LIKE.svg, and README.md for both sizes.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ladder_report import plot, table
from numpy.typing import NDArray

from qwen3tts_np import Qwen3TTSModel, trace
from qwen3tts_np.checkpoint.published import Like
from qwen3tts_np.checkpoint.safetensors import Checkpoint
from qwen3tts_np.layout.convert import convert
from qwen3tts_np.parity.forced import forced
from qwen3tts_np.synthetic.weights import write_checkpoint
from qwen3tts_np.verify.official_probe import Run, ask

GOLDEN = Path(__file__).parents[1] / "golden"
OUT = GOLDEN / "ladder"
LIKES: tuple[Like, ...] = ("tiny", "0.6b")
FORMATS = ("float32", "bfloat16", "int8", "int4")  # of our weights; activations are float32
DTYPES = ("float64", "float32", "bfloat16")  # of everything in the official package
Array = NDArray[Any]
Points = dict[str, Array]  # point along the depth -> its values over all calls, float64
CHOICES = "choices"  # the point that holds the best code of every logits vector


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", required=True, help="the Python of golden/setup_official.sh")
    parser.add_argument("--like", choices=LIKES, nargs="+", default=LIKES)
    args = parser.parse_args()
    OUT.mkdir(exist_ok=True)
    for like in args.like:
        with tempfile.TemporaryDirectory() as scratch:
            content = climb(like, args.official, Path(scratch))
        (OUT / f"{like}.json").write_text(dump(content), encoding="utf-8")
        (OUT / f"{like}.svg").write_text(plot(content), encoding="utf-8")
    files = {like: OUT / f"{like}.json" for like in LIKES}
    made = {like: json.loads(f.read_text(encoding="utf-8")) for like, f in files.items() if f.exists()}
    (OUT / "README.md").write_text(table(made), encoding="utf-8")


def climb(like: Like, python: str, scratch: Path) -> dict[str, Any]:
    """The contents of LIKE.json."""
    checkpoint = scratch / "checkpoint"
    write_checkpoint(checkpoint, like, "custom_voice")
    request, codes = recorded_request(like)
    ladder, errors = own_ladder(checkpoint, request, codes, scratch)
    for dtype in DTYPES:
        run = Run("ladder", "generate_custom_voice", request, activations=["talker."], codes=codes.tolist())
        answers = ask(python, checkpoint, dtype, [run], scratch / dtype)
        errors[f"official {dtype}"] = differences(points(answers.runs["ladder"]), ladder)
    return {
        "about": f"relative RMS error against our float64, synthetic {like} custom_voice checkpoint, seed 0",
        "request": request,
        "codes": codes.tolist(),
        "versions": answers.versions,
        "errors": {rung: {k: float(f"{v:.3g}") for k, v in row.items()} for rung, row in errors.items()},
    }


def recorded_request(like: Like) -> tuple[dict[str, Any], Array]:
    """The request and the first two frames of codes of a golden run of this size."""
    if like == "tiny":
        call = json.loads((GOLDEN / "cases/activations_custom_voice/case.json").read_text(encoding="utf-8"))["call"]
        codes = Checkpoint.open(GOLDEN / "cases/activations_custom_voice/expected.safetensors")["codes.0"].data
    else:
        content = json.loads((GOLDEN / f"full/{like}-custom_voice.json").read_text(encoding="utf-8"))
        call = content["runs"]["plain"]["call"]
        codes = np.array(content["tensors of plain"]["codes.0"]["values"])[:2]
    return call["arguments"] | {"max_new_tokens": len(codes) + 1}, codes


def own_ladder(
    checkpoint: Path, request: Mapping[str, Any], codes: Array, scratch: Path
) -> tuple[Points, dict[str, dict[str, float]]]:
    """Our float64 points, and the errors of our other rungs."""
    exact = own_points(checkpoint, request, codes, "float64")
    errors = {}
    for weights in FORMATS:
        converted = scratch / weights
        convert(checkpoint, converted, weights)
        errors[f"{weights} weights" if weights != "float32" else weights] = differences(
            own_points(converted, request, codes, "float32"), exact
        )
    return exact, errors


def own_points(checkpoint: Path, request: Mapping[str, Any], codes: Array, dtype: str) -> Points:
    model = forced(Qwen3TTSModel.from_pretrained(checkpoint, backend="reference", dtype=dtype), codes)
    with trace("talker.*") as t:
        model.generate_custom_voice(**request)
    return points(t)


def points(activations: Mapping[str, Array]) -> Points:
    """The residual stream after every layer, and the outputs: of the prompt, the frames after it, the predictor."""
    steps = sum(name.startswith("talker.codec_head@") for name in activations)

    def calls(path: str, first: int, last: int) -> Array:
        parts = [np.asarray(activations[f"{path}@{n}"], np.float64).ravel() for n in range(first, last)]
        return np.concatenate(parts)

    found: Points = {}
    for stage, first, last in (("prompt", 0, 1), ("frames", 1, steps)):
        for point, path in depth("talker.model", "talker.codec_head", activations):
            found[f"{stage}, {point}"] = calls(path, first, last)
    frames = steps - 1
    groups = sum(bool(re.fullmatch(r"talker\.code_predictor\.lm_head\.\d+@0", n)) for n in activations)
    heads = [f"talker.code_predictor.lm_head.{g}" for g in range(groups)]
    for point, path in depth("talker.code_predictor.model", "", activations):
        found[f"predictor, {point}"] = calls(path, 0, frames * len(heads))
    found["predictor, logits"] = np.concatenate([calls(head, 0, frames) for head in heads])
    every = [activations[f"talker.codec_head@{n}"] for n in range(steps)]
    every += [activations[f"{head}@{n}"] for head in heads for n in range(frames)]
    found[CHOICES] = np.array([int(np.argmax(logits)) for logits in every])
    return found


def depth(model: str, head: str, activations: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "input", f"{model}.inputs_embeds"
    layer = 0
    while f"{model}.layers.{layer}@0" in activations:
        yield f"layer {layer}", f"{model}.layers.{layer}"
        layer += 1
    yield "norm", f"{model}.norm"
    if head:
        yield "logits", head


def differences(found: Points, exact: Points) -> dict[str, float]:
    """Errors along the depth; for the choices the share that float64 would make differently."""
    errors = {name: relative_rms(found[name], wanted) for name, wanted in exact.items() if name != CHOICES}
    return errors | {CHOICES: float(np.mean(found[CHOICES] != exact[CHOICES]))}


def relative_rms(x: Array, exact: Array) -> float:
    return float(np.linalg.norm(x - exact) / np.linalg.norm(exact))


def dump(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    main()
