"""One policy for every sink: the same pieces, seeds, codes and samples from the command line and from Python."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3tts_np import Qwen3TTSModel, RequestError, cli
from qwen3tts_np.codec import decoder
from qwen3tts_np.compiled.codec import decoder as compiled_decoder
from qwen3tts_np.ops import Ints
from qwen3tts_np.running_batch import RunningBatch
from qwen3tts_np.speech import edges, live
from qwen3tts_np.speech.edges import EDGE, FADE, QUIET, Edges
from qwen3tts_np.speech.longform import narrate
from qwen3tts_np.speech.plan import plan, seed_of
from qwen3tts_np.talker.frame import Step
from qwen3tts_np.text.clean import Cleaning, clean
from qwen3tts_np.text.pace import milliseconds, most_milliseconds

RATE = 24000
PIECES = ["It rained, and nobody minded.", "In the morning the sun was out."]
TEXTS = {"one piece": PIECES[:1], "two pieces": PIECES}
CHOICES: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False, "subtalker_dosample": False},
    "seeded": {"seed": 7},
}
OPTIONS = {"greedy": ["--greedy"], "seeded": ["--seed", "7"]}
MOST = 9  # tokens: eight frames

Codes = list[list[Ints]]


@pytest.fixture(scope="module")
def model(synthetic: Callable[..., Path]) -> Qwen3TTSModel:
    return Qwen3TTSModel.from_pretrained(synthetic("tiny", "custom_voice"), threads=1)


@pytest.fixture
def spoken_codes(monkeypatch: pytest.MonkeyPatch) -> Codes:
    """The frames [G] of every piece that is spoken, in the order in which they were begun."""
    found: Codes = []
    at: dict[tuple[RunningBatch, int], list[Ints]] = {}
    join, step = RunningBatch.join_jointly, RunningBatch.step

    def joined(self: RunningBatch, requests: Any, generator: Any) -> list[int]:
        places = join(self, requests, generator)
        for place in places:
            found.append([])
            at[self, place] = found[-1]
        return places

    def stepped(self: RunningBatch) -> Step:
        made = step(self)
        for place, codes in zip(made.places.tolist(), made.codes, strict=True):
            at[self, place].append(codes)
        return made

    monkeypatch.setattr(RunningBatch, "join_jointly", joined)
    monkeypatch.setattr(RunningBatch, "step", stepped)
    return found


@pytest.fixture
def say(model: Qwen3TTSModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., bytes]:
    """``say(text, *options)``: the samples, as the bytes of 16-bit integers."""
    monkeypatch.setattr("qwen3tts_np.cli.say.load_model", lambda args, adapter=None: model)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: Any) -> bytes:
        assert cli.main(["say", ".", *map(str, arguments), "--speaker", "ryan", "--max-new-tokens", str(MOST)]) == 0
        return Path("speech.wav").read_bytes()[44:] if "-o" not in arguments else b""

    return run


def wrapped(pieces: list[str]) -> str:
    """Each piece on two lines, with the line ends of Windows."""
    return "\r\n\r\n".join(piece.replace(", ", ",\r\n").replace("the sun", "the\r\nsun") for piece in pieces)


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("pieces", TEXTS)
def test_a_piece_has_the_same_codes_and_samples_on_every_path(
    say: Callable[..., bytes],
    model: Qwen3TTSModel,
    spoken_codes: Codes,
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: Any,
    choice: str,
    pieces: str,
) -> None:
    texts, options = TEXTS[pieces], OPTIONS[choice]
    text = "\n\n".join(texts)

    def of(path: Callable[[], bytes | None]) -> tuple[Codes, bytes | None]:
        spoken_codes.clear()
        samples = path()
        return list(spoken_codes), samples

    def piped(*arguments: str) -> bytes:
        capsysbinary.readouterr()
        say(text, *options, "-o", "-", *arguments)
        return bytes(capsysbinary.readouterr().out)

    def of_standard_input() -> bytes:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(wrapped(texts).encode()), isatty=bool))
        return say("-", *options)

    def narrated() -> bytes:
        seed = CHOICES[choice].get("seed", 0)
        sampling = {name: value for name, value in CHOICES[choice].items() if name != "seed"}
        narrate(
            model, text, "n.wav", seed=seed, speaker="ryan", max_new_tokens=MOST, batch_size=1, work="w", **sampling
        )
        return Path("n.wav").read_bytes()[44:]

    def generated() -> None:
        for number, piece in enumerate(texts):
            own = CHOICES[choice] | ({"seed": seed_of(7, number)} if choice == "seeded" else {})
            model.generate_custom_voice(piece, "ryan", max_new_tokens=MOST, **own)

    Path("text.txt").write_bytes(b"\xef\xbb\xbf" + wrapped(texts).encode())
    expected, _ = of(generated)
    assert len(expected) == len(texts) and all(len(codes) > 1 for codes in expected)
    paths: dict[str, Callable[[], bytes]] = {
        "file": lambda: say(text, *options),
        "pipe": lambda: piped()[44:],
        "stream": lambda: say(text, *options, "--stream"),
        "raw stream": lambda: piped("--stream", "--raw", "--packet-frames", "3"),
        "srt": lambda: say(text, *options, "--srt", "text.srt"),
        "wrapped file": lambda: say("--file", "text.txt", *options),
        "standard input": of_standard_input,
        "narrate": narrated,
    }
    samples = set()
    for name, path in paths.items():
        codes, made = of(path)
        assert len(codes) == len(expected), name
        for ours, theirs in zip(codes, expected, strict=True):
            np.testing.assert_array_equal(ours, theirs, err_msg=name)
        samples.add(made)
    assert len(samples) == 1


def test_past_the_chunks_of_the_official_decoder_the_command_line_decodes_exactly(
    say: Callable[..., bytes], model: Qwen3TTSModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (decoder, compiled_decoder):
        monkeypatch.setattr(path, "CHUNK_FRAMES", 3)
        monkeypatch.setattr(path, "CONTEXT_FRAMES", 1)
    exact = say(PIECES[0], "--seed", 7)
    assert say(PIECES[0], "--seed", 7, "--stream") == exact
    (wave,), _ = model.generate_custom_voice(PIECES[0], "ryan", seed=7, max_new_tokens=MOST)[:2]
    ours = np.frombuffer(exact, "<i2") / 2**15
    np.testing.assert_allclose(ours[: 3 * 1920], wave[: 3 * 1920], atol=2**-16 + 1e-6)
    assert np.abs(ours - wave).max() > 1e-3


def test_one_piece_is_neither_trimmed_nor_faded(say: Callable[..., bytes], model: Qwen3TTSModel) -> None:
    (wave,), _ = model.generate_custom_voice(PIECES[0], "ryan", seed=7, max_new_tokens=MOST)[:2]
    samples = np.frombuffer(say(f"* * *\n\n{PIECES[0]}\n\n", "--seed", 7), "<i2")
    assert len(samples) == len(wave)
    np.testing.assert_allclose(samples / 2**15, wave, atol=2**-16 + 1e-6)


def test_the_guard_is_off_in_python_and_on_in_the_command_line(
    model: Qwen3TTSModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qwen3tts_np.speech.delivery.most_milliseconds", lambda text: 3 * 80)
    options: dict[str, Any] = {"seed": 1, "speaker": "ryan", "max_new_tokens": MOST}
    assert narrate(model, "So.", tmp_path / "o.wav", **options).pieces[0].frames == MOST - 1
    speech = live.stream(model, "So.", **options)
    assert sum(map(len, speech)) == (MOST - 1) * 1920
    with pytest.warns(UserWarning, match=r"^'So\.' did not stop in 3 attempts; it was cut after 0\.2 s$"):
        narrate(model, "So.", tmp_path / "o.wav", runaway_guard=True, **options)
    with pytest.warns(UserWarning, match=r"^'So\.' did not stop; it was cut after 0\.2 s$"):
        assert sum(map(len, live.stream(model, "So.", runaway_guard=True, **options))) == 3 * 1920


# --- seeds ----------------------------------------------------------------------------------------


def test_the_rule_of_seeds() -> None:
    assert seed_of(7, 0) == 7
    assert seed_of(7, 1) == 0x59E90681  # printf 7/1/0 | sha256sum
    assert seed_of(7, 0, 1) == 0x612EA8E9  # printf 7/0/1 | sha256sum
    assert seed_of(-1, 3) == seed_of(2**32 - 1, 3)  # one stream of random numbers
    assert len({seed_of(seed, i, k) for seed in range(9) for i in range(20) for k in range(3)}) == 9 * 20 * 3


# --- edges ----------------------------------------------------------------------------------------

RUN = st.tuples(st.integers(0, 900), st.sampled_from([0.0, QUIET * 0.99, 0.4]))


@given(st.lists(RUN, max_size=8), st.lists(st.integers(1, 900), max_size=12), st.sampled_from([1000, RATE]))
def test_edges_are_the_same_however_a_piece_arrives(runs: list[tuple[int, float]], cuts: list[int], rate: int) -> None:
    wave = np.concatenate([np.zeros(0), *(np.full(n, value) for n, value in runs)]).astype(np.float32)
    piece, out, start = Edges(rate), [], 0
    for cut in [*cuts, len(wave)]:
        out.append(piece.feed(wave[start : start + cut]))
        start += cut
    np.testing.assert_array_equal(np.concatenate([*out, piece.finish()]), edged_ref(wave, rate))


def edged_ref(wave: np.ndarray, rate: int) -> np.ndarray:
    """All at once."""
    loud = np.flatnonzero(np.abs(wave) > QUIET)
    if not len(loud):
        return wave[:0]
    edge = rate * EDGE // 1000
    kept = wave[max(loud[0] - edge, 0) : loud[-1] + 1 + edge].copy()
    length = min(rate * FADE // 1000, len(kept) // 2)
    kept[:length] *= edges.ramp(length)
    kept[len(kept) - length :] *= edges.ramp(length)[::-1]
    return kept


# --- texts ----------------------------------------------------------------------------------------

WORDS = st.lists(
    st.sampled_from("the ship sailed on through a rough and Stormy night, While Henry slept below; he knew".split()),
    min_size=1,
    max_size=40,
)


@given(WORDS, st.integers(18, 90), st.sampled_from(["\n", "\r\n", "\r", "\x0b"]))
def test_a_sentence_is_the_same_on_one_line_or_wrapped(words: list[str], width: int, line_end: str) -> None:
    lines, line = [], ""
    words = [*words[:-1], words[-1] + "."]
    for word in words:
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    assert plan(line_end.join([*lines, line])) == plan(" ".join(words))


@given(st.text(max_size=60), st.sampled_from(["\n", "\r\n", "\r"]))
def test_a_cleaned_text_stays_as_it_is(text: str, line_end: str) -> None:
    text = text.encode("utf-8", "ignore").decode("utf-8").replace("\0", "")
    cleaned = clean(text)
    assert clean(cleaned) == cleaned == clean(text.replace("\n", line_end) if "\r" not in text else text)
    assert not any(c in cleaned for c in "\r\t\u00a0\u00ad\u200b\ufeff\u2060\u202a\u200e\x07")


@given(st.lists(st.text("ab \t\n\r\u00ad\u200b\u200d\ufe0e🎉👩e\u0301\x07\x85", max_size=6), max_size=8))
def test_a_text_in_pieces_is_cleaned_as_the_complete_one(pieces: list[str]) -> None:
    cleaning = Cleaning()
    assert "".join([*map(cleaning.feed, pieces), cleaning.finish()]) == clean("".join(pieces))


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("pro\u00adfi\u00adcient", "proficient"),
        ("under\u00ad\n  stand", "understand"),
        ("re\u200bader re\u2060ader \ufeffreader", "reader reader reader"),
        ("\u202aEnglish\u202c \u200etext\u200f", "English text"),
        ("no\u00a0break\u202fhere\tnow", "no break here now"),
        ("a\u2028b\u2029c", "a\nb\n\nc"),
        ("bell\x07 and\x1b escape", "bell and escape"),
        ("葛\U000e0100城 辻\ufe00 가\u3164나 a\u2800b", "葛城 辻 가나 a b"),
        ("auf\u200clage", "auflage"),
        ("👩\u200d🚀 می\u200cخواهم", "👩\u200d🚀 می\u200cخواهم"),  # joiners that change what is written
    ],
)
def test_what_nobody_sees_is_taken_out(text: str, same: str) -> None:
    assert clean(text) == same


@pytest.mark.parametrize(
    "text", ["", "   ", "\n", "\u200b", "🎉🎉", "...", "👍🏽 ❤️", "（）", "\u00ad", "\u3164", "* * *"]
)
@pytest.mark.parametrize("options", [[], ["--stream"], ["--srt", "a.srt"]])
def test_a_text_that_says_nothing_is_refused_before_a_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, text: str, options: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("qwen3tts_np.cli.say.load_model", lambda args, adapter=None: pytest.fail("loaded"))
    assert cli.main(["say", ".", text, *options]) == 2
    sentence = "there is nothing to say: the text has neither letters nor digits"
    assert capsys.readouterr().err == f"qwen3tts-np say: {sentence}\n"
    assert list(Path().iterdir()) == []
    with pytest.raises(RequestError, match="nothing to say"):
        plan(text)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_files_of_other_programs(say: Callable[..., bytes], capsys: Any, encoding: str) -> None:
    text = "Hello there.\r\n".encode(encoding)
    Path("text.txt").write_bytes(text)
    if encoding in ("utf-16-le", "utf-16-be"):  # without a mark: UTF-8 full of NUL characters
        assert cli.main(["say", ".", "--file", "text.txt"]) == 2
        assert "has a NUL character at position " in capsys.readouterr().err
    else:
        assert say("--file", "text.txt", "--greedy") == say("Hello there.", "--greedy")


# --- the bound of the guard -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("BBC", 3 * 0.75),
        ("a b c d e f g", 7 * 0.75),
        ("https://x.y/z", 22 * 0.5),  # aitch tee tee pee ess colon slash slash ex dot wye slash zed
        ("www", 9 * 0.5),  # double u, three times
        ("1234567890", 10 * 2),
        ("777,777", 20 * 0.6),  # seven hundred seventy-seven thousand ...
        ("§", 4 * 0.6),
        ("👍🏽", 5 * 0.6),  # thumbs up, medium skin tone
        ("etc.", 4 * 0.6),
        ("UNESCO, NATO", 10 * 0.75),
        ("kg", 3 * 0.6),
        ("km", 4 * 0.6),
    ],
)
def test_no_speech_reaches_the_bound_however_it_is_read(text: str, seconds: float) -> None:
    """``seconds``: read out letter by letter or in full by somebody slow, at about half a second for each syllable."""
    assert most_milliseconds(" ".join([text] * 10)) >= 1000 * 10 * seconds
    assert most_milliseconds(text) >= 1000 * seconds + 2000


def test_the_bound_of_prose_stays_near_its_length() -> None:
    for text in (
        "It was on a dreary night that I beheld the accomplishment of my toils, with an anxiety close to agony.",
        "Восемьдесят километров до ближайшего города, и ни одной деревни.",
        "这是一个很长的段落，被切成了好几行，每一行都有很多字。",
        "Die Fähre verlässt den Hafen um halb zehn, und der Wind dreht sich langsam.",
    ):
        assert most_milliseconds(text) <= 2000 + 4.5 * milliseconds(text)


@settings(max_examples=50)
@given(st.text(max_size=50), st.text(max_size=50))
def test_a_longer_text_has_no_smaller_bound(a: str, b: str) -> None:
    assert most_milliseconds(f"{a} {b}") >= most_milliseconds(a)
