"""What every operation of golden/INDEX.json is, in this implementation: the porter's course, walked by ourselves."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from parity import CASES, Case

from qwen3tts_np import Qwen3TTSModel, ops, trace
from qwen3tts_np.codec import decoder
from qwen3tts_np.codec.conv import causal_conv
from qwen3tts_np.codec.past import Past
from qwen3tts_np.conv import Conv
from qwen3tts_np.ops import Array
from qwen3tts_np.speaker.encoder import conv_same, speaker_encoder
from qwen3tts_np.speaker.mel import log_mel
from qwen3tts_np.talker.code_predictor import predict_frame
from qwen3tts_np.talker.layer import decoder_layer
from qwen3tts_np.talker.sampling import SamplingParameters, talker_scores
from qwen3tts_np.talker.talker import new_cache, read, transformer
from qwen3tts_np.text.templates import instruct_ids, reference_ids, text_ids
from qwen3tts_np.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Stage:
    """What a step may use: the model of its checkpoint, its case, the entry of the index."""

    model: Qwen3TTSModel
    case: Case
    step: dict[str, Any]

    @property
    def weights(self) -> Any:
        return self.model.frame_loop.weights

    def setting(self, name: str) -> Any:
        return self.step["settings"][name]

    def call(self) -> list[Array]:
        """The codes of the case's whole request."""
        call = self.case.json["call"]
        method = getattr(self.model, call["method"])
        return method(**self.case.arguments(), seed=call["seed"], return_codes=True)[2]


def rms_norm(s: Stage, x: Array, weight: Array) -> Array:
    return ops.rms_norm(x.reshape(-1, len(weight)), weight, s.setting("eps"))


def rotate(s: Stage, x: Array) -> Array:
    return ops.rotate(x, *ops.rope_angles(np.arange(len(x)), x.shape[2], s.setting("theta")))


def attention(s: Stage, q: Array, k: Array, v: Array) -> Array:
    return ops.attention(q, k, v.reshape(len(v), s.setting("key_value_heads"), -1)).reshape(len(q), -1)


def one_decoder_layer(s: Stage, x: Array) -> Array:
    c = s.model.config.talker_config
    prefix, layer = s.step["weights"][0][:-1].rsplit(".layers.", 1)
    predictor = "code_predictor" in prefix
    w, c = (s.weights.code_predictor, c.code_predictor_config) if predictor else (s.weights.talker, c)
    rope = ops.rope_angles(np.arange(len(x)), c.head_dim, c.rope_theta)
    return decoder_layer(x, w.layers[int(layer)], rope, new_cache(c)[0], c, "")


def talker(s: Stage, *inputs: Array) -> Array:
    c = s.model.config.talker_config
    cache = new_cache(c)
    return [read(x, s.weights.talker, cache, c)[1] for x in inputs][-1]


def code_predictor(s: Stage, *inputs: Array) -> Array:
    c, w = s.model.config.talker_config.code_predictor_config, s.weights.code_predictor
    cache = new_cache(c)
    hidden = [transformer(x, w.layers, w.norm, cache, c, "") for x in inputs][-1]
    return ops.linear(hidden[-1], w.lm_head[s.setting("head")].weight)


def frame(s: Stage, inputs: Array) -> Array:
    c, w = s.model.config.talker_config.code_predictor_config, s.weights.code_predictor
    code0 = s.case["codes.0"][:1, 0].astype(np.int64)
    greedy = predict_frame(inputs[:1], inputs[1:], code0, w, c, lambda logits: logits.argmax(axis=-1))
    return np.concatenate([greedy, s.case["codes.0"][1:]])


def prompt(s: Stage) -> Array:
    with trace("talker.model.inputs_embeds") as t:
        s.call()
    return t["talker.model.inputs_embeds@0"]


def exponential(_: Stage, words: Array) -> Array:
    pairs = words.reshape(*words.shape[:-1], -1, 2) if words.ndim == 1 else words
    u = ((pairs[..., 0] & 0x1FFFFF) * 2.0**32 + pairs[..., 1]) * 2.0**-53
    return (-np.log1p(-u)).astype(np.float32)


def processors(s: Stage, logits: Array, codes: Array) -> Array:
    run = s.case.json["run"]
    names = ("do_sample", "temperature", "top_k", "top_p", "repetition_penalty")
    parameters = SamplingParameters(**{name: run[name] for name in names})
    seen, scores = np.zeros(logits.shape[1], np.bool_), []
    for step, (row, code) in enumerate(zip(logits, codes, strict=True)):
        scores.append(talker_scores(row, seen, step, run["eos"], parameters))
        seen[code] = True
    return np.maximum(scores, np.float32(-1e30))


def mt19937(s: Stage) -> Array:
    count = s.case[s.step["expected"]].size
    return np.random.RandomState(int(s.setting("seed")) & 0xFFFFFFFF).randint(0, 2**32, count, np.uint32)


def codebook(s: Stage, codes: Array, sums: Array, usage: Array) -> Array:
    return ops.codebook_entries(sums, usage)[codes[:, s.setting("group")]].T


def pre_transformer(s: Stage, x: Array) -> Array:
    d = s.model.speech_tokenizer.decoder
    return decoder.pre_transformer(x, d.weights.pre_transformer, d.config, Past(), "")


def decode(s: Stage, codes: Array) -> Array:
    return s.model.speech_tokenizer.decode({"audio_codes": codes})[0][0]


def encode(s: Stage, samples: Array) -> Array:
    return s.model.speech_tokenizer.encode(samples / np.float32(32768), sr=24000).audio_codes[0]


def speaker(s: Stage, mel: Array) -> Array:
    assert s.model.speaker_encoder is not None and s.model.config.speaker_encoder_config is not None
    return speaker_encoder(mel, s.model.speaker_encoder, s.model.config.speaker_encoder_config, "")


def prompt_ids(s: Stage) -> Array:
    arguments, tokenizer = s.case.json["call"]["arguments"], s.model.text_tokenizer
    if s.step["expected"] == "instruct_ids.0":
        return np.array(instruct_ids(tokenizer, arguments["instruct"]))
    if s.step["expected"] == "ref_ids.0":
        whole = text_ids(tokenizer, arguments["ref_text"])  # the reference's template ends after its text
        return np.array([*whole.role, *reference_ids(tokenizer, arguments["ref_text"]), *whole.tail[:2]])
    ids = text_ids(tokenizer, arguments["text"])
    return np.array([*ids.role, *ids.text, *ids.tail])


def request(s: Stage) -> Array:
    method = s.case.json["call"]["method"]
    if method == "encode":
        return s.model.speech_tokenizer.encode(**s.case.arguments()).audio_codes[0]
    if method == "decode":
        return decode(s, s.case.arguments()["audio_codes"][0])[:3840]
    return s.call()[0]


def tokenize() -> bool:
    tokenizer = Tokenizer.from_directory(CASES / "text" / "tokenizer")
    groups = json.loads((CASES / "text" / "ids.json").read_text(encoding="utf-8"))
    return all(tokenizer.encode(row[0]) == row[1] for rows in groups.values() for row in rows)


def template() -> bool:
    tokenizer = Tokenizer.from_directory(CASES / "text" / "tokenizer")
    rows = json.loads((CASES / "text" / "templates.json").read_text(encoding="utf-8"))
    return all(list(text_ids(tokenizer, row["input"]).text) == row["text"] for row in rows)


# Given tensors first, then the weights that the step names one by one (blocks are looked up in the model).
OPERATIONS: dict[str, Callable[..., Array]] = {
    "embedding": lambda s, ids, table: table[ids],
    "linear": lambda s, x, weight, bias=None: ops.linear(x, weight, bias),
    "last_linear": lambda s, x, weight: ops.linear(x[-1:], weight),
    "rms_norm": rms_norm,
    "silu": lambda s, x: ops.silu(x),
    "elu": lambda s, x: ops.elu(x),
    "relu": lambda s, x: np.maximum(x, 0),
    "add": lambda s, x, y: x + y,
    "multiply": lambda s, x, y: x * y,
    "rotate": rotate,
    "attention": attention,
    "decoder_layer": one_decoder_layer,
    "talker": talker,
    "code_predictor": code_predictor,
    "frame": frame,
    "prompt": prompt,
    "mt19937": mt19937,
    "exponential": exponential,
    "processors": processors,
    "softmax": lambda s, scores: ops.softmax(scores),
    "race": lambda s, p, times: (p / times).argmax(axis=-1),
    "codebook": codebook,
    "causal_conv": lambda s, x, weight, bias: causal_conv(x, Conv(weight, bias)),
    "reflected_conv": lambda s, x, weight, bias: conv_same(x, Conv(weight, bias), 1, ""),
    "snake_beta": lambda s, x, alpha, beta: ops.snake_beta(x, alpha, beta),
    "pre_transformer": pre_transformer,
    "decode": decode,
    "encode": encode,
    "log_mel": lambda s, samples: log_mel(samples / np.float32(32768)),
    "speaker_encoder": speaker,
    "prompt_ids": prompt_ids,
    "request": request,
}
OF_TEXT: dict[str, Callable[[], bool]] = {"tokenize": tokenize, "template": template}
ELSEWHERE = {"sampling_runs": "test_sampling.py"}
