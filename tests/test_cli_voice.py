"""``qwen3tts-np voice`` and ``say --voice``: from a clip or a description to speech, by files alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from qwen3tts_np import Qwen3TTSModel, VoiceClonePromptItem, cli
from qwen3tts_np.cli.voice import FRAME, SENTENCES
from qwen3tts_np.speech.plan import seed_of
from qwen3tts_np.text.pace import milliseconds
from qwen3tts_np.text.prompt import supported_languages

RATE = 24000
ROOT = Path(__file__).parents[1]


@pytest.fixture
def base(synthetic: Callable[..., Path]) -> str:
    return str(synthetic("tiny", "base"))


def tone(seconds: float, rate: int = RATE) -> np.ndarray:
    t = np.arange(round(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * 150 * t) * np.sin(2 * np.pi * 2 * t) ** 2).astype(np.float32)


@pytest.fixture
def clip(tmp_path: Path) -> str:
    """Stereo, at another rate, in another format."""
    path = tmp_path / "ada.flac"
    soundfile.write(path, np.stack([tone(3.5, 44100)] * 2, axis=1), 44100)
    return str(path)


def run(*arguments: Any) -> int:
    return cli.main(list(map(str, arguments)))


def test_from_a_clip_to_speech(base, clip, tmp_path, capsys):
    file, out = tmp_path / "ada.safetensors", tmp_path / "a.wav"
    assert run("voice", "create", base, clip, "--text", "A short story, well told.", "-o", file) == 0
    printed, err = capsys.readouterr()
    assert printed == f'{file}: 0.6B, in context, 3.5 s, "A short story, well told."\n'
    assert err == ""
    Path(clip).unlink()  # it is not needed again
    assert run("say", base, "Hello.", "--voice", file, "--seed", 1, "--max-new-tokens", 4, "-o", out) == 0
    assert soundfile.info(out).samplerate == RATE
    voice = VoiceClonePromptItem.load(file)
    wavs, _ = Qwen3TTSModel.from_pretrained(base).generate_voice_clone(
        "Hello.", voice_clone_prompt=voice, seed=1, max_new_tokens=4
    )
    np.testing.assert_allclose(soundfile.read(out)[0], wavs[0], rtol=0, atol=1 / 32768)  # 16-bit PCM


def test_without_a_transcript_it_is_the_embedding_alone(base, clip, tmp_path, capsys):
    file = tmp_path / "ada.safetensors"
    assert run("voice", "create", base, clip, "-o", file) == 0
    assert capsys.readouterr().out == f"{file}: 0.6B, speaker embedding\n"
    voice = VoiceClonePromptItem.load(file)
    assert (voice.x_vector_only_mode, voice.icl_mode, voice.ref_code) == (True, False, None)


def test_a_poor_clip_is_warned_of_in_one_line(base, tmp_path):
    soundfile.write(tmp_path / "short.wav", tone(1.0), RATE)
    path = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    command = ["voice", "create", base, str(tmp_path / "short.wav"), "-o", str(tmp_path / "v.safetensors")]
    done = subprocess.run(
        [sys.executable, "-m", "qwen3tts_np", *command],
        env={**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == (
        "qwen3tts-np voice: warning: the reference clip is 1.0 s long; less than 3 s is too little of a voice, "
        "10 to 20 s is best\n"
    )


# --- show and list --------------------------------------------------------------------------------


def test_show(base, clip, tmp_path, capsys):
    file = tmp_path / "ada.safetensors"
    run("voice", "create", base, clip, "--text", "A short story, well told.", "-o", file)
    capsys.readouterr()
    assert run("voice", "show", file) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:7] == [
        str(file),
        "  model            0.6B",
        "  mode             in context",
        "  width            64",
        "  codes per frame  16",
        "  seconds          3.52",
        "  transcript       A short story, well told.",
    ]
    assert [line.split()[:2] for line in lines[7:8]] == [["speaker", "encoder"]]
    assert run("voice", "show", file, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    voice = VoiceClonePromptItem.load(file)
    assert voice.ref_code is not None
    assert found["ref_code"] == voice.ref_code.tolist()
    np.testing.assert_array_equal(np.array(found["ref_spk_embedding"], np.float32), voice.ref_spk_embedding)


def test_list(base, tmp_path, capsys):
    assert run("voice", "list", tmp_path) == 0
    assert capsys.readouterr().out == f"{tmp_path}: no voices\n"
    zero = np.zeros(4, np.float32)
    VoiceClonePromptItem(np.zeros((25, 16), int), zero, False, True, "a" * 70).save(tmp_path / "a.safetensors")
    VoiceClonePromptItem(None, zero, True, False, description="An old sailor").save(tmp_path / "b.safetensors")
    (tmp_path / "model.safetensors").write_bytes((Path(base) / "model.safetensors").read_bytes())  # no voice
    (tmp_path / "c.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:-1])
    assert run("voice", "list", tmp_path) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        f'{tmp_path / "a.safetensors"}: in context, 2.0 s, "{"a" * 57}..."',
        f'{tmp_path / "b.safetensors"}: speaker embedding, "An old sailor"',
    ]
    assert len(lines) == 3
    assert lines[2].startswith(str(tmp_path / "c.safetensors"))
    assert run("voice", "list", tmp_path, "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert [voice["seconds"] for voice in found["voices"]] == [2.0, None]
    assert found["problems"] == lines[2:]


# --- design ---------------------------------------------------------------------------------------


@pytest.fixture
def spoken(monkeypatch) -> list[dict[str, Any]]:
    """The design model speaks a tone of 4 s; random weights would babble without end."""
    calls: list[dict[str, Any]] = []

    def speak(model: Qwen3TTSModel, text: str, instruct: str, **options: Any) -> Any:
        model._require("voice_design", "generate_voice_design")
        calls.append({"text": text, "instruct": instruct, **options})
        return [tone(4.0)], RATE, [np.zeros((50, 16), np.int64)]  # a frame is 80 ms

    monkeypatch.setattr(Qwen3TTSModel, "generate_voice_design", speak)
    return calls


def test_from_a_description_to_a_voice_in_one_command(base, synthetic, spoken, tmp_path, capsys):
    file, kept = tmp_path / "sailor.safetensors", tmp_path / "sailor.wav"
    design = synthetic("tiny", "voice_design")
    options = ("--seed", 5, "--language", "german", "--clip", kept, "-o", file)
    assert run("voice", "design", design, base, "An old sailor", *options) == 0
    (call,) = spoken
    assert (call["text"], call["instruct"], call["seed"]) == (SENTENCES["german"], "An old sailor", 5)
    assert call["language"] == "german"
    assert soundfile.info(kept).duration == 4.0
    voice = VoiceClonePromptItem.load(file)
    assert (voice.description, voice.ref_text, voice.icl_mode) == ("An old sailor", SENTENCES["german"], True)
    direct = Qwen3TTSModel.from_pretrained(base).create_voice_clone_prompt((tone(4.0), RATE), SENTENCES["german"])[0]
    np.testing.assert_array_equal(voice.ref_code, direct.ref_code)
    assert capsys.readouterr().out == f'{file}: 0.6B, in context, 4.0 s, "An old sailor"\n'


def test_a_sentence_of_ones_own(base, synthetic, spoken, tmp_path):
    design = synthetic("tiny", "voice_design")
    sentence = "The rain has stopped, and the road is dry again."
    assert run("voice", "design", design, base, "Calm", "--sentence", sentence, "-o", tmp_path / "v") == 0
    assert (spoken[0]["text"], spoken[0]["language"], spoken[0]["seed"]) == (sentence, "auto", None)


@pytest.mark.parametrize("frames", [0, 20, None])  # of a sentence of some 75; None: as many as it may
def test_a_design_that_is_not_the_sentence_is_tried_again_and_refused(
    base, synthetic, tmp_path, monkeypatch, capsys, frames
):
    seeds = []

    def speak(_: Qwen3TTSModel, *__: Any, seed: int, max_new_tokens: int, **___: Any) -> Any:
        seeds.append(seed)
        n = max_new_tokens - 1 if frames is None else frames
        return [np.zeros(1920 * n, np.float32)], RATE, [np.zeros((n, 16), np.int64)]

    monkeypatch.setattr(Qwen3TTSModel, "generate_voice_design", speak)
    sentence = "The rain has stopped, and the road is dry again, they say in the valley."
    design = synthetic("tiny", "voice_design")
    options = ("--seed", 3, "--sentence", sentence, "-o", tmp_path / "v.safetensors")
    assert run("voice", "design", design, base, "Calm", *options) == 2
    assert seeds == [3, seed_of(3, 0, 1), seed_of(3, 0, 2)]
    assert "which cannot be the sentence" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_sentences_are_of_a_good_length_in_every_language(base):
    talker = Qwen3TTSModel.from_pretrained(base).config.talker_config
    assert {*SENTENCES, "auto"} == set(supported_languages(talker))
    for sentence in SENTENCES.values():
        assert 6_000 <= milliseconds(sentence) <= 14_000


def test_a_frame_is_that_of_the_codec(base):
    codec = Qwen3TTSModel.from_pretrained(base).speech_tokenizer
    assert codec.get_encode_downsample_rate() / codec.get_input_sample_rate() == FRAME


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("voice", "create", "BASE", "nowhere.wav"), "'nowhere.wav' cannot be read"),
        (("voice", "create", "CUSTOM", "CLIP"), "making a voice of a clip needs a base model"),
        (("voice", "create", "nowhere", "CLIP"), "nowhere is not a directory"),
        (("voice", "create", "BASE", "CLIP", "--text", "Hi.", "-o", "no/where"), "no/where cannot be written"),
        (("voice", "create", "BASE", "CLIP", "--text", ""), "ref_text of item 0 is missing"),
        (("voice", "design", "BASE", "BASE", "Calm"), "needs a voice_design model; this is a base model"),
        (("voice", "show", "nowhere"), "nowhere cannot be read: No such file"),
        (("voice", "show", "CLIP"), "ada.flac"),
        (("voice", "list", "nowhere"), "nowhere is not a directory"),
        (("say", "BASE", "Hello."), "a base model has no voice of its own: give --voice, or a clip"),
        (("say", "BASE", "Hello.", "--voice", "nowhere"), "nowhere cannot be read: No such file"),
        (("say", "CUSTOM", "Hello.", "--voice", "VOICE"), "--voice needs a base model; this is a custom_voice model"),
        (("say", "BASE", "Hello.", "--voice", "VOICE"), "shape [3], this model needs [64]; make the voice again"),
    ],
)
def test_a_mistake_is_one_line(arguments, told, base, synthetic, clip, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    VoiceClonePromptItem(None, np.zeros(3, np.float32), True, False).save("voice")
    paths = {"BASE": base, "CUSTOM": synthetic("tiny", "custom_voice"), "CLIP": clip, "VOICE": "voice"}
    before = sorted(tmp_path.iterdir())
    assert run(*(paths.get(argument, argument) for argument in arguments)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert told in err
    assert err.startswith(f"qwen3tts-np {arguments[0]}: ")
    assert err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("action", ["create", "design", "show", "list"])
def test_every_action_explains_itself_with_an_example(action, capsys):
    with pytest.raises(SystemExit):
        run("voice", action, "--help")
    out = capsys.readouterr().out
    assert f"\nexamples:\n  qwen3tts-np voice {action}" in out
    with pytest.raises(SystemExit):
        run("voice", "--help")
    assert action in capsys.readouterr().out
