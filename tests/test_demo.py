"""The demo voice: what it refuses, how texts become what it reads, and that it really speaks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen3tts_np import Qwen3TTSModel
from qwen3tts_np.cli import main
from qwen3tts_np.errors import RequestError
from qwen3tts_np.speech import demo

KNOWN = sorted(demo.vocabulary())


def test_a_text_becomes_words_it_knows():
    assert demo.readable("Hello, World!") == "hello world"
    assert demo.readable("Open the door.\nThank you") == "open the door\n\nthank you"
    assert demo.readable("I see 0, 12, 20 and 99.") == "i see zero twelve twenty and ninety nine"


@given(st.lists(st.sampled_from(KNOWN), min_size=1, max_size=60))
def test_long_sentences_are_cut_into_equal_parts_without_loss(words):
    pieces = demo.readable(" ".join(words)).split("\n\n")
    assert " ".join(pieces).split() == words
    lengths = [len(piece.split()) for piece in pieces]
    assert max(lengths) <= demo.LONGEST and max(lengths) - min(lengths) <= 1


@given(st.integers(0, 99))
def test_numbers_are_spelled_in_words_it_knows(number):
    assert set(demo.spelled(number)) <= demo.vocabulary()


def test_unknown_words_are_named_once_with_some_it_knows_and_the_way_to_a_real_model():
    with pytest.raises(RequestError) as caught:
        demo.readable("Open the banana, the banana and the Fjord.")
    message = str(caught.value)
    assert message.startswith("the demo voice does not know 'banana', 'fjord'; it knows ")
    assert sum(f"{word}," in message or f"{word};" in message for word in KNOWN) >= 10
    assert "Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice" in message


@pytest.mark.parametrize("text", ["...", "  ", "100", "3rd", "größer", "it's"])
def test_what_has_no_word_or_no_known_one_is_refused(text):
    with pytest.raises(RequestError):
        demo.readable(text)


@pytest.mark.parametrize("piped", [False, True])
def test_a_file_or_a_pipe_without_a_model_is_spoken_by_the_demo_voice(piped, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("Hello world.\n", encoding="utf-8")
    options = ["--seed", "1", "--max-new-tokens", "4"]
    assert main(["say", "hello world", *options, "-o", "as.wav"]) == 0
    with open("text.txt", encoding="utf-8") as text:
        monkeypatch.setattr("sys.stdin", text)
        assert main(["say", *([] if piped else ["--file", "text.txt"]), *options]) == 0
    assert (tmp_path / "speech.wav").read_bytes() == (tmp_path / "as.wav").read_bytes()
    assert "this is the demo voice" in capsys.readouterr().err


@pytest.mark.parametrize("only", ["hello world", "hello", "-"])
def test_one_argument_is_a_text(only):
    assert demo.is_meant(only)


def test_one_argument_that_names_a_model_is_not_a_text(tmp_path):
    for model in (tmp_path, "Qwen/Qwen3-TTS-12Hz-0.6B-Base", "Qwen3-TTS-12Hz-0.6B-Base", "models/mine"):
        assert not demo.is_meant(model)


def test_say_without_a_model_refuses_what_the_demo_voice_cannot_say(tmp_path, capsys):
    output = tmp_path / "speech.wav"
    assert main(["say", "a quick fox", "-o", str(output)]) == 2
    assert "does not know 'quick', 'fox'" in capsys.readouterr().err
    assert not output.exists()


def test_say_without_a_model_speaks_and_says_who_speaks(tmp_path, capsys):
    output = tmp_path / "speech.wav"
    assert main(["say", "Hello, world!", "--seed", "1", "-o", str(output)]) == 0
    assert output.stat().st_size > 24000  # half a second
    said = capsys.readouterr().err
    assert "this is the demo voice" in said and "Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice" in said


def test_the_two_voices_have_their_pitch_and_speech_ends_by_itself():
    model = Qwen3TTSModel.from_pretrained(demo.CHECKPOINT, backend="reference")
    assert model.get_supported_speakers() == ["oak", "reed"]
    pitches = []
    for speaker in ("oak", "reed"):
        (wave,), rate, (codes,) = model.generate_custom_voice(
            "open the door", speaker, "english", do_sample=False, subtalker_dosample=False, return_codes=True
        )
        assert 8 <= len(codes) <= 24  # three words; espeak-ng takes 14 frames
        pitches.append(pitch(wave, rate))
    assert pitches == pytest.approx([100, 150], abs=3)


def pitch(wave: np.ndarray, rate: int) -> float:
    """The strongest period between 70 and 220 Hz, by autocorrelation."""
    spectrum = np.fft.rfft(wave, 2 * len(wave))
    correlation = np.fft.irfft(np.abs(spectrum) ** 2)
    lags = np.arange(rate // 220, rate // 70)
    return rate / lags[np.argmax(correlation[lags])]
