"""A voice from the arguments that name it: one rule for the official methods, narration, request files and commands."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwen3tts_np import Qwen3TTSModel, RequestError
from qwen3tts_np.errors import RequestTypeError
from qwen3tts_np.inspect.request import WrittenRequest, prepare
from qwen3tts_np.request import ClonedVoice, CustomVoice, DesignedVoice
from qwen3tts_np.speech.delivery import Delivery

CLIP = (np.sin(np.arange(7200) / 20).astype(np.float32), 24000)
Load = Callable[[str], Qwen3TTSModel]


@pytest.fixture
def load(synthetic: Callable[..., Path]) -> Load:
    return lambda kind: Qwen3TTSModel.for_prompts(synthetic("tiny", kind))


def test_an_argument_that_is_none_is_not_given(load: Load) -> None:
    custom = load("custom_voice")
    first = custom.get_supported_speakers()[0]
    assert custom.voice() == custom.voice(speaker=None, instruct=None) == CustomVoice(first)
    assert custom.voice(speaker="ryan") == CustomVoice("ryan")
    assert load("voice_design").voice() == DesignedVoice()
    assert load("voice_design").voice(instruct="Old.") == DesignedVoice("Old.")


@pytest.mark.parametrize(
    ("arguments", "in_context"),
    [({}, False), ({"ref_text": "It hums."}, True), ({"ref_text": "It hums.", "x_vector_only_mode": True}, False)],
)
def test_a_clip_is_continued_where_there_is_a_transcript(
    load: Load, arguments: dict[str, Any], in_context: bool
) -> None:
    base = load("base")
    voice = base.voice(ref_audio=CLIP, **arguments)
    assert isinstance(voice, ClonedVoice)
    assert (voice.item.icl_mode, voice.item.x_vector_only_mode) == (in_context, not in_context)
    assert base.voice(voice_clone_prompt=[voice.item]) == voice
    for transcript in (None, ""):  # asked for in so many words, it needs one
        with pytest.raises(RequestError, match="ref_text of item 0 is missing"):
            base.voice(ref_audio=CLIP, ref_text=transcript, x_vector_only_mode=False)


@pytest.mark.parametrize(
    ("kind", "arguments", "sentence"),
    [
        ("custom_voice", {"ref_audio": CLIP}, "a custom_voice model has no argument ref_audio; .* speaker, instruct"),
        ("voice_design", {"speaker": "ryan"}, "a voice_design model has no argument speaker; .* instruct"),
        ("base", {"instruct": "Old."}, "a base model has no argument instruct; .* ref_audio, ref_text"),
        ("base", {}, "a base model has no voice of its own"),
        ("base", {"ref_audio": [CLIP, CLIP], "ref_text": ["a", "b"]}, "has 2 voices; a request takes one"),
    ],
)
def test_arguments_that_name_no_voice(load: Load, kind: str, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence) as error:
        load(kind).voice(**arguments)
    assert isinstance(error.value, RequestTypeError) == ("no argument" in sentence)


def test_every_caller_has_the_same_voice(load: Load) -> None:
    for kind, arguments in (("custom_voice", {}), ("voice_design", {}), ("base", {"ref_audio": CLIP})):
        model = load(kind)
        narrated = Delivery.of(model, arguments, runaway_guard=False).voice
        direct = model.prepare("Hello.", model.voice(**arguments), seed=1)
        written = prepare(model, WrittenRequest({"text": "Hello.", **arguments}, seed=1))
        assert written.prompt == direct.prompt == model.prepare("Hello.", narrated, seed=1).prompt
        if direct.x_vector is not None:
            np.testing.assert_array_equal(written.x_vector, direct.x_vector)


def test_officially_no_speaker_is_no_speaker(load: Load) -> None:
    """And not the first of the table."""
    model = load("custom_voice")
    told: list[CustomVoice] = []
    object.__setattr__(model, "open", lambda voice, **_: told.append(voice))
    for speaker in (None, "", [None]):
        model.open_custom_voice(speaker)  # type: ignore[arg-type]
    assert told == [CustomVoice("")] * 3


def test_one_warning_for_a_list_of_ignored_instructions(load: Load) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert load("custom_voice").voice(instruct="Slowly.").instruct == ""  # type: ignore[union-attr]
    (warning,) = caught
    assert "instruct is ignored" in str(warning.message)
    assert warning.filename == __file__
