"""Single steps without control flow, for converters: every input and output is a named tensor.

A step is cut out of the trace of a complete request. The state left by earlier steps is an input (``past_*``) and the
state left by this one is an output (``present_*``), so one call of a converted graph can be tested alone:

- talker: one input row [1, H] at ``position``, keys and values of all positions before it;
- code predictor: one embedding [1, TH] at ``position`` of its frame, keys and values of the frame so far;
- codec: a chunk of frames; for every convolution the last inputs before the chunk, for every attention layer the keys
  and values of the window before it, and ``mask``, which of them each frame sees. Before the clip there are zeros.

Outputs keep their official names, with ``@0`` because the step is the only call.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ..codec.decoder import CHUNK_FRAMES, DILATIONS
from ..codec.decoder import NAME as DECODER
from ..errors import RequestError
from ..model import Qwen3TTSModel
from ..ops import AnyArray
from .fixture import Json

KINDS = ("talker", "code_predictor", "codec")
_TIME_FIRST = (".pre_transformer.", "1.norm@", "1.pwconv1@", "1.act@", "1.pwconv2@")  # [T, H]; all others are [C, T]

Tensors = dict[str, AnyArray]


@dataclass(frozen=True)
class Step:
    """Which step of a request: of the talker the one that reads frame ``frame - 1`` (from 1 on), of the code predictor
    the one that writes code ``group`` of ``frame`` (from 2 on), of the codec the chunk of ``frames`` from ``frame``."""

    of: str
    frame: int = 1
    group: int = 2
    frames: int = 2


@dataclass(frozen=True)
class _Whole:
    """The request a step is cut out of."""

    model: Qwen3TTSModel
    tensors: Mapping[str, AnyArray]

    def __getitem__(self, name: str) -> AnyArray:
        if name not in self.tensors:
            raise RequestError(f"this request has no such step: it never computes {name}")
        return self.tensors[name]


def cut(
    step: Step, model: Qwen3TTSModel, tensors: Mapping[str, AnyArray], entries: Mapping[str, Json]
) -> tuple[Tensors, Tensors, dict[str, Json], Json]:
    """(inputs, outputs, manifest entries, description of the step). Raises RequestError if there is no such step."""
    whole = _Whole(model, tensors)
    if step.of == "codec":
        inputs, outputs, sources = _codec(step, whole)
    else:
        inputs, outputs, sources = _decoder_step(step, whole)
    table: dict[str, Json] = {}
    for name, value in outputs.items():
        table[name] = {"shape": list(value.shape), "dtype": value.dtype.name}
        known = entries[sources[name]]
        table[name] |= {key: known[key] for key in ("atol", "error", "peak") if key in known}
    return inputs, outputs, table, {"step": {"of": step.of, "frame": step.frame, **_further(step)}}


def _further(step: Step) -> Json:
    return {"talker": {}, "code_predictor": {"group": step.group}, "codec": {"frames": step.frames}}[step.of]


def _decoder_step(step: Step, whole: _Whole) -> tuple[Tensors, Tensors, dict[str, str]]:
    """One step of the talker or of the code predictor; the cache is what was traced before."""
    c = whole.model.config.talker_config
    if step.of == "talker":
        name, head, first, last = "talker", "talker.codec_head", 0, step.frame
        layers, head_call = c.num_hidden_layers, step.frame
    else:
        calls = c.num_code_groups - 1
        if not 2 <= step.group <= calls:
            raise RequestError(f"group {step.group} must be from 2 to {calls}: code 1 comes of the two first inputs")
        name, head = "talker.code_predictor", f"talker.code_predictor.lm_head.{step.group - 1}"
        first, last = step.frame * calls, step.frame * calls + step.group - 1
        layers, head_call = c.code_predictor_config.num_hidden_layers, step.frame
    if last <= first:
        raise RequestError(f"frame {step.frame} of the talker is no step: frame 0 follows the prompt")
    start = "talker.model" if step.of == "talker" else "talker.code_predictor.small_to_mtp_projection"
    entry = f"{start}.inputs_embeds@{last}" if step.of == "talker" else f"{start}.input@{last}"
    seen = sum(len(whole[f"{name}.model.inputs_embeds@{n}"]) for n in range(first, last))
    inputs: Tensors = {"inputs_embeds": whole[entry], "position": np.array([seen], np.int32)}
    outputs: Tensors = {}
    sources: dict[str, str] = {}
    for made in (f"{name}.{rest}" for rest in ("small_to_mtp_projection", "model.*")):
        for traced in _matching(whole.tensors, made, last):
            outputs[(now := f"{traced.rpartition('@')[0]}@0")], sources[now] = whole[traced], traced
    logits = f"{head}@{head_call}"
    outputs[f"{head}@0"], sources[f"{head}@0"] = whole[logits], logits
    for i in range(layers):
        attention = f"{name}.model.layers.{i}.self_attn"
        for kind, traced in (("key", "k_rot"), ("value", "v_proj")):
            shape = (-1, *whole[f"{attention}.k_rot@{last}"].shape[1:])  # [S, K, D]
            rows = [whole[f"{attention}.{traced}@{n}"].reshape(shape) for n in range(first, last + 1)]
            inputs[f"past_{kind}.{i}"] = np.concatenate(rows[:-1])
            outputs[f"present_{kind}.{i}"] = np.concatenate(rows)
            sources[f"present_{kind}.{i}"] = f"{attention}.{traced}@{last}"
    return inputs, outputs, sources


def _matching(tensors: Mapping[str, AnyArray], pattern: str, call: int) -> Iterator[str]:
    """Traced names of one call of a part, in the order of execution."""
    stem = pattern.removesuffix("*")
    for name in tensors:
        module, _, number = name.rpartition("@")
        fits = module.startswith(stem) if pattern.endswith("*") else module == stem
        if fits and number == str(call) and ".codec_embedding" not in module and ".text_embedding" not in module:
            yield name


def _codec(step: Step, whole: _Whole) -> tuple[Tensors, Tensors, dict[str, str]]:
    """One chunk of the codec decoder. A causal decoder gives the same result for it as within the complete clip."""
    start, stop = step.frame, step.frame + step.frames
    length = whole[f"{DECODER}.quantizer@0"].shape[1]
    codes = whole["codes.0"]
    if len(codes) != length or length > CHUNK_FRAMES:
        raise RequestError(f"a codec step needs a request that decodes its own codes, {CHUNK_FRAMES} frames at most")
    if not 0 <= start < stop <= length:
        raise RequestError(f"frames {start} to {stop} must lie within the {length} frames of this request")
    window = whole.model.speech_tokenizer.config.decoder_config.sliding_window - 1
    inputs: Tensors = {
        "codes": codes[start:stop].astype(np.int32),
        "position": np.arange(start, stop, dtype=np.int32),
        "mask": _mask(start, stop, window),
    }
    outputs, sources = {}, {}
    for name, value in whole.tensors.items():
        if name.startswith(DECODER) and not name.endswith(".conv@0"):  # what a transposed one makes before the cut
            axis = 0 if any(part in name for part in _TIME_FIRST) else value.ndim - 1
            rate = value.shape[axis] // length
            outputs[name], sources[name] = value.take(range(start * rate, stop * rate), axis), name
    for state, traced, keep in _codec_state(whole.model, window):
        value = whole[f"{DECODER}.{traced}@0"]
        axis = 0 if ".self_attn." in traced else 1
        rate = value.shape[axis] // length
        inputs[f"past_{state}"] = _before(value, start * rate, keep, axis)
        outputs[f"present_{state}"] = _before(value, stop * rate, keep, axis)
        sources[f"present_{state}"] = f"{DECODER}.{traced}@0"
    return inputs, outputs, sources


def _codec_state(model: Qwen3TTSModel, window: int) -> Iterator[tuple[str, str, int]]:
    """(name, tensor whose past is kept, its length) for everything in the decoder that has a past."""
    d = model.speech_tokenizer.decoder
    w = d.weights
    yield "pre_conv", "quantizer", w.pre_conv.weight.shape[2] - 1
    for i in range(d.config.num_hidden_layers):
        attention = f"pre_transformer.layers.{i}.self_attn"
        yield f"key.{i}", f"{attention}.k_rot", window
        yield f"value.{i}", f"{attention}.v_proj", window
    for i, up in enumerate(w.upsample):
        yield f"upsample.{i}.1.dwconv", f"upsample.{i}.0", up.convnext.dwconv.shape[2] - 1
    yield "decoder.0", f"upsample.{len(w.upsample) - 1}.1", w.first_conv.weight.shape[2] - 1
    for i, (block, rate) in enumerate(zip(w.waveform_blocks, d.config.upsample_rates, strict=True), start=1):
        yield f"decoder.{i}.block.1", f"decoder.{i}.block.0", block.conv.weight.shape[2] // rate - 1
        for u, (unit, dilation) in enumerate(zip(block.units, DILATIONS, strict=True), start=2):
            name = f"decoder.{i}.block.{u}"
            yield f"{name}.conv1", f"{name}.act1", (unit.conv1.weight.shape[2] - 1) * dilation
    last = len(w.waveform_blocks) + 1
    yield f"decoder.{last + 1}", f"decoder.{last}", w.last_conv.weight.shape[2] - 1


def _before(value: AnyArray, at: int, keep: int, axis: int) -> AnyArray:
    """The ``keep`` entries before ``at``, zeros where there are none."""
    found = value.take(range(max(at - keep, 0), at), axis)
    padding = [(0, 0)] * value.ndim
    padding[axis] = (keep - found.shape[axis], 0)
    return np.pad(found, padding)


def _mask(start: int, stop: int, window: int) -> AnyArray:
    """[frames, window + frames]: 1 where a frame of the chunk attends to one of the past window or of the chunk."""
    seen = np.arange(start - window, stop)
    age = np.arange(start, stop)[:, None] - seen
    return ((age >= 0) & (age <= window) & (seen >= 0)).astype(np.int32)
