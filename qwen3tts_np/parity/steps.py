"""Single steps without control flow, for converters: every input and output is a named tensor.

A step is cut out of the trace of a complete request. The state left by earlier steps is an input (``past_*``) and the
state left by this one is an output (``present_*``), so one call of a converted graph can be tested alone:

- prompt: text ids [T] and, for each position, the codes whose embeddings are added [T, G] (-1: none), and the x-vector
  where it is added [T, H]; out come the text projection and the talker's inputs;
- prefill: those inputs [T, H], at positions 0 to T - 1, with an empty cache;
- talker: one input row [1, H] at ``position``, keys and values of all positions before it;
- code predictor: one embedding [1, TH] at ``position`` of its frame, keys and values of the frame so far; its first
  call has two, the talker's hidden state and the embedding of code 0, and an empty cache;
- frame: hidden state, code 0 and text row in; 15 codes, each the best of its logits, their sum with the text, and the
  talker's step on it out: everything between two choices of code 0;
- codec: a chunk of frames; for every convolution the last inputs before the chunk, for every attention layer the keys
  and values of the window before it, and ``mask``, which of them each frame sees. Before the clip there are zeros.

With ``positions``, caches have so many rows, zeros where nothing is written yet: ``write_index`` says at which rows
this step writes, ``mask`` [T, positions] which rows each of its positions sees.

Outputs keep their official names, with ``@0`` because the step is the only call.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..codec.decoder import CHUNK_FRAMES, DILATIONS
from ..codec.decoder import NAME as DECODER
from ..errors import RequestError
from ..inspect.request import WrittenRequest, prepare
from ..model import Qwen3TTSModel
from ..ops import AnyArray
from .fixture import Json

KINDS = ("prompt", "prefill", "talker", "code_predictor", "frame", "codec")
PREDICTOR = "talker.code_predictor"
_TIME_FIRST = (".pre_transformer.", "1.norm@", "1.pwconv1@", "1.act@", "1.pwconv2@")  # [T, H]; all others are [C, T]

Tensors = dict[str, AnyArray]
Cut = tuple[Tensors, Tensors, dict[str, str]]  # inputs, outputs, and the traced tensor that each output is


@dataclass(frozen=True)
class Step:
    """Which step of a request: of the talker the one that reads frame ``frame - 1`` (from 1 on), of the code predictor
    the one that gives the logits of code ``group`` of ``frame`` (from 1 on), of the codec the chunk of ``frames`` from
    ``frame``. ``positions``: rows of padded caches; None: caches as long as they are."""

    of: str
    frame: int = 1
    group: int = 2
    frames: int = 2
    positions: int | None = None


@dataclass(frozen=True)
class _Whole:
    """The request a step is cut out of."""

    model: Qwen3TTSModel
    request: WrittenRequest
    tensors: Mapping[str, AnyArray]

    def __getitem__(self, name: str) -> AnyArray:
        if name not in self.tensors:
            raise RequestError(f"this request has no such step: it never computes {name}")
        return self.tensors[name]


def cut(
    step: Step,
    model: Qwen3TTSModel,
    request: WrittenRequest,
    tensors: Mapping[str, AnyArray],
    entries: Mapping[str, Json],
) -> tuple[Tensors, Tensors, dict[str, Json], Json]:
    """(inputs, outputs, manifest entries, description of the step). Raises RequestError if there is no such step."""
    whole = _Whole(model, request, tensors)
    cutters = {"prompt": _prompt, "prefill": _prefill, "talker": _talker, "code_predictor": _predictor}
    inputs, outputs, sources = (cutters | {"frame": _frame, "codec": _codec})[step.of](step, whole)
    if step.positions is not None:
        _pad_caches(step.positions, inputs, outputs)
    table: dict[str, Json] = {}
    for name, value in outputs.items():
        table[name] = {"shape": list(value.shape), "dtype": value.dtype.name}
        known = entries[sources[name]]
        table[name] |= {key: known[key] for key in ("atol", "error", "peak") if key in known}
    return inputs, outputs, table, {"step": {"of": step.of, **_further(step)}}


def _further(step: Step) -> Json:
    of = {"prompt": (), "prefill": (), "code_predictor": ("frame", "group"), "codec": ("frame", "frames")}
    found = {name: getattr(step, name) for name in of.get(step.of, ("frame",))}
    return found if step.positions is None else {**found, "positions": step.positions}


def _prompt(step: Step, whole: _Whole) -> Cut:
    """What is summed at each position of the prompt, and the sums."""
    request, c = prepare(whole.model, whole.request), whole.model.config.talker_config
    rows = request.prompt.prefill
    codes = np.full((len(rows), c.num_code_groups), -1, np.int32)
    x_vector = np.zeros((len(rows), c.hidden_size), np.float32)
    for t, row in enumerate(rows):
        if row.codec is not None:
            codes[t, 0] = row.codec
        elif row.frame is not None:
            codes[t] = row.frame
        elif row.x_vector:
            x_vector[t] = request.x_vector
    names = ("talker.model.text_embedding@0", "talker.text_projection@0", "talker.model.inputs_embeds@0")
    inputs = {"text_ids": np.array([row.text for row in rows], np.int32), "codes": codes, "x_vector": x_vector}
    return inputs, {name: whole[name] for name in names}, {name: name for name in names}


def _prefill(step: Step, whole: _Whole) -> Cut:
    return _decoder_step("talker", "talker.codec_head", range(1), 0, whole)


def _talker(step: Step, whole: _Whole) -> Cut:
    if step.frame < 1:
        raise RequestError(f"frame {step.frame} of the talker is no step: frame 0 follows the prompt, see prefill")
    return _decoder_step("talker", "talker.codec_head", range(step.frame + 1), step.frame, whole)


def _predictor(step: Step, whole: _Whole) -> Cut:
    calls = whole.model.config.talker_config.num_code_groups - 1
    if not 1 <= step.group <= calls:
        raise RequestError(f"group {step.group} must be from 1 to {calls}: code 0 is the talker's")
    first = step.frame * calls
    head = f"{PREDICTOR}.lm_head.{step.group - 1}"
    return _decoder_step(PREDICTOR, head, range(first, first + step.group), step.frame, whole)


def _frame(step: Step, whole: _Whole) -> Cut:
    """Hidden state and code 0 in; the other codes, and the talker's step on all of them, out."""
    codes = whole["codes.0"]
    if not 0 <= step.frame < len(codes):
        raise RequestError(f"frame {step.frame} must lie within the {len(codes)} frames of this request")
    chosen = codes[step.frame]
    heads = [f"{PREDICTOR}.lm_head.{g}" for g in range(len(chosen) - 1)]
    logits = {f"{head}@0": whole[f"{head}@{step.frame}"] for head in heads}
    if not np.array_equal([row[0].argmax() for row in logits.values()], chosen[1:]):
        raise RequestError(
            f"frame {step.frame} has codes that are not the best of their logits: this step needs a request with "
            "subtalker_dosample false, and no given codes"
        )
    text = whole["talker.text_projection@1"]
    inputs, outputs, sources = _talker(replace(step, frame=step.frame + 1), whole)
    summed = inputs.pop("inputs_embeds")
    own = {
        "hidden": whole[f"talker.model.norm@{step.frame}"][-1:],
        "code_0": chosen[:1],
        "text": text[min(step.frame, len(text) - 1)][None],
    }
    made = {**logits, "codes": chosen[None], "talker.model.inputs_embeds@0": summed}
    traced = {name: f"{name.removesuffix('0')}{step.frame}" for name in logits}
    traced |= {"codes": "codes.0", "talker.model.inputs_embeds@0": f"talker.model.inputs_embeds@{step.frame + 1}"}
    return own | inputs, made | outputs, traced | sources


def _decoder_step(name: str, head: str, calls: range, head_call: int, whole: _Whole) -> Cut:
    """The last of ``calls`` of the talker or of the code predictor; its cache is what those before it left."""
    c, last = whole.model.config.talker_config, calls[-1]
    layers = (c if name == "talker" else c.code_predictor_config).num_hidden_layers
    entry = "model.inputs_embeds" if name == "talker" else "small_to_mtp_projection.input"
    x = whole[f"{name}.{entry}@{last}"]
    seen = sum(len(whole[f"{name}.model.inputs_embeds@{n}"]) for n in calls[:-1])
    inputs: Tensors = {"inputs_embeds": x, "position": np.arange(seen, seen + len(x), dtype=np.int32)}
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
            rows = [whole[f"{attention}.{traced}@{n}"].reshape(shape) for n in calls]
            inputs[f"past_{kind}.{i}"] = np.concatenate([rows[0][:0], *rows[:-1]])
            outputs[f"present_{kind}.{i}"] = np.concatenate(rows)
            sources[f"present_{kind}.{i}"] = f"{attention}.{traced}@{last}"
    return inputs, outputs, sources


def _pad_caches(positions: int, inputs: Tensors, outputs: Tensors) -> None:
    """Caches [positions, K, D] in place of [S, K, D], and the inputs that say which rows count."""
    if "past_key.0" not in inputs or "mask" in inputs:
        raise RequestError("padded caches are for the steps of talker and code predictor: this one has none to pad")
    needed = len(outputs["present_key.0"])
    if positions < needed:
        raise RequestError(f"{positions} positions are too few: this step needs {needed}")
    for tensors, kind in ((inputs, "past_"), (outputs, "present_")):
        for name, rows in tensors.items():
            if name.startswith(kind):
                tensors[name] = np.pad(rows, ((0, positions - len(rows)), (0, 0), (0, 0)))
    inputs["write_index"] = inputs["position"]
    inputs["mask"] = (np.arange(positions) <= inputs["position"][:, None]).astype(np.int32)


def _matching(tensors: Mapping[str, AnyArray], pattern: str, call: int) -> Iterator[str]:
    """Traced names of one call of a part, in the order of execution."""
    stem = pattern.removesuffix("*")
    for name in tensors:
        module, _, number = name.rpartition("@")
        fits = module.startswith(stem) if pattern.endswith("*") else module == stem
        if fits and number == str(call) and ".codec_embedding" not in module and ".text_embedding" not in module:
            yield name


def _codec(step: Step, whole: _Whole) -> Cut:
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
