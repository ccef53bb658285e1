"""A running batch: a request has the same codes alone and in any company, whenever it joins and whoever leaves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qwen3tts_np_kernels.cpu import compiled

from qwen3tts_np import Qwen3TTSModel, RequestError
from qwen3tts_np.ops import Ints
from qwen3tts_np.request import CustomVoice, Request
from qwen3tts_np.text.feed import TextSource

FORMATS = ("int4", "int8", "bfloat16", "float32")
BACKENDS = (*(FORMATS if compiled() else ()), "reference")
TEXTS = ["Hi.", "Hello there, how are you?", "你好。", "A rather longer sentence than any of the others here."]
RYAN = CustomVoice("ryan")
MOST = 9  # frames
Load = Callable[[str], Qwen3TTSModel]


@pytest.fixture(scope="module")
def load(synthetic: Callable[..., Path]) -> Load:
    models: dict[str, Qwen3TTSModel] = {}

    def loaded(backend: str) -> Qwen3TTSModel:
        if backend not in models:
            how = {"backend": backend} if backend == "reference" else {"weights_format": backend}
            models[backend] = Qwen3TTSModel.from_pretrained(synthetic("tiny", "custom_voice"), threads=1, **how)
        return models[backend]

    return loaded


REQUESTS = st.fixed_dictionaries(
    {
        "text": st.sampled_from(TEXTS),
        "streaming": st.booleans(),
        "seed": st.integers(0, 9),
        "max_new_tokens": st.integers(1, MOST + 1),
        "temperature": st.sampled_from([0.7, 2.0]),
        "subtalker_temperature": st.sampled_from([0.7, 2.0]),
        "repetition_penalty": st.sampled_from([1.0, 1.3]),
    },
    optional={"do_sample": st.booleans(), "top_k": st.sampled_from([0, 5]), "subtalker_top_p": st.just(0.8)},
)


ROOMS = st.fixed_dictionaries(
    {
        "places": st.integers(1, 4),
        "positions": st.sampled_from([None, 80]),
        "prompt_slice": st.sampled_from([1, 7, 64, None]),
    }
)


@dataclasses.dataclass
class Client:
    """One who joins, perhaps before its text has arrived, and perhaps leaves."""

    request: Request
    joins: int  # step
    leaves: int  # frames
    codes: list[Ints] = dataclasses.field(default_factory=list)
    late: list[int] = dataclasses.field(default_factory=list)  # ids of its text

    def arrive(self, ids: int) -> None:
        source = self.request.incoming
        if source is not None and not source.finished:
            source.add(self.late[:ids])
            self.late = self.late[ids:]
            if not self.late:
                source.finish()


@st.composite
def clients(draw: st.DrawFn) -> list[dict[str, Any]]:
    one = st.fixed_dictionaries(
        {"request": REQUESTS, "joins": st.integers(0, 12), "leaves": st.integers(0, MOST + 9), "late": st.booleans()}
    )
    return draw(st.lists(one, min_size=1, max_size=6))


def client(model: Qwen3TTSModel, request: dict[str, Any], joins: int, leaves: int, late: bool) -> Client:
    given = dict(request)
    whole = model.prepare(given.pop("text"), RYAN, **given)
    if not late:
        return Client(whole, joins, leaves)
    prompt = dataclasses.replace(whole.prompt, trailing=whole.prompt.trailing[:1])
    source = TextSource()
    return Client(
        dataclasses.replace(whole, prompt=prompt, incoming=source), joins, leaves, [], [*whole.prompt.trailing[1:]]
    )


def speak(model: Qwen3TTSModel, coming: list[Client], **room: Any) -> None:
    """Run a batch until everybody has been there; several at a time, never more than there are places."""
    queue = sorted(coming, key=lambda c: c.joins)
    here: dict[int, Client] = {}
    with model.open_batch(**room) as batch:
        for number in range(1000):
            while queue and queue[0].joins <= number and batch.free:
                newcomer = queue.pop(0)
                here[batch.join(newcomer.request)] = newcomer
            for someone in here.values():
                someone.arrive(number % 3)
            assert batch.free == batch.places - len(here)
            step = batch.step(prompts_first=number % 4 == 1)
            assert not step.failed
            assert sorted(step.places) == list(step.places)
            for place, codes in zip(step.places, step.codes, strict=True):
                here[place].codes.append(codes)
            for place in step.ended:
                del here[place]
            for place, someone in list(here.items()):
                if len(someone.codes) >= someone.leaves:
                    batch.leave(place)
                    del here[place]
            if not queue and not here:
                assert batch.idle
                return
    raise AssertionError("this batch does not end")


@settings(max_examples=12)
@pytest.mark.parametrize("backend", BACKENDS)
@given(clients(), ROOMS)
def test_codes_are_those_of_the_request_alone(
    load: Load, backend: str, schedule: list[dict[str, Any]], room: dict[str, Any]
) -> None:
    model = load(backend)
    coming = [client(model, **one) for one in schedule]
    speak(model, coming, **room)
    for someone, one in zip(coming, schedule, strict=True):
        given = dict(one["request"])
        ((_, alone),) = model.generate([model.prepare(given.pop("text"), RYAN, **given)])
        heard = np.array(someone.codes).reshape(-1, alone.shape[1])
        assert len(heard) >= min(one["leaves"], len(alone))
        np.testing.assert_array_equal(heard, alone[: len(heard)])


@pytest.mark.parametrize("backend", BACKENDS[-2:])
def test_a_request_that_could_need_more_than_a_place_is_refused(load: Load, backend: str) -> None:
    model = load(backend)
    request = model.prepare("Hi.", RYAN, max_new_tokens=5, streaming=False)
    needed = len(request.prompt.prefill) + 4
    with model.open_batch(places=1, positions=needed) as batch:
        assert batch.nbytes
        longer = dataclasses.replace(request, limits=dataclasses.replace(request.limits, max_new_tokens=6))
        with pytest.raises(RequestError, match=rf"the request can take {needed + 1} positions \(\d+ of its prompt"):
            batch.join(longer)
        batch.join(request)
        with pytest.raises(RequestError, match="all 1 places of this batch are taken"):
            batch.join(request)
    for room in ({"places": 0}, {"places": True}, {"places": 1, "positions": 0.5}, {"places": 1, "prompt_slice": 0}):
        with pytest.raises(RequestError, match=r"(places|positions|prompt_slice)=.* must be a whole number"):
            model.open_batch(**room)  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", BACKENDS[-2:])
def test_one_who_cannot_go_on_does_not_end_the_others(load: Load, backend: str) -> None:
    model = load(backend)
    good, bad = (model.prepare("Hi.", RYAN, max_new_tokens=4, seed=1, **how) for how in ({}, {"temperature": 1e-44}))
    ((_, alone),) = model.generate([good])
    codes, failed = [], {}
    with model.open_batch(places=2) as batch:
        assert [batch.join(bad), batch.join(good)] == [0, 1]
        while not batch.idle:
            step = batch.step()
            failed |= step.failed
            codes += [row for place, row in zip(step.places, step.codes, strict=True) if place == 1]
    assert list(failed) == [0]
    assert "out of the range of float32" in str(failed[0])
    np.testing.assert_array_equal(codes, alone)


@pytest.mark.parametrize("backend", BACKENDS[-2:])
def test_packets_of_a_place_are_those_of_a_stream(load: Load, backend: str) -> None:
    model = load(backend)
    text = model.arriving(RYAN, max_new_tokens=8, seed=3, temperature=2.0)
    text.feed(TEXTS[3])
    assert text.request is not None
    packets, heard = model.packets(text.request, packet_frames=3), []
    with model.open_batch(places=1) as batch:
        batch.join(text.request)
        while not batch.idle:
            for codes in batch.step().codes:
                heard += packets.add(codes)
            text.finish() if not text.finished else None
    heard += packets.rest()
    whole = model.prepare(TEXTS[3], RYAN, streaming=True, max_new_tokens=8, seed=3, temperature=2.0)
    expected = list(model.stream(whole, packet_frames=3))
    assert [len(packet) for packet in heard] == [len(packet) for packet in expected]
    np.testing.assert_array_equal(np.concatenate(heard), np.concatenate(expected))
