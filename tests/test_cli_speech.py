"""``say`` and ``clone``: files, pipes, streams, JSON, progress, interruptions."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import struct
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import tiny_world
from ending import with_end

from qwen3tts_np import Qwen3TTSModel, VoiceClonePromptItem, cli
from qwen3tts_np.audio.encode import UNKNOWN, wav_header
from qwen3tts_np.audio.files import pcm16
from qwen3tts_np.cli import clone, say
from qwen3tts_np.cli.output import PIPE, open_sink
from qwen3tts_np.running_batch import RunningBatch
from qwen3tts_np.speech import delivery
from qwen3tts_np.speech.edges import trimmed
from qwen3tts_np.speech.plan import PAUSES, seed_of
from qwen3tts_np.talker.frame import Frame
from qwen3tts_np.text.pace import most_milliseconds
from qwen3tts_np.text.sentences import Break

RATE, FRAME = 24000, 1920
LONG = "It rained. The ferry came late, and nobody minded.\n\nIn the morning the sun was out again."


def load(checkpoint: Path, end: float = 2.0) -> Qwen3TTSModel:
    """A model whose speech ends after some frames, or where it cannot go on; with ``end=0`` it never does."""
    return Qwen3TTSModel.from_pretrained(with_end(checkpoint, end), threads=1)


@pytest.fixture(scope="module")
def custom(synthetic: Callable[..., Path]) -> Qwen3TTSModel:
    return load(synthetic("tiny", "custom_voice"))


@pytest.fixture(scope="module")
def base(synthetic: Callable[..., Path]) -> Qwen3TTSModel:
    return load(synthetic("tiny", "base"))


@pytest.fixture
def run(custom, base, tmp_path, monkeypatch) -> Callable[..., int]:
    """``run("say", ...)`` in an empty folder with a custom-voice model, ``run("clone", ...)`` with a base model."""
    monkeypatch.setattr(say, "load_model", lambda args, adapter=None: base if args.voice else custom)
    monkeypatch.setattr(clone, "load_model", lambda args, adapter=None: base)
    monkeypatch.chdir(tmp_path)
    return lambda command, *arguments: cli.main([command, "DIR", *map(str, arguments)])


def printed(capsys) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out)


# --- what is said of it ---------------------------------------------------------------------------


def test_json_says_what_was_made_and_the_seed_makes_it_again(run, capsys):
    assert run("say", "Hello there.", "--json", "-o", "a.wav") == 0
    found = printed(capsys)
    samples, rate = soundfile.read("a.wav")
    assert found["file"] == "a.wav"
    assert (found["seconds"], found["sample_rate"]) == (len(samples) / rate, rate)
    assert (found["frames"], found["codes"]) == (len(samples) // FRAME, len(samples) // FRAME * 16)
    assert found["rtf"] == pytest.approx(found["time_seconds"] / found["seconds"], abs=0.01)
    assert run("say", "Hello there.", "--seed", found["seed"], "-o", "b.wav") == 0
    assert re.fullmatch(
        rf"b\.wav: [\d.]+ s at 24000 Hz, seed {found['seed']}, RTF \d+\.\d\d\n", capsys.readouterr().out
    )
    assert Path("a.wav").read_bytes() == Path("b.wav").read_bytes()


def test_json_of_a_long_text_has_its_pieces(run, capsys):
    assert run("say", "--file", write(LONG), "--work", "w", "--json") == 0
    found = printed(capsys)
    assert [piece["text"] for piece in found["pieces"]] == [part.strip() for part in LONG.split("\n\n")]
    assert found["pieces"][-1]["end"] == found["seconds"]
    assert found["reused"] == 0
    assert run("say", "--file", "text.txt", "--work", "w", "--json", "--seed", found["seed"]) == 0
    again = printed(capsys)
    assert (again["reused"], again["rtf"], again["pieces"]) == (2, None, found["pieces"])


def write(text: str) -> Path:
    Path("text.txt").write_text(text, encoding="utf-8")
    return Path("text.txt")


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [
        ("wav", ("WAV", "PCM_16")),
        ("flac", ("FLAC", "PCM_16")),
        ("ogg", ("OGG", "VORBIS")),
        ("oga", ("OGG", "VORBIS")),
        ("opus", ("OGG", "OPUS")),
        ("mp3", ("MP3", "MPEG_LAYER_III")),
    ],
)
def test_the_suffix_names_the_format(run, suffix, kind):
    assert run("say", "Hello.", "-o", f"a.{suffix}", "--seed", 1) == 0
    found = soundfile.info(f"a.{suffix}")
    assert (found.format, found.subtype, found.samplerate) == (*kind, RATE)


def test_opus_needs_a_libsndfile_that_has_it(run, monkeypatch, capsys):
    monkeypatch.setattr(soundfile, "available_subtypes", lambda _: {"VORBIS": "Vorbis"})
    monkeypatch.setattr(soundfile, "__libsndfile_version__", "1.0.28")
    assert run("say", "Hello.", "-o", "a.opus") == 2
    assert capsys.readouterr().err == (
        "qwen3tts-np say: a.opus: .opus needs libsndfile 1.0.29, here it is 1.0.28; use .wav, .flac or .ogg\n"
    )


def test_mp3_needs_a_new_libsndfile(run, monkeypatch, capsys):
    monkeypatch.setattr(soundfile, "available_formats", lambda: {"WAV": "", "OGG": ""})
    monkeypatch.setattr(soundfile, "__libsndfile_version__", "1.0.31")
    assert run("say", "Hello.", "-o", "a.mp3") == 2
    assert capsys.readouterr().err == (
        "qwen3tts-np say: a.mp3: .mp3 needs libsndfile 1.1, here it is 1.0.31; use .wav, .flac or .ogg\n"
    )


def test_official_names_of_options_are_taken(run, custom):
    options = "--top_k 5 --subtalker_temperature=0.5 --subtalker_top_k 4 --no-do_sample --max-new-tokens 9".split()
    assert run("say", "Hello.", "--seed", 3, *options) == 0
    wavs, _ = custom.generate_custom_voice(
        "Hello.",
        custom.get_supported_speakers()[0],
        seed=3,
        subtalker_temperature=0.5,
        subtalker_top_k=4,
        do_sample=False,
        max_new_tokens=9,
    )
    np.testing.assert_allclose(soundfile.read("speech.wav")[0], wavs[0], rtol=0, atol=1 / 32768)  # 16-bit PCM


def test_an_underscore_in_a_text_is_no_option():
    assert cli.with_hyphens(["say", "a_b", "--top_k=3", "--x_y", "--", "--c_d"]) == [
        *"say a_b --top-k=3 --x-y -- --c_d".split()
    ]


# --- a speech without end -------------------------------------------------------------------------


@pytest.fixture
def endless(synthetic, monkeypatch) -> Qwen3TTSModel:
    model = load(synthetic("tiny", "custom_voice"), end=0)
    monkeypatch.setattr(say, "load_model", lambda args, adapter=None: model)
    return model


def test_a_short_text_that_does_not_stop_is_tried_again_and_cut(run, endless, capsys):
    with pytest.warns(UserWarning, match=r"^'So\.' did not stop in 3 attempts; it was cut after [\d.]+ s$"):
        assert run("say", "So.", "--seed", 5, "--json") == 0
    found, most = printed(capsys), -(-most_milliseconds("So.") // 80)
    assert (found["frames"], found["seed"]) == (most, 5)
    (piece,) = found["pieces"]
    assert (piece["attempts"], piece["seed"], piece["complete"]) == (3, 5, False)
    speaker = endless.get_supported_speakers()[0]
    wavs, _ = endless.generate_custom_voice("So.", speaker, seed=5, max_new_tokens=most + 1)
    np.testing.assert_allclose(soundfile.read("speech.wav")[0], wavs[0], rtol=0, atol=1 / 32768)  # 16-bit PCM
    with pytest.warns(UserWarning, match=r"^'So\.' did not stop; it was cut"):
        assert run("say", "So.", "--stream", "--seed", 5) == 0
    assert soundfile.info("speech.wav").frames == most * FRAME


def test_greedy_speech_that_does_not_stop_is_made_and_reported_once(run, endless, monkeypatch, capsys):
    joined: list[int] = []
    join = RunningBatch.join_jointly
    monkeypatch.setattr(RunningBatch, "join_jointly", lambda *a: (joined.append(1), join(*a))[1])
    for options in ([], ["--stream"]):
        with pytest.warns(UserWarning, match=r"^'So\.' did not stop; it was cut after [\d.]+ s$") as told:
            assert run("say", "So.", "--seed", 5, "--greedy", "--json", *options) == 0
        found = printed(capsys)
        assert (len(told), found["pieces"][0]["attempts"], found["seed"]) == (1, 1, 5)
    assert len(joined) == 2


def test_a_take_that_was_cut_and_seeded_anew_says_so_and_the_report_has_the_seed_given(run, monkeypatch, capsys):
    monkeypatch.setattr(delivery, "most_milliseconds", lambda text: 7 * 80)
    outcomes = set()
    for seed in range(12):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            assert run("say", "Hello there.", "--seed", seed) == 0
        assert f"seed {seed}" in capsys.readouterr().out
        outcomes |= {re.sub(r"\d+", "N", str(w.message)) for w in told}
    assert "'Hello there.' did not stop and was spoken again; attempt N is heard, with seed N" in outcomes


def test_a_limit_of_ones_own_is_no_fault(run, endless, recwarn):
    assert run("say", "So.", "--max-new-tokens", 4) == 0
    assert run("say", "So.", "--max-new-tokens", 4, "--stream") == 0
    assert soundfile.info("speech.wav").frames == 3 * FRAME
    assert not recwarn.list


# --- pipes and streams ----------------------------------------------------------------------------


def test_a_pipe_gets_the_same_bytes_as_a_file(run, capsysbinary):
    assert run("say", "Hello there.", "--seed", 2, "-o", "a.wav") == 0
    capsysbinary.readouterr()
    assert run("say", "Hello there.", "--seed", 2, "-o", "-") == 0
    out, err = capsysbinary.readouterr()
    assert (out, err) == (Path("a.wav").read_bytes(), b"")


def test_a_pipe_gets_a_long_text_too(run, capsysbinary):
    assert run("say", LONG, "--seed", 2, "-o", "a.wav", "--vtt", "a.vtt") == 0
    capsysbinary.readouterr()
    assert run("say", LONG, "--seed", 2, "-o", "-", "--vtt", "b.vtt") == 0
    assert capsysbinary.readouterr() == (Path("a.wav").read_bytes(), b"")
    assert Path("a.vtt").read_text() == Path("b.vtt").read_text()
    assert sorted(path.name for path in Path().iterdir()) == ["a.vtt", "a.wav", "b.vtt"]


def test_the_header_of_an_unfinished_wav():
    assert len(wav_header(RATE)) == 44
    samples, rate = soundfile.read(io.BytesIO(wav_header(RATE) + struct.pack("<3h", 0, 16384, -16384)))
    assert (samples.tolist(), rate) == ([0, 0.5, -0.5], RATE)


def test_a_stream_is_the_same_speech(run, capsysbinary):
    """Up to frame 300, where the official decoder starts anew, streamed and whole decode are the same samples."""
    assert run("say", "Hello there.", "--seed", 2, "-o", "a.wav") == 0
    assert run("say", "Hello there.", "--seed", 2, "-o", "b.wav", "--stream", "--packet-frames", 3) == 0
    whole, streamed = (soundfile.read(f"{name}.wav", dtype="int16")[0].astype(int) for name in "ab")
    assert len(whole) == len(streamed)
    assert np.abs(whole - streamed).max() <= 1  # of 32768: float32 sums in another order
    capsysbinary.readouterr()
    assert run("say", "Hello there.", "--seed", 2, "-o", "-", "--stream", "--raw") == 0
    raw = capsysbinary.readouterr().out
    assert run("say", "Hello there.", "--seed", 2, "-o", "-", "--stream") == 0
    assert capsysbinary.readouterr().out == wav_header(RATE) + raw
    assert np.abs(np.frombuffer(raw, "<i2") - streamed).max() <= 1


def test_a_stream_into_a_fifo_arrives_while_it_is_made(run, custom, capsysbinary):
    """Bytes of the first packet are there before the last is made: a FIFO holds less than the whole."""
    assert run("say", "Hello there.", "--seed", 2, "-o", "-", "--stream") == 0
    expected = capsysbinary.readouterr().out
    os.mkfifo("pipe.wav")
    heard: list[bytes] = []

    def read() -> None:
        with Path("pipe.wav").open("rb", buffering=0) as fifo:
            while block := fifo.read(1 << 20):
                heard.append(block)

    reader = threading.Thread(target=read)
    reader.start()
    assert run("say", "Hello there.", "--seed", 2, "-o", "pipe.wav", "--stream") == 0
    reader.join()
    assert b"".join(heard) == expected and heard[0] == wav_header(RATE)
    assert Path("pipe.wav").is_fifo()


LONG_NAME = "a" * 245 + ".wav"
TOO_LONG = "/".join(["d" * 200] * 24)


def test_a_name_as_long_as_the_system_allows(run):
    """Private names and the folder of pieces are longer than it, and are shortened."""
    assert run("say", LONG, "--seed", 2, "-o", LONG_NAME, "--srt", LONG_NAME.replace("wav", "srt")) == 0
    assert sorted(path.name for path in Path().iterdir()) == [LONG_NAME.replace("wav", "srt"), LONG_NAME]


@pytest.mark.parametrize(
    "arguments",
    [
        ["-o", f"{TOO_LONG}/a.wav"],
        ["-o", "a" * 300 + ".wav"],
        ["--srt", f"{TOO_LONG}/a.srt"],
        ["--voice", TOO_LONG],
        ["--work", TOO_LONG],
    ],
)
def test_a_name_that_is_too_long_is_one_short_sentence(run, arguments, capsys):
    assert run("say", LONG, *arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and len(err) < 3000
    assert list(Path().iterdir()) == []


def test_a_packet_is_written_before_the_next_is_made(run, custom, monkeypatch):
    """A monkeypatched model writes down when it is asked, a pipe when it is written to."""
    events: list[str] = []

    class Packets:
        written = 0

        def add(self, codes: Any) -> Any:
            self.written += 1
            if self.written % 2 == 0:
                yield np.full(FRAME * 2, self.written / 8, np.float32)

        def rest(self) -> Any:
            return iter(())

    def packets(self: Any, request: Any, packet_frames: int) -> Packets:
        assert packet_frames == 2
        return Packets()

    def frames(self: Any, requests: Any) -> Any:
        for i in range(6):
            events.append(f"made {i}")
            yield Frame(np.zeros(1, np.int64), np.zeros((1, 16), np.int64))

    class Pipe(io.BytesIO):
        def write(self, content: Any) -> int:
            events.append(f"wrote {len(content)}")
            return len(content)

        def flush(self) -> None:
            events.append("flushed")

    monkeypatch.setattr(Qwen3TTSModel, "packets", packets)
    monkeypatch.setattr(Qwen3TTSModel, "frames", frames)
    pipe = Pipe()
    written = SimpleNamespace(buffer=pipe, isatty=pipe.isatty, flush=lambda: None, fileno=pipe.fileno)
    monkeypatch.setattr(sys, "stdout", written)
    assert run("say", "Hello there.", "-o", "-", "--stream", "--packet-frames", "2") == 0
    packet = ["wrote 7680", "flushed"]
    made = (["made 0", "made 1"], ["made 2", "made 3"], ["made 4", "made 5"])
    assert events == ["wrote 44", "flushed", *(event for pair in made for event in (*pair, *packet))]


def test_a_long_stream_goes_piece_by_piece_with_pauses(run, custom, capsys):
    assert run("say", LONG, "--stream", "--seed", 4, "-o", "a.flac", "--json") == 0
    found = printed(capsys)
    speaker = custom.get_supported_speakers()[0]
    pieces = [
        np.concatenate(list(custom.stream_custom_voice(text.strip(), speaker, seed=seed_of(4, i))))
        for i, text in enumerate(LONG.split("\n\n"))
    ]
    pause = np.zeros(RATE * PAUSES[Break.PARAGRAPH] // 1000, np.float32)
    expected = np.concatenate([trimmed(pieces[0], RATE), pause, trimmed(pieces[1], RATE)])
    samples, _ = soundfile.read("a.flac", dtype="int16")
    np.testing.assert_array_equal(samples, pcm16(expected))
    assert found["seconds"] == len(samples) / RATE
    assert found["frames"] * 16 == found["codes"] == sum(map(len, pieces)) // FRAME * 16
    assert 0 < found["first_packet_seconds"] <= found["time_seconds"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-o", "-", "--json"], "-o - and --json both want standard output; give one of them"),
        (["-o", "a.xyz"], "a.xyz: the suffix '.xyz' names no audio format; use .wav, .flac, .ogg or .mp3"),
        (["--srt", "a.txt"], "a.txt: subtitles are .srt or .vtt files"),
        (["-o", "a.raw"], "a.raw cannot be written: .raw is no format for speech; use .wav, .flac or .ogg"),
        (["--voice", "a", "--instruct", "Sad"],
         "--instruct does not go with --voice: a base model speaks as its voice does"),
        (["--voice", "a", "--speaker", "ryan"],
         "--speaker does not go with --voice: a base model speaks as its voice does"),
        (["-o", "no/a.wav"], "no/a.wav cannot be written: no is no directory"),
        (["--raw"], "--raw is for --stream -o -: a file has a header"),
        (["--stream", "--vtt", "a"], "--stream and --vtt do not go together: a stream keeps no pieces and no times"),
        (["--stream", "--packet-frames", "0"], "packet_frames=0 must be a whole number of at least 1"),
        (["--top-k", "-1"], "top_k=-1 must be a whole number from 0 up (0 keeps all)"),
        (["--stream", "--speaker", "bob"], "speaker 'bob' is not in this model; it has aiden, dylan, eric, ono_anna, "
         "ryan, serena, sohee, uncle_fu, vivian"),
        (["--stream", "--file", "dots.txt"], "give a text or --file, not both"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_and_leaves_nothing(run, arguments, sentence, capsys):
    assert run("say", "Hello.", *arguments) == 2
    assert capsys.readouterr() == ("", f"qwen3tts-np say: {sentence}\n")
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(("mode", "patched"), [("w", True), ("a", False)])
def test_a_stream_into_a_file_has_its_lengths_and_a_file_that_grows_has_not(tmp_path, monkeypatch, mode, patched):
    """Appended to what is there, the header cannot be reached: what is written goes to the end."""
    path = tmp_path / "a.wav"
    path.write_bytes(b"before")
    samples = np.arange(-50, 50, dtype=np.int16)
    with path.open(mode) as file:
        monkeypatch.setattr(sys, "stdout", file)
        with open_sink(SimpleNamespace(output=PIPE, raw=False), RATE) as sink:
            sink.write(samples)
            sink.write(samples)
    content = path.read_bytes().removeprefix(b"before")
    np.testing.assert_array_equal(np.frombuffer(content[44:], "<i2"), np.tile(samples, 2))
    lengths = int.from_bytes(content[4:8], "little"), int.from_bytes(content[40:44], "little")
    assert lengths == ((36 + 400, 400) if patched else (UNKNOWN, UNKNOWN))


def test_audio_does_not_go_to_a_terminal(run, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert run("say", "Hello.", "-o", "-") == 2
    assert "a terminal; put a program behind it: | aplay" in capsys.readouterr().err


def test_nothing_to_say(run, capsys):
    assert run("say", "...", "--stream") == 2
    assert "there is nothing to say" in capsys.readouterr().err


# --- clone ----------------------------------------------------------------------------------------


@pytest.fixture
def clip(tmp_path: Path) -> str:
    t = np.arange(round(3.5 * RATE)) / RATE
    wave = 0.3 * np.sin(2 * np.pi * 150 * t) * np.sin(2 * np.pi * 2 * t) ** 2
    soundfile.write(tmp_path / "ada.wav", wave, RATE)
    return "ada.wav"


def test_clone_speaks_a_long_text_by_clip_and_by_saved_voice(run, clip, base, capsys):
    (voice,) = base.create_voice_clone_prompt(clip, "Ada hums a tune.")
    voice.save("ada.safetensors")
    assert run("clone", LONG, "--ref-audio", clip, "--ref-text", "Ada hums a tune.", "--seed", 1, "-o", "a.wav") == 0
    assert run("clone", "--file", write(LONG), "--voice", "ada.safetensors", "--seed", 1, "-o", "b.wav") == 0
    assert run("say", LONG, "--voice", "ada.safetensors", "--seed", 1, "-o", "c.wav", "--srt", "c.srt") == 0
    assert Path("a.wav").read_bytes() == Path("b.wav").read_bytes() == Path("c.wav").read_bytes()
    assert Path("c.srt").read_text().startswith("1\n00:00:00,000 --> ")


def test_clone_streams(run, clip):
    assert run("clone", "Hello.", "--ref-audio", clip, "--seed", 1, "-o", "a.wav") == 0
    assert run("clone", "Hello.", "--ref-audio", clip, "--seed", 1, "-o", "b.wav", "--stream") == 0
    assert soundfile.info("a.wav").frames == soundfile.info("b.wav").frames


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "give the voice, once: --ref-audio CLIP, or --voice FILE"),
        (["--ref-audio", "a.wav", "--voice", "v"], "give the voice, once: --ref-audio CLIP, or --voice FILE"),
        (["--voice", "v", "--ref-text", "Hm."], "--ref-text goes with --ref-audio; a saved voice has its own"),
    ],
)
def test_clone_needs_one_voice(run, arguments, sentence, capsys):
    assert run("clone", "Hello.", *arguments) == 2
    assert capsys.readouterr().err == f"qwen3tts-np clone: {sentence}\n"


def test_clone_needs_a_base_model(run, custom, monkeypatch, capsys):
    VoiceClonePromptItem(None, np.zeros(64, np.float32), True, False).save("v.safetensors")
    monkeypatch.setattr(clone, "load_model", lambda args, adapter=None: custom)
    assert run("clone", "Hello.", "--voice", "v.safetensors") == 2
    assert capsys.readouterr().err == "qwen3tts-np clone: clone needs a base model; this is a custom_voice model\n"


# --- progress -------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [[], ["--stream"]])
def test_a_terminal_sees_how_far_a_short_text_is(run, options, monkeypatch):
    shown = io.StringIO()
    monkeypatch.setattr(shown, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setattr(cli.progress, "EVERY", 0)
    assert run("say", "Hello there.", "--seed", 2, *options) == 0
    lines = shown.getvalue().split("\r")
    bars = [re.fullmatch(r"\[(#*)\.*\] ([\d.]+) s of speech, RTF [\d.]+, \d+:\d\d left\x1b\[K", x) for x in lines[3:-1]]
    assert re.fullmatch(r"\[#*\.*\] [\d.]+ s of speech\x1b\[K", lines[2])  # no speed yet
    assert all(bars) and len(bars) > 1
    seconds = [float(bar[2]) for bar in bars if bar]
    assert seconds == sorted(seconds)
    assert seconds[-1] == pytest.approx(soundfile.info("speech.wav").duration, abs=0.06)  # one decimal is shown
    assert lines[-1] == "\x1b[K"


def test_every_frame_is_told_by_both_backends(synthetic, custom):
    compiled = Qwen3TTSModel.from_pretrained(synthetic("tiny", "custom_voice"), threads=1)
    for model in (custom, compiled):
        told: list[int] = []
        _, _, codes = model.generate_custom_voice(
            ["Hello.", "Good morning."], "ryan", seed=3, max_new_tokens=9, return_codes=True, progress=told.append
        )
        assert told == list(range(1, max(map(len, codes)) + 1))


def test_a_long_text_on_the_compiled_kernels(run, synthetic, monkeypatch, capsys):
    compiled = Qwen3TTSModel.from_pretrained(synthetic("tiny", "custom_voice"), threads=2)
    monkeypatch.setattr(say, "load_model", lambda args, adapter=None: compiled)
    options = ["--seed", 1, "--work", "w", "--max-new-tokens", 6]
    for reused in (0, 2):
        assert run("say", LONG, *options, "-o", f"{reused}.wav", "--json") == 0
        assert printed(capsys)["reused"] == reused
    assert Path("0.wav").read_bytes() == Path("2.wav").read_bytes()


# --- signals, in a process of its own -------------------------------------------------------------


@pytest.fixture
def world(tmp_path, synthetic, monkeypatch) -> Path:
    tiny_world.build(tmp_path, synthetic)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


MODEL = "Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice"


@pytest.mark.parametrize("options", [[], ["--stream"]])
def test_a_listener_that_leaves_early_is_no_error(world, options):
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = ["qwen3tts-np", "say", MODEL, "Hello.", "-o", "-", *options]
    try:
        done = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, timeout=120, check=False)
    finally:
        os.close(write_end)
    assert (done.returncode, done.stderr) == (0, b"")


def test_ctrl_c_keeps_what_is_finished(world):
    Path("long.txt").write_text("\n\n".join(f"This is sentence number {i}." for i in range(400)))
    program = subprocess.Popen(
        ["qwen3tts-np", "say", MODEL, "--file", "long.txt", "--max-new-tokens", "30"], stderr=subprocess.PIPE, text=True
    )
    pieces = world / "speech.wav.pieces"
    end = time.monotonic() + 100
    while not list(pieces.glob("*.npz")) and time.monotonic() < end:
        time.sleep(0.05)
    program.send_signal(signal.SIGINT)
    _, err = program.communicate(timeout=60)
    assert program.returncode == 130
    assert "\nfinished pieces are kept in speech.wav.pieces; the same command goes on from there\n" in err
    assert "Traceback" not in err
    assert list(pieces.glob("*.npz"))
    assert not (world / "speech.wav").exists()
