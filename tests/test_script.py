"""Markup, casts and lexicons: what is read of a text, what is refused, and what is heard."""

from __future__ import annotations

import json
import unicodedata
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from qwen3tts_np import Qwen3TTSModel, RequestError, VoiceClonePromptItem, cli
from qwen3tts_np.errors import QwenTTSError
from qwen3tts_np.ops import Pcm
from qwen3tts_np.request import CustomVoice
from qwen3tts_np.speech.cast import read_cast, read_lexicon
from qwen3tts_np.speech.live import stream
from qwen3tts_np.speech.longform import narrate
from qwen3tts_np.speech.plan import PAUSES, plan, seed_of
from qwen3tts_np.speech.script import Script, read_script
from qwen3tts_np.text.lexicon import Lexicon, Respelling
from qwen3tts_np.text.sentences import Break

RATE = 24000
MOST = 9  # tokens: eight frames
CAST = {"Anna": {"speaker": "vivian"}, "Bob": {"speaker": "ryan"}}
SENTENCE, PARAGRAPH, CLAUSE, WORD = (
    PAUSES[kind] for kind in (Break.SENTENCE, Break.PARAGRAPH, Break.CLAUSE, Break.WORD)
)

# A text with markup -> (text, voice, ms of silence before it) of each piece, and the silence at the end.
READ: dict[str, tuple[str, list[tuple[str, str | None, int]], int]] = {
    "pause": ("Hello [pause 0.5s] there.", [("Hello", None, 0), ("there.", None, 500)], 0),
    "pause in ms": ("Hello.[pause 20 ms]There.", [("Hello.", None, 0), ("There.", None, 20)], 0),
    "no pause": ("One. [pause 0s] Two.", [("One.", None, 0), ("Two.", None, 0)], 0),
    "capitals": ("One. [Pause .25s] Two.", [("One.", None, 0), ("Two.", None, 250)], 0),
    "pauses add up": (
        "One. [pause 1s] [pause 2s]\n\n* * *\n[pause 1ms] Two.",
        [("One.", None, 0), ("Two.", None, 3001)],
        0,
    ),
    "at the edges": ("[pause 1s] Hi. [pause 60s]", [("Hi.", None, 1000)], 60000),
    "escaped": (r"Say \[pause 1s] now.", [("Say [pause 1s] now.", None, 0)], 0),
    "other brackets": ("[1], [sic], [paused], [voice-over]", [("[1], [sic], [paused], [voice-over]", None, 0)], 0),
    "voice": (
        "Hi. [voice ryan] Yes, [voice bob] no; [voice] why",
        [("Hi.", None, 0), ("Yes,", "ryan", SENTENCE), ("no;", "Bob", CLAUSE), ("why", None, CLAUSE)],
        0,
    ),
    "voice in a sentence": ("He said [voice ryan] yes.", [("He said", None, 0), ("yes.", "ryan", WORD)], 0),
    "the same voice": ("[voice ryan] Hi, [voice ryan] you.", [("Hi, you.", "ryan", 0)], 0),
    "a voice that says nothing": ("Yes, [voice ryan] [voice] no.", [("Yes, no.", None, 0)], 0),
    "voice and pause": ("Hi. [pause 2s][voice ryan][pause 1s] Yes.", [("Hi.", None, 0), ("Yes.", "ryan", 3000)], 0),
    "dialogue": (
        "ANNA: Hello.\nBob:  Hi\nyou.\n\nanna：Bye.\n12:30 it rained.",
        [
            ("Hello.", "Anna", 0),
            ("Hi you.", "Bob", SENTENCE),
            ("Bye.", "Anna", PARAGRAPH),
            ("12:30 it rained.", "Anna", PARAGRAPH),
        ],
        0,
    ),
    "a name behind a pause": ("Anna: Hi.\n[pause 1s] Bob: Hi.", [("Hi.", "Anna", 0), ("Hi.", "Bob", 1000)], 0),
    "a name behind a pause in a line": ("Said [pause 1s] Bob: no.", [("Said", None, 0), ("Bob: no.", None, 1000)], 0),
    "a name in a line": ("I am Anna: hello.", [("I am Anna: hello.", None, 0)], 0),
    "ssml paragraphs": (
        "<speak>Hi <p><s>A</s> <s>b</s></p> you</speak>",
        [("Hi", None, 0), ("A", None, PARAGRAPH), ("b", None, SENTENCE), ("you", None, PARAGRAPH)],
        0,
    ),
    "ssml": (
        '<?xml version="1.0"?><!-- a -->\n'
        '<speak version="1.1" xmlns="http://www.w3.org/2001/10/synthesis" xml:lang="en">\n'
        ' <p><s>Tom &amp;\n  Ann</s><s>came</s></p> late <break time="250ms"/> <p>[pause 1s] 你\n好</p></speak>',
        [("Tom & Ann", None, 0), ("came", None, SENTENCE), ("late", None, PARAGRAPH), ("[pause 1s] 你好", None, 250)],
        0,
    ),
}


@pytest.mark.parametrize("case", READ)
def test_what_is_read(case: str) -> None:
    text, expected, after = READ[case]
    pieces = plan(read_script(text, markup=True, cast=CAST if "ssml" not in case else None))
    assert [(piece.text, piece.voice, piece.pause) for piece in pieces] == expected
    assert [piece.after for piece in pieces] == [0] * (len(pieces) - 1) + [after]
    assert [piece.number for piece in pieces] == list(range(len(pieces)))


PAUSE = "a pause lasts 0 to 60 s, in whole milliseconds: 0.5s or 500ms"
DEEP = "<speak>" + "<p>" * 100_000
BOMB = '<!DOCTYPE speak [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;">]><speak>&b;</speak>'
REFUSED = [
    *(
        (f"Hi [pause{value}] you.", PAUSE)
        for value in ("", " ", " x", " -1s", " nan", " inf s", " 1e3s", " 1", " 1 min")
    ),
    *(
        (f"Hi [pause {value}] you.", PAUSE)
        for value in ("1000000000s", "60001ms", "0.0001s", "9" * 400 + "s", "١s", "1s 2s")
    ),
    ("Hi [pause 1s you.", "'[pause 1s you.' is not closed by a bracket"),
    ("Hi [pause", "is not closed by a bracket"),
    ("Hi [pause [pause 1s]] you.", "'[pause ' is not closed by a bracket"),
    ("Hi [pause 1s\n] you.", "is not closed by a bracket"),
    ("Hi [voice \x1b[31m] you.", "is not closed by a bracket"),
    (f"Hi [voice {'x' * 65}] you.", "a name has at most 64 characters"),
    ("[pause 40s] Hi. [pause 40s] - [pause 40s] you.", "pauses add up to 80 s of silence; 60 s are the most"),
    ("[pause 1s] ...", "neither letters nor digits"),
    ("<speak/>", "neither letters nor digits"),
    ("<speak>Hi", "not well-formed at line 1, column 10: no element found"),
    ("<speak><p>Hi</speak>", "not well-formed at line 1, column 15: mismatched tag"),
    ("<speak>Hi & you</speak>", "not well-formed"),
    ("<speak>Hi</speak> you", "not well-formed"),
    ("<speak>&nbsp;Hi</speak>", "not well-formed"),
    ("<speak><emphasis>Hi</emphasis></speak>", "has <emphasis>; <speak>, <p>, <s> and <break time> are understood"),
    ('<speak><voice name="a">Hi</voice></speak>', "has <voice>"),
    ("<speak><P>Hi</P></speak>", "has <P>"),
    (f"<speak><{'x' * 5000}/>Hi</speak>", "has <xxxxx"),
    ("<speak><p><p>Hi</p></p></speak>", "has <p> in <p>, where it cannot be"),
    ("<speak><s><p>Hi</p></s></speak>", "has <p> in <s>"),
    ("<speak><speak>Hi</speak></speak>", "has <speak> in <speak>"),
    ("<speak>Hi<break/></speak>", f"has a <break> of no time: {PAUSE}"),
    ('<speak>Hi<break time="-1s"/></speak>', PAUSE),
    ('<speak>Hi<break time="1e9s"/></speak>', PAUSE),
    ('<speak>Hi<break strength="weak"/></speak>', "has <break strength>, which is not understood"),
    ('<speak>Hi<break time="1s">you</break></speak>', "has text in <break>: 'you'"),
    ('<speak onload="x">Hi</speak>', "has <speak onload>, which is not understood"),
    ('<speak>Hi<p xml:lang="de">du</p></speak>', "has <p xml:lang>"),
    ("<speak>Hi<?php x?></speak>", "has a processing instruction, <?php?>"),
    (DEEP, "has <p> in <p>"),
    (BOMB, "has a document type (<!DOCTYPE>), which is not read"),
    ('<!DOCTYPE speak SYSTEM "file:///etc/passwd"><speak>Hi</speak>', "has a document type"),
]


@pytest.mark.parametrize(("text", "says"), REFUSED, ids=[text[:40] for text, _ in REFUSED])
def test_what_is_refused(text: str, says: str) -> None:
    with pytest.raises(RequestError) as e:
        read_script(text, markup=True)
    assert says in str(e.value)
    assert len(str(e.value)) < 300 and "\n" not in str(e.value)


TEXTS = st.lists(
    st.sampled_from(
        "Hello. there, you ... [1] [sic] <b> & \\ : Anna: A. \n\n\n \t [ ] 你好。 « e\u0301 pause voice".split(" ")
    )
).map(" ".join)


@given(TEXTS)
def test_a_text_without_marks_is_the_same_with_markup(text: str) -> None:
    try:
        plain = plan(text)
    except RequestError as e:
        with pytest.raises(RequestError, match=str(e)[:20]):
            read_script(text, markup=True)
        return
    assert plan(read_script(text, markup=True)) == plan(read_script(text)) == plain
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert plan(read_script(text, cast={"Somebody": {}})) == plain


@given(st.text(alphabet="[]pausevoic 0.5sm<>/=\"'&;!-?:\\\nA", max_size=60), st.booleans())
def test_any_text_is_read_or_refused_in_a_sentence(text: str, ssml: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with suppress(RequestError):
            plan(read_script(f"<speak>{text}</speak>" if ssml else text, markup=True, cast={"a": {}, "voice": {}}))


def test_a_stranger_who_begins_a_line_is_named() -> None:
    with pytest.warns(UserWarning, match="a line begins with 'Bbo', who is not in the cast: the name is spoken"):
        read_script("Anna: Hi.\nBbo: Yes.", cast=CAST)


# --- what is heard --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(synthetic: Callable[..., Path]) -> Qwen3TTSModel:
    return Qwen3TTSModel.from_pretrained(synthetic("tiny", "custom_voice"), threads=1)


def heard(model: Qwen3TTSModel, text: str | Script, suffix: str = "wav", **arguments: Any) -> tuple[Pcm, Any]:
    made = narrate(model, text, f"a.{suffix}", seed=7, max_new_tokens=MOST, **{"speaker": "ryan", **arguments})
    return soundfile.read(f"a.{suffix}", dtype="int16")[0], made


def streamed(model: Qwen3TTSModel, text: str | Script, **arguments: Any) -> Pcm:
    return np.concatenate(list(stream(model, text, seed=7, speaker="ryan", max_new_tokens=MOST, **arguments)))


def test_silence_is_exact_to_the_sample_and_joins_do_not_click(
    model: Qwen3TTSModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    script = read_script("[pause 0.1s] Hello there. [pause 0.333s] Good morning. [pause 0.05s]", markup=True)
    samples, made = heard(model, script, subtitles=["a.srt"])
    first, second = [(round(piece.start * RATE), round(piece.end * RATE)) for piece in made.pieces]
    assert first[0] == RATE // 10
    assert second[0] - first[1] == 333 * RATE // 1000
    assert len(samples) - second[1] == RATE // 20
    for silence in (samples[: first[0]], samples[first[1] : second[0]], samples[second[1] :]):
        assert not silence.any()
    loud = np.abs(samples).max()
    for edge in (*first, *second):  # faded: the first and the last samples are next to nothing
        assert np.abs(np.diff(samples[edge - 2 : edge + 3].astype(int))).max() < loud / 20
    assert (
        Path("a.srt").read_text().split("\n\n")[0]
        == f"1\n00:00:00,100 --> 00:00:00,{round(1000 * first[1] / RATE)}\nHello there."
    )
    np.testing.assert_array_equal(heard(model, script, "flac")[0], samples)
    one, made = heard(model, read_script("Hello there. [pause 0.1s]", markup=True))
    assert one[0] == one[round(made.pieces[0].end * RATE) - 1] == 0  # faded, as beside any pause
    assert heard(model, "Hello there.")[0][0] != 0
    for packet in (1, 3, 50):
        np.testing.assert_array_equal(streamed(model, script, packet_frames=packet), samples)
    assert len(heard(model, script, "mp3")[0]) == len(samples)


def test_markup_changes_nothing_in_a_text_without_marks(
    model: Qwen3TTSModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for text in ("Hello there [sic].", "It rained.\n\nNobody minded."):
        expected, _ = heard(model, text)
        for script in (
            read_script(text),
            read_script(text, markup=True),
            read_script(text, lexicon=Lexicon({"no": "yes"})),
        ):
            np.testing.assert_array_equal(heard(model, script)[0], expected)


def test_each_piece_has_its_voice_and_the_seed_of_its_number(
    model: Qwen3TTSModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    script = read_script("It rained.\nANNA: Hello.\n[voice serena] Bye.", cast=CAST)
    samples, made = heard(model, script)
    assert [piece.seed for piece in made.pieces] == [seed_of(7, i) for i in range(3)]
    np.testing.assert_array_equal(streamed(model, script), samples)
    requests = [
        model.prepare(text, CustomVoice(speaker), seed=seed_of(7, i), max_new_tokens=MOST)
        for i, (text, speaker) in enumerate([("It rained.", "ryan"), ("Hello.", "vivian"), ("Bye.", "serena")])
    ]
    frames = [len(spoken.codes) for spoken in model.generate(requests)]
    assert [piece.frames for piece in made.pieces] == frames
    other, _ = heard(model, read_script("It rained.\nANNA: Hello.\n[voice vivian] Bye.", cast=CAST))
    assert len(other) != len(samples) or (other != samples).any()


def test_a_voice_that_nobody_has_is_refused_before_anything_is_written(
    model: Qwen3TTSModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for text, cast, says in (
        ("Hi. [voice nobody] You.", CAST, "voice 'nobody' is not known; there is Anna, Bob, "),
        ("Hi.\nA: You.", {"A": {"speaker": "B"}, "B": {"speaker": "A"}}, "speaker 'B' is not in this model"),
        ("A: You.", {"A": {"voice_clone_prompt": "a.safetensors"}}, "voice 'A': a custom_voice model has no argument"),
    ):
        script = read_script(text, cast=cast)
        for speak in (heard, streamed):
            with pytest.raises(RequestError, match=says):
                speak(model, script)
    assert list(tmp_path.iterdir()) == []


def test_a_lexicon_is_heard_and_subtitles_show_the_words(
    model: Qwen3TTSModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lexicon = Lexicon({"Straße": "Schtrase"})
    samples, made = heard(model, read_script("Die Straße ist lang.", lexicon=lexicon), subtitles=["a.vtt"])
    expected, _ = heard(model, "Die Schtrase ist lang.")
    np.testing.assert_array_equal(samples, expected)
    np.testing.assert_array_equal(streamed(model, read_script("Die Straße ist lang.", lexicon=lexicon)), expected)
    assert [piece.text for piece in made.pieces] == ["Die Straße ist lang."]
    assert "\nDie Straße ist lang.\n" in Path("a.vtt").read_text(encoding="utf-8")


def test_a_base_model_speaks_with_the_saved_voices_of_a_cast(
    synthetic: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    for name in ("ada", "bob"):
        vector = rng.standard_normal(64).astype(np.float32)
        VoiceClonePromptItem(None, vector, True, False).save(f"{name}.safetensors")
    Path("cast.json").write_text('{"Ada": "ada.safetensors", "Bob": {"voice": "bob.safetensors"}}')
    line = ["say", str(synthetic("tiny", "base")), "--cast=cast.json", "--seed=7", "--max-new-tokens=9", "-o", "a.wav"]

    def spoken(text: str, *options: str) -> Pcm:
        assert cli.main([*line, text, *options]) == 0, capsys.readouterr().err
        return soundfile.read("a.wav", dtype="int16")[0]

    bob = spoken("Bob: Hello there.")
    np.testing.assert_array_equal(spoken("Hello there.", "--voice", "bob.safetensors"), bob)
    ada = spoken("Hello there.")
    np.testing.assert_array_equal(spoken("Ada: Hello there."), ada)
    assert len(ada) != len(bob) or (ada != bob).any()


# --- words ----------------------------------------------------------------------------------------

WORDS = {
    "Straße": "Schtrase",
    "nasa": "Nassa",
    "US": "you ess",
    "New York": "Noo Yawk",
    "New": "Noo",
    "York": "Jork",
    "L'eau": "Lo",
    "eau": "oh",
    "Café": "Kaffay",
    "e-mail": "ee mail",
    "C++": "see plus plus",
    "北京": "bei jing",
    "a": "b",
    "b": "a",
    "각": "gak",
}
RESPELLED = [
    ("Die Straße, Straßen, STRASSE, straße.", "Die Schtrase, Straßen, STRASSE, straße."),
    ("NASA, Nasa and nasal", "Nassa, Nassa and nasal"),
    ("US and us", "you ess and us"),
    ("New York, York, New Yorker", "Noo Yawk, Jork, Noo Yorker"),
    ("L'eau, L’eau, d'eau, eau, eaux", "Lo, Lo, d'oh, oh, eaux"),
    (unicodedata.normalize("NFD", "Café é, Cafés"), unicodedata.normalize("NFD", "X é, Cafés").replace("X", "Kaffay")),
    ("E-Mail, e-mails", "ee mail, e-mails"),
    ("C++, C++11.", "see plus plus, C++11."),
    ("C++", "see plus plus"),  # shorter than another entry with this letter, at the end
    ("我在北京。 北京!", "我在北京。 bei jing!"),
    ("a b ab _a a_", "b a ab _a a_"),
    (unicodedata.normalize("NFD", "각 가"), "gak " + unicodedata.normalize("NFD", "가")),
    ("a\u0301 a", "a\u0301 b"),
    ("", ""),
]


@pytest.mark.parametrize(("text", "expected"), RESPELLED)
def test_whole_words_are_respelled_the_longest_first(text: str, expected: str) -> None:
    assert Lexicon(WORDS).respelled(text) == expected


@given(st.text(alphabet="abé ́ ’'-1ㄱ각ᄀ\u1161İßẞSs", max_size=30))
def test_what_is_no_entry_stays_to_the_character(text: str) -> None:
    assert Lexicon({"zzz": "y", "q": "r"}).respelled(text) == text
    once = Lexicon({"a": "zz"}).respelled(text)
    assert Lexicon({"zz": "a"}).respelled(once) == text.replace("A", "a")


@given(
    st.lists(
        st.sampled_from(["New ", "York", "ers", "Cafe", "\u0301", " ", "a", "b c", "b", "-", "L", "’", "eau", "US"])
    ),
    st.integers(1, 7),
)
def test_a_text_in_pieces_is_respelled_as_the_whole(words: list[str], size: int) -> None:
    text, lexicon = "".join(words), Lexicon({**WORDS, "a b": "ab", "b c d": "bcd"})
    respelling = Respelling(lexicon)
    parts = [respelling.feed(text[first : first + size]) for first in range(0, len(text), size)]
    assert "".join([*parts, respelling.finish()]) == lexicon.respelled(text)


def test_what_begins_no_entry_does_not_wait() -> None:
    respelling = Respelling(Lexicon({"New York": "Noo Yawk"}))
    assert [respelling.feed(part) for part in ("Hello th", "ere, New ", "Zealand")] == [
        "Hello th",
        "ere, ",
        "New Zealand",
    ]


# --- files ----------------------------------------------------------------------------------------

BAD_JSON = [
    ("", "is not valid JSON"),
    ("{", "is not valid JSON"),
    ("[]", "is a JSON list, expected an object"),
    ("null", "expected an object"),
    ('{"a": "x", "a": "y"}', "'a' is there twice"),
    ('{"a": NaN}', "NaN is not a number in JSON"),
    ("[" * 100_000, "is not valid JSON"),
]
BAD_CAST = [
    *BAD_JSON,
    ("{}", "the cast is empty"),
    ('{"": "vivian"}', "'' cannot be a name"),
    ('{"a:b": "vivian"}', "'a:b' cannot be a name"),
    (json.dumps({"x" * 65: "vivian"}), "cannot be a name"),
    ('{"Anna": "vivian", "ANNA": "ryan"}', "'Anna' and 'ANNA' are the same name"),
    ('{"A": ""}', "expected a speaker, a voice file or a description"),
    ('{"A": 1}', "'A' is 1; expected"),
    ('{"A": ["vivian"]}', "expected a speaker"),
    ('{"A": {}}', "expected a speaker"),
    ('{"A": {"speaker": "vivian", "voice": "v.safetensors"}}', "expected a speaker"),
    ('{"A": {"instruct": "low"}}', "expected a speaker"),
    ('{"A": {"speaker": null}}', "expected a speaker"),
    ('{"A": {"name": "vivian"}}', "expected a speaker"),
    ('{"A": {"voice": "nobody.safetensors"}}', "nobody.safetensors cannot be read"),
    ('{"A": "../../nobody.pt"}', "cannot be read"),
]
BAD_LEXICON = [
    *BAD_JSON,
    ('{"": "x"}', "is no entry: both have 1 to 100 characters"),
    ('{"...": "x"}', "is no entry"),
    ('{"a": ""}', "is no entry"),
    ('{"a": "..."}', "is no entry"),
    ('{"a": "b\\n\\nc"}', "is no entry"),
    ('{" a": "b"}', "is no entry"),
    (json.dumps({"a": "x" * 101}), "is no entry"),
    ('{"a": 1}', "'a': 1 is no respelling; give a string"),
    ('{"a": null}', "is no respelling"),
    ('{"caf\\u00e9": "x", "cafe\\u0301": "y"}', "is there twice, in two forms of the same letters"),
    ('{"a": "\\ud800"}', "half a surrogate pair"),
]


@pytest.mark.parametrize(
    ("read", "content", "says"),
    [*((read_cast, *row) for row in BAD_CAST), *((read_lexicon, *row) for row in BAD_LEXICON)],
)
def test_files_are_read_strictly(read: Callable[[Path], Any], content: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "words.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(QwenTTSError) as e:
        read(file)
    assert says in str(e.value) and "\n" not in str(e.value)
    assert str(tmp_path) in str(e.value) and len(str(e.value)) < 500


def test_a_cast_has_speakers_saved_voices_and_descriptions(tmp_path: Path) -> None:
    VoiceClonePromptItem(None, np.ones(64, np.float32), True, False).save(tmp_path / "ada.safetensors")
    content = {
        "Anna": "vivian",
        "Bob": {"speaker": "ryan", "instruct": "low"},
        "Ada": "ada.safetensors",
        "Eva": {"voice": "ada.safetensors"},
        "Old one": {"description": "a sailor"},
    }
    (tmp_path / "cast.json").write_text("\ufeff" + json.dumps(content), encoding="utf-8")
    cast = read_cast(tmp_path / "cast.json")
    assert list(cast) == list(content)
    assert cast["Bob"] == content["Bob"]
    assert cast["Old one"] == {"instruct": "a sailor"}
    for name in ("Ada", "Eva"):
        assert isinstance(cast[name]["voice_clone_prompt"], VoiceClonePromptItem)
