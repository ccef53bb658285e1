"""Better 4 bits: how much of the loss of int4 other levels and scales would save, or a few more bits.

    python benchmarks/int4.py                          the demo voice, some minutes; writes int4.json and int4.md
    python benchmarks/int4.py --model DIR              another checkpoint, full size too; prints its table

Every variant is read by the NumPy path with the arithmetic of the kernels: heads in int8, inputs quantised. It reads
codes that float32 weights have generated for texts of demo_sentences.txt; what is learned from activations is learned
from other texts of it. Measured: the Kullback-Leibler divergence from float32 of code 0 and of the others, equal best
codes, and the relative error of the talker's last states.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe_machine
from numpy.typing import NDArray
from qwen3tts_np_kernels.feedback import factors, quantise_with_feedback
from qwen3tts_np_kernels.pack import GROUP, quantise

from qwen3tts_np import CustomVoice, Qwen3TTSModel
from qwen3tts_np.calibration import INPUTS, MATRIX, Moments
from qwen3tts_np.checkpoint.quantised import weights_of
from qwen3tts_np.checkpoint.safetensors import Checkpoint
from qwen3tts_np.checkpoint.tensor import StoredTensor
from qwen3tts_np.compiled.engine import Engine
from qwen3tts_np.compiled.frame_loop import FrameLoop
from qwen3tts_np.config import ModelConfig
from qwen3tts_np.files.output import write_text
from qwen3tts_np.ops import Array, Ints
from qwen3tts_np.parity.fidelity import agreement
from qwen3tts_np.parity.in_format import IntegerMatrix
from qwen3tts_np.report.tables import Table, as_markdown
from qwen3tts_np.request import Request
from qwen3tts_np.speech.demo import CHECKPOINT
from qwen3tts_np.talker.sampling import drop_control_tokens
from qwen3tts_np.teacher import Teacher
from qwen3tts_np.trace import collect_into

HERE = Path(__file__).resolve().parent
SENTENCES = HERE / "demo_sentences.txt"
HEAD = re.compile(r"talker\.(codec_head|code_predictor\.lm_head\.\d+)\.weight")
STEPS = np.linspace(-2, 1.2, 9)
CONCLUSION = """\
Kept: feedback, as `qwen3tts-np convert --calibrate`. At the size, the layout and the speed of int4 code 0
diverges about half as much, the others a quarter less. A file that it wrote, learned from 40 sentences in one voice and
read by the kernels, diverges by 0.00011 and 0.0058, one without by 0.00016 and 0.0074. Not kept:

- Scales by the activations alone change nothing, and add nothing to feedback.
- A zero for each group gains less than feedback does, for half a bit a weight, another layout and another kernel.
- `down` in int8 gains less than feedback does, for a bit a weight.
- The first layer in int8 gains most for the codes after the first; but this model has two layers in each network, so
  it is half of them. int8 as a whole gains far more: where there is room for it, take it.

The demo voice is small. On a checkpoint of full size none of this has been measured."""

Weights = NDArray[np.float32]
Quantiser = Callable[[str, Weights], Weights]  # the key and the matrix -> what the matrix becomes


# --- quantisers -----------------------------------------------------------------------------------


def by_search(key: str, w: Weights, bits: int = 4) -> Weights:
    return weights_of(*quantise(w, bits), np.dtype(np.float32))


def by_activations(key: str, w: Weights, moments: Moments) -> Weights:
    """The scale of a group for the inputs that it gets; levels are the nearest."""
    importance = np.concatenate([np.diag(block) for block in moments.sums[input_of(key)]]).reshape(-1, GROUP)
    groups = w.reshape(len(w), -1, GROUP)
    extreme = np.take_along_axis(groups, np.abs(groups).argmax(axis=-1)[..., None], -1)[..., 0].astype(np.float64)
    gain, scale = np.zeros(extreme.shape), np.zeros(extreme.shape)
    for step in STEPS:
        levels = rounded(groups, np.where(extreme == 0, 1, -extreme) / (8 + step))
        product = (importance * groups * levels).sum(axis=-1)
        fit = product / np.maximum((importance * levels * levels).sum(axis=-1), 1e-30)
        scale, gain = np.where(product * fit > gain, fit, scale), np.maximum(gain, product * fit)
    scale = scale.astype(np.float16).astype(np.float64)
    return (rounded(groups, scale) * scale[..., None]).reshape(w.shape).astype(np.float32)


def rounded(groups: NDArray[Any], scales: NDArray[Any]) -> NDArray[np.float64]:
    return np.clip(np.rint(groups / np.where(scales == 0, 1, scales)[..., None]), -8, 7)


def by_feedback(key: str, w: Weights, moments: Moments) -> Weights:
    found = list(map(factors, moments.sums[input_of(key)]))
    return weights_of(*quantise_with_feedback(w, found, 4), np.dtype(np.float32))


def asymmetric(key: str, w: Weights) -> Weights:
    """16 levels from a least value in steps of a scale, both float16, by least squares for the levels of the range."""
    groups = w.reshape(len(w), -1, GROUP).astype(np.float64)
    low, high = groups.min(axis=2, keepdims=True), groups.max(axis=2, keepdims=True)
    best, least = np.empty_like(groups), np.full(low.shape, np.inf)
    for shrink in np.linspace(0, 0.25, 9):
        step = np.maximum((high - low) * (1 - shrink) / 15, 1e-12)
        base = low + (high - low) * shrink / 2
        levels = np.clip(np.rint((groups - base) / step), 0, 15)
        off = levels - levels.mean(axis=2, keepdims=True)
        scale = (off * groups).sum(axis=2, keepdims=True) / np.maximum((off * off).sum(axis=2, keepdims=True), 1e-9)
        zero = groups.mean(axis=2, keepdims=True) - scale * levels.mean(axis=2, keepdims=True)
        scale, zero = scale.astype(np.float16).astype(np.float64), zero.astype(np.float16).astype(np.float64)
        levels = np.clip(np.rint((groups - zero) / np.where(scale == 0, 1, scale)), 0, 15)
        values = levels * scale + zero
        error = ((values - groups) ** 2).sum(axis=2, keepdims=True)
        best, least = np.where(error < least, values, best), np.minimum(error, least)
    return best.reshape(w.shape).astype(np.float32)


def wider(key: str, w: Weights, which: Callable[[str, int], bool]) -> Weights:
    found = MATRIX.fullmatch(key)
    assert found
    return by_search(key, w, 8 if which(found[2], int(found[1].rpartition(".")[2])) else 4)


def input_of(key: str) -> str:
    found = MATRIX.fullmatch(key)
    assert found
    return f"{found[1]}.{INPUTS[found[2]]}"


# --- models ---------------------------------------------------------------------------------------


class Changed(Checkpoint):
    """A checkpoint whose matrices a quantiser has changed; heads are int8, and inputs are quantised as in kernels."""

    def __init__(self, source: Checkpoint, quantiser: Quantiser) -> None:
        super().__init__(source.path, dict(source), source.metadata)
        self._quantiser = quantiser

    def __getitem__(self, name: str) -> StoredTensor:
        tensor = super().__getitem__(name)
        w = tensor.widen(np.dtype(np.float32)) if MATRIX.fullmatch(name) or HEAD.fullmatch(name) else None
        if w is None:
            return tensor
        return _Matrix(name, "F32", by_search(name, w, 8) if HEAD.fullmatch(name) else self._quantiser(name, w))


@dataclass(frozen=True)
class _Matrix(StoredTensor):
    def widen(self, dtype: np.dtype[Any]) -> Array:
        return self.data.astype(dtype).view(IntegerMatrix)


def teacher_of(config: ModelConfig, checkpoint: Checkpoint) -> Teacher:
    return FrameLoop(Engine.choose("reference", np.dtype(np.float32)), config, checkpoint).teacher()


Speech = list[tuple[Request, Ints]]


def spoken(model: Qwen3TTSModel, texts: Sequence[str], frames: int) -> Speech:
    speakers = model.get_supported_speakers()
    requests = [
        model.prepare(
            text, CustomVoice(speakers[n % len(speakers)]), language="english", seed=n, max_new_tokens=frames + 1
        )
        for n, text in enumerate(texts)
    ]
    return [(request, codes) for request, (_, codes) in zip(requests, model.generate(requests), strict=True)]


def read(teacher: Teacher, speech: Speech, end: int) -> tuple[list[Array], list[Array], list[Array]]:
    """Of each utterance: logits of code 0 [f, V], of the others [f, G - 1, C], and states [f, H]."""
    first, others, states = [], [], []
    for request, codes in speech:
        hidden, logits = teacher.read(request, codes)
        first.append(drop_control_tokens(logits[:-1], end))
        others.append(teacher.complete(hidden[:-1], codes))
        states.append(hidden[:-1])
    return first, others, states


# --- measures -------------------------------------------------------------------------------------


def compared(exact: Any, rough: Any) -> dict[str, float]:
    codes = [agreement(rows(p), rows(q)) for p, q in zip(exact[:2], rough[:2], strict=True)]
    a, b = np.concatenate(exact[2]), np.concatenate(rough[2])
    return {
        "talker_kl": codes[0].divergence,
        "predictor_kl": codes[1].divergence,
        "equal_best_codes": sum(of.top1 * of.codes for of in codes) / sum(of.codes for of in codes),
        "state_error": float(np.sqrt(((a - b) ** 2).sum() / (a**2).sum())),
    }


def rows(logits: Sequence[Array]) -> Array:
    """[n, V] of [..., V] of each utterance."""
    return np.concatenate([each.reshape(-1, each.shape[-1]) for each in logits])


@dataclass(frozen=True)
class Variant:
    quantiser: Quantiser
    what: str
    bits: str  # a weight


def variants(moments: Moments) -> dict[str, Variant]:
    """The first is what ``pack.py`` does."""
    return {
        "search": Variant(by_search, "nearest levels; the scale with the least squared error of 32 weights", "4.5"),
        "activations": Variant(
            partial(by_activations, moments=moments), "a weight's error counts by the mean square of its input", "4.5"
        ),
        "feedback": Variant(
            partial(by_feedback, moments=moments),
            "GPTQ: the error of a weight is made good by those of its row that are rounded later",
            "4.5",
        ),
        "asymmetric": Variant(asymmetric, "a zero of each group beside its scale, as in GGUF's Q4_1", "5"),
        "down in int8": Variant(partial(wider, which=lambda name, layer: name == "down"), "a sensitive matrix", "5.5"),
        "first layer in int8": Variant(partial(wider, which=lambda name, layer: layer == 0), "a sensitive layer", ""),
        "int8": Variant(partial(by_search, bits=8), "all of it", "8.5"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=CHECKPOINT)
    parser.add_argument("--learned", type=int, default=40, help="sentences that are learned from")
    parser.add_argument("--read", type=int, default=40, help="sentences that are read")
    parser.add_argument("--frames", type=int, default=60, help="of a sentence at most")
    parser.add_argument("--out", type=Path, default=HERE)
    args = parser.parse_args()
    texts = SENTENCES.read_text(encoding="utf-8").splitlines()
    model = Qwen3TTSModel.from_pretrained(args.model)
    checkpoint, config = Checkpoint.open(args.model), model.config
    end, exact_teacher = config.talker_config.codec_eos_token_id, teacher_of(config, checkpoint)
    with collect_into(Moments()) as collected:
        read(exact_teacher, spoken(model, texts[-args.learned :], args.frames), end)
    speech = spoken(model, texts[: args.read], args.frames)
    del model
    exact = read(exact_teacher, speech, end)
    found = {}
    for name, variant in variants(collected).items():
        found[name] = compared(exact, read(teacher_of(config, Changed(checkpoint, variant.quantiser)), speech, end))
        print(name, found[name], flush=True)
    report = {"machine": describe_machine(), "learned": args.learned, "read": args.read, "found": found}
    print(as_markdown(table(found)))
    if args.model == CHECKPOINT:
        write_text(args.out / "int4.json", json.dumps(report, indent=1) + "\n")
        write_text(args.out / "int4.md", markdown(report))


def markdown(report: Mapping[str, Any]) -> str:
    about = (
        f"The demo voice reads its own speech of {report['read']} sentences, with the matrices of its layers in each "
        f"of these forms; what is learned was learned from {report['learned']} others. Made by `benchmarks/int4.py`."
    )
    return f"# Better 4 bits\n\n{about}\n\n{as_markdown(table(report['found']))}\n\n{CONCLUSION}\n"


def table(found: Mapping[str, Mapping[str, float]]) -> Table:
    rows = [
        [
            name,
            variant.bits,
            variant.what,
            f"{found[name]['talker_kl']:.2g}",
            f"{found[name]['predictor_kl']:.2g}",
            f"{found[name]['equal_best_codes']:.2%}",
            f"{found[name]['state_error']:.2%}",
        ]
        for name, variant in variants(Moments()).items()
    ]
    headers = [
        "variant",
        "bits a weight",
        "",
        "KL of code 0, nats",
        "KL of the others, nats",
        "equal best codes",
        "error of the last state",
    ]
    return Table("", headers, "lrlrrrr", rows)


if __name__ == "__main__":
    main()
