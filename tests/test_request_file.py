"""Request files: one reader, two spellings, and one sentence for whatever is wrong inside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen3tts_np import QwenTTSError, cli
from qwen3tts_np.inspect.request import WrittenRequest
from qwen3tts_np.inspect.request_file import read_request

WRITTEN = {"method": "generate_custom_voice", "arguments": {"text": "Hi", "speaker": "ryan"}, "seed": 3}


def write(folder: Path, content: Any) -> Path:
    file = folder / "request.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return file


def test_both_spellings_are_one_request(tmp_path: Path) -> None:
    short = {"mode": "custom_voice", "text": "Hi", "speaker": "ryan", "seed": 3}
    wanted = WrittenRequest({"text": "Hi", "speaker": "ryan"}, "generate_custom_voice", 3)
    for content in (WRITTEN, short, {"call": WRITTEN, "about": ""}):
        assert read_request(write(tmp_path, content)) == wanted
    assert wanted.call == WRITTEN
    without = {"arguments": {"text": "Hi", "speaker": "ryan"}, "seed": 3}
    assert read_request(write(tmp_path, without)).method is None


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    request = read_request(write(tmp_path, {"text": "Hi", "temperature": 0.7, "non_streaming_mode": False}))
    assert read_request(write(tmp_path, request.call)) == request


def test_codes_to_follow_are_named_in_the_file_or_by_hand(tmp_path: Path) -> None:
    for name, value in (("a.npy", 1), ("b.npy", 2)):
        np.save(tmp_path / name, np.full((2, 16), value))
    file = write(tmp_path, {**WRITTEN, "codes": "a.npy"})
    for given_codes, value in ((None, 1), (tmp_path / "b.npy", 2)):
        codes = read_request(file, given_codes).codes
        assert codes is not None
        assert (codes == value).all()


@pytest.mark.parametrize("seed", [0, 7, 2**64 - 1, -(2**63)])
def test_a_seed_is_a_number_or_the_same_as_text(seed: int, tmp_path: Path) -> None:
    assert read_request(write(tmp_path, {**WRITTEN, "seed": str(seed)})).seed == seed
    assert read_request(write(tmp_path, {**WRITTEN, "seed": seed})).seed == seed


SPEECH = "generate_custom_voice"
WRONG: list[tuple[Any, str]] = [
    ({"speaker": ["vivian", "ryan"]}, "this one has 2 in speaker: send them one by one"),
    ({"speaker": 5}, "speaker is 5, expected text"),
    ({"speaker": {"name": "ryan"}}, "speaker is {'name': 'ryan'}, expected text"),
    ({"language": 5}, "language is 5, expected text"),
    ({"text": 1e3}, "text is 1000.0, expected text"),
    ({"text": []}, "this one has 0 in text"),
    ({"text": [["Hi"]]}, "text is ['Hi'], expected text"),
    ({"instruct": True}, "instruct is True, expected text"),
    ({"seed": "0x1"}, "seed is '0x1', expected a whole number from -2**63 to 2**64 - 1"),
    ({"seed": str(2**64)}, "seed is 18446744073709551616, expected a whole number from -2**63 to 2**64 - 1"),
    ({"seed": 2**64}, "seed is 18446744073709551616, expected a whole number from -2**63 to 2**64 - 1"),
    ({"seed": 1.5}, "seed is 1.5, expected a whole number"),
    ({"temperature": "hot"}, "temperature is 'hot', expected a finite number"),
    ({"temperature": True}, "temperature is True, expected a finite number"),
    ({"top_p": [0.5, 0.7]}, "this one has 2 in top_p"),
    ({"top_k": 2.5}, "top_k is 2.5, expected a whole number"),
    ({"max_new_tokens": False}, "max_new_tokens is False, expected a whole number"),
    ({"do_sample": 1}, "do_sample is 1, expected true or false"),
    ({"ref_audio": 7}, 'ref_audio is 7, expected text, or {"audio": FILE}'),
    ({"ref_audio": {"audio": 7}}, "ref_audio is {'audio': 7}, expected text"),
    ({"voice_clone_prompt": 3}, "voice_clone_prompt is 3, expected the file of a saved voice, or an object of lists"),
    (
        {"voice_clone_prompt": {"ref_spk_embedding": ["a"]}},
        "ref_spk_embedding of voice_clone_prompt is ['a'], expected",
    ),
    ({"voice_clone_prompt": {"ref_spk_embedding": [[0.1, None]]}}, "expected a list of lists of finite numbers"),
    ({"voice_clone_prompt": {"ref_spk_embedding": 0.5}}, "ref_spk_embedding of voice_clone_prompt is 0.5"),
    ({"voice_clone_prompt": {"ref_code": [[[1, 2], [3]]]}}, "expected a list of codes [frames][groups], or null"),
    ({"voice_clone_prompt": {"ref_code": [[[1.5]]]}}, "ref_code of voice_clone_prompt is [[[1.5]]]"),
    ({"voice_clone_prompt": {"icl_mode": [1]}}, "icl_mode of voice_clone_prompt is [1], expected a list of true or"),
    ({"volume": 3}, "there is no argument 'volume'; there are text, speaker"),
    ({"x" * 100_000: 3}, f"there is no argument '{'x' * 59}...; there are"),
    ({"text": ["y" * 100_000] * 2}, "this one has 2 in text"),
    ({"language": {"z": "z" * 100_000}}, "..., expected text"),
    ({"codes": 5}, "codes is 5, expected text"),
    ({"codes": "gone.npy"}, "gone.npy cannot be read"),
    ({"call": 5}, "'call' is 5, expected an object"),
    ({"call": {"method": "sing", "arguments": {}}}, "method 'sing' is not one of generate_custom_voice, "),
    ({"method": ["decode"], "arguments": {}}, "method ['decode'] is not one of"),
    ({"method": SPEECH, "arguments": []}, "'arguments' must be an object of keyword arguments, not []"),
    ({"method": "encode", "arguments": {"audios": 3}}, "audios is 3, expected"),
    ({"method": "encode", "arguments": {}}, "encode: missing a required argument: 'audios'"),
    ({"method": "decode", "arguments": {"audio_codes": [[1, 2]]}}, "audio_codes is [1, 2], expected"),
    ({"method": "speaker_embedding", "arguments": {"audio": 1, "sr": 2}}, "takes the argument 'audio' alone"),
    ('{"text": "Hi", "temperature": NaN}', "NaN is not a number in JSON"),
    ('{"text": "Hi", "temperature": 1e999}', "temperature is inf, expected a finite number"),
    ('{"text": "Hi", "top_p": -Infinity}', "-Infinity is not a number in JSON"),
    (f'{{"text": "Hi", "temperature": {"9" * 400}}}', "expected a finite number"),
    ("[1, 2]", "a JSON object was expected"),
]


@pytest.mark.parametrize(("content", "told"), WRONG, ids=range(len(WRONG)))
def test_what_is_wrong_inside_is_one_sentence(content: Any, told: str, tmp_path: Path) -> None:
    file = write(
        tmp_path, {"text": "Hi", **content} if isinstance(content, dict) and "arguments" not in content else content
    )
    with pytest.raises(QwenTTSError) as error:
        read_request(file)
    assert told in str(error.value)
    assert str(file) in str(error.value) or "gone.npy" in told
    assert "\n" not in str(error.value) and len(str(error.value)) < 600


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
FIELDS = st.sampled_from(
    "text speaker language seed mode codes call method arguments ref_audio voice_clone_prompt top_k temperature".split()
)


@given(st.dictionaries(FIELDS, VALUES, max_size=4))
def test_any_json_is_a_request_or_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any]
) -> None:
    folder, sentence = tmp_path_factory.getbasetemp(), ""
    try:
        read_request(write(folder, content))
    except QwenTTSError as e:
        sentence = str(e)
    assert "\n" not in sentence


def test_a_voice_of_lists_may_be_in_the_file(synthetic: Any, tmp_path: Path, capsys: Any) -> None:
    lists = {"ref_spk_embedding": [[0.1] * 64], "x_vector_only_mode": [True]}
    file = write(tmp_path, {"text": "Hi", "voice_clone_prompt": lists})
    assert cli.main(["explain", str(synthetic("tiny", "base")), str(file)]) == 0
    assert "x-vector" in capsys.readouterr().out
    lists = {name: 2 * value for name, value in lists.items()}
    file = write(tmp_path, {"text": "Hi", "voice_clone_prompt": lists})
    assert cli.main(["explain", str(synthetic("tiny", "base")), str(file)]) == 2
    assert "voice_clone_prompt has 2 voices; a request takes one" in capsys.readouterr().err
