"""Long texts on a tiny checkpoint: resumed, batched and cut off runs, and what lies between two pieces."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from itertools import count, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from ending import with_end

from qwen3tts_np import Qwen3TTSModel, RequestError, cli
from qwen3tts_np.audio.files import AudioWriter, pcm16, write_audio
from qwen3tts_np.cli import text_source
from qwen3tts_np.running_batch import RunningBatch
from qwen3tts_np.speech import delivery, edges, longform, subtitles, track
from qwen3tts_np.speech.edges import EDGE, FADE, QUIET
from qwen3tts_np.speech.longform import Narration, narrate
from qwen3tts_np.speech.plan import PAUSES, seed_of
from qwen3tts_np.speech.recorder import LEAD
from qwen3tts_np.speech.store import MARK
from qwen3tts_np.speech.take import ATTEMPTS, Take
from qwen3tts_np.talker.frame import Step
from qwen3tts_np.text.pace import milliseconds, most_milliseconds
from qwen3tts_np.text.sentences import split

ROOT = Path(__file__).parents[1]
RATE, FRAME = 24000, 0.08
PARAGRAPH = (
    "It was on a dreary night of No. 7 that I beheld my work. With an anxiety that almost amounted to agony, I "
    "collected the instruments around me, that I might infuse a spark into the lifeless thing that lay at my feet. "
    '"It was already one in the morning," he said; the rain pattered dismally against the panes. '
)
TEXT = "\n\n".join(f"Chapter {n}\n\n{PARAGRAPH}{PARAGRAPH}" for n in "IVXLC")  # 3,000 characters

# A second process, to be killed: it stands still after some pieces, with a track half written.
RUN = """
import sys, time
from pathlib import Path
from qwen3tts_np.speech.longform import narrate
from test_longform import load
model, text, output = sys.argv[1:]
narrate(
    load(Path(model)),
    Path(text).read_text(),
    output,
    speaker="ryan",
    progress=lambda p: p.pieces == 6 and (print("six", flush=True), time.sleep(600)),
    SEED
)
"""


@pytest.fixture(scope="module")
def checkpoint(synthetic: Callable[..., Path]) -> Path:
    return synthetic("tiny", "custom_voice")


def load(checkpoint: Path, end: float = 2.0, backend: str = "auto") -> Qwen3TTSModel:
    """A model with random weights that ends a piece after a few frames; with ``end=0`` it never does."""
    return Qwen3TTSModel.from_pretrained(with_end(checkpoint, end), backend=backend, threads=1)


def weights_of(model: Qwen3TTSModel) -> Any:
    return model.frame_loop.weights.talker


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Qwen3TTSModel:
    return load(checkpoint)


@pytest.fixture(scope="module")
def whole(model: Qwen3TTSModel, tmp_path_factory: pytest.TempPathFactory) -> tuple[Narration, bytes]:
    """``TEXT`` in one undisturbed run: what was made, and the bytes of the file."""
    output = tmp_path_factory.mktemp("whole") / "text.wav"
    return narrate(model, TEXT, output, seed=1, speaker="ryan"), output.read_bytes()


def folder_of(output: Path) -> Path:
    return output.with_name(f"{output.name}.pieces")


# --- one run --------------------------------------------------------------------------------------


def test_a_long_text_becomes_one_file(whole: tuple[Narration, bytes]) -> None:
    made, content = whole
    samples, rate = soundfile.read(io.BytesIO(content))
    assert rate == made.sample_rate == RATE
    assert len(samples) == round(made.seconds * RATE)
    pieces = split(TEXT)
    assert [p.text for p in made.pieces] == [p.spoken for p in pieces]
    assert len(pieces) > 12
    assert made.reused == 0
    assert made.pieces[-1].end == made.seconds


def test_pauses_are_as_documented_and_nothing_clicks(model: Qwen3TTSModel, tmp_path: Path) -> None:
    words = "on and on " * 60
    text = f"{PARAGRAPH * 3}\n\n* * *\n\nTitle\nVerse one here,\nAnd he went on, {words}. " + "and on, " * 60
    made = narrate(model, text, tmp_path / "o.flac", seed=3, speaker="ryan")
    samples, _ = soundfile.read(tmp_path / "o.flac", dtype="int16")
    pieces = split(text)
    pauses, ends = [], []
    for piece in pieces:
        if piece.has_words:
            pauses.append(PAUSES[piece.ends])
            ends.append(piece.ends)
        else:
            pauses[-1] += PAUSES[piece.ends]
    assert set(ends) == set(PAUSES)  # of every kind
    assert max(pauses) == 2 * PAUSES[pieces[-1].ends]  # "* * *"
    for (a, b), pause in zip(pairwise(made.pieces), pauses, strict=False):
        assert round(1000 * (b.start - a.end)) == pause
        assert not samples[round(a.end * RATE) : round(b.start * RATE)].any()
    fade = RATE * FADE // 1000
    for piece in made.pieces:
        part = np.abs(samples[round(piece.start * RATE) : round(piece.end * RATE)].astype(float)) / 32768
        assert part.max() > 0.01
        # a fade of f samples lets at most (pi n / 2 f)^2 of the n-th through
        ramp = (np.pi * np.arange(fade) / 2 / fade) ** 2 + 1e-4
        assert (part[:fade] <= ramp).all() and (part[::-1][:fade] <= ramp).all()


def test_silence_at_the_edges_of_a_piece_is_cut() -> None:
    tone = 0.5 * np.sin(2 * np.pi * 220 * np.arange(RATE) / RATE)
    hiss = QUIET * 0.9 * np.where(np.arange(RATE // 2) % 2, 1, -1)
    wave = np.concatenate([hiss, tone, hiss]).astype(np.float32)
    kept = pcm16(edges.trimmed(wave, RATE))
    assert abs(len(kept) - RATE - 2 * EDGE * RATE // 1000) <= 8  # samples in which the tone is as quiet
    assert np.abs(kept).max() == pytest.approx(0.5 * 32767, abs=1)
    assert kept[0] == kept[-1] == 0
    assert len(edges.trimmed(np.zeros(1000, np.float32), RATE)) == 0
    assert len(edges.trimmed(np.zeros(0, np.float32), RATE)) == 0
    assert pcm16(edges.trimmed(np.ones(3, np.float32), RATE)).tolist() == [0, 32767, 0]


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_batches_do_not_change_the_result(
    model: Qwen3TTSModel, whole: tuple[Narration, bytes], tmp_path: Path, batch_size: int
) -> None:
    told: list[list[tuple[str, int]]] = []
    options: dict[str, Any] = {"seed": 1, "speaker": "ryan", "batch_size": batch_size, "writing": told.append}
    made = narrate(model, TEXT, tmp_path / "o.wav", **options)
    assert made == whole[0]
    assert (tmp_path / "o.wav").read_bytes() == whole[1]
    assert max(map(len, told)) <= LEAD * batch_size
    # Where a piece ends the next begins, beside those that are still being spoken.
    assert batch_size > 3 or min(map(len, told[: -batch_size * 20])) >= batch_size


def test_the_same_words_twice_are_not_the_same_sound(model: Qwen3TTSModel, tmp_path: Path) -> None:
    made = narrate(model, "Yes, we do.\n\nYes, we do.\n\nYes, we do.", tmp_path / "o.wav", seed=5, speaker="ryan")
    samples, _ = soundfile.read(tmp_path / "o.wav")
    sounds = {samples[round(p.start * RATE) : round(p.end * RATE)].tobytes() for p in made.pieces}
    assert len(sounds) == 3


def test_progress_is_told_piece_by_piece(model: Qwen3TTSModel, tmp_path: Path) -> None:
    told: list[longform.Progress] = []
    made = narrate(model, TEXT, tmp_path / "o.wav", seed=1, speaker="ryan", progress=told.append)
    assert [p.pieces for p in told] == list(range(1, len(made.pieces) + 1))
    assert [p.seconds for p in told] == [p.end for p in made.pieces]
    assert told[-1].share == 1
    assert all(a.share < b.share for a, b in pairwise(told))


def test_a_base_model_keeps_the_voice_of_its_clip(synthetic: Callable[..., Path], tmp_path: Path) -> None:
    base = load(synthetic("tiny", "base"))
    clip = (np.sin(np.arange(9600) / 20).astype(np.float32), RATE)
    by_clip = narrate(base, PARAGRAPH, tmp_path / "a.wav", seed=2, ref_audio=clip, ref_text="It hums.")
    (voice,) = base.create_voice_clone_prompt(clip, "It hums.")
    by_voice = narrate(base, PARAGRAPH, tmp_path / "b.wav", seed=2, voice_clone_prompt=voice)
    assert by_clip == by_voice
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()


def test_a_designed_voice_is_cloned_from_the_first_piece_of_some_length(
    synthetic: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    design, base = load(synthetic("tiny", "voice_design")), load(synthetic("tiny", "base"))
    heard: list[Any] = []
    make = Qwen3TTSModel.voice
    monkeypatch.setattr(
        Qwen3TTSModel, "voice", lambda self, **k: ("ref_audio" in k and heard.append(k), make(self, **k))[1]
    )
    text = f"Title\n\n{PARAGRAPH}\n\nEnd."
    options: dict[str, Any] = {"seed": 4, "instruct": "Old.", "batch_size": 2, "base_model": base}
    made = narrate(design, text, tmp_path / "o.wav", **options)
    (reference,) = heard
    chosen = made.pieces[1]
    assert reference["ref_text"] == chosen.text
    samples, _ = soundfile.read(tmp_path / "o.wav", dtype="int16")
    np.testing.assert_array_equal(
        reference["ref_audio"][0], samples[round(chosen.start * RATE) : round(chosen.end * RATE)]
    )
    assert made.reused == 0
    again = narrate(design, text, tmp_path / "again.wav", work=tmp_path / "work", **options)
    assert again == made
    assert narrate(design, text, tmp_path / "again.wav", work=tmp_path / "work", **options).reused == len(made.pieces)


def test_a_designed_voice_without_a_base_model_is_warned_of(synthetic: Callable[..., Path], tmp_path: Path) -> None:
    design = load(synthetic("tiny", "voice_design"))
    with pytest.warns(UserWarning, match="designs the voice anew for each of the 2 pieces") as told:
        narrate(design, "One is here.\n\nTwo is here.", tmp_path / "o.wav", seed=4, instruct="Old.")
    assert [w.filename for w in told] == [__file__]


# --- interrupted runs -----------------------------------------------------------------------------


def killed(checkpoint: Path, output: Path, seed: str) -> None:
    """Run in another process, and kill it after some pieces."""
    (output.parent / "text.txt").write_text(TEXT)
    path = os.pathsep.join(str(ROOT / folder) for folder in (".", "kernels", "tests"))
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            RUN.replace("SEED", seed),
            str(checkpoint),
            str(output.parent / "text.txt"),
            str(output),
        ],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout as told:
        assert told.readline() == "six\n"
        process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def test_a_killed_run_goes_on_where_it_was(
    checkpoint: Path, model: Qwen3TTSModel, whole: tuple[Narration, bytes], tmp_path: Path
) -> None:
    output = tmp_path / "o.wav"
    killed(checkpoint, output, "seed=1")
    assert not output.exists()
    kept = list(folder_of(output).glob("*.npz"))
    assert 6 <= len(kept) < 6 + LEAD * 4  # those in the file, and what is finished beyond them
    assert len(whole[0].pieces) > 12
    (folder_of(output) / f".{kept[0].name}.1.partial").touch()  # as if killed while it wrote a piece
    made = narrate(model, TEXT, output, seed=1, speaker="ryan")
    assert made.reused == len(kept)
    assert made.pieces == whole[0].pieces
    assert output.read_bytes() == whole[1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o.wav", "text.txt"]  # nothing is left behind


def test_a_killed_run_without_a_seed_goes_on_with_the_one_it_drew(
    checkpoint: Path, model: Qwen3TTSModel, tmp_path: Path
) -> None:
    output = tmp_path / "o.wav"
    killed(checkpoint, output, "seed=None")
    (drawn,) = folder_of(output).glob("*.seed")
    seed = int(drawn.read_bytes())
    kept = len(list(folder_of(output).glob("*.npz")))
    assert narrate(model, TEXT, output, speaker="ryan").reused == kept >= 6
    narrate(model, TEXT, tmp_path / "direct.wav", seed=seed, speaker="ryan")
    assert output.read_bytes() == (tmp_path / "direct.wav").read_bytes()


def test_a_folder_of_ones_own_stays_and_a_new_text_costs_what_is_new(model: Qwen3TTSModel, tmp_path: Path) -> None:
    def run(text: str, **changed: Any) -> Narration:
        options = {"seed": 1, "speaker": "ryan", **changed}
        return narrate(model, text, tmp_path / "o.wav", work=tmp_path / "work", **options)

    text = "\n\n".join(f"This is paragraph {n}." for n in range(6))
    assert run(text).reused == 0
    assert run(text).reused == 6
    assert run(text.replace("4", "four") + "\n\nA new one.").reused == 5
    assert run("A new one.\n\n" + text).reused == 0  # all others have another number, and so another seed
    for changed in ({"seed": 2}, {"speaker": "vivian"}, {"top_k": 3}, {"language": "english"}):
        assert run(text, **changed).reused == 0, changed
    assert run(text, top_p=None, batch_size=1).reused == 6
    greedy = {"do_sample": False, "subtalker_dosample": False}
    assert run(text, **greedy).reused == 0
    assert run("A new one.\n\n" + text, **greedy, seed=2).reused == 6  # where nothing is drawn no seed counts


def test_another_model_shares_no_pieces(checkpoint: Path, tmp_path: Path) -> None:
    model, other = (load(checkpoint, backend="reference") for _ in range(2))
    text = "This is it.\n\nAnd this."
    narrate(model, text, tmp_path / "o.wav", work=tmp_path / "work", seed=1, speaker="ryan")
    assert narrate(other, text, tmp_path / "o.wav", work=tmp_path / "work", seed=1, speaker="ryan").reused == 2
    weights_of(other).codec_head[7, 3] *= 1.001
    assert narrate(other, text, tmp_path / "o.wav", work=tmp_path / "work", seed=1, speaker="ryan").reused == 0


SHORT = "\n\n".join(f"This is paragraph {n}." for n in range(4))


def test_the_generation_configuration_is_in_the_key(model: Qwen3TTSModel, tmp_path: Path) -> None:
    assert reused(model, tmp_path, speaker="ryan") == 0
    assert reused(replace(model), tmp_path, speaker="ryan") == 4
    config = replace(model.generation_config, subtalker_temperature=0.5)
    assert reused(replace(model, generation_config=config), tmp_path, speaker="ryan") == 0


def test_the_text_tokenizer_is_in_the_key(model: Qwen3TTSModel, tmp_path: Path) -> None:
    assert reused(model, tmp_path, speaker="ryan") == 0
    encode = model.text_tokenizer.encode
    other = SimpleNamespace(encode=lambda text: encode(text.replace("paragraph", "hpargarap")))
    assert reused(replace(model, text_tokenizer=other), tmp_path, speaker="ryan") == 0


def test_the_transcript_is_in_the_key(synthetic: Callable[..., Path], tmp_path: Path) -> None:
    base = load(synthetic("tiny", "base"))
    clip = (np.sin(np.arange(9600) / 20).astype(np.float32), RATE)
    (voice,) = base.create_voice_clone_prompt(clip, "It hums.")
    assert reused(base, tmp_path, voice_clone_prompt=voice) == 0
    assert reused(base, tmp_path, voice_clone_prompt=replace(voice)) == 4
    assert reused(base, tmp_path, voice_clone_prompt=replace(voice, ref_text="It sings.")) == 0


def test_whether_a_designed_voice_was_cut_is_in_the_key(
    synthetic: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    design, base = load(synthetic("tiny", "voice_design")), load(synthetic("tiny", "base"))
    options = {"instruct": "Old.", "base_model": base}
    assert reused(design, tmp_path, **options) == 0
    assert reused(design, tmp_path, **options) == 4
    monkeypatch.setattr(Take, "is_complete", lambda self, frames: False)
    assert reused(design, tmp_path, **options) == 1  # the designed piece itself


def reused(model: Qwen3TTSModel, folder: Path, **options: Any) -> int:
    """How many pieces of ``SHORT`` a run finds in the folder where all such runs keep theirs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a clip that is short
        return narrate(model, SHORT, folder / "o.wav", work=folder / "work", seed=1, max_new_tokens=6, **options).reused


def test_a_run_that_is_killed_anywhere_goes_on_to_the_same_bytes(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a child that kills itself at the n-th file that gets its name, or part of the track that is written."""
    model = load(checkpoint, backend="reference")
    options: dict[str, Any] = {"seed": 1, "speaker": "ryan", "max_new_tokens": 5, "batch_size": 2}
    narrate(model, SHORT, tmp_path / "whole.wav", **options)
    whole = (tmp_path / "whole.wav").read_bytes()
    for last in (0, 1, 2, 4, 6, 8, 11):
        output = tmp_path / f"{last}.wav"
        child = os.fork()
        if child == 0:
            events = count(1)

            def dying(function: Any, events: Any = events, last: int = last) -> Any:
                def counted(*a: Any, **k: Any) -> Any:
                    if next(events) > last:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return function(*a, **k)

                return counted

            os.replace = dying(os.replace)
            AudioWriter.write = dying(AudioWriter.write)  # type: ignore[method-assign]
            narrate(model, SHORT, output, **options)
            os._exit(1)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        assert not output.exists()
        narrate(model, SHORT, output, **options)
        assert output.read_bytes() == whole
        assert [p.name for p in tmp_path.iterdir() if p.name.lstrip(".").startswith(f"{last}.")] == [output.name]


def test_a_folder_of_somebody_else_is_left_alone(model: Qwen3TTSModel, tmp_path: Path) -> None:
    output = tmp_path / "o.wav"
    folder_of(output).mkdir()
    theirs = ["data.npz", "lucky.seed", ".draft.partial", f"{'0' * 64}.npz"]
    for name in theirs:
        (folder_of(output) / name).write_text(name)
    narrate(model, SHORT, output, seed=1, speaker="ryan", max_new_tokens=6)
    assert {p.name: p.read_text() for p in folder_of(output).iterdir()} == {name: name for name in theirs}


def test_a_folder_of_ours_goes_unless_it_holds_something_else(model: Qwen3TTSModel, tmp_path: Path) -> None:
    output = tmp_path / "o.wav"
    told: list[str] = []

    def add_a_file(_: longform.Progress) -> None:
        told[:] = sorted(p.name for p in folder_of(output).iterdir())
        (folder_of(output) / "notes.txt").write_text("mine")

    narrate(model, SHORT, output, seed=1, speaker="ryan", max_new_tokens=6, progress=add_a_file)
    assert MARK in told and len(told) == 4 + 2
    assert sorted(p.name for p in folder_of(output).iterdir()) == ["notes.txt", MARK]
    narrate(model, SHORT, tmp_path / "p.wav", seed=1, speaker="ryan", max_new_tokens=6)
    assert not folder_of(tmp_path / "p.wav").exists()


def test_a_damaged_piece_is_made_again(model: Qwen3TTSModel, whole: tuple[Narration, bytes], tmp_path: Path) -> None:
    narrate(model, TEXT, tmp_path / "o.wav", work=tmp_path / "work", seed=1, speaker="ryan")
    pieces = sorted((tmp_path / "work").glob("*.npz"))
    pieces[0].write_bytes(pieces[0].read_bytes()[:-30])
    pieces[1].write_bytes(b"")
    made = narrate(model, TEXT, tmp_path / "o.wav", work=tmp_path / "work", seed=1, speaker="ryan")
    assert made.reused == len(pieces) - 2
    assert (tmp_path / "o.wav").read_bytes() == whole[1]


# --- pieces that do not stop ----------------------------------------------------------------------


def most_frames(text: str) -> int:
    return int(np.ceil(most_milliseconds(text) / 80))


def test_a_model_that_never_stops_is_cut(checkpoint: Path, tmp_path: Path) -> None:
    endless = load(checkpoint, end=0)
    text = "Hi.\n\nNo, not you."
    with pytest.warns(UserWarning, match="did not stop") as told:
        made = narrate(endless, text, tmp_path / "o.wav", seed=1, speaker="ryan", top_k=5, runaway_guard=True)
    assert [str(w.message)[:40] for w in told] == [
        "'Hi.' did not stop in 3 attempts; it was",
        "'No, not you.' did not stop in 3 attempt",
    ]
    assert {w.filename for w in told} == {__file__}
    for piece in made.pieces:
        assert (piece.attempts, piece.complete) == (ATTEMPTS, False)
        assert 0.5 < (piece.end - piece.start) / (most_frames(piece.text) * FRAME) < 1.0001
    # the shorter one is cut at its own limit, whoever is in the batch
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options: dict[str, Any] = {"speaker": "ryan", "top_k": 5, "batch_size": 1, "runaway_guard": True}
        narrate(endless, text, tmp_path / "single.wav", seed=1, **options)
    assert (tmp_path / "single.wav").read_bytes() == (tmp_path / "o.wav").read_bytes()


def test_a_piece_that_does_not_stop_is_tried_with_other_seeds(
    model: Qwen3TTSModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "most_milliseconds", lambda text: 7 * 80)
    text = "\n\n".join(f"This is paragraph {n}." for n in range(12))
    with pytest.warns(UserWarning, match="did not stop") as told:
        made = narrate(model, text, tmp_path / "o.wav", seed=1, speaker="ryan", runaway_guard=True)
    outcomes = {(p.attempts, p.complete) for p in made.pieces}
    assert {(1, True), (2, True), (3, False)} <= outcomes <= {(1, True), (2, True), (3, True), (3, False)}
    assert len(told) == sum(p.attempts > 1 for p in made.pieces)
    again = next(p for p in made.pieces if p.complete and p.attempts > 1)
    assert any(str(w.message).endswith(f"attempt {again.attempts} is heard, with seed {again.seed}") for w in told)
    for number, piece in enumerate(made.pieces):  # where no attempt stops the first is kept
        assert piece.seed == seed_of(1, number, piece.attempts - 1 if piece.complete else 0)
    assert max(p.end - p.start for p in made.pieces) < 7.001 * FRAME


def test_the_limit_is_out_of_reach_of_slow_speech() -> None:
    """25 frames and, for each character of a script, at least twice what the slowest readers take."""
    assert most_frames("") == 25
    for text, characters_a_second in (("a" * 100, 6), ("あ" * 100, 3), ("한" * 100, 2.5), ("汉" * 100, 2)):
        assert most_frames(text) >= 25 + 100 / characters_a_second / FRAME
        assert most_frames(text) <= 25 + 10 * 100


# --- subtitles ------------------------------------------------------------------------------------


def test_subtitles_follow_the_speech(model: Qwen3TTSModel, tmp_path: Path) -> None:
    text = "Fish & chips --> <b>yes</b>.\n\n" + PARAGRAPH
    files = [tmp_path / "o.srt", tmp_path / "o.vtt"]
    made = narrate(model, text, tmp_path / "o.wav", seed=1, speaker="ryan", subtitles=files)
    srt, vtt = (file.read_text(encoding="utf-8") for file in files)
    assert srt.startswith("1\n00:00:00,000 --> 00:00:0")
    assert vtt.startswith("WEBVTT\n\n00:00:00.000 --> 00:00:0")
    assert "Fish & chips --> <b>yes</b>." in srt
    assert "Fish &amp; chips --&gt; &lt;b&gt;yes&lt;/b&gt;." in vtt
    times = [
        [
            int(h) * 3600 + int(m) * 60 + float(s.replace(",", "."))
            for h, m, s in re.findall(r"(\d+):(\d+):([\d,]+)", line)
        ]
        for line in re.findall(r"\n(\d\d:.* --> .*)\n", srt)
    ]
    assert len(times) == vtt.count(" --> ") > len(made.pieces)
    assert all(a <= b for a, b in times)
    assert all(a[1] <= b[0] for a, b in pairwise(times))
    starts = [a for a, _ in times]
    for piece in made.pieces:
        assert any(abs(start - piece.start) < 0.002 for start in starts)
    assert times[-1][1] == pytest.approx(made.seconds, abs=0.002)
    lines = [cue.split("\n")[2] for cue in srt.strip().split("\n\n")]
    assert all(milliseconds(line) <= 6000 for line in lines)
    assert " ".join(lines) == " ".join(text.split())


def test_hours_in_subtitles() -> None:
    assert subtitles.timestamp(3 * 3600 + 4 * 60 + 5.0604, ",") == "03:04:05,060"
    assert subtitles.timestamp(359999.9996, ".") == "100:00:00.000"


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"text": " * * *\n"}, "there is nothing to say"),
        ({"output": "o.xyz"}, "names no audio format"),
        ({"output": "missing/o.wav"}, "cannot be written: No such file or directory"),
        ({"subtitles": ["o.txt"]}, "subtitles are .srt or .vtt files"),
        ({"subtitles": ["missing/o.srt"]}, "is no directory"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"target": 20}, "the target must be"),
        ({"seed": 0.5}, "seed=0.5 must be a whole number"),
        ({"speaker": "Bob"}, "speaker 'Bob' is not in this model"),
        ({"speaker": ["ryan", "aiden"]}, "speaker is a list"),
        ({"beams": 4}, "there is no argument 'beams'"),
        ({"max_new_tokens": 0}, "max_new_tokens=0 must be"),
        ({"language": "Klingon"}, "language 'Klingon'"),
        ({"base_model": True}, "this is a custom_voice model"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(
    model: Qwen3TTSModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments: dict[str, Any] = {"text": "One.\n\nTwo.", "output": "o.wav", "speaker": "ryan", **changed}
    if "base_model" in changed:
        arguments["base_model"] = model
    with pytest.raises(RequestError, match=re.escape(sentence)) as error:
        narrate(model, **arguments)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_base_model_needs_one_voice(synthetic: Callable[..., Path], tmp_path: Path) -> None:
    base = load(synthetic("tiny", "base"))
    clip = (np.sin(np.arange(9600) / 20).astype(np.float32), RATE)
    with pytest.raises(RequestError, match="no voice of its own"):
        narrate(base, "One.", tmp_path / "o.wav")
    with pytest.raises(RequestError, match="has 2 voices"):
        narrate(base, "One.", tmp_path / "o.wav", ref_audio=[clip, clip], ref_text=["a", "b"])


def test_a_wav_file_has_an_end(model: Qwen3TTSModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(track, "WAV_BYTES", 2 * RATE)
    with pytest.raises(RequestError, match=r"write \.flac, finished pieces are kept"):
        narrate(model, TEXT, tmp_path / "o.wav", seed=1, speaker="ryan")
    assert [p.name for p in tmp_path.iterdir()] == ["o.wav.pieces"]
    assert narrate(model, TEXT, tmp_path / "o.flac", work=tmp_path / "o.wav.pieces", seed=1, speaker="ryan").reused


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def say(
    model: Qwen3TTSModel,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., int]:
    monkeypatch.setattr("qwen3tts_np.cli.say.load_model", lambda args, adapter=None: model)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path_factory.mktemp("model")
    return lambda *arguments: cli.main(["say", str(folder), "--seed", "1", "--speaker", "ryan", *map(str, arguments)])


def pipe(content: bytes) -> Any:
    return SimpleNamespace(buffer=io.BytesIO(content), isatty=lambda: False)


def test_say_speaks_a_long_text_from_anywhere(
    say: Callable[..., int], whole: tuple[Narration, bytes], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    Path("text.txt").write_bytes(b"\xef\xbb\xbf" + TEXT.encode() + b"\n")
    assert say(TEXT.strip(), "-o", "a.wav") == 0
    assert (
        say("--file", "text.txt", "-o", "b.wav", "--srt", "b.srt", "--vtt", "b.vtt", "--work", "w", "--batch", 2) == 0
    )
    monkeypatch.setattr(sys, "stdin", pipe(TEXT.encode()))
    assert say("-", "-o", "c.wav", "--work", "w") == 0
    monkeypatch.setattr(sys, "stdin", pipe(TEXT.encode()))
    assert say("-o", "d.wav", "--work", "w") == 0
    for name in "abcd":
        assert Path(f"{name}.wav").read_bytes() == whole[1]
    out, err = capsys.readouterr()
    made = whole[0]
    line = rf"a\.wav: {made.seconds:.2f} s at 24000 Hz, in {len(made.pieces)} pieces, seed 1, RTF \d+\.\d\d"
    assert re.fullmatch(line, out.splitlines()[0])
    assert err == ""  # no progress where it is not a terminal
    assert sorted(p.name for p in Path().iterdir()) == [
        *"a.wav b.srt b.vtt b.wav c.wav d.wav text.txt w".split(),
    ]
    assert len(list(Path("w").glob("*.npz"))) == len(made.pieces)


def test_say_speaks_a_short_text_as_the_library_does(say: Callable[..., int], model: Qwen3TTSModel) -> None:
    assert say("Hello there.", "-o", "a.wav") == 0
    (wave,), rate = model.generate_custom_voice("Hello there.", "ryan", seed=1)[:2]
    write_audio("b.wav", wave, rate)
    assert Path("a.wav").read_bytes() == Path("b.wav").read_bytes()
    assert say("Hello there.", "-o", "c.wav", "--srt", "c.srt") == 0
    assert Path("c.srt").read_text().endswith("\nHello there.\n\n")


def test_say_shows_progress_on_a_terminal(say: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(shown, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", shown)
    assert say(TEXT, "-o", "a.wav") == 0
    lines = shown.getvalue().split("\r")
    ahead = r"[\d.]+ s of speech, RTF \d+\.\d\d, \d+:\d\d left\x1b\[K"
    third = next(line for line in lines if " 3/" in line)
    assert re.fullmatch(r"\[#+\.+\] 3/\d+ pieces, " + ahead, third)
    assert re.match(r"\[\.+\] [\d.]+ s of speech", lines[2])  # the first frames, before there is a piece
    assert lines[-1] == "\x1b[K"


def test_say_tells_where_an_interrupted_run_is_kept(
    say: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    step = RunningBatch.step
    ended: list[int] = []

    def interrupted(self: RunningBatch) -> Step:
        if len(ended) >= 2:
            raise KeyboardInterrupt
        made = step(self)
        ended.extend(made.ended)
        return made

    monkeypatch.setattr(RunningBatch, "step", interrupted)
    assert say(TEXT, "-o", "a.wav") == 130
    assert capsys.readouterr().err == (
        "\nfinished pieces are kept in a.wav.pieces; the same command goes on from there\n"
    )
    assert [p.name for p in Path().iterdir()] == ["a.wav.pieces"]


@pytest.mark.parametrize(
    ("arguments", "content", "sentence"),
    [
        (["Text.", "--file", "text.txt"], b"", "give a text or --file, not both"),
        (["--file", "none.txt"], b"", "none.txt cannot be read: No such file or directory"),
        ([], b" \n", "standard input is empty"),
        (["-"], b"caf\xe9", "standard input is not UTF-8 text: byte 3 is 0xe9"),
        (["-"], b"Hello, " * 9, "standard input has more than 50 bytes; a text has no more"),
        (["caf\udce9"], b"", "text is not UTF-8 text: byte 3 is 0xe9"),
        (["Hello.", "--srt", "o.ass"], b"", "o.ass: subtitles are .srt or .vtt files"),
    ],
)
def test_say_refuses_a_text_in_one_sentence(
    say: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
    arguments: list[str],
    content: bytes,
    sentence: str,
) -> None:
    monkeypatch.setattr(text_source, "MOST_TEXT", 50)
    monkeypatch.setattr(sys, "stdin", pipe(content))
    assert say(*arguments) == 2
    assert capsys.readouterr().err == f"qwen3tts-np say: {sentence}\n"
    assert list(Path().iterdir()) == []


def test_say_does_not_wait_for_a_keyboard(
    say: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    assert say() == 2
    assert "there is no text" in capsys.readouterr().err
