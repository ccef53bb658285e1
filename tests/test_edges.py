"""Numbers at the edge of their types, and requests at the edge of a model's positions."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qwen3tts_np_kernels.cpu import compiled

from qwen3tts_np import Qwen3TTSModel
from qwen3tts_np.compiled.engine import Engine
from qwen3tts_np.errors import RequestError
from qwen3tts_np.request import CustomVoice
from qwen3tts_np.talker.sampling import SamplingParameters

HUGE = 10**4000


@pytest.fixture(scope="module", params=["reference", "compiled"])
def model(request: pytest.FixtureRequest, synthetic: Callable[..., Path]) -> Qwen3TTSModel:
    if request.param == "compiled" and not compiled():
        pytest.skip("needs Numba's compiler")
    return Qwen3TTSModel.from_pretrained(synthetic("tiny", "custom_voice"), backend=request.param)


def codes(model: Qwen3TTSModel, **arguments: Any) -> Any:
    given = {"text": "Hi", "speaker": "ryan", "seed": 1, "max_new_tokens": 4, "return_codes": True, **arguments}
    return model.generate_custom_voice(**given)[2][0]


@pytest.mark.parametrize("name", ["top_k", "subtalker_top_k"])
@pytest.mark.parametrize("value", [10**30, np.int64(2**62)])
def test_more_than_the_vocabulary_keeps_all(model: Qwen3TTSModel, name: str, value: Any) -> None:
    np.testing.assert_array_equal(codes(model, **{name: value}), codes(model, **{name: 0}))


@pytest.mark.parametrize("kind", [np.int64])
def test_whole_numbers_of_numpy(model: Qwen3TTSModel, kind: type) -> None:
    given = {name: kind(5) for name in ("top_k", "subtalker_top_k", "max_new_tokens", "seed")}
    plain = dict.fromkeys(given, 5)
    np.testing.assert_array_equal(codes(model, **given), codes(model, **plain))


@pytest.mark.parametrize("value", [1e308])
def test_a_temperature_beyond_float32_is_the_same_on_both_paths(model: Qwen3TTSModel, value: float) -> None:
    with pytest.raises(RequestError, match="out of the range of float32"):
        codes(model, temperature=value)
    codes(model, subtalker_temperature=value)  # nothing is excluded there: all codes are equally likely


@pytest.mark.parametrize("name", ["top_k", "temperature", "top_p", "repetition_penalty"])
@pytest.mark.parametrize("value", [-HUGE, "x" * 10**5, [0] * 10**5])
def test_a_sentence_shortens_the_value_and_not_the_rule(name: str, value: Any) -> None:
    good: dict[str, Any] = {"do_sample": True, "temperature": 0.9, "top_k": 50, "top_p": 1.0}
    with pytest.raises(RequestError) as refused:
        SamplingParameters(**{**good, name: value})
    assert len(str(refused.value)) < 250 and " must be " in str(refused.value)


@pytest.mark.parametrize("threads", [0, -1, "2", 1.5, True, -HUGE])
def test_threads_are_a_whole_number(threads: Any) -> None:
    with pytest.raises(RequestError, match="must be a whole number of at least 1"):
        Engine.choose("auto", np.dtype(np.float32), threads=threads)


def with_positions(model: Qwen3TTSModel, positions: int) -> Qwen3TTSModel:
    talker = replace(model.config.talker_config, max_position_embeddings=positions)
    return replace(model, config=replace(model.config, talker_config=talker))


def test_speech_ends_where_the_positions_end(model: Qwen3TTSModel) -> None:
    request = model.prepare("Hi", CustomVoice("ryan"), seed=1)
    prompt = len(request.prompt.prefill)
    few = with_positions(model, prompt + 5)
    with pytest.warns(UserWarning, match=f"after 5 frames at the latest, where the model's {prompt + 5} positions"):
        cut = few.prepare("Hi", CustomVoice("ryan"), seed=1)
    assert cut.limits.max_new_tokens == 6
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert few.prepare("Hi", CustomVoice("ryan"), seed=1, max_new_tokens=6).limits.max_new_tokens == 6


def test_a_text_that_does_not_fit_in_is_refused(model: Qwen3TTSModel) -> None:
    streaming = model.engine.runs_kernels  # either way to lay it out, once
    with pytest.raises(RequestError, match=r"positions and the model has 32768 \(max_position_embeddings\)"):
        model.prepare("All of it, again. " * 10_000, CustomVoice("ryan"), streaming=streaming)
