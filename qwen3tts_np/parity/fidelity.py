"""Fidelity of a weight format: the same codes read by float32 weights and by quantised ones.

Both models are fed the same codes (teacher forcing), so every frame is judged on its own, without the effect of earlier
differences. The quantised model runs on the NumPy path with the numbers of the compiled kernels: its matrices are those
stored by ``checkpoint/quantised.py``, and their inputs are quantised in groups of 32 as well.

Measured: how often the best code stays the best (top-1); how far the distribution of a code shifts (Kullback-Leibler
divergence of the quantised from the float32 one, nats, temperature 1); the relative error of the hidden state after
every layer (RMS of the difference / RMS).

The limits are in ``LIMITS``: about twice what the synthetic checkpoints need. The full-size one needs most, since the
error grows with depth: int8 is 1.0 % off after the talker's first layer, 4.4 % after its 28th and 5.7 % after the code
predictor's last; int4 9.4 %, 38 % and 47 %. (int6 and int5 were measured on the tiny ones only; their limits follow
from the ratio to int8 there.)

What follows for a trained model: the error of one matrix product, relative to its result, is that of its weights,
whatever the width, so the first layers should look alike. Further up random weights are a hard case. Their layers pass
errors on undiminished, and their logits (standard deviation 3, independent) are full of near ties, so that with int4
most best codes change; the logits of a trained model are decided, and its best code leads by nats. One thing is worse
in trained weights: outliers, which cost the group of 32 around them some of its levels. So a trained model is
expected well within these limits; none was measured here. One that breaks the limit of the hidden state has a layer
with outliers, which the table of layers shows; one that breaks top-1 or divergence should not be used in that format;
and top-1 of int4 against that of int8 on the same checkpoint says more than the limit.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..arguments import codes_of
from ..checkpoint.quantised import is_quantised
from ..checkpoint.safetensors import Checkpoint
from ..compiled.engine import WEIGHT_FORMATS, Engine
from ..compiled.frame_loop import FrameLoop
from ..config import ModelConfig
from ..errors import RequestError
from ..generate import FrameWriter, collect
from ..model import Qwen3TTSModel
from ..notices import notify
from ..ops import Array, Ints, softmax
from ..request import ClonedVoice, CustomVoice, DesignedVoice, Request, Voice
from ..speaker.encoder import speaker_embedding
from ..talker.generator import TorchGenerator
from ..talker.sampling import drop_control_tokens
from ..trace import trace
from ..voice.prompt_item import VoiceClonePromptItem
from .forced import GIVEN, ForcedLoop
from .in_format import InFormat

TEXT = "The ferry leaves the harbour at half past nine, and if the wind turns we will wait here."
SEEDS = 8  # that are tried: random weights end the speech when they like
WATCHED = (
    "talker.codec_head",
    "talker.code_predictor.lm_head.*",
    *(f"{part}.model.layers.{n}" for part in ("talker", "talker.code_predictor") for n in ("[0-9]", "[0-9][0-9]")),
)


@dataclass(frozen=True)
class Limit:
    """Limits of a format."""

    top1: float  # at least, of all codes together
    divergence: float  # mean, nats, of talker and code predictor each
    hidden: float  # of every layer


LIMITS = {
    "float32": Limit(1.0, 1e-9, 1e-6),
    "bfloat16": Limit(0.98, 1e-3, 1e-2),
    "float16": Limit(0.98, 1e-4, 2e-3),
    "int8": Limit(0.75, 0.04, 0.12),
    "int6": Limit(0.60, 0.2, 0.26),
    "int5": Limit(0.35, 0.6, 0.45),
    "int4": Limit(0.10, 2.0, 0.75),
}


@dataclass(frozen=True)
class Agreement:
    """Two sets of logits for the same positions."""

    codes: int  # how many positions
    top1: float  # share of positions with the same best code
    divergence: float  # mean over positions, nats
    worst: float  # greatest divergence


@dataclass(frozen=True)
class Fidelity:
    """One format compared with float32."""

    format: str
    frames: int
    talker: Agreement
    code_predictor: Agreement
    hidden: dict[str, float]  # layer -> relative error of its output, over all positions

    @property
    def top1(self) -> float:
        """Over all codes of a frame together: those of the talker alone are few."""
        agreements = (self.talker, self.code_predictor)
        return sum(a.top1 * a.codes for a in agreements) / sum(a.codes for a in agreements)

    @property
    def problems(self) -> list[str]:
        """The values beyond ``LIMITS``; [] if there are none."""
        limit, found = LIMITS[self.format], []
        if self.top1 < limit.top1:
            found.append(f"the best code is the same in {self.top1:.1%}, limit {limit.top1:.0%}")
        for name, agreement in (("talker", self.talker), ("code predictor", self.code_predictor)):
            if agreement.divergence > limit.divergence:
                found.append(f"{name}: divergence {agreement.divergence:.3g} nats, limit {limit.divergence:g}")
        worst = max(self.hidden, key=self.hidden.__getitem__)
        if self.hidden[worst] > limit.hidden:
            found.append(f"{worst}: hidden state off by {self.hidden[worst]:.2%}, limit {limit.hidden:.0%}")
        return found

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "top1": self.top1, "limits": asdict(LIMITS[self.format]), "problems": self.problems}


def fidelity(
    path: Path, formats: Sequence[str], codes: Ints | None = None, frames: int = 24, seed: int = 0, text: str = TEXT
) -> list[Fidelity]:
    """Measure each of ``formats`` on the checkpoint ``path``, in sequence.

    ``codes`` [frames, G] are read if given, otherwise those that float32 weights generate for ``text``, from
    ``seed`` on. Warns of a checkpoint that is quantised already.
    """
    for name in formats:
        if name not in WEIGHT_FORMATS:
            raise RequestError(f"format {name!r} must be one of {', '.join(WEIGHT_FORMATS)}")
    checkpoint = Checkpoint.open(path)
    if is_quantised(checkpoint):
        notify(f"{path} is quantised already: the others are compared with what its weights have become")
    model = Qwen3TTSModel.from_pretrained(path, backend="reference")
    c = model.config
    request = model.prepare(text, any_voice(model), streaming=False, seed=seed, max_new_tokens=frames + 1)
    if codes is None:
        codes = own_codes(model, request)
    codes_of(codes, GIVEN, c.talker_config.num_code_groups, c.talker_config.code_predictor_config.vocab_size)
    if not len(codes):
        raise RequestError("there are no codes to read: give a file with at least one frame")
    exact = read_codes(model.frame_loop, c, request, codes)
    del model  # its float32 weights: the next model needs the memory
    engine, found = Engine.choose("reference", np.dtype(np.float32)), []
    for name in formats:
        loop = FrameLoop(engine, c, InFormat(checkpoint, name))
        found.append(compared(name, c, codes, exact, read_codes(loop, c, request, codes)))
    return found


def own_codes(model: Qwen3TTSModel, request: Request) -> Ints:
    """The codes of the first of a few seeds that gives the requested number of frames, or the longest."""
    groups = model.config.talker_config.num_code_groups
    longest: Ints = np.zeros((0, groups), np.int64)
    for attempt in range(SEEDS):
        (codes,) = collect(model.frames([replace(request, seed=request.seed + attempt)]), 1, groups)
        longest = max(longest, codes, key=len)
        if len(longest) == request.limits.max_new_tokens - 1:
            break
    return longest


def read_codes(loop: FrameWriter, c: ModelConfig, request: Request, codes: Ints) -> dict[str, Array]:
    """Logits and hidden states of a model that reads ``codes``."""
    forced = ForcedLoop(loop, codes, c.talker_config.codec_eos_token_id)
    with trace(*WATCHED) as t:
        for _ in forced.frames([request], TorchGenerator(0)):
            pass
    return t


def compared(
    name: str, c: ModelConfig, codes: Ints, exact: Mapping[str, Array], rough: Mapping[str, Array]
) -> Fidelity:
    talker = c.talker_config

    def logits(of: Mapping[str, Array]) -> tuple[Array, Array]:
        first = np.concatenate([of[f"talker.codec_head@{t}"] for t in range(len(codes))])
        heads = (f"talker.code_predictor.lm_head.{g}@{t}" for t in range(len(codes)) for g in range(codes.shape[1] - 1))
        return drop_control_tokens(first, talker.codec_eos_token_id), np.concatenate([of[head] for head in heads])

    agreements = [agreement(p, q) for p, q in zip(logits(exact), logits(rough), strict=True)]
    return Fidelity(name, len(codes), agreements[0], agreements[1], dict(_hidden_errors(exact, rough)))


def agreement(exact: Array, rough: Array) -> Agreement:
    """Of logits [n, V] with others for the same positions; what is -inf in both can be chosen in neither."""
    p, q = softmax(exact.astype(np.float64)), softmax(rough.astype(np.float64))
    with np.errstate(divide="ignore", invalid="ignore"):
        divergence = np.where(p > 0, p * np.log(p / q), 0.0).sum(axis=1)
    same = exact.argmax(axis=1) == rough.argmax(axis=1)
    return Agreement(len(exact), float(same.mean()), float(divergence.mean()), float(divergence.max()))


def _hidden_errors(exact: Mapping[str, Array], rough: Mapping[str, Array]) -> Iterator[tuple[str, float]]:
    layers = dict.fromkeys(name.partition("@")[0] for name in exact if ".layers." in name)
    calls = {layer: [name for name in exact if name.partition("@")[0] == layer] for layer in layers}
    for layer, names in calls.items():
        off = sum(float(np.sum((exact[n].astype(np.float64) - rough[n]) ** 2)) for n in names)
        yield layer, (off / sum(float(np.sum(exact[n].astype(np.float64) ** 2)) for n in names)) ** 0.5


# --- the built-in text ---


def any_voice(model: Qwen3TTSModel) -> Voice:
    """A voice of the model, or one made from a tone."""
    kind = model.config.tts_model_type
    if kind == "custom_voice":
        return CustomVoice(model.get_supported_speakers()[0])
    return DesignedVoice("A calm, low voice.") if kind == "voice_design" else ClonedVoice(_tone(model))


def _tone(model: Qwen3TTSModel) -> VoiceClonePromptItem:
    """A voice made from two seconds of a vowel-like hum with overtones, for models without a voice of their own."""
    c = model.config.speaker_encoder_config
    assert c is not None and model.speaker_encoder is not None
    t = np.arange(2 * c.sample_rate) / c.sample_rate
    phase = 2 * np.pi * (120 * t + 2 * np.sin(2 * np.pi * 5 * t))
    overtones = itertools.takewhile(lambda n: 120 * n < 4000, itertools.count(1))
    hum = sum(np.sin(n * phase) * np.exp(-((120 * n - 600) ** 2) / 8e5) for n in overtones)
    wave = (0.1 * np.asarray(hum)).astype(np.float32)
    embedding = speaker_embedding(wave, model.speaker_encoder, c)
    return VoiceClonePromptItem(None, embedding, True, False, None, model.fingerprint)
