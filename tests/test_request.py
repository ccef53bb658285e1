"""Requests: the same codes alone, in any company and streamed; what cannot be spoken is refused beforehand."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import load_case

from qwen3tts_np import Qwen3TTSModel, RequestError, VoiceClonePromptItem
from qwen3tts_np.request import ClonedVoice, CustomVoice, DesignedVoice, Request, Voice
from qwen3tts_np.text.feed import TextSource

BACKENDS = ("compiled", "reference")
KINDS = ("custom_voice", "voice_design", "x_vector", "in_context")
TEXTS = ["Hello there.", "你好。", "A rather longer sentence than the others.", ""]
Load = Callable[..., Qwen3TTSModel]


@pytest.fixture(scope="module")
def load(synthetic: Callable[..., Path]) -> Load:
    models: dict[tuple[str, str], Qwen3TTSModel] = {}

    def loaded(kind: str, backend: str = "reference") -> Qwen3TTSModel:
        key = (kind if kind in KINDS[:2] else "base", backend)
        if key not in models:
            models[key] = Qwen3TTSModel.from_pretrained(synthetic("tiny", key[0]), backend=backend, threads=1)
        return models[key]

    return loaded


def voice(model: Qwen3TTSModel, kind: str) -> Voice:
    if kind == "custom_voice":
        return CustomVoice("ryan")
    if kind == "voice_design":
        return DesignedVoice("Old.")
    width, groups = model.config.talker_config.hidden_size, model.config.talker_config.num_code_groups
    random = np.random.default_rng(0)
    codes = random.integers(0, 128, (3, groups)) if kind == "in_context" else None
    embedding = random.standard_normal(width).astype(np.float32)
    words = None if codes is None else "It is."
    return ClonedVoice(VoiceClonePromptItem(codes, embedding, codes is None, codes is not None, words))


# --- the same codes everywhere ------------------------------------------------------------------------

SAMPLING = st.fixed_dictionaries(
    {"max_new_tokens": st.integers(1, 8), "seed": st.integers(0, 3)},
    optional={
        "do_sample": st.booleans(),
        "subtalker_dosample": st.booleans(),
        "temperature": st.floats(0.5, 3),
        "top_k": st.integers(0, 60),
        "top_p": st.floats(0.5, 1),
        "repetition_penalty": st.floats(0.9, 1.5),
        "subtalker_temperature": st.floats(0.5, 3),
        "subtalker_top_k": st.integers(0, 60),
        "subtalker_top_p": st.floats(0.5, 1),
        "streaming": st.booleans(),
        "language": st.sampled_from(["english", "auto", "Chinese"]),
    },
)


def check_company(model: Qwen3TTSModel, kind: str, spoken: list[tuple[str, dict[str, Any]]], packet: int) -> None:
    requests = [model.prepare(text, voice(model, kind), **arguments) for text, arguments in spoken]
    together = model.generate(requests)
    for request, (samples, codes) in zip(requests, together, strict=True):
        assert len(codes) < request.limits.max_new_tokens
        ((alone, same),) = model.generate([request])
        np.testing.assert_array_equal(same, codes)
        np.testing.assert_array_equal(alone, samples)
        stream = model.stream(request, packet_frames=packet)
        packets = list(stream)
        np.testing.assert_array_equal(stream.codes, codes)
        exact = model.decode(request, codes, continuous=True)
        np.testing.assert_array_equal(np.concatenate([*packets, np.zeros(0, np.float32)]), exact)


@settings(max_examples=12)
@given(
    kind=st.sampled_from(KINDS),
    spoken=st.lists(st.tuples(st.sampled_from(TEXTS), SAMPLING), min_size=1, max_size=4),
    packet=st.sampled_from([1, 3, 300]),
)
def test_a_request_has_the_same_codes_alone_in_company_and_streamed(
    load: Load, kind: str, spoken: list[tuple[str, dict[str, Any]]], packet: int
) -> None:
    check_company(load(kind, "compiled"), kind, spoken, packet)


@settings(max_examples=5)
@given(
    kind=st.sampled_from(KINDS),
    spoken=st.lists(st.tuples(st.sampled_from(TEXTS), SAMPLING), min_size=1, max_size=3),
    packet=st.sampled_from([1, 3, 300]),
)
def test_and_so_it_has_on_the_numpy_path(
    load: Load, kind: str, spoken: list[tuple[str, dict[str, Any]]], packet: int
) -> None:
    check_company(load(kind, "reference"), kind, spoken, packet)


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_request_ends_at_its_own_limit(load: Load, backend: str) -> None:
    """The longest does not hold up the others, and none is cut at another's limit."""
    model = load("custom_voice", backend)
    options: dict[str, Any] = {"do_sample": False, "subtalker_dosample": False}
    limits = [5, 1, 9, 2]
    requests = [model.prepare("Hello.", CustomVoice("ryan"), max_new_tokens=limit, **options) for limit in limits]
    assert [len(codes) for _, codes in model.generate(requests)] == [4, 0, 8, 1]
    written = [frame.items.tolist() for frame in model.frames(requests)]
    assert written == [[0, 2, 3], [0, 2], [0, 2], [0, 2], [2], [2], [2], [2]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_request_is_sampled_by_its_own_rules_in_one_batch(load: Load, backend: str) -> None:
    model = load("custom_voice", backend)
    hot, cold = ({"temperature": t, "max_new_tokens": 3} for t in (2.0, 0.5))
    requests = [model.prepare("Hello.", CustomVoice("ryan"), seed=1, **rule) for rule in (hot, cold, hot)]
    frames: list[int] = []
    spoken = model.generate(requests, progress=frames.append)
    assert frames == [1, 2]
    np.testing.assert_array_equal(spoken[0].codes, spoken[2].codes)
    np.testing.assert_array_equal(spoken[1].codes, model.generate(requests[1:2])[0].codes)
    assert model.generate([]) == []


def test_a_request_without_a_seed_keeps_the_one_it_drew(load: Load) -> None:
    model = load("custom_voice")
    first, second = (model.prepare("Hello.", CustomVoice("ryan"), max_new_tokens=4) for _ in range(2))
    assert first.seed != second.seed  # one chance in 2**32
    for _ in range(2):
        ((_, codes),) = model.generate([first])
        _, _, (official,) = model.generate_custom_voice(
            "Hello.", "ryan", seed=first.seed, max_new_tokens=4, return_codes=True
        )
        np.testing.assert_array_equal(codes, official)


def test_a_model_loaded_for_prompts_prepares_the_same(synthetic: Callable[..., Path], load: Load) -> None:
    light = Qwen3TTSModel.for_prompts(synthetic("tiny", "base"))
    asked = {"language": "german", "seed": 3, "temperature": 0.7}
    one, two = (m.prepare("Hallo.", voice(m, "in_context"), **asked) for m in (light, load("in_context")))
    assert (one.prompt, one.limits, one.seed) == (two.prompt, two.limits, two.seed)
    assert one.reference_codes is not None and two.reference_codes is not None
    np.testing.assert_array_equal(one.reference_codes, two.reference_codes)


# --- the joint draw -----------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_joint_draw_is_the_official_batch(synthetic: Callable[..., Path], load: Load, backend: str) -> None:
    """One stream for all: items that have ended go on drawing."""
    case = load_case("sampled_end_batch")
    call = case.json["call"]
    arguments = dict(case.arguments())
    texts, speaker = arguments.pop("text"), arguments.pop("speaker")
    model = load("custom_voice", backend)
    requests = [model.prepare(text, CustomVoice(speaker), seed=call["seed"], **arguments) for text in texts]
    spoken = model.generate(requests, joint_seed=call["seed"])
    for i, (_, codes) in enumerate(spoken):
        np.testing.assert_array_equal(codes, case[f"codes.{i}"])
    own = model.generate(requests)
    np.testing.assert_array_equal(own[0].codes, model.generate(requests[:1])[0].codes)
    assert any(not np.array_equal(a.codes, b.codes) for a, b in zip(own, spoken, strict=True))


def test_a_joint_draw_has_one_set_of_rules(load: Load) -> None:
    model = load("custom_voice")
    requests = [model.prepare("Hello.", CustomVoice("ryan"), max_new_tokens=n) for n in (3, 4)]
    with pytest.raises(RequestError, match="a joint draw needs requests with the same sampling arguments"):
        model.generate(requests, joint_seed=1)


# --- what is refused, and what is warned of -----------------------------------------------------------


def test_a_missing_speaker_embedding_is_one_error_for_both_paths(load: Load) -> None:
    request = load("x_vector").prepare("Hello.", voice(load("x_vector"), "x_vector"))
    with pytest.raises(RequestError, match="a place for a speaker embedding"):
        dataclasses.replace(request, x_vector=None)
    with pytest.raises(RequestError, match="seed='7' must be a whole number"):
        Request(load("custom_voice").prepare("", CustomVoice("ryan")).prompt, request.limits, "7")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given_voice", "arguments", "sentence"),
    [
        ("ryan", {}, "voice is str; give a CustomVoice, a DesignedVoice or a ClonedVoice"),
        (DesignedVoice(), {}, "DesignedVoice needs a voice_design model; this is a custom_voice model"),
        (CustomVoice("Bob"), {}, "speaker 'Bob' is not in this model"),
        (CustomVoice("ryan"), {"language": "Klingon"}, "language 'Klingon' is not in this model"),
        (CustomVoice("ryan"), {"seed": 1.5}, "seed=1.5 must be a whole number"),
        (CustomVoice("ryan"), {"beams": 2}, "there is no argument 'beams'"),
        (CustomVoice("ryan"), {"max_new_tokens": 0}, "max_new_tokens=0 must be"),
        (CustomVoice("ryan"), {"top_p": 2}, "top_p=2 must be a number from 0 to 1"),
    ],
)
@pytest.mark.parametrize("verb", ["prepare", "open"])
def test_what_a_model_cannot_prepare(
    load: Load, given_voice: Any, arguments: dict[str, Any], sentence: str, verb: str
) -> None:
    model = load("custom_voice")
    with pytest.raises(RequestError, match=sentence):
        model.prepare("Hello.", given_voice, **arguments) if verb == "prepare" else model.open(given_voice, **arguments)


def test_a_text_must_be_a_string(load: Load) -> None:
    with pytest.raises(RequestError, match="text must be a string, not list"):
        load("custom_voice").prepare(["a"], CustomVoice("ryan"))  # type: ignore[arg-type]


VERBS = ("prepare", "open", "generate_custom_voice", "stream_custom_voice", "open_custom_voice")


@pytest.mark.parametrize("verb", VERBS)
def test_an_ignored_instruction_is_warned_of_once_where_it_was_given(load: Load, verb: str) -> None:
    model, said = load("custom_voice"), CustomVoice("ryan", "Slowly.")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if verb == "prepare":
            model.prepare("Hello.", said)
        elif verb == "open":
            model.open(said)
        elif verb == "generate_custom_voice":
            model.generate_custom_voice(["a", "b"], "ryan", instruct="Slowly.", max_new_tokens=1)
        elif verb == "stream_custom_voice":
            model.stream_custom_voice("a", "ryan", instruct="Slowly.")
        else:
            model.open_custom_voice("ryan", instruct="Slowly.")
    (warning,) = caught
    assert "instruct is ignored" in str(warning.message)
    assert warning.filename == __file__


# --- text that is still arriving ----------------------------------------------------------------------


def test_a_source_of_text_gives_every_id_once() -> None:
    source = TextSource()
    assert source.more() == []
    source.add([1, 2])
    source.add((3,))
    assert source.more() == [1, 2, 3]
    assert source.more() == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_text_that_arrives_is_text_that_was_there(load: Load, backend: str) -> None:
    """Cut anywhere, as long as the next frame's token is there."""
    model = load("custom_voice", backend)
    request = model.prepare(TEXTS[2], CustomVoice("ryan"), streaming=True, seed=1, max_new_tokens=12, temperature=2.0)
    trailing = request.prompt.trailing
    ((_, expected),) = model.generate([request])
    for known in (0, 1, 4):
        source = TextSource()
        prompt = dataclasses.replace(request.prompt, trailing=trailing[:known])
        source.add(trailing[known : known + 1])
        frames = model.frames([dataclasses.replace(request, prompt=prompt, incoming=source)])
        found = []
        for n, frame in enumerate(frames):
            found.append(frame.codes[0])
            source.add(trailing[known + n + 1 : known + n + 2])
            if known + n + 2 > len(trailing):
                source.finish()
        np.testing.assert_array_equal(found, expected)
