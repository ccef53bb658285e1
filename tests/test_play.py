"""``--play``: what is heard is what is written, and a card that is not there or fails is a sentence."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile
from sound_card import SoundCard

from qwen3tts_np import Qwen3TTSModel, RequestError, cli
from qwen3tts_np.audio.play import open_player

TEXT = "It rained. [pause 0.5s] Nobody minded."


@pytest.fixture(scope="module")
def model(synthetic: Callable[..., Path]) -> Qwen3TTSModel:
    return Qwen3TTSModel.from_pretrained(synthetic("tiny", "custom_voice"), threads=1)


@pytest.fixture
def say(
    model: Qwen3TTSModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    monkeypatch.setattr("qwen3tts_np.cli.say.load_model", lambda args, adapter=None: model)
    monkeypatch.chdir(tmp_path)

    def run(*options: str) -> tuple[int, str]:
        words = ["say", ".", TEXT, "--markup", "--seed", "7", "--max-new-tokens", "9", *options]
        return cli.main(words), capsys.readouterr().err.removeprefix("qwen3tts-np say: ").rstrip("\n")

    return run


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> SoundCard:
    return SoundCard().install(monkeypatch)


def test_what_is_heard_is_what_is_written(say: Callable[..., tuple[int, str]], card: SoundCard) -> None:
    assert say("--play") == (0, "")
    samples, rate = soundfile.read("speech.wav", dtype="int16")
    np.testing.assert_array_equal(card.heard, samples)
    assert (card.rate, card.calls) == (rate, ["start", "stop", "close"])
    assert max(map(len, card.parts)) <= rate // 10
    assert say("--stream", "-o", "b.wav") == (0, "")
    assert Path("b.wav").read_bytes() == Path("speech.wav").read_bytes()


def test_a_card_that_fails_is_a_sentence_and_leaves_no_file(
    say: Callable[..., tuple[int, str]], card: SoundCard
) -> None:
    card.fails_after = 2
    assert say("--play") == (2, "the sound card has failed: the cable is out")
    assert card.calls[-1] == "close" and list(Path().iterdir()) == []


def test_no_card_and_no_library_are_said_before_the_work(
    say: Callable[..., tuple[int, str]], card: SoundCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    card.there = False
    assert say("--play") == (2, "there is no sound card to play on: Error querying device -1")
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert say("--play") == (2, "playing needs sounddevice, which is not installed: pip install 'qwen3tts-np[play]'")

    class WithoutPortAudio:
        def find_spec(self, name: str, *_: Any) -> None:
            if name == "sounddevice":
                raise OSError("PortAudio library not found")

    monkeypatch.delitem(sys.modules, "sounddevice")
    monkeypatch.setattr(sys, "meta_path", [WithoutPortAudio(), *sys.meta_path])
    assert say("--play") == (
        2,
        "playing needs PortAudio (PortAudio library not found): install libportaudio2, or portaudio",
    )
    assert list(Path().iterdir()) == []


def test_what_does_not_go_together(say: Callable[..., tuple[int, str]], card: SoundCard) -> None:
    assert say("--play", "--srt", "a.srt")[1].startswith(
        "--play and --srt do not go together: a stream keeps no pieces"
    )


def test_leaving_by_an_error_is_silent_at_once(card: SoundCard) -> None:
    def broken_off() -> None:
        with open_player(24000) as player:
            player.write(np.zeros(24000, np.int16))
            raise KeyError

    with pytest.raises(KeyError):
        broken_off()
    assert card.calls == ["start", "abort", "close"]


def test_a_rate_that_the_card_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("sounddevice")
    module.PortAudioError = ValueError

    def refuse(**_: Any) -> None:
        raise ValueError("Invalid sample rate")

    module.OutputStream = refuse
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    with (
        pytest.raises(RequestError, match="the sound card cannot play 24000 Hz: Invalid sample rate"),
        open_player(24000),
    ):
        pass
