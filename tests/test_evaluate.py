"""``evaluate``: each measure against its own library, on committed clips; statements about runs; the command."""

from __future__ import annotations

import importlib.util
import json
import shlex
import sys
import types
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch_files import Rebuilt, fake_torch, older_torch_save

from qwen3tts_np import Qwen3TTSModel
from qwen3tts_np.checkpoint.torch_file import read_torch
from qwen3tts_np.errors import QwenTTSError, RequestError
from qwen3tts_np.evaluate import codec_quality, dnsmos, resemblyzer, seed_tts, sphinx, wheels
from qwen3tts_np.evaluate import recogniser as recognisers
from qwen3tts_np.evaluate.clip import Clip
from qwen3tts_np.evaluate.evaluation import Evaluation, compared, evaluate, load, obstacle
from qwen3tts_np.evaluate.judge import Judges, Utterance
from qwen3tts_np.evaluate.measures import measure
from qwen3tts_np.evaluate.normalise import language_of, normalised, plain
from qwen3tts_np.evaluate.pieces import LONGEST, pieces, subtitle_ends
from qwen3tts_np.evaluate.requirement import Requirement
from qwen3tts_np.evaluate.sound import clicks, pauses, sound
from qwen3tts_np.evaluate.statistics import Mean, Value, difference, mean
from qwen3tts_np.evaluate.word_errors import compare
from qwen3tts_np.manifest import Manifest, Row
from qwen3tts_np.speech.demo import CHECKPOINT

ROOT = Path(__file__).parents[1]
CLIPS = ROOT / "tests" / "clips"
DEMO = ROOT / "golden" / "demo_voice"
REFERENCE = json.loads((CLIPS / "reference.json").read_text(encoding="utf-8"))
NAMES = ("oak.flac", "oak_worse.flac", "reed_stereo.flac")
TEXTS = ("hello world this is a test", "hello world this is a test", "good morning it is sunday")


def installed(*modules: str) -> bool:
    return all(importlib.util.find_spec(name) for name in modules)


def clip(name: str) -> Clip:
    return Clip.read(str(CLIPS / name))


# --- each measure is its own library's ---


@pytest.mark.skipif(obstacle("speaker") is not None, reason="needs Resemblyzer's wheel and webrtcvad")
def test_the_independent_judge_is_resemblyzer():
    found = {name: resemblyzer.embedding(clip(name)) for name in NAMES}
    for name, embedding in found.items():
        np.testing.assert_allclose(embedding[:12], REFERENCE[name]["resemblyzer"], atol=2e-6)
        assert np.linalg.norm(embedding) == pytest.approx(1)
    for pair, similarity in REFERENCE["similarity"].items():
        a, b = pair.split()
        assert float(found[a] @ found[b]) == pytest.approx(similarity, abs=2e-6)


@pytest.mark.skipif(obstacle("dnsmos") is not None, reason="needs speechmos and onnxruntime")
def test_dnsmos_is_that_of_speechmos():
    found = dnsmos.dnsmos(clip("reed_stereo.flac"))
    theirs = REFERENCE["reed_stereo.flac"]
    names = {"dnsmos": "ovrl", "dnsmos_signal": "sig", "dnsmos_background": "bak", "dnsmos_p808": "p808"}
    for ours, name in names.items():
        assert found[ours] == pytest.approx(theirs[f"{name}_mos"], abs=2e-4)


@pytest.mark.skipif(obstacle("codec") is not None, reason="needs pesq and pystoi")
def test_pesq_and_stoi_are_those_of_their_packages():
    import pesq
    import pystoi

    a, b = clip("oak.flac"), clip("oak_worse.flac")
    found = codec_quality.against(a, b)
    assert found["pesq_wb"] == pesq.pesq(16000, a.at(16000), b.at(16000), "wb")
    assert found["pesq_nb"] == pesq.pesq(8000, a.at(8000), b.at(8000), "nb")
    assert found["stoi"] == pystoi.stoi(a.at(16000), b.at(16000), 16000)
    assert found["mel_distance"] > 1
    same = codec_quality.against(a, a)
    assert same["pesq_wb"] > 4.6 and same["mel_distance"] == 0 and "snr" not in same


@pytest.mark.skipif(obstacle("codec") is not None, reason="needs pesq and pystoi")
def test_what_is_too_short_has_no_value():
    short = Clip(np.zeros(2400, np.float32), 24000)
    assert not {"pesq_wb", "pesq_nb", "stoi"} & codec_quality.against(short, short).keys()


@pytest.mark.skipif(not installed("jiwer", "whisper_normalizer"), reason="needs jiwer and whisper-normalizer")
def test_error_rates_are_those_of_jiwer():
    import jiwer

    said, heard = "the cat sat on the mat", "a cat sat on mat today"
    found = compare(said, heard, "english", "plain")
    assert found is not None
    assert found.words.rate == jiwer.wer(said, heard)
    assert found.characters.rate == jiwer.cer(said, heard)
    assert found.mixed is found.words
    chinese = compare("今天天气很好。", "今天天汽好", "chinese", "language")
    assert chinese is not None and (chinese.mixed.count, chinese.mixed.of) == (2, 6)
    assert compare("...", "hello", "english", "plain") is None


@pytest.mark.skipif(not installed("whisper_normalizer", "text_to_num"), reason="needs whisper-normalizer")
@pytest.mark.parametrize(
    ("language", "one", "other"),
    [
        ("english", "Mr. Brown: the colour isn't twenty-one!", "mister brown the color is not 21"),
        ("german", "Der Zug fährt um einundzwanzig Uhr.", "der zug fährt um 21 uhr"),
        ("french", "Il a vingt et un ans.", "il a 21 ans"),
        ("spanish", "Tiene veintiún años.", "tiene 21 años"),
        ("italian", "Ho ventuno anni!", "ho 21 anni"),
        ("portuguese", "Tenho vinte e um anos.", "tenho 21 anos"),
        ("russian", "Всё хорошо, спасибо.", "все хорошо спасибо"),
        ("chinese", "我有二十一本书。", "我有21本书"),
        ("japanese", "今日は、いい天気です。", "今日はいい天気です"),
        ("korean", "안녕하세요, 반갑습니다!", "안녕하세요 반갑습니다"),
    ],
)
def test_texts_of_ten_languages_that_are_said_the_same(language, one, other):
    assert normalised(one, language) == normalised(other, language)
    assert normalised(one, language, "none") == one


def test_plain_keeps_words_and_drops_the_rest():
    assert plain("  “Don’t” – 'quote' ONE, two... ") == "don't quote one two"
    assert language_of("Guten Morgen, wie ist das Wetter", None) == "german"
    assert language_of("Guten Morgen", "fr-CA") == "french"


# --- the recogniser ---


@pytest.mark.skipif(not installed("pocketsphinx"), reason="needs pocketsphinx")
def test_with_the_words_and_the_grammar_of_the_demo_it_hears_what_its_score_hears(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(DEMO))
    grammar, theirs = importlib.import_module("grammar"), importlib.import_module("recogniser")
    forbidden = set(grammar.held_out(200, 0))
    sentences = [grammar.training_text(i, forbidden, 0) for i in range(0, 20_000, 2)]
    assert (DEMO / "bigrams.arpa").read_text(encoding="utf-8") == theirs.arpa(grammar.VOCABULARY, sentences)
    judge = theirs.Recogniser(tmp_path, grammar.VOCABULARY, sentences)
    ours = sphinx.Sphinx(CHECKPOINT / "words.txt", DEMO / "bigrams.arpa")
    for name in NAMES:
        sounds = clip(name)
        assert ours.hear(sounds.at(16000), "english") == judge.hear(sounds.wave, sounds.rate)
    assert ours.hear(clip(NAMES[2]).at(16000), "english").endswith("morning it is sunday")
    with pytest.raises(RequestError, match="pocketsphinx hears English, and this text is german"):
        ours.hear(np.zeros(1600, np.float32), "german")


@pytest.mark.skipif(not installed("pocketsphinx"), reason="needs pocketsphinx")
def test_pocketsphinx_hears_a_clip_as_if_it_were_the_first():
    """Its noise removal goes on from clip to clip: "so will this is that is" after the others, "the low will ..."."""
    waves = [clip(name).at(sphinx.RATE) for name in NAMES]
    one, other = sphinx.Sphinx(), sphinx.Sphinx()
    heard = [one.hear(wave, "english") for wave in waves]
    assert heard == [other.hear(wave, "english") for wave in reversed(waves)][::-1]


def test_a_run_that_is_not_there_is_called_a_run(tmp_path):
    with pytest.raises(QwenTTSError) as raised:
        load(tmp_path / "before.json")
    assert str(raised.value) == f"run {tmp_path / 'before.json'} not found"


@pytest.mark.skipif(not installed("pocketsphinx"), reason="needs pocketsphinx")
def test_words_and_grammars_that_cannot_be_used(tmp_path):
    words = tmp_path / "words.txt"
    for content, sentence in (("", "is empty"), ("hello xqzw", "cannot pronounce 'xqzw'")):
        words.write_text(content)
        with pytest.raises(RequestError, match=sentence):
            sphinx.Sphinx(words)
    grammar = tmp_path / "grammar.jsgf"
    grammar.write_text("no grammar")
    with pytest.raises(RequestError, match=r"cannot use .*grammar\.jsgf"):
        sphinx.Sphinx(None, grammar)
    with pytest.raises(RequestError, match=r"a grammar is one of \.jsgf"):
        sphinx.Sphinx(None, words)


def test_a_command_is_a_recogniser(tmp_path):
    script = tmp_path / "hear.py"
    script.write_text("import sys\nprint(' what I', 'heard in', sys.argv[2], open(sys.argv[1], 'rb').read(4).decode())")
    heard = recognisers.recogniser(f"{sys.executable} {script} {{audio}} {{language}}")
    assert heard.hear(np.zeros(160, np.float32), "german") == "what I heard in de RIFF"
    script.write_text("import sys\nsys.exit('no model')")
    with pytest.raises(RequestError, match="failed with status 1: no model"):
        heard.hear(np.zeros(160, np.float32), "german")
    with pytest.raises(RequestError, match="there is no program 'nobody'"):
        recognisers.recogniser("nobody --here")
    with pytest.raises(RequestError, match="restrict pocketsphinx"):
        recognisers.recogniser("faster-whisper", words=script)


def test_faster_whisper_is_a_recogniser_where_it_is_installed(monkeypatch):
    def transcribe(wave: object, language: str, condition_on_previous_text: bool) -> tuple[list[object], None]:
        assert language == "zh" and not condition_on_previous_text
        return [types.SimpleNamespace(text=" 你"), types.SimpleNamespace(text="好 ")], None

    package = types.ModuleType("faster_whisper")
    package.WhisperModel = lambda name: types.SimpleNamespace(transcribe=transcribe, name=name)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "faster_whisper", package)
    whisper = recognisers.recogniser("faster-whisper:small")
    assert whisper.name == "faster-whisper small"
    assert whisper.hear(np.zeros(160, np.float32), "chinese") == "你 好"


def test_weights_that_are_not_installed_are_named_with_the_command():
    with pytest.raises(RequestError, match="weights in not-here, which is not installed: do this"):
        wheels.file_of_wheel("not-here", ("a", "b"), "X", "do this")


# --- long audio ---


def test_long_audio_is_cut_in_pauses_and_where_subtitles_end(tmp_path):
    rate = 1000
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, 69 * rate).astype(np.float32)
    wave[25 * rate : 25 * rate + 200] = 0
    wave[50 * rate : 50 * rate + 200] = 0
    parts = list(pieces(wave, rate))
    np.testing.assert_array_equal(np.concatenate(parts), wave)
    assert [round(len(part) / rate) for part in parts] == [25, 25, 19]
    cut = list(pieces(wave, rate, [10.0, 20.0, 39.9]))
    assert [round(len(part) / rate) for part in cut] == [20, 20, 29]
    assert all(len(part) <= LONGEST * rate for part in cut)
    (tmp_path / "book.srt").write_text("1\n00:00:00,000 --> 00:00:04,500\nA\n\n2\n00:00:04,500 --> 01:00:06,000\nB\n")
    assert subtitle_ends(str(tmp_path / "book.flac")) == [4.5, 3606.0]
    assert subtitle_ends(str(tmp_path / "other.flac")) == []


# --- what a sound is like ---


def test_clicks_are_found_and_pulses_of_a_voice_are_none():
    for name in NAMES:
        assert not len(clicks(clip(name).wave, clip(name).rate))
    wave = clip("oak.flac").wave.copy()
    wave[12000] += 0.5
    wave[30000:] += 0.8
    assert clicks(wave, 24000).tolist() == [11999, 29999]


@pytest.mark.skipif(obstacle("level") is not None, reason="needs pyloudnorm")
def test_silence_pauses_level_and_pace():
    import pyloudnorm

    rate = 24000
    tone = (0.5 * np.sin(np.arange(rate) * 2 * np.pi * 200 / rate)).astype(np.float32)
    quiet = np.zeros(rate // 2, np.float32)
    made = Clip(np.concatenate([quiet, tone, quiet, tone, quiet[: rate // 4]]), rate)
    found = sound(made, "twelve words")
    assert found["silence_start"] == pytest.approx(0.5, abs=1e-3)
    assert found["silence_end"] == pytest.approx(0.25, abs=1e-3)
    assert found["pauses"] == 1 and found["longest_pause"] == pytest.approx(0.5, abs=0.05)
    assert found["rate"] == pytest.approx(11 / 2.5, abs=0.01)
    assert found["level"] == pyloudnorm.Meter(rate).integrated_loudness(made.wave)
    assert (found["runaway"], found["cut_short"], found["clipped"]) == (0, 0, 0)
    assert sound(Clip(np.tile(tone, 30), rate), "one")["runaway"] == 1
    assert sound(Clip(tone, rate), "many words " * 20)["cut_short"] == 1
    assert sound(Clip(np.clip(3 * tone, -0.9, 0.9), rate), None)["clipped"] > 0.5
    silent = sound(Clip(np.zeros(rate, np.float32), rate), "one")
    assert "level" not in silent and silent["silence_start"] == 1 and silent["clipped"] == 0
    assert pauses(tone, rate) == []


# --- statements ---


def run(name: str, errors: list[int], words: int = 5) -> Evaluation:
    values = [{"wer": Value(count / words, words), "seconds": Value(2.0)} for count in errors]
    return Evaluation(name, {}, [Utterance(str(i), "", "text", values=v) for i, v in enumerate(values)])


@settings(deadline=None, max_examples=10)
@given(st.lists(st.tuples(st.floats(-5, 5), st.integers(0, 9)), min_size=1, max_size=12))
def test_a_run_against_itself_differs_in_nothing(pairs):
    values = [Value(value, weight) for value, weight in pairs]
    found, own = difference(values, values), mean(values)
    assert (found is None) == (own is None) == (not sum(weight for _, weight in pairs))
    if found is not None and own is not None:
        assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)
        assert found.verdict(measure("wer"), 0.02) == "same"
        assert own.low - 1e-9 <= own.value <= own.high + 1e-9


def test_an_error_rate_is_that_of_all_words_together():
    found = mean([Value(1.0, 1), Value(0.0, 99)])
    assert found is not None and found.value == 0.01
    assert mean([Value(0.5, 0)]) is None
    off = difference([Value(0.0, 99), Value(0.0, 1)], [Value(1.0, 99), Value(0.0, 1)])
    assert off is not None and off.low <= off.value == 0.99 <= off.high


def test_verdicts():
    good, bad = run("bfloat16", [0, 1] * 50), run("int4", [2, 3] * 50)
    worse = compared(good, bad)
    assert {c.measure.name: c.verdict for c in worse.measures} == {"wer": "worse", "seconds": "same"}
    (wer, _) = worse.measures
    assert wer.difference.low <= wer.difference.value == pytest.approx(0.4) and wer.difference.p < 0.001
    assert worse.sentence() == "int4 is worse than bfloat16 in wer (100 pairs)"
    assert compared(bad, good).sentence() == "bfloat16 is better than int4 in wer (100 pairs)"
    near = compared(good, run("int8", [0, 1] * 49 + [1, 0]))
    assert near.sentence() == "int8 is as good as bfloat16 here, in wer (100 pairs)"
    few = compared(run("a", [0, 1, 2]), run("b", [2, 0, 1]))
    assert few.sentence() == "b is undecided in wer (more utterances would tell) (3 pairs)"
    assert compared(good, good).sentence().startswith("bfloat16 and bfloat16 do not differ in anything")


def test_runs_that_cannot_be_compared():
    good = run("a", [0, 1])
    with pytest.raises(RequestError, match="no id in common"):
        compared(good, Evaluation("b", {}, [Utterance("x", "", "text")]))
    with pytest.raises(RequestError, match="the id '0' has another text in b"):
        compared(good, Evaluation("b", {}, [Utterance("0", "", "other")]))
    judges = [Evaluation(name, {"recogniser": name}, good.utterances) for name in "ab"]
    with pytest.raises(RequestError, match="compared by the same judges: the recogniser of a is 'a'"):
        compared(*judges)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("wer", "must be a measure, one of"),
        ("wer=0.2", "must be a measure, one of"),
        ("wer<=", "must be a measure, one of"),
        ("beauty>=1", "there is no measure beauty"),
        ("wer<=nan", "'nan' is no number"),
        ("wer<=1e999", "is no number"),
        ("wer<=x", "'x' is no number"),
        ("wer<=0.1<=0.2", "must be a measure, one of"),
    ],
)
def test_requirements_that_are_none(text, sentence):
    with pytest.raises(RequestError, match=sentence):
        Requirement.parse(text)


def test_requirements():
    means = {"wer": Mean(0.3, 0.2, 0.4, 10)}
    assert Requirement.parse(" wer <= 0.3 ").problem(means) is None
    assert Requirement.parse("wer<0.3").problem(means) == "wer is 0.3000, required < 0.3"
    assert Requirement.parse("utmos>1", ("utmos",)).name == "utmos"
    with pytest.raises(RequestError, match="cer was not measured"):
        Requirement.parse("cer<1").problem(means)


def test_a_model_judges_with_its_own_speaker_encoder_and_its_codec_is_judged(synthetic):
    folder = synthetic("tiny", "base")
    model = Qwen3TTSModel.from_pretrained(folder, backend="reference")
    oak = str(CLIPS / NAMES[0])
    rows = [Row(n, str(n), str(n), audio=str(CLIPS / name), ref_audio=oak) for n, name in enumerate(NAMES)]
    found = evaluate(rows, Judges(("speaker",), cloner=model.cloner, independent=False), "own").utterances
    same, _, other = (u.values["similarity_own"].value for u in found)
    assert same == pytest.approx(1) and other < 1
    if obstacle("codec") is None:
        judges = Judges(("codec",), codec=model.speech_tokenizer, independent=False)
        (coded,) = evaluate(rows[:1], judges, "codec").utterances
        assert {"pesq_wb", "stoi", "mel_distance", "snr"} <= coded.values.keys()


# --- the benchmark ---


def test_seed_tts_is_read_with_its_settings(tmp_path):
    meta = tmp_path / "meta.lst"
    meta.write_text("a1|What she says.|prompts/a.wav|Good morning.\n\na2|她说。|prompts/b.wav|早上好。|wavs/b.wav\n")
    first, second = seed_tts.rows(meta, tmp_path / "out")
    assert (first.id, first.text, first.ref_text, first.language) == ("a1", "Good morning.", "What she says.", "auto")
    assert first.audio == str(tmp_path / "out" / "a1.wav") and first.ref_audio == str(tmp_path / "prompts" / "a.wav")
    assert second.text == "早上好。" and second.sampling == {"max_new_tokens": 2048}
    (tmp_path / "requests.jsonl").write_text(seed_tts.manifest(meta), encoding="utf-8")
    again = list(Manifest(tmp_path / "requests.jsonl").rows())
    assert [(r.id, r.text, r.ref_audio, r.language, r.sampling) for r in again] == [
        (r.id, r.text, r.ref_audio, r.language, r.sampling) for r in (first, second)
    ]
    meta.write_text("a1|only three|fields\n")
    with pytest.raises(RequestError, match=r"meta\.lst:1: expected id\|words of the clip\|clip\|text"):
        list(seed_tts.rows(meta))


# --- the command ---


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    rows = [{"id": name, "text": text, "audio": str(CLIPS / name)} for name, text in zip(NAMES, TEXTS, strict=True)]
    path = tmp_path / "run.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"id": "x", "text": "a", "error": "no disk"}]))
    return path


def command(*words: object) -> int:
    from qwen3tts_np import cli

    return cli.main(["evaluate", *map(str, words)])


@pytest.mark.skipif(
    not installed("pocketsphinx", "jiwer", "pyloudnorm", "whisper_normalizer"), reason="needs the extra evaluate"
)
def test_the_command_measures_writes_and_compares(manifest, tmp_path, capsys):
    listening = ["--measure", "words", "sound", "--words", CHECKPOINT / "words.txt", "--grammar", DEMO / "bigrams.arpa"]
    plug = f"loud={sys.executable} -c print(3.5)"
    out = ["-o", tmp_path / "run.json", "--html", tmp_path / "run.html", "--plug", plug]
    assert command(manifest, *listening, *out, "--require", "wer<=0.9") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "recogniser: pocketsphinx, restricted by words.txt and bigrams.arpa" in printed
    assert "Not measured, for want of audio: 1 of 4." in printed
    written = load(tmp_path / "run.json")
    assert [u.id for u in written.utterances] == list(NAMES)
    assert written.means["loud"].value == 3.5
    page = (tmp_path / "run.html").read_text(encoding="utf-8")
    assert page.count("<audio") == page.count("<img") == 3 and 'src="http' not in page
    again = [tmp_path / "run.json", "--against", tmp_path / "run.json", "--json", "--require", "wer<0"]
    assert command(*again) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["problems"] and found["problems"][0].startswith("wer is 0.")
    for one in found["against"]["measures"].values():
        assert one["difference"] == one["low"] == one["high"] == 0 and one["p"] == 1


def test_the_help_names_every_measure(capsys):
    with pytest.raises(SystemExit):
        command("--help")
    printed = " ".join(capsys.readouterr().out.split())
    assert "words: wer, cer, mixed; speaker: similarity, similarity_own; dnsmos: dnsmos," in printed


def test_requests_that_cannot_be_met_are_one_sentence(manifest, tmp_path, capsys):
    def refused(sentence: str, *words: object) -> None:
        assert command(*words) == 2
        assert sentence in capsys.readouterr().err

    refused("there is no measure nonsense", manifest, "--require", "nonsense<1")
    refused("--measure speaker: no row has ref_audio", manifest, "--measure", "speaker")
    refused("must be a name, '=' and a number", manifest, "--margin", "wer=much")
    refused("--audio-dir is where the benchmark", manifest, "--audio-dir", tmp_path)
    refused("needs --audio-dir", manifest, "--protocol", "seed-tts")
    refused("give --protocol seed-tts", manifest, "--to-manifest", tmp_path / "x.jsonl")
    refused("'klingon' must be one of chinese", manifest, "--measure", "sound", "--language", "klingon")
    (tmp_path / "other.json").write_text("{}")
    refused("is no run of evaluate: its format is None", manifest, "--against", tmp_path / "other.json")
    (tmp_path / "none.jsonl").write_text('{"id": "a", "text": "b"}\n')
    refused("none of 1 rows has audio: a: it has no audio", tmp_path / "none.jsonl", "--measure", "sound")
    (tmp_path / "twice.jsonl").write_text(2 * (json.dumps({"id": "a", "audio": str(CLIPS / NAMES[0])}) + "\n"))
    refused("the id 'a' is of two rows, in lines 1 and 2", tmp_path / "twice.jsonl", "--measure", "sound")
    refused("would overwrite what MANIFEST", manifest, "-o", manifest)
    assert not (tmp_path / "x.jsonl").exists()


def test_an_older_file_of_torch_is_read_and_nothing_in_it_is_run(tmp_path, monkeypatch):
    fake_torch(monkeypatch)
    values = np.arange(6, dtype="<f4")
    tensors = {
        "a": Rebuilt("FloatStorage", values, (2, 3), (3, 1)),
        "b": Rebuilt("FloatStorage", values, (3, 2), (1, 3)),
    }
    path = older_torch_save(tmp_path / "weights.pt", {"step": 7, "state": tensors})
    found = read_torch(path, "thing")
    assert found["step"] == 7
    np.testing.assert_array_equal(found["state"]["a"], values.reshape(2, 3))
    np.testing.assert_array_equal(found["state"]["b"], values.reshape(2, 3).T)
    (tmp_path / "short.pt").write_bytes(path.read_bytes()[:-4])
    with pytest.raises(QwenTTSError, match="it ends within its values"):
        read_torch(tmp_path / "short.pt", "thing")
    with pytest.raises(QwenTTSError, match=r"no thing: it holds (builtins|__builtin__)\.print"):
        read_torch(older_torch_save(tmp_path / "evil.pt", {"a": print}), "thing")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), min_size=1, max_size=4))
def test_whatever_is_in_an_older_file_it_is_read_or_refused(tmp_path, monkeypatch, changes):
    fake_torch(monkeypatch)
    tensor = Rebuilt("FloatStorage", np.ones(6, "<f4"), (2, 3), (3, 1))
    content = bytearray(older_torch_save(tmp_path / "weights.pt", {"a": tensor}).read_bytes())
    for place, value in changes:
        content[place % len(content)] = value
    (tmp_path / "changed.pt").write_bytes(content)
    with suppress(QwenTTSError):
        read_torch(tmp_path / "changed.pt", "thing")


def test_clips_of_several_channels_are_their_mean():
    wave, rate = soundfile.read(CLIPS / "reed_stereo.flac", dtype="float32")
    assert rate == 44100 and wave.shape[1] == 2
    np.testing.assert_allclose(clip("reed_stereo.flac").wave, wave.mean(axis=1), atol=1e-7)


def test_outputs_are_kept_apart_from_the_audio(tmp_path, capsys):
    """What a manifest names is an input as much as the manifest."""
    soundfile.write(tmp_path / "a.wav", np.zeros(24_000, np.float32), 24_000)
    (tmp_path / "link.json").symlink_to(tmp_path / "a.wav")
    rows = tmp_path / "rows.jsonl"
    before = (tmp_path / "a.wav").read_bytes()
    for field in ("audio", "ref_audio"):
        rows.write_text(json.dumps({"id": "a", "text": "Hi.", "audio": "a.wav", field: "a.wav"}))
        for option, name in (("-o", "a.wav"), ("--html", "link.json")):
            assert command(rows, "--measure", "sound", option, tmp_path / name) == 2
            assert "a.wav reads" in capsys.readouterr().err
    (tmp_path / "meta.lst").write_text("a|Hi.|a.wav|Ho.\n")
    assert command(tmp_path / "meta.lst", "--protocol", "seed-tts", "--to-manifest", tmp_path / "a.wav") == 2
    assert "a.wav reads" in capsys.readouterr().err
    assert (tmp_path / "a.wav").read_bytes() == before


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("while True: print('y' * 65536)", "prints more than 1048576 bytes"),
        ("import sys\nwhile True: sys.stderr.write('y' * 65536)", "prints more than 1048576 bytes"),
        ("import time; time.sleep(60)", "has not ended within 1 s"),
        ("print('nan')", "printed no finite number at its end"),
        ("print('1e999')", "printed no finite number at its end"),
        ("print(b'\\xff')", "printed no finite number at its end"),
        ("raise SystemExit(3)", "failed with status 3: it said nothing"),
    ],
)
def test_commands_that_do_not_measure(tmp_path, capsys, monkeypatch, program, told):
    monkeypatch.setattr(recognisers, "PATIENCE", 1)
    soundfile.write(tmp_path / "a.wav", np.zeros(24_000, np.float32), 24_000)
    (tmp_path / "rows.jsonl").write_text(json.dumps({"id": "a", "text": "Hi.", "audio": "a.wav"}))
    (tmp_path / "plug.py").write_text(program)
    plug = f"x={shlex.join([sys.executable, str(tmp_path / 'plug.py')])}"
    assert command(tmp_path / "rows.jsonl", "--measure", "sound", "--plug", plug) == 2
    assert told in capsys.readouterr().err
