"""The table of a prompt, position by position, and the language tag of a speaker of a dialect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qwen3tts_np.checkpoint.config_file import read_model_config
from qwen3tts_np.config import ModelConfig, TalkerConfig
from qwen3tts_np.errors import RequestError
from qwen3tts_np.text.prompt import Conditioning, Prompt, build_prompt, language_id
from qwen3tts_np.text.templates import TextIds

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


# ---- the table ----

TEXT = TextIds(role=[1, 2, 3], text=[11, 12, 13], tail=[4, 5, 6, 7, 8])
REFERENCE = (21, 22)  # words
FRAME = tuple(range(16))


@pytest.fixture(scope="module")
def base(synthetic: Callable[..., Path]) -> ModelConfig:
    return read_model_config(synthetic("tiny", "base"))


def laid_out(
    config: ModelConfig, streaming: bool, frames: int | None = None, language: str = "auto", text: TextIds = TEXT
) -> Prompt:
    """Of three words; ``frames`` of a reference whose transcript is two."""
    voice = Conditioning(x_vector=True)
    if frames is not None:
        voice = Conditioning(x_vector=True, reference_text=REFERENCE, reference_codes=np.array([FRAME] * frames))
    return build_prompt(config, text, language, voice, [9], streaming)


def columns(prompt: Prompt) -> list[tuple[int, object]]:
    """The text and codec part of each position."""
    return [(p.text, "x-vector" if p.x_vector else p.frame if p.frame is not None else p.codec) for p in prompt.prefill]


@pytest.mark.parametrize("language", ["auto", "english"])
def test_what_comes_before_the_text(base: ModelConfig, language: str) -> None:
    c, pad = base.talker_config, base.tts_pad_token_id
    ids = [c.codec_nothink_id, c.codec_think_bos_id, c.codec_think_eos_id]
    if language == "english":
        ids = [c.codec_think_id, c.codec_think_bos_id, c.codec_language_id["english"], c.codec_think_eos_id]
    expected = [(9, None), (1, None), (2, None), (3, None), *((pad, i) for i in ids)]
    expected += [(pad, "x-vector"), (base.tts_bos_token_id, c.codec_pad_id)]
    assert columns(laid_out(base, streaming=True, language=language))[: len(expected)] == expected


@pytest.mark.parametrize(
    ("streaming", "frames", "expected", "trailing"),
    [
        (True, None, "11+bos", "12 13 eos"),
        (False, None, "11+pad 12+pad 13+pad eos+pad pad+bos", ""),
        (True, 1, "21+bos 22+frame", "11 12 13 eos"),
        (True, 5, "21+bos 22+frame 11+frame 12+frame 13+frame eos+frame", ""),
        (True, 7, "21+bos 22+frame 11+frame 12+frame 13+frame eos+frame pad+frame pad+frame", ""),
        (False, 2, "21+pad 22+pad 11+pad 12+pad 13+pad eos+pad pad+bos pad+frame pad+frame", ""),
    ],
)
def test_the_text_and_what_is_beside_it(
    base: ModelConfig, streaming: bool, frames: int | None, expected: str, trailing: str
) -> None:
    c = base.talker_config
    words = {
        "eos": base.tts_eos_token_id,
        "pad": base.tts_pad_token_id,
        **{str(n): n for n in (*TEXT.text, *REFERENCE)},
    }
    codecs = {"bos": c.codec_bos_id, "pad": c.codec_pad_id, "frame": FRAME}
    prompt = laid_out(base, streaming, frames)
    table = [(words[text], codecs[codec]) for text, codec in (column.split("+") for column in expected.split())]
    assert columns(prompt)[-len(table) :] == table
    assert len(prompt.prefill) == 9 + len(table)  # 4 of the templates, 3 of the tag, the speaker, a pad
    assert list(prompt.trailing) == [words[text] for text in trailing.split()]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("frames", [None, 0, 1, 5])
def test_the_opening_is_what_comes_before_the_text(base: ModelConfig, streaming: bool, frames: int | None) -> None:
    one, other = (laid_out(base, streaming, frames, text=text) for text in (TEXT, replace(TEXT, text=[14])))
    end = one.opening
    assert end == other.opening >= 9  # what every prompt begins with
    assert one.prefill[:end] == other.prefill[:end]
    assert end == len(one.prefill) == len(other.prefill) or one.prefill[end] != other.prefill[end]
