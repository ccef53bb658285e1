"""``fixtures export``: one request as tensors for checking another implementation.

The request runs twice, in float32 and, forced to the codes of the first run, in float64. The difference is the float32
error, and the tolerance of every tensor is a few times that (``TOLERANCE``), as in golden/.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..checkpoint.published import sha256_of
from ..checkpoint.safetensors import Checkpoint
from ..errors import RequestError
from ..inspect.request import SPEECH, WrittenRequest
from ..inspect.stored_tensors import TENSOR_FORMATS
from ..model import Qwen3TTSModel
from ..ops import AnyArray
from .fixture import Json, write_fixture
from .ladder import LIMITS, WHY
from .measure import difference
from .perform import perform
from .steps import Step, cut

FACTOR = 4  # another order of summation may err some times more than NumPy's
FLOOR = 8 * 2.0**-23  # of the largest value: eight units in the last place of float32
WITHOUT_FLOAT64 = 2e-5  # of the largest value, without a float64 run
TOLERANCE = {
    "rule": "|difference| <= atol for every value of a tensor; integers are equal",
    "why": f"The request ran in float32 and in float64, with the same codes. error is the greatest |float32 - float64| "
    f"of a tensor, peak its greatest finite |value|, and atol = max({FACTOR} * worst error, {FLOOR:.3g} * peak), "
    f"rounded up; the worst error is over all calls of the module. Another order of summation may err some times more, "
    f"and no float32 result is better than a few units in the last place.",
}
ASSUMED = {
    "rule": TOLERANCE["rule"],
    "why": f"There was no float64 run: atol = {WITHOUT_FLOAT64:g} * the greatest finite |value| of the tensor, which "
    f"float32 keeps on the tiny checkpoints of golden/.",
}
STORED = "talker.model.layers.0.self_attn.q_proj.weight"  # a matrix in the format that a checkpoint is called by
DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}  # int8 to int4 are called by their names
GENERATOR = {
    "algorithm": "MT19937, seeded as numpy.random.RandomState(seed & 0xffffffff) and torch.manual_seed(seed)",
    "uniform": "u = ((w0 << 32 | w1) & (2**53 - 1)) / 2**53 of the next two 32-bit words w0, w1; one u a token",
    "choice": "argmax of p / q, q = float32(-log1p(-u)), p = softmax(scores)",
    "order": "code 0 over the talker's vocabulary, then each other code of the frame over its codebook",
}


def export(
    path: Path,
    request: WrittenRequest,
    target: Path,
    patterns: tuple[str, ...] = (),
    tensor_format: str = "safetensors",
    step: Step | None = None,
    float64: bool = True,
) -> Json:
    """Run ``request`` on the checkpoint ``path`` and write the fixture ``target``; returns its manifest."""
    if tensor_format not in TENSOR_FORMATS:
        raise RequestError(f"tensor format {tensor_format!r} must be one of {', '.join(TENSOR_FORMATS)}")
    model = Qwen3TTSModel.from_pretrained(path, backend="reference")
    kept = () if step else patterns
    request = request.for_model(model)
    single = perform(model, request, kept)
    entries = {name: {"shape": list(v.shape), "dtype": v.dtype.name} for name, v in single.items()}
    for name, more in _tolerances(path, request, kept, single, float64).items():
        entries[name] |= more
    inputs = dict(request.inputs)
    if request.codes is not None:
        inputs["forced_codes"] = request.codes.astype(np.int32)
    about: Json = {}
    if step:
        inputs, single, entries, about = cut(step, model, request, single, entries)
    manifest = {
        "made_by": "qwen3tts-np fixtures export",
        "about": request.about,
        "checkpoint": checkpoint_of(path, model, request),
        "call": _call(request),
        "generator": {**GENERATOR, "seed": _as_text(request.seed)} if _draws(request) else None,
        "versions": {"numpy": np.__version__},
        "tolerance": (TOLERANCE if float64 else ASSUMED) | {"formats": LIMITS, "why_formats": WHY},
        "storage": tensor_format,
        **about,
        "inputs": {name: {"shape": list(v.shape), "dtype": v.dtype.name} for name, v in inputs.items()},
        "tensors": entries,
    }
    write_fixture(target, manifest, inputs, single)
    return manifest


def checkpoint_of(path: Path, model: Qwen3TTSModel, request: WrittenRequest) -> Json:
    """Which weights: sha256 of both files and, where a golden case was made with these, how to make them."""
    files = [*sorted(path.glob("*.safetensors")), path / "speech_tokenizer" / "model.safetensors"]
    digests = {file.relative_to(path).as_posix(): sha256_of(file) for file in files}
    recorded = request.checkpoint or {}
    made = {k: recorded[k] for k in ("like", "type", "seed")} if recorded.get("sha256") == digests else {}
    stored = Checkpoint.open(path)[STORED].dtype
    return {
        "size": model.config.tts_model_size,
        "type": model.config.tts_model_type,
        "weights_format": DTYPES.get(stored, stored.lower()),
        **made,
        "sha256": digests,
    }


def _call(request: WrittenRequest) -> Json:
    """The written form. Seeds are text: JavaScript reads a JSON number above 2**53 as another one."""
    forced = {"forced": "forced_codes"} if request.codes is not None else {}
    return request.call | {"seed": _as_text(request.seed)} | forced


def _as_text(seed: int | None) -> str | None:
    return None if seed is None else str(seed)


def _draws(request: WrittenRequest) -> bool:
    greedy = all(request.argument(name) is False for name in ("do_sample", "subtalker_dosample"))
    return request.method in SPEECH.values() and not greedy


def _tolerances(
    path: Path, request: WrittenRequest, patterns: tuple[str, ...], single: Mapping[str, AnyArray], float64: bool
) -> dict[str, Json]:
    """atol, error and peak of every float tensor; ``check: false`` for what is only to be read."""
    read_only: dict[str, Json] = {n: {"check": False} for n in single if n.startswith(("ranks.", "margins."))}
    floats = {n: v for n, v in single.items() if v.dtype.kind == "f" and n not in read_only}
    peaks = {name: _greatest(value[np.isfinite(value)]) for name, value in floats.items()}
    if not float64:
        return read_only | {n: {"atol": _round_up(WITHOUT_FLOAT64 * p), "peak": _short(p)} for n, p in peaks.items()}
    double = _in_float64(path, request, patterns, single)
    errors = {name: _greatest(difference(value, double[name])) for name, value in floats.items()}
    worst: dict[str, float] = {}
    for name, error in errors.items():
        worst[_module(name)] = max(error, worst.get(_module(name), 0.0))
    return read_only | {
        name: {
            "atol": _round_up(max(FACTOR * worst[_module(name)], FLOOR * peaks[name])),
            "error": _short(errors[name]),
            "peak": _short(peaks[name]),
        }
        for name in floats
    }


def _in_float64(
    path: Path, request: WrittenRequest, patterns: tuple[str, ...], single: Mapping[str, AnyArray]
) -> dict[str, AnyArray]:
    """The same request in float64, forced to the codes of the float32 run. Raises RequestError where they differ."""
    follows = request.method in (*SPEECH.values(), "encode")
    model = Qwen3TTSModel.from_pretrained(path, dtype="float64")
    if follows:
        last = single.get(f"talker.token@{len(single['codes.0'])}")
        request = replace(request, codes=single["codes.0"], last=None if last is None else int(last[0]))
    double = perform(model, request, patterns)
    for name, value in single.items():
        differs = value.dtype.kind in "iu" and not name.startswith("ranks.") and not np.array_equal(value, double[name])
        if differs or not np.array_equal(np.isfinite(value), np.isfinite(double[name])):
            raise RequestError(
                f"{name} is another one in float64: this request is too near a tie to test anybody with; change its "
                "text, clip or seed, or export it without float64"
            )
    return double


def _greatest(value: AnyArray) -> float:
    return float(np.abs(value).max(initial=0))


def _module(name: str) -> str:
    return name.partition("@")[0]


def _round_up(value: float) -> float:
    """The next number of two decimal digits."""
    if value == 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / unit) * unit:.1e}")


def _short(value: float) -> float:
    return float(f"{value:.3g}")
