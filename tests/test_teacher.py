"""Teacher forcing: the rows of one pass are what generation chose from, for every model and layout, on both paths; and
the losses are the plain formula at every alignment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qwen3tts_np_kernels.cpu import compiled

from qwen3tts_np import ClonedVoice, CustomVoice, DesignedVoice, Qwen3TTSModel, Request, trace
from qwen3tts_np.checkpoint.safetensors import Checkpoint
from qwen3tts_np.compiled.engine import Engine
from qwen3tts_np.compiled.frame_loop import FrameLoop
from qwen3tts_np.ops import Array, Ints
from qwen3tts_np.parity.forced import forced
from qwen3tts_np.parity.in_format import InFormat
from qwen3tts_np.speech.demo import CHECKPOINT as DEMO
from qwen3tts_np.talker import loss
from qwen3tts_np.teacher import Teacher
from qwen3tts_np.voice.prompt_item import VoiceClonePromptItem

FRAMES = 5
BOUND = 2e-4  # of a logit, compiled against NumPy: rounding of float32, on logits up to 10

KINDS = {
    "custom voice": ("tiny", "custom_voice", "speaker"),
    "voice design": ("tiny-1.7b", "voice_design", "description"),
    "x-vector": ("tiny", "base", "x-vector"),
    "in context": ("tiny-1.7b", "base", "in context"),
}


def voice_of(model: Qwen3TTSModel, kind: str) -> Any:
    if kind == "speaker":
        return CustomVoice(min(model.get_supported_speakers()))
    if kind == "description":
        return DesignedVoice("An old sailor, calm")
    c = model.config.talker_config
    x_vector = np.linspace(-0.1, 0.1, c.hidden_size, dtype=np.float32)
    if kind == "x-vector":
        return ClonedVoice(VoiceClonePromptItem(None, x_vector, True, False))
    codes = np.arange(4 * c.num_code_groups).reshape(4, -1) % 100
    return ClonedVoice(VoiceClonePromptItem(codes, x_vector, False, True, "What it says."))


def given_codes(model: Qwen3TTSModel, frames: int = FRAMES) -> Ints:
    c = model.config.talker_config
    size = c.code_predictor_config.vocab_size
    return np.random.default_rng(0).integers(0, size, (frames, c.num_code_groups))


def logits_of(teacher: Teacher, request: Request, codes: Ints, state: int = loss.BEFORE) -> tuple[Array, Array]:
    hidden, talker = teacher.read(request, codes)
    return talker, teacher.complete(loss.predictor_states(hidden, state), codes)


@pytest.mark.parametrize("streaming", [False, True], ids=["whole text", "streaming"])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_what_generation_chose_from(kind: str, streaming: bool, synthetic: Callable[..., Path]) -> None:
    like, model_type, voice = KINDS[kind]
    model = Qwen3TTSModel.from_pretrained(synthetic(like, model_type), backend="reference", dtype="float64")
    codes = given_codes(model)
    request = model.prepare("The ferry leaves at nine.", voice_of(model, voice), streaming=streaming, seed=0)
    assert isinstance(model.frame_loop, FrameLoop)
    talker, predictor = logits_of(model.frame_loop.teacher(), request, codes)
    with trace("talker.codec_head", "talker.code_predictor.lm_head.*") as t:
        list(forced(model, codes).frames([request]))
    for row in range(FRAMES + 1):
        assert np.abs(talker[row] - t[f"talker.codec_head@{row}"][0]).max() < 1e-12
    for frame in range(FRAMES):
        for g in range(codes.shape[1] - 1):
            chosen_from = t[f"talker.code_predictor.lm_head.{g}@{frame}"][0]
            assert np.abs(predictor[frame, g] - chosen_from).max() < 1e-12


@pytest.mark.skipif(not compiled(), reason="needs the compiler")
@pytest.mark.parametrize("streaming", [False, True], ids=["whole text", "streaming"])
@pytest.mark.parametrize("kind", KINDS)
def test_compiled_rows_are_those_of_the_reference(kind: str, streaming: bool, synthetic: Callable[..., Path]) -> None:
    like, model_type, voice = KINDS[kind]
    model = Qwen3TTSModel.from_pretrained(synthetic(like, model_type))
    codes = given_codes(model, 35)  # more than a pass has columns
    request = model.prepare("The ferry leaves at nine.", voice_of(model, voice), streaming=streaming, seed=0)
    assert isinstance(model.frame_loop, FrameLoop)
    reference = FrameLoop(Engine.choose("reference", np.dtype(np.float32)), model.config, model.frame_loop.checkpoint)
    for state in (loss.BEFORE, loss.OF):
        exact = logits_of(reference.teacher(), request, codes, state)
        fast = logits_of(model.frame_loop.teacher(), request, codes, state)
        for one, other in zip(exact, fast, strict=True):
            assert np.abs(one - other).max() < BOUND


@pytest.mark.skipif(not compiled(), reason="needs the compiler")
@pytest.mark.parametrize(("name", "bound"), [("float32", 1e-6), ("bfloat16", 1e-6), ("int8", 1e-3), ("int4", 5e-3)])
def test_compiled_losses_of_a_format_are_those_of_its_numbers(name: str, bound: float) -> None:
    """Nats of the mean loss. Kernels of int8 and int4 compute with inputs and heads that the numbers do not round."""
    model = Qwen3TTSModel.from_pretrained(DEMO, weights_format=name)
    numbers: Any = InFormat(Checkpoint.open(DEMO), name)
    reference = FrameLoop(Engine.choose("reference", np.dtype(np.float32)), model.config, numbers)
    request = model.prepare("turn off the lamp", CustomVoice("oak"), language="english", seed=0)
    ((_, codes),) = model.generate([request])
    assert isinstance(model.frame_loop, FrameLoop)
    exact = logits_of(reference.teacher(), request, codes)
    fast = logits_of(model.frame_loop.teacher(), request, codes)
    for one, other, labels in zip(exact, fast, labels_of(codes, model), strict=True):
        difference = loss.judge(other, labels).loss - loss.judge(one, labels).loss
        assert abs(loss.mean(difference)) < bound


def labels_of(codes: Ints, model: Qwen3TTSModel) -> Iterator[Ints]:
    yield loss.talker_labels(codes, model.config.talker_config.codec_eos_token_id)
    yield loss.predictor_labels(codes)


@given(st.integers(1, 6), st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_losses_are_the_plain_formula(frames: int, groups: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    entries, end = 7, 6
    codes = draw.integers(0, entries - 1, (frames, groups))
    logits = draw.normal(0, 4, (frames + 1, entries)).astype(np.float32)
    sequence = [*codes[:, 0].tolist(), end]
    for alignment, shift in ((loss.READ, -1), (loss.NEXT, 0), (loss.AFTER_NEXT, 1)):
        found = loss.judge(logits, loss.talker_labels(codes, end, alignment))
        for t in range(frames + 1):
            if not 0 <= t + shift < len(sequence):
                assert np.isnan(found.loss[t]) and np.isnan(found.right[t])
                continue
            label, row = sequence[t + shift], logits[t].astype(np.float64)
            assert found.loss[t] == pytest.approx(np.log(np.exp(row).sum()) - row[label], abs=1e-12)
            assert found.right[t] == (row.argmax() == label)
    assert loss.end_probability(logits, end)[-1] == pytest.approx(
        np.exp(-loss.judge(logits, loss.talker_labels(codes, end)).loss[-1])
    )


@pytest.mark.parametrize(("alignment", "shift"), [(loss.READ, 0), (loss.NEXT, 1), (loss.AFTER_NEXT, 2)])
def test_labels_of_the_code_predictor(alignment: int, shift: int) -> None:
    codes = np.arange(8).reshape(2, 4)
    labels = loss.predictor_labels(codes, alignment)
    assert labels.shape == (2, 3)
    for head in range(3):
        wanted = codes[:, head + shift] if head + shift < 4 else np.full(2, loss.NO_LABEL)
        assert labels[:, head].tolist() == wanted.tolist()


def test_states_are_those_before_a_frame_and_after_it() -> None:
    hidden = np.arange(4.0)[:, None]
    assert loss.predictor_states(hidden).ravel().tolist() == [0, 1, 2]
    assert loss.predictor_states(hidden, loss.OF).ravel().tolist() == [1, 2, 3]


def test_confident_logits_do_not_overflow() -> None:
    assert loss.judge(np.array([[1e4, -1e4]], np.float32), np.array([1])).loss == 2e4
    assert np.isnan(loss.mean(np.array([np.nan])))
