"""Openings of prompts: who begins as somebody before reads less, and says the same."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qwen3tts_np_kernels.cpu import compiled

from qwen3tts_np import Qwen3TTSModel
from qwen3tts_np.compiled.frame_loop import FrameLoop
from qwen3tts_np.compiled.generate import CompiledSession
from qwen3tts_np.compiled.talker.openings import MOST_POSITIONS, Opening, Openings, opening_of
from qwen3tts_np.ops import Ints
from qwen3tts_np.request import ClonedVoice, CustomVoice, DesignedVoice, Request, Voice
from qwen3tts_np.text.prompt import Position
from qwen3tts_np.voice.prompt_item import VoiceClonePromptItem

pytestmark = pytest.mark.skipif(not compiled(), reason="nothing is kept on NumPy")

MODELS = {"custom_voice": "float32", "voice_design": "bfloat16", "base": "int4"}  # kind -> weights
TEXTS = ["Hi.", "Hello there, how are you?", "你好。", ""]
MOST = 5  # frames
Load = Callable[[str], Qwen3TTSModel]


@pytest.fixture(scope="module")
def load(synthetic: Callable[..., Path]) -> Load:
    models: dict[str, Qwen3TTSModel] = {}

    def loaded(kind: str) -> Qwen3TTSModel:
        if kind not in models:
            models[kind] = Qwen3TTSModel.from_pretrained(
                synthetic("tiny", kind), weights_format=MODELS[kind], threads=1
            )
        openings_of(models[kind]).clear()
        return models[kind]

    return loaded


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The positions of prompts that are read, pass by pass."""
    passes: list[int] = []
    before = CompiledSession._read

    def counting(session: CompiledSession, inputs: Any, item: Ints, *others: Any) -> None:
        passes.append(len(item))
        before(session, inputs, item, *others)

    monkeypatch.setattr(CompiledSession, "_read", counting)
    return passes


def openings_of(model: Qwen3TTSModel) -> Openings:
    assert isinstance(model.frame_loop, FrameLoop)
    return model.frame_loop.openings


def voices(model: Qwen3TTSModel) -> list[Voice]:
    """Some of which begin alike."""
    kind, c = model.config.tts_model_type, model.config.talker_config
    if kind == "custom_voice":
        return [CustomVoice("ryan"), CustomVoice("vivian")]
    if kind == "voice_design":
        return [DesignedVoice(how) for how in ("", "A calm voice.", "A calm voice, and low.", 90 * "very " + "calm")]
    vectors = np.random.default_rng(0).standard_normal((2, c.hidden_size)).astype(np.float32)
    codes = np.arange(3 * c.num_code_groups).reshape(3, -1)
    said = {"ref_code": codes, "x_vector_only_mode": False, "icl_mode": True}
    items = [
        *(VoiceClonePromptItem(None, vector, True, False) for vector in vectors),
        *(VoiceClonePromptItem(ref_spk_embedding=vectors[0], ref_text=text, **said) for text in ("Yes.", "Yes, I do.")),
    ]
    return [ClonedVoice(item) for item in items]


def requests(model: Qwen3TTSModel) -> st.SearchStrategy[Request]:
    how = st.fixed_dictionaries(
        {
            "text": st.sampled_from(TEXTS),
            "voice": st.sampled_from(voices(model)),
            "language": st.sampled_from(["auto", "english", "german"]),
            "streaming": st.booleans(),
            "seed": st.integers(0, 9),
            "max_new_tokens": st.integers(1, MOST + 1),
        }
    )
    return how.map(lambda given: model.prepare(**given))


def first_words(model: Qwen3TTSModel, request: Request) -> Ints:
    """The codes of a request that nobody came before."""
    openings_of(model).clear()
    return model.generate([request])[0].codes


def in_a_batch(model: Qwen3TTSModel, coming: list[Request], **room: Any) -> list[Ints]:
    """The codes of requests that join as places become free."""
    waiting, here = list(range(len(coming))), dict[int, int]()
    codes: list[list[Ints]] = [[] for _ in coming]
    with model.open_batch(**room) as batch:
        while waiting or here:
            while waiting and batch.free:
                newcomer = waiting.pop(0)
                here[batch.join(coming[newcomer])] = newcomer
            step = batch.step()
            for place, row in zip(step.places, step.codes, strict=True):
                codes[here[place]].append(row)
            for place in step.ended:
                del here[place]
    return [np.array(rows).reshape(-1, model.config.talker_config.num_code_groups) for rows in codes]


@settings(max_examples=8)
@pytest.mark.parametrize("kind", MODELS)
@given(st.data())
def test_codes_are_those_of_a_model_that_has_read_nothing(load: Load, kind: str, data: st.DataObject) -> None:
    model = load(kind)
    coming = data.draw(st.lists(requests(model), min_size=2, max_size=4))
    expected = [first_words(model, request) for request in coming]
    room = {
        "places": data.draw(st.integers(1, 3)),
        "prompt_slice": data.draw(st.sampled_from([1, 7, 64, None])),
        "positions": data.draw(st.sampled_from([None, 200])),  # without a number the first caches are too small
    }
    openings_of(model).clear()
    for _ in range(2):
        for found, alone in zip(in_a_batch(model, coming, **room), expected, strict=True):
            np.testing.assert_array_equal(found, alone)
        assert openings_of(model).positions <= MOST_POSITIONS
    same = [dataclasses.replace(request, limits=coming[0].limits) for request in coming]
    known = [speech.codes for speech in model.generate(same, joint_seed=3)]
    openings_of(model).clear()
    for found, (_, alone) in zip(known, model.generate(same, joint_seed=3), strict=True):
        np.testing.assert_array_equal(found, alone)


@pytest.mark.parametrize("kind", MODELS)
def test_an_opening_is_read_once(load: Load, read: list[int], kind: str) -> None:
    model = load(kind)
    for voice in voices(model):
        openings_of(model).clear()
        first, other = (model.prepare(text, voice, max_new_tokens=2, streaming=True) for text in ("Hi.", "你好。"))
        known = len(opening_of(first).positions)
        assert known == min(first.prompt.opening, len(first.prompt.prefill) - 1, MOST_POSITIONS) > 0
        for request, unread in ((first, 0), (first, known), (other, known)):
            read.clear()
            model.generate([request])
            assert sum(read) == len(request.prompt.prefill) - unread


@pytest.mark.parametrize("kind", MODELS)
def test_those_who_come_together_read_an_opening_once(load: Load, read: list[int], kind: str) -> None:
    model = load(kind)
    one, other = voices(model)[:2]
    coming = [("Hi.", one, False), ("你好。", other, True), ("Yes.", one, True), ("", one, False)]
    spoken = [
        model.prepare(text, voice, seed=1, max_new_tokens=4, streaming=streaming) for text, voice, streaming in coming
    ]
    alone = [first_words(model, request) for request in spoken]
    openings_of(model).clear()
    read.clear()
    for found, codes in zip(model.generate(spoken), alone, strict=True):
        np.testing.assert_array_equal(found.codes, codes)
    known = len(opening_of(spoken[0]).positions)
    assert sum(read) == sum(len(request.prompt.prefill) for request in spoken) - 2 * known


def test_positions_that_are_known_are_not_in_a_slice(load: Load, read: list[int]) -> None:
    """Somebody speaks; two come with one voice, of whom the second has less to be read."""
    model = load("voice_design")
    one, other = DesignedVoice("Calm."), DesignedVoice("A calm voice.")
    speaker = model.prepare("Hello there.", one, seed=1, max_new_tokens=50, temperature=2.0)
    comers = [model.prepare("Hi.", other, max_new_tokens=2, streaming=False) for _ in range(2)]
    prompt, opening = len(comers[0].prompt.prefill), comers[0].prompt.opening
    with model.open_batch(places=3, prompt_slice=4) as batch:
        batch.join(speaker)
        batch.step()
        read.clear()
        for comer in comers:
            batch.join(comer)
        while sum(read) < 2 * prompt - opening:
            assert len(batch.step().places)
    assert read == [4] * (len(read) - 1) + [2 * prompt - opening - 4 * (len(read) - 1)]


def test_another_speaker_is_another_opening(load: Load, read: list[int]) -> None:
    """Even where the last bit of an embedding differs, or its type."""
    model = load("base")
    c = model.config.talker_config
    vector = np.random.default_rng(1).standard_normal(c.hidden_size).astype(np.float32)
    nearly = vector.copy()
    nearly[-1] = np.nextafter(vector[-1], np.float32(9))
    own = vector.copy()
    for one in (own, nearly, vector.view(np.int32), vector.astype(np.float64)):
        voice = ClonedVoice(VoiceClonePromptItem(None, one, True, False))
        request = model.prepare("Hi.", voice, seed=1, max_new_tokens=2)
        own[:] = 0  # a request that is prepared keeps its voice
        read.clear()
        model.generate([request])
        assert sum(read) == len(request.prompt.prefill)
    assert openings_of(model).positions == 4 * request.prompt.opening


def test_a_prompt_that_is_cut_short_leaves_nothing(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load("voice_design")
    request = model.prepare("Hi.", DesignedVoice("A calm voice."), seed=1, max_new_tokens=4, streaming=False)
    alone = first_words(model, request)
    openings_of(model).clear()
    before = CompiledSession._read

    def interrupted(session: CompiledSession, *arguments: Any) -> None:
        before(session, *arguments)
        session._cache.k[:] = np.nan  # what an interrupt leaves is in no particular state
        raise KeyboardInterrupt

    monkeypatch.setattr(CompiledSession, "_read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.generate([request])
    assert openings_of(model).positions == 0
    monkeypatch.setattr(CompiledSession, "_read", before)
    np.testing.assert_array_equal(model.generate([request])[0].codes, alone)


def test_threads_share_them(load: Load) -> None:
    model = load("custom_voice")
    spoken = [model.prepare("Hi.", voice, seed=1, max_new_tokens=4) for voice in voices(model)]
    alone = [first_words(model, request) for request in spoken]
    found: list[list[Ints]] = [[], []]

    def speak(number: int) -> None:
        for _ in range(20):
            found[number].append(model.generate([spoken[number]])[0].codes)
            openings_of(model).clear()

    threads = [threading.Thread(target=speak, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for rows, codes in zip(found, alone, strict=True):
        assert len(rows) == 20
        for row in rows:
            np.testing.assert_array_equal(row, codes)


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=30))
def test_the_last_used_are_kept_up_to_a_number_of_positions(uses: list[tuple[int, bool]]) -> None:
    sizes = [1, 20, 30, 50, 70, 90, 120, 200, 255, 256]
    openings, last = Openings(), list[int]()
    for number, looks in uses:
        opening = Opening(sizes[number] * (Position("role", number),), None)
        values = np.full((1, 1, 1), number), np.full((1, 1, 1), -number)
        if looks:
            found = openings.find(opening)
            assert (found is not None) == (number in last)
            assert found is None or found[0] == number == -found[1]
            if found is None:
                continue
        else:
            openings.keep(opening, values)
        last = [*(other for other in last if other != number), number]
        while sum(sizes[other] for other in last) > MOST_POSITIONS:
            last.pop(0)
        assert openings.positions == sum(sizes[other] for other in last)
