"""The language tag of a prompt: what a speaker of a dialect is given for each language asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from qwen3tts_np.config import TalkerConfig, read_model_config
from qwen3tts_np.errors import RequestError
from qwen3tts_np.text.prompt import language_id

NAMES = ["auto", "Auto", "chinese", "CHINESE", "english", "German"]


@pytest.fixture(scope="module")
def talker(synthetic: Callable[..., Path]) -> TalkerConfig:
    return read_model_config(synthetic("tiny", "custom_voice")).talker_config


@pytest.mark.parametrize("language", NAMES)
@pytest.mark.parametrize(
    ("speaker", "dialect"),
    [
        ("dylan", "beijing_dialect"), ("Dylan", "beijing_dialect"), ("eric", "sichuan_dialect"),
        ("vivian", None), ("ryan", None), (None, None),
    ],
)  # fmt: skip
def test_a_dialect_takes_the_place_of_auto_and_chinese_only(
    talker: TalkerConfig, speaker: str | None, dialect: str | None, language: str
) -> None:
    name = language.lower()
    if dialect and name in ("auto", "chinese"):
        expected = talker.codec_language_id[dialect]
    else:
        expected = None if name == "auto" else talker.codec_language_id[name]
    assert language_id(talker, language, speaker) == expected


@pytest.mark.parametrize("speaker", ["dylan", "vivian"])
@pytest.mark.parametrize("language", ["beijing_dialect", "klingon"])
def test_a_dialect_is_no_language_to_ask_for(talker: TalkerConfig, speaker: str, language: str) -> None:
    with pytest.raises(RequestError, match=f"language '{language}' is not in this model; it has auto, chinese"):
        language_id(talker, language, speaker)
