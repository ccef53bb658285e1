"""Known mistakes, one broken copy of the model each: the first wrong tensor is the right one, and the cause has a name.

The model is a tiny synthetic one on the NumPy path. A healthy run is shared; a broken copy follows the healthy codes
(teacher forcing), so a difference is where the mistake is and not where another code was drawn. ``TRAPS`` is the list:
what is patched, the first tensor that must differ, and the cause that must be named ("" where none needs to be).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
from parity import changed
from qwen3tts_np_kernels.bfloat16 import round_ref, widen_ref

import qwen3tts_np.codec.decoder as decoder
import qwen3tts_np.codec.encoder as encoder
import qwen3tts_np.codec.transformer as codec_transformer
import qwen3tts_np.generate as generate
import qwen3tts_np.mlp as mlp
import qwen3tts_np.speaker.encoder as speaker
import qwen3tts_np.speaker.mel as mel
import qwen3tts_np.talker.code_predictor as predictor
import qwen3tts_np.talker.layer as layer
import qwen3tts_np.talker.sampling as sampling
import qwen3tts_np.talker.talker as talker
import qwen3tts_np.text.prompt as prompt
from qwen3tts_np import Qwen3TTSModel, ops
from qwen3tts_np.inspect.request import WrittenRequest
from qwen3tts_np.parity.causes import diagnose
from qwen3tts_np.parity.compare import clips_of, compare, weights_of
from qwen3tts_np.parity.diagnosis import Context
from qwen3tts_np.parity.export import export
from qwen3tts_np.parity.fixture import Fixture, read_fixture
from qwen3tts_np.parity.perform import perform
from qwen3tts_np.trace import record

Tensors = Mapping[str, Any]
TALKER = "talker.model.layers.0.self_attn"
PREDICTOR = "talker.code_predictor.model.layers.0.self_attn"
DECODER = "speech_tokenizer.decoder"
ENCODER = "speech_tokenizer.encoder"
GREEDY = {"do_sample": False, "subtalker_dosample": False}


def clip(samples: int) -> Any:
    """A little tune."""
    t = np.arange(samples) / 24000
    return (0.3 * np.sin(2 * np.pi * 220 * t * (1 + t)) + 0.1 * np.sin(2 * np.pi * 1900 * t)).astype(np.float32)


SPEAK = WrittenRequest(
    {"text": "Hello world", "speaker": "vivian", "language": "english", "max_new_tokens": 4, **GREEDY},
    "generate_custom_voice",
)
SAMPLED = WrittenRequest(
    {"text": "Hello world", "speaker": "vivian", "non_streaming_mode": False, "max_new_tokens": 5},
    "generate_custom_voice",
    seed=3,
)
CLONE = WrittenRequest(
    {
        "text": "Hello",
        "language": "english",
        "ref_audio": {"audio": "audio.0", "sample_rate": 24000},
        "ref_text": "It is good",
        "max_new_tokens": 3,
        **GREEDY,
    },
    "generate_voice_clone",
    inputs={"audio.0": clip(20000)},
)
DECODE = WrittenRequest(
    {"audio_codes": {"codes": "given_codes.0"}},
    "decode",
    inputs={"given_codes.0": np.random.RandomState(5).randint(0, 128, (30, 16))},
)
KINDS = {"clone": "base", "decode": "base", "chunks": "base"}  # all others: custom voice
REQUESTS = {"speak": SPEAK, "sampled": SAMPLED, "narrow": SPEAK, "clone": CLONE, "decode": DECODE, "chunks": DECODE}


# --- the mistakes: each patches the model and undoes nothing, which monkeypatch does ---

Patch = Callable[[pytest.MonkeyPatch], None]


def instead(*places: tuple[Any, str], by: Callable[..., Any]) -> Patch:
    """Replace functions; ``by`` is given the right one first."""

    def patch(to: pytest.MonkeyPatch) -> None:
        for module, name in places:
            to.setattr(module, name, partial(by, getattr(module, name)))

    return patch


def rotate_neighbours(right: Any, x: Any, cos: Any, sin: Any) -> Any:
    even, odd = x[..., 0::2], x[..., 1::2]
    c, s = cos[:, None], sin[:, None]
    return np.stack([even * c - odd * s, odd * c + even * s], axis=-1).reshape(x.shape)


def norm_of_heads(change: Callable[..., Any]) -> Patch:
    """Only the norms of q and k, which are those over [T, heads, D]."""

    def norm(right: Any, x: Any, w: Any, eps: float) -> Any:
        return change(right, x, w, eps) if x.ndim == 3 else right(x, w, eps)

    return instead((layer, "rms_norm"), by=norm)


def rotated_then_normed(to: pytest.MonkeyPatch) -> None:
    """Records under the names of the right order, as a port does that has the two lines the other way round."""
    rope: list[Any] = []
    norm, right = layer.rms_norm, layer.decoder_layer

    def remember(x: Any, w: Any, angles: Any, cache: Any, c: Any, name: str) -> Any:
        rope[:] = [angles]
        return right(x, w, angles, cache, c, name)

    to.setattr(talker, "decoder_layer", remember)
    to.setattr(layer, "rms_norm", lambda x, w, eps: norm(ops.rotate(x, *rope[0]) if x.ndim == 3 else x, w, eps))
    to.setattr(layer, "rotate", lambda x, cos, sin: x)


def attend(scale: float = 1.0, tiled: bool = False, masked: bool = True) -> Callable[..., Any]:
    def attention(right: Any, q: Any, k: Any, v: Any, window: int | None = None) -> Any:
        if tiled:
            k, v = (np.tile(x, (1, q.shape[1] // x.shape[1], 1)) for x in (k, v))
        if masked:
            return right(q * scale, k, v, window)
        repeat = q.shape[1] // k.shape[1]
        k, v = np.repeat(k, repeat, axis=1), np.repeat(v, repeat, axis=1)
        p = ops.softmax(np.einsum("tnd,snd->nts", q, k) / np.sqrt(q.shape[-1]))
        return np.einsum("nts,snd->tnd", p, v)

    return attention


def before_the_final_norm(to: pytest.MonkeyPatch) -> None:
    """The code predictor is given what the talker's last layer gives, not what the final norm makes of it."""
    last: list[Any] = []
    right_layer, right_read = talker.decoder_layer, generate.read

    def remember(*args: Any) -> Any:
        x = right_layer(*args)
        if args[-1].startswith("talker.model"):
            last[:] = [x[-1]]
        return x

    to.setattr(talker, "decoder_layer", remember)

    def read(*args: Any) -> Any:
        _, logits = right_read(*args)
        return last[0], logits

    to.setattr(generate, "read", read)


def no_pad_after_the_text(to: pytest.MonkeyPatch) -> None:
    def read_frame(item: Any, frame: Any) -> None:
        position = item._frames
        item._frames += 1
        x = generate.embed_frame(frame, item._w)
        if position < len(item._trailing) - 1:
            x = x + item._trailing[position]
        item.hidden, item.logits = generate.read(x[None], item._w.talker, item._cache, item._config.talker_config)

    to.setattr(generate.Item, "read_frame", read_frame)


def one_cache_for_all_frames(to: pytest.MonkeyPatch) -> None:
    to.setattr(predictor, "new_cache", cache(predictor.new_cache))


def without_residual(right: Any, x: Any, w: Any, rope: Any, cache: Any, c: Any, name: str) -> Any:
    h = ops.rms_norm(x, w.input_layernorm, c.rms_norm_eps)
    record(f"{name}.input_layernorm", h)
    x = layer.self_attention(h, w.self_attn, rope, cache, c, f"{name}.self_attn")
    record(f"{name}.post_attention_layernorm.input", x)
    h = ops.rms_norm(x, w.post_attention_layernorm, c.rms_norm_eps)
    record(f"{name}.post_attention_layernorm", h)
    x = x + mlp.mlp(h, w.mlp, f"{name}.mlp")
    record(name, x)
    return x


def trimmed_on_the_left(right: Any, x: Any, w: Any, stride: int, past: Any, name: str) -> Any:
    y = ops.conv_transpose1d(x, w.weight, w.bias, stride)
    record(f"{name}.conv", y)
    y = y[:, y.shape[1] - x.shape[1] * stride :]
    record(name, y)
    return y


def padded_on_both_sides(right: Any, x: Any, w: Any, past: Any, name: str, dilation: int = 1) -> Any:
    padding = (w.weight.shape[2] - 1) * dilation
    x = np.pad(x, ((0, 0), (padding - padding // 2, padding // 2)))
    return record(name, ops.conv1d(x, w.weight, w.bias, dilation=dilation))


def zeros_for_reflection(right: Any, x: Any, w: Any, dilation: int, name: str) -> Any:
    padded = np.pad(x, ((0, 0), speaker.paddings(w.weight.shape[2], dilation)))
    y = ops.conv1d(padded, w.weight, w.bias, dilation=dilation)
    record(name, y)
    return y


def from_the_semantic_residual(right: Any, x: Any, e: Any, given: Any = None) -> Any:
    name, w = f"{ENCODER}.quantizer", e.weights
    semantic = encoder.quantise(x, e.codebooks[:1], w.semantic.input_proj, f"{name}.semantic_residual_vector_quantizer")
    left = x - w.semantic.input_proj[:, :, 0].T @ e.codebooks[0][semantic[:, 0]].T
    acoustic = encoder.quantise(
        left, e.codebooks[1:], w.acoustic.input_proj, f"{name}.acoustic_residual_vector_quantizer"
    )
    return np.concatenate([semantic, acoustic], axis=1)


def chunk_0_goes_on(right: Any, x: Any, w: Any, dilation: int, name: str) -> Any:
    chunks = np.split(x, len(w.blocks) + 1)
    outputs = chunks[:1]
    for i, (chunk, conv) in enumerate(zip(chunks[1:], w.blocks, strict=True)):
        carried = chunk + outputs[-1]
        record(f"{name}.blocks.{i}.input", carried)
        outputs.append(speaker.tdnn(carried, conv, dilation, f"{name}.blocks.{i}"))
    y = np.concatenate(outputs)
    record(name, y)
    return y


# --- mistakes in the weights: a copy of the model with others ---


def weight(path: str, change: Callable[[Any], Any]) -> Callable[[Qwen3TTSModel], Qwen3TTSModel]:
    return lambda model: changed(model, path, change)


def rolled(parts: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*parts[1:], parts[0])


def interleaved_rows(w: Any) -> Any:
    """What a conversion for the other RoPE convention does to q_proj and k_proj, heads of 32."""
    return w.reshape(-1, 2, 16, w.shape[1]).swapaxes(1, 2).reshape(w.shape)


def undivided(model: Qwen3TTSModel) -> Qwen3TTSModel:
    w = model.speech_tokenizer.decoder.weights
    books = tuple(b.embedding_sum for b in (*w.rvq_first.codebooks, *w.rvq_rest.codebooks))
    return with_codebooks(model, books)


def with_codebooks_one_off(model: Qwen3TTSModel) -> Qwen3TTSModel:
    return with_codebooks(model, rolled(model.speech_tokenizer.decoder.codebooks))


def with_codebooks(model: Qwen3TTSModel, books: tuple[Any, ...]) -> Qwen3TTSModel:
    model = changed(model, "speech_tokenizer.decoder", dataclasses.replace)
    vars(model.speech_tokenizer.decoder)["codebooks"] = books  # where a cached property keeps its value
    return model


def bfloat16(x: Any) -> Any:
    return widen_ref(round_ref(np.asarray(x, np.float32)))


@dataclasses.dataclass(frozen=True)
class Trap:
    name: str
    request: str
    first: str  # the first tensor that must differ
    cause: str  # the name of the finding that must come first; "" where none is demanded
    patch: Patch | None = None
    model: Callable[[Qwen3TTSModel], Qwen3TTSModel] | None = None


def tanh_gelu(right: Any, x: Any) -> Any:
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def without_exponentials(right: Any, x: Any, alpha: Any, beta: Any) -> Any:
    return x + np.sin(x * alpha[:, None]) ** 2 / (beta[:, None] + 1e-9)


def plus_one(right: Any, x: Any, w: Any, eps: float) -> Any:
    return right(x, w + 1, eps)


def flat(right: Any, x: Any, w: Any, eps: float) -> Any:
    return x / np.sqrt(np.mean(x * x, axis=(1, 2), keepdims=True) + eps) * w


TRAPS = [
    Trap("RoPE turns neighbouring pairs", "speak", f"{TALKER}.q_rot@0", "RoPE interleaved",
         instead((layer, "rotate"), by=rotate_neighbours)),
    Trap("RoPE turns backwards", "speak", f"{TALKER}.q_rot@0", "RoPE backwards",
         instead((layer, "rotate"), by=lambda right, x, cos, sin: right(x, cos, -sin))),
    Trap("positions start at 1", "speak", f"{TALKER}.q_rot@0", "RoPE position",
         instead((talker, "rope_angles"), by=lambda right, p, d, theta: right(p + 1, d, theta))),
    Trap("theta 10000", "speak", f"{TALKER}.q_rot@0", "RoPE theta",
         instead((talker, "rope_angles"), by=lambda right, p, d, theta: right(p, d, 1e4))),
    Trap("positions of every step start at 0", "speak", f"{PREDICTOR}.q_rot@1", "RoPE position",
         instead((talker, "rope_angles"), by=lambda right, p, *how: right(p - p[0] if len(p) == 1 else p, *how))),
    Trap("no norm of q and k", "speak", f"{TALKER}.q_norm@0", "norm left out",
         norm_of_heads(lambda right, x, w, eps: x)),
    Trap("norm of q and k without weight", "speak", f"{TALKER}.q_norm@0", "norm without weight",
         norm_of_heads(lambda right, x, w, eps: right(x, np.ones_like(w), eps))),
    Trap("norm over all heads", "speak", f"{TALKER}.q_norm@0", "norm over all heads", norm_of_heads(flat)),
    Trap("RoPE before the norm", "speak", f"{TALKER}.q_norm@0", "RoPE before the norm", rotated_then_normed),
    Trap("norm weight + 1", "speak", "talker.model.layers.0.input_layernorm@0", "norm weight + 1",
         instead((layer, "rms_norm"), (talker, "rms_norm"), by=plus_one)),
    Trap("epsilon of another model", "speak", "talker.model.layers.0.input_layernorm@0", "norm epsilon",
         instead((layer, "rms_norm"), by=lambda right, x, w, eps: right(x, w, 1e-3))),
    Trap("LayerNorm", "speak", "talker.model.layers.0.input_layernorm@0", "LayerNorm for RMSNorm",
         instead((layer, "rms_norm"), by=lambda right, x, w, eps: right(x - x.mean(-1, keepdims=True), w, eps))),
    Trap("bfloat16 norms", "speak", "talker.model.layers.0.input_layernorm@0", "rounded",
         instead((layer, "rms_norm"), by=lambda right, x, w, eps: bfloat16(right(x, w, eps)))),
    Trap("scores not divided by sqrt(D)", "speak", f"{TALKER}.context@0", "attention scale",
         instead((layer, "attention"), by=attend(scale=32**0.5))),
    Trap("key heads tiled", "speak", f"{TALKER}.context@0", "grouped heads",
         instead((layer, "attention"), by=attend(tiled=True))),
    Trap("no causal mask", "speak", f"{TALKER}.context@0", "attention mask",
         instead((layer, "attention"), by=attend(masked=False))),
    Trap("no residual", "speak", "talker.model.layers.0.post_attention_layernorm.input@0", "another tensor",
         instead((talker, "decoder_layer"), by=without_residual)),
    Trap("gate and up exchanged", "speak", "talker.model.layers.0.mlp.gate_proj@0", "another tensor",
         instead((layer, "mlp"), by=lambda right, x, w, name: right(
             x, dataclasses.replace(w, gate_proj=w.up_proj, up_proj=w.gate_proj), name))),
    Trap("GELU for SiLU", "speak", "talker.model.layers.0.mlp.act_fn@0", "activation",
         instead((mlp, "silu"), by=lambda right, x: ops.gelu(x))),
    Trap("q_proj converted for interleaved RoPE", "speak", f"{TALKER}.q_proj@0", "permuted",
         model=weight("frame_loop.weights.talker.layers.0.self_attn.q_proj", interleaved_rows)),
    Trap("text projection without bias", "speak", "talker.text_projection@0", "bias",
         model=weight("frame_loop.weights.talker.text_projection_fc2_bias", np.zeros_like)),
    Trap("another speaker", "speak", "talker.model.inputs_embeds@0", "some positions",
         instead((prompt, "speaker_id"), by=lambda right, c, name: right(c, "ryan"))),
    Trap("no language tag", "speak", "talker.model.text_embedding@0", "",
         instead((prompt, "language_id"), by=lambda right, *_: None)),
    Trap("text one token short", "speak", "talker.model.text_embedding@0", "",
         instead((prompt, "_whole_text"), by=lambda right, ids, c: right(ids[1:], c))),
    Trap("hidden state before the final norm", "speak", "talker.code_predictor.small_to_mtp_projection.input@0",
         "rows of another tensor", before_the_final_norm),
    Trap("a cache for all frames", "speak", f"{PREDICTOR}.q_rot@15", "RoPE position", one_cache_for_all_frames),
    Trap("heads one off", "speak", "talker.code_predictor.lm_head.0@0", "another weight",
         model=weight("frame_loop.weights.code_predictor.lm_head", rolled)),
    Trap("embeddings one off", "speak", "talker.code_predictor.model.codec_embedding.0@0", "",
         model=weight("frame_loop.weights.code_predictor.codec_embedding", rolled)),
    Trap("projection without bias", "narrow", "talker.code_predictor.small_to_mtp_projection@0", "bias",
         model=weight("frame_loop.weights.code_predictor.small_to_mtp_projection_bias", np.zeros_like)),
    Trap("sum without code 0", "speak", "talker.model.inputs_embeds@1", "addend missing",
         instead((generate, "embed_frame"), by=lambda right, f, w: right(f, w) - w.talker.codec_embedding[f[0]])),
    Trap("no padding after the text", "speak", "talker.model.inputs_embeds@1", "addend missing", no_pad_after_the_text),
    Trap("speech may end at once", "speak", "talker.scores@0", "suppression",
         lambda to: to.setattr(sampling, "MIN_NEW_TOKENS", 0)),
    Trap("control tokens may be drawn", "speak", "talker.scores@0", "suppression",
         instead((sampling, "drop_control_tokens"), by=lambda right, scores, eos: scores)),
    Trap("no repetition penalty", "speak", "talker.scores@1", "repetition penalty",
         instead((sampling, "penalise_repetition"), by=lambda right, logits, seen, penalty: logits)),
    Trap("no temperature", "sampled", "talker.scores@0", "scaled",
         instead((sampling, "cool"), by=lambda right, scores, temperature: scores)),
    Trap("top-k before the suppression", "sampled", "talker.scores@0", "suppression",
         instead((sampling, "drop_control_tokens"), by=lambda right, x, eos: right(sampling.keep_top_k(x, 50), eos))),
    Trap("window one frame short", "decode", f"{DECODER}.pre_transformer.layers.0.self_attn.context@0",
         "attention window", instead((codec_transformer, "attention"), by=lambda right, *x: right(*x[:3], x[3] - 1))),
    Trap("codebooks not divided by usage", "decode", f"{DECODER}.quantizer.rvq_first.vq.layers.0.quantized@0",
         "own factors", model=undivided),
    Trap("codes in reverse", "decode", f"{DECODER}.quantizer.rvq_first.vq.layers.0.quantized@0", "codebook order",
         instead((decoder, "split_rvq"), by=lambda right, codes, d: right(codes[:, ::-1], d))),
    Trap("codebooks one off", "decode", f"{DECODER}.quantizer.rvq_first.vq.layers.0.quantized@0", "codebook order",
         model=with_codebooks_one_off),
    Trap("convolutions padded on both sides", "decode", f"{DECODER}.pre_conv@0", "shifted",
         instead((decoder, "next_conv"), by=padded_on_both_sides)),
    Trap("transposed convolutions cut on the left", "decode", f"{DECODER}.decoder.1.block.1@0", "shifted",
         instead((decoder, "next_conv_transpose"), by=trimmed_on_the_left)),
    Trap("no LayerScale", "decode", f"{DECODER}.pre_transformer.layers.0.self_attn_layer_scale@0", "another tensor",
         model=weight("speech_tokenizer.decoder.weights.pre_transformer.layers.0.self_attn_layer_scale", np.ones_like)),
    Trap("tanh GELU", "decode", f"{DECODER}.upsample.0.1.act@0", "activation",
         instead((decoder, "gelu"), by=tanh_gelu)),
    Trap("SnakeBeta parameters as stored", "decode", f"{DECODER}.decoder.1.block.0@0", "SnakeBeta",
         instead((decoder, "snake_beta"), by=without_exponentials)),
    Trap("one decode of everything", "chunks", f"{DECODER}.quantizer.rvq_first.vq.layers.0.quantized@0",
         "other length"),
    Trap("encoder with its sliding window", "clone", f"{ENCODER}.encoder_transformer.layers.0.self_attn.context@0",
         "attention window",
         instead((codec_transformer, "attention"), by=lambda right, q, k, v, window: right(q, k, v, window or 12))),
    Trap("ReLU for ELU", "clone", f"{ENCODER}.encoder.layers.1.block.0@0", "activation",
         instead((encoder, "elu"), by=lambda right, x: np.maximum(x, 0))),
    Trap("downsampling padded with zeros", "clone", f"{ENCODER}.downsample@0", "edges",
         instead((encoder, "pad_causal"), by=lambda right, x, taps, stride, mode: right(x, taps, stride))),
    Trap("acoustic codes from the semantic residual", "clone",
         f"{ENCODER}.quantizer.acoustic_residual_vector_quantizer.input_proj@0", "",
         instead((encoder, "split_rvq"), by=from_the_semantic_residual)),
    Trap("log10 of the mel spectrogram", "clone", "speaker_encoder.mel@0", "log-mel",
         instead((speaker, "log_mel"), by=lambda right, audio: right(audio) / np.log(10).astype(np.float32))),
    Trap("mel frames centred", "clone", "speaker_encoder.mel@0", "log-mel",
         lambda to: to.setattr(mel, "PAD", 512)),
    Trap("zeros for reflection", "clone", "speaker_encoder.blocks.0.conv@0", "edges",
         instead((speaker, "conv_same"), by=zeros_for_reflection)),
    Trap("chunk 0 goes on to chunk 1", "clone", "speaker_encoder.blocks.1.res2net_block.blocks.0.input@0", "",
         instead((speaker, "res2net_block"), by=chunk_0_goes_on)),
    Trap("reference frames by their first code only", "clone", "talker.model.inputs_embeds@0", "some positions",
         instead((generate, "embed_frame"), by=lambda right, frame, w: w.talker.codec_embedding[frame[0]])),
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Healthy:
    fixture: Fixture
    request: WrittenRequest  # which follows the healthy codes
    model: Qwen3TTSModel
    checkpoint: Any


@pytest.fixture(scope="session")
def healthy(synthetic: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Healthy]:
    folder, monkeypatch = tmp_path_factory.mktemp("healthy"), pytest.MonkeyPatch()

    @cache
    def run(name: str) -> Healthy:
        request = REQUESTS[name]
        if name == "chunks":
            monkeypatch.setattr(decoder, "CHUNK_FRAMES", 20)  # 300 would take long
        checkpoint = synthetic("tiny-1.7b" if name == "narrow" else "tiny", KINDS.get(name, "custom_voice"))
        export(checkpoint, request, folder / name)
        monkeypatch.undo()
        fixture = read_fixture(folder / name)
        if request.method != "decode":
            codes = fixture.tensors["codes.0"]
            last = int(fixture.tensors[f"talker.token@{len(codes)}"][0])
            request = dataclasses.replace(request, codes=codes, last=last)
        return Healthy(fixture, request, Qwen3TTSModel.from_pretrained(checkpoint, backend="reference"), checkpoint)

    return run


def broken(trap: Trap, run: Healthy, monkeypatch: pytest.MonkeyPatch) -> Fixture:
    if trap.patch:
        trap.patch(monkeypatch)
    model = trap.model(run.model) if trap.model else run.model
    tensors = perform(model, run.request)
    monkeypatch.undo()
    return Fixture(run.fixture.path, tensors)


# Causes and traps that need the checkpoint to be seen; the projection has two rows, too few to tell a constant by.
WITH_CHECKPOINT = {"another weight", "SnakeBeta", "codebook order", "projection without bias"}


def test_there_are_enough_traps() -> None:
    assert len(TRAPS) >= 20
    assert len({trap.name for trap in TRAPS}) == len(TRAPS)
    assert len([trap for trap in TRAPS if trap.cause]) >= 12


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.name)
def test_a_known_mistake_is_found_and_named(
    trap: Trap, healthy: Callable[[str], Healthy], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = healthy(trap.request)
    theirs = broken(trap, run, monkeypatch)
    found = compare(run.fixture, theirs, weights=weights_of(run.checkpoint))
    assert found.first is not None, "nothing differs"
    assert found.first.name == trap.first
    if trap.cause:
        assert [f.cause for f in found.findings][:1] == [trap.cause], found.findings
    if trap.cause and not {trap.cause, trap.name} & WITH_CHECKPOINT:
        ours, name = run.fixture.tensors, trap.first
        context = Context(name, ours, found.first.atol, clips=clips_of(run.fixture))
        without = diagnose(ours[name], theirs.tensors[name], context)
        assert without[0].cause == trap.cause, "it takes the checkpoint to see this"


@pytest.mark.parametrize("name", [name for name in REQUESTS if name != "chunks"])
def test_a_healthy_copy_has_nothing(name: str, healthy: Callable[[str], Healthy]) -> None:
    """The twin of the above: the same model, following its codes, is within every tolerance."""
    run = healthy(name)
    found = compare(run.fixture, Fixture(run.fixture.path, perform(run.model, run.request)))
    assert found.first is None
    assert len(found.compared) > 100
    assert not found.unknown


# --- the mel spectrogram ---


def htk_filters(area: bool = True) -> Any:
    """Filters on HTK's scale, by their definition."""
    hz = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 12000 / 700), 130) / 2595) - 1)
    bins = np.arange(513) * 24000 / 1024
    return np.array(
        [np.interp(bins, hz[i : i + 3], [0, 2 / (hz[i + 2] - hz[i]) if area else 1, 0]) for i in range(128)]
    )


def spectrogram(wave: Any, window: Any, filters: Any, power: float = 1.0) -> Any:
    padded = np.pad(wave.astype(np.float64), 384, mode="reflect")
    frames = np.array([padded[at : at + 1024] * window for at in range(0, len(padded) - 1023, 256)])
    return np.log(np.maximum((np.abs(np.fft.rfft(frames)) ** 2 + 1e-9) ** (power / 2) @ filters.T, 1e-5))


def height_1() -> Any:
    filters = mel.mel_filters()
    corners = mel.mel_to_hz(np.linspace(0, mel.hz_to_mel(12000), 130))
    return filters * ((corners[2:] - corners[:-2]) / 2)[:, None]


def of_clip(change: Callable[[Any, Any, Any], Any]) -> Callable[[Any], Any]:
    return lambda wave: change(wave, mel.hann_window(), mel.mel_filters())


MELS = {
    "power": of_clip(lambda wave, window, filters: spectrogram(wave, window, filters, 2)),
    "scale of HTK": of_clip(lambda wave, window, filters: spectrogram(wave, window, htk_filters())),
    "symmetric": of_clip(lambda wave, window, filters: spectrogram(wave, np.hanning(1024), filters)),
    "height 1": of_clip(lambda wave, window, filters: spectrogram(wave, window, height_1())),
    "16-bit integers": of_clip(lambda wave, window, filters: spectrogram(32768 * wave, window, filters)),
    "base 10": of_clip(lambda wave, window, filters: spectrogram(wave, window, filters) / np.log(10)),
    "power.*HTK": of_clip(lambda wave, window, filters: spectrogram(wave, window, htk_filters(), 2)),
    "HTK.*height 1": of_clip(lambda wave, window, filters: spectrogram(wave, window, htk_filters(area=False))),
    "": of_clip(lambda wave, window, filters: spectrogram(wave, np.hamming(1024), filters[::-1] ** 0.9)),
    " ": of_clip(lambda wave, window, filters: spectrogram(wave, np.blackman(1024), filters)),
}


@pytest.mark.parametrize("said", MELS)
def test_a_wrong_mel_is_named_or_unknown(said: str, healthy: Callable[[str], Healthy]) -> None:
    run, name = healthy("clone"), "speaker_encoder.mel@0"
    theirs = {**run.fixture.tensors, name: MELS[said](clip(20000))}
    found = compare(run.fixture, Fixture(run.fixture.path, theirs), weights=weights_of(run.checkpoint))
    assert found.first is not None
    assert found.first.name == name
    if said.strip():
        assert found.findings[0].cause == "log-mel"
        assert re.search(said, found.findings[0].message)
    else:
        assert not found.findings, "a wrong name is worse than none"
