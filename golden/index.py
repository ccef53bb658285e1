"""Write INDEX.json: the recorded cases as a course for porters, eleven stages of steps that run alone.

    python golden/index.py           write it again (needs no torch)

A step is one computation: an operation, recorded tensors that go in, weights, settings, and the recorded tensor that
must come out within its tolerance. README.md says what each operation is. ``NAME.T`` is NAME transposed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).resolve().parent
SPEAKS, CLONES, WORDS = "activations_custom_voice", "activations_clone", "sampling_words"  # cases
MODEL, CODEC = "model.safetensors", "speech_tokenizer/model.safetensors"  # files of weights
MEL = {
    "divide": 32768,
    "sample_rate": 24000,
    "reflect": 384,
    "n_fft": 1024,
    "hop": 256,
    "window": "hann, periodic, rounded to float32",
    "added_to_power": 1e-9,
    "power": 0.5,
    "n_mels": 128,
    "f_min": 0,
    "f_max": 12000,
    "scale": "slaney",
    "norm": "slaney",
    "floor": 1e-5,
    "log": "natural",
}
Json = dict[str, Any]


@dataclass(frozen=True)
class Step:
    case: str
    op: str
    expected: str
    given: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()  # tensors of ``file``; for a whole block the beginning of their names, ending in "."
    settings: Mapping[str, Any] = field(default_factory=dict)
    file: str = MODEL


def stages() -> Iterator[tuple[str, str, list[Step]]]:
    """(name, about, steps) in the order in which a port grows."""
    yield (
        "tokenizer",
        "Text to token ids: byte-level BPE, the special tokens, the templates.",
        [
            Step("text", "tokenize", "ids.json"),
            Step("text", "template", "templates.json"),
        ],
    )
    requests = ("custom_voice_plain", "custom_voice_special_tokens", "custom_voice_leading_newline", "clone_context")
    yield (
        "prompt ids",
        "A request's text in its template; the reference's text in another.",
        [
            *(Step(case, "prompt_ids", "input_ids.0") for case in requests),
            Step("voice_design_plain", "prompt_ids", "instruct_ids.0"),
            Step("clone_context", "prompt_ids", "ref_ids.0"),
        ],
    )
    yield "embeddings", "Rows of tables, the text projection, and their sum: the talker's input.", list(_embeddings())
    yield "one layer", "Layer 0 of the talker, operation by operation.", list(_layer("talker.model", 0))
    yield "talker", "All layers over the prompt, the head, then one more position with the cache.", list(_talker())
    yield "code predictor frame", "Two inputs, then 15 codes, each read off its own head.", list(_predictor())
    yield "sampler", "Logits to a code: the processors, softmax, the generator's words, the race.", list(_sampler())
    yield "codec", "Codes to samples, and samples to codes.", [*_decoder(), *_encoder()]
    yield (
        "mel",
        "A clip to 128 log-mel bins every 256 samples.",
        [Step(CLONES, "log_mel", "speaker_encoder.mel@0", ("audio.0",), settings=MEL)],
    )
    yield "speaker encoder", "Mel to the x-vector.", list(_speaker())
    whole = ["custom_voice_one_frame", "custom_voice_plain", "voice_design_plain", "custom_voice_1.7b_plain"]
    whole += ["clone_x_vector", "clone_context", "sampled_defaults", "custom_voice_batch", "sampled_end_batch"]
    whole += ["decode_301", "encode_16k"]
    yield (
        "whole requests",
        "The codes of a call; the waveform follows from stage 8.",
        [Step(case, "request", "wav.0[0:3840]" if case == "decode_301" else "codes.0") for case in whole],
    )


def _linear(case: str, given: str, weight: str, expected: str, bias: bool = False, file: str = MODEL) -> Step:
    weights = (f"{weight}.weight", f"{weight}.bias") if bias else (f"{weight}.weight",)
    return Step(case, "linear", expected, (given,), weights, file=file)


def _norm(given: str, module: str, expected: str) -> Step:
    return Step(SPEAKS, "rms_norm", expected, (given,), (f"{module}.weight",), {"eps": 1e-6})


def _embeddings() -> Iterator[Step]:
    text, projected = "talker.model.text_embedding", "talker.text_projection"
    for n in range(4):
        yield Step(SPEAKS, "embedding", f"{text}.prompt@{n}", (f"{text}.prompt.input@{n}",), (f"{text}.weight",))
        hidden, active = f"{projected}.linear_fc1.prompt@{n}", f"{projected}.act_fn.prompt@{n}"
        yield _linear(SPEAKS, f"{text}.prompt@{n}", f"{projected}.linear_fc1", hidden, bias=True)
        yield Step(SPEAKS, "silu", active, (hidden,))
        yield _linear(SPEAKS, active, f"{projected}.linear_fc2", f"{projected}.linear_fc2.prompt@{n}", bias=True)
    codec = "talker.model.codec_embedding"
    for n in range(1, 4):
        yield Step(SPEAKS, "embedding", f"{codec}.prompt@{n}", (f"{codec}.prompt.input@{n}",), (f"{codec}.weight",))
    yield Step(SPEAKS, "prompt", "talker.model.inputs_embeds@0", weights=("talker.",))


def _layer(model: str, i: int) -> Iterator[Step]:
    layer = f"{model}.layers.{i}"
    attention, mlp, x = f"{layer}.self_attn", f"{layer}.mlp", f"{model}.inputs_embeds@0"
    yield _norm(x, f"{layer}.input_layernorm", f"{layer}.input_layernorm@0")
    for part in "qkv":
        yield _linear(SPEAKS, f"{layer}.input_layernorm@0", f"{attention}.{part}_proj", f"{attention}.{part}_proj@0")
    for part in "qk":  # each head of D values by itself
        yield _norm(f"{attention}.{part}_proj@0", f"{attention}.{part}_norm", f"{attention}.{part}_norm@0")
    for part in "qk":
        before = (f"{attention}.{part}_norm@0",)
        yield Step(SPEAKS, "rotate", f"{attention}.{part}_rot@0", before, settings={"theta": 1e6})
    qkv = tuple(f"{attention}.{name}@0" for name in ("q_rot", "k_rot", "v_proj"))
    yield Step(SPEAKS, "attention", f"{attention}.context@0", qkv, settings={"key_value_heads": 2})
    yield _linear(SPEAKS, f"{attention}.context@0", f"{attention}.o_proj", f"{attention}.o_proj@0")
    middle = f"{layer}.post_attention_layernorm.input@0"
    yield Step(SPEAKS, "add", middle, (x, f"{attention}.o_proj@0"))
    yield _norm(middle, f"{layer}.post_attention_layernorm", f"{layer}.post_attention_layernorm@0")
    for part in ("gate", "up"):
        yield _linear(SPEAKS, f"{layer}.post_attention_layernorm@0", f"{mlp}.{part}_proj", f"{mlp}.{part}_proj@0")
    yield Step(SPEAKS, "silu", f"{mlp}.act_fn@0", (f"{mlp}.gate_proj@0",))
    yield Step(SPEAKS, "multiply", f"{mlp}.down_proj.input@0", (f"{mlp}.act_fn@0", f"{mlp}.up_proj@0"))
    yield _linear(SPEAKS, f"{mlp}.down_proj.input@0", f"{mlp}.down_proj", f"{mlp}.down_proj@0")
    yield Step(SPEAKS, "add", f"{layer}@0", (middle, f"{mlp}.down_proj@0"))


def _talker() -> Iterator[Step]:
    model = "talker.model"
    before = f"{model}.inputs_embeds@0"
    for i in range(3):
        yield Step(SPEAKS, "decoder_layer", f"{model}.layers.{i}@0", (before,), (f"{model}.layers.{i}.",))
        before = f"{model}.layers.{i}@0"
    yield _norm(before, f"{model}.norm", f"{model}.norm@0")
    yield Step(SPEAKS, "last_linear", "talker.codec_head@0", (f"{model}.norm@0",), ("talker.codec_head.weight",))
    for n in (1, 2):
        inputs = tuple(f"{model}.inputs_embeds@{i}" for i in range(n + 1))
        yield Step(SPEAKS, "talker", f"talker.codec_head@{n}", inputs, ("talker.",))


def _predictor() -> Iterator[Step]:
    model = "talker.code_predictor.model"
    before = f"{model}.inputs_embeds@0"
    for i in range(2):
        yield Step(SPEAKS, "decoder_layer", f"{model}.layers.{i}@0", (before,), (f"{model}.layers.{i}.",))
        before = f"{model}.layers.{i}@0"
    yield _norm(before, f"{model}.norm", f"{model}.norm@0")
    head = "talker.code_predictor.lm_head.0"
    yield Step(SPEAKS, "last_linear", f"{head}@0", (f"{model}.norm@0",), (f"{head}.weight",))
    for g in range(15):  # of frame 0, each step given what was chosen before it
        inputs = (f"{model}.inputs_embeds@0", *(f"{model}.codec_embedding.{k}@0" for k in range(g)))
        head = f"talker.code_predictor.lm_head.{g}@0"
        yield Step(SPEAKS, "code_predictor", head, inputs, ("talker.code_predictor.",), {"head": g})
    yield Step(SPEAKS, "frame", "codes.0", (f"{model}.inputs_embeds@0",), ("talker.code_predictor.",))


def _sampler() -> Iterator[Step]:
    # Seeds are text: JavaScript reads a number above 2**53 as another one.
    for seed in (0, 1, -1, 2**32 - 1, 2**40 + 3, -(2**63), 2**64 - 1):
        yield Step(WORDS, "mt19937", f"words.{seed}", settings={"seed": str(seed)})
        yield Step(WORDS, "exponential", f"times.{seed}", (f"words.{seed}",))
    yield Step(WORDS, "processors", "steps.scores", ("steps.logits", "steps.codes"))
    yield Step(WORDS, "softmax", "steps.probabilities", ("steps.scores",))
    yield Step(WORDS, "exponential", "steps.times", ("steps.words",))
    yield Step(WORDS, "race", "steps.codes", ("steps.probabilities", "steps.times"))
    yield Step("sampling", "sampling_runs", "case.json")


def _decoder() -> Iterator[Step]:
    decoder = "speech_tokenizer.decoder"
    for part, count in (("rvq_first", 1), ("rvq_rest", 15)):
        first = 0 if part == "rvq_first" else 1
        books = f"decoder.quantizer.{part}.vq.layers"
        for i in range(count):
            book = tuple(f"{books}.{i}._codebook.{name}" for name in ("embedding_sum", "cluster_usage"))
            expected = f"{decoder}.quantizer.{part}.vq.layers.{i}.quantized@0"
            column = {"group": first + i, "floor": 1e-5}
            yield Step(SPEAKS, "codebook", expected, ("codes.0",), book, column, CODEC)
    parts = tuple(f"{decoder}.quantizer.{part}.output_proj@0" for part in ("rvq_first", "rvq_rest"))
    yield Step(SPEAKS, "add", f"{decoder}.quantizer@0", parts)
    pre = (f"decoder.pre_conv.conv.{name}" for name in ("weight", "bias"))
    yield Step(SPEAKS, "causal_conv", f"{decoder}.pre_conv@0", (f"{decoder}.quantizer@0",), tuple(pre), file=CODEC)
    projected = f"{decoder}.pre_transformer.input_proj@0"
    weight = "decoder.pre_transformer.input_proj"
    yield _linear(SPEAKS, f"{decoder}.pre_conv@0.T", weight, projected, bias=True, file=CODEC)
    rest = f"{decoder}.pre_transformer.output_proj@0"
    yield Step(SPEAKS, "pre_transformer", rest, (f"{decoder}.pre_conv@0.T",), ("decoder.pre_transformer.",), file=CODEC)
    snake = tuple(f"decoder.decoder.1.block.0.{name}" for name in ("alpha", "beta"))
    yield Step(SPEAKS, "snake_beta", f"{decoder}.decoder.1.block.0@0", (f"{decoder}.decoder.0@0",), snake, file=CODEC)
    yield Step(SPEAKS, "decode", "wav.0", ("codes.0",), ("decoder.",), file=CODEC)


def _encoder() -> Iterator[Step]:
    encoder = "speech_tokenizer.encoder"
    weights = tuple(f"encoder.encoder.layers.0.conv.{name}" for name in ("weight", "bias"))
    inner = (f"{encoder}.encoder.input@0", f"{encoder}.encoder.layers.0@0")
    yield Step(CLONES, "causal_conv", inner[1], inner[:1], weights, file=CODEC)
    before = f"{encoder}.encoder.layers.1.block.0@0"
    yield Step(CLONES, "elu", before, inner[1:])
    yield Step(CLONES, "encode", "ref_codes.0", ("audio.0",), ("encoder.",), file=CODEC)


def _speaker() -> Iterator[Step]:
    first = "speaker_encoder.blocks.0"
    weights = (f"{first}.conv.weight", f"{first}.conv.bias")
    yield Step(CLONES, "reflected_conv", f"{first}.conv@0", ("speaker_encoder.mel@0.T",), weights)
    yield Step(CLONES, "relu", f"{first}.activation@0", (f"{first}.conv@0",))
    whole = ("speaker_encoder.mel@0",)
    yield Step(CLONES, "speaker_encoder", "speaker_embedding.0", whole, ("speaker_encoder.",))


def index() -> Json:
    rows = [{"stage": n, "name": name, "about": about, "steps": [_entry(step) for step in steps]}
            for n, (name, about, steps) in enumerate(stages(), start=1)]  # fmt: skip
    return {"made_by": "golden/index.py", "stages": rows}


def _entry(step: Step) -> Json:
    """The step with names as they are stored, the checkpoint it needs, and the tolerance it is given."""
    case = json.loads((GOLDEN / "cases" / step.case / "case.json").read_text(encoding="utf-8"))
    tensors = case.get("tensors", {})
    entry: Json = {"case": step.case, "op": step.op, "given": [_stored(tensors, name) for name in step.given]}
    if step.weights:
        entry |= {"file": step.file, "weights": list(step.weights)}
    if step.settings:
        entry["settings"] = dict(step.settings)
    if "checkpoint" in case:
        entry["checkpoint"] = {key: case["checkpoint"][key] for key in ("like", "type", "seed")}
    entry["expected"] = _stored(tensors, step.expected)
    if "atol" in tensors.get(entry["expected"], {}):
        entry["atol"] = tensors[entry["expected"]]["atol"]
    return entry


def _stored(tensors: Json, name: str) -> str:
    """Equal contents are stored once: the name that a tensor is stored under."""
    plain = name.removesuffix(".T")
    source = tensors.get(plain, {}).get("same_as", plain)
    return source + name[len(plain) :]


def dump(content: Json) -> str:
    """JSON with a line for every step."""
    stages = []
    for stage in content["stages"]:
        steps = ",\n".join(f"   {json.dumps(step)}" for step in stage["steps"])
        head = json.dumps({key: stage[key] for key in ("stage", "name", "about")})
        stages.append(f'  {head[:-1]}, "steps": [\n{steps}\n  ]}}')
    return f'{{\n "made_by": {json.dumps(content["made_by"])},\n "stages": [\n' + ",\n".join(stages) + "\n ]\n}\n"


if __name__ == "__main__":
    (GOLDEN / "INDEX.json").write_text(dump(index()), encoding="utf-8", newline="\n")
