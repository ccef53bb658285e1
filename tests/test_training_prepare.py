"""``train prepare``: each rule by a row that breaks it alone, the split, sources, and what an interruption costs."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from qwen3tts_np import cli
from qwen3tts_np.checkpoint.safetensors import Checkpoint
from qwen3tts_np.errors import OutputError, QwenTTSError, RequestError
from qwen3tts_np.files.journal import MARK, open_journal
from qwen3tts_np.manifest import Manifest
from qwen3tts_np.report.histogram import TICKS, ticks
from qwen3tts_np.training.augmentation import FramePool, exchanged
from qwen3tts_np.training.data import read_clips
from qwen3tts_np.training.prepare import measure as measuring
from qwen3tts_np.training.prepare.in_order import in_order
from qwen3tts_np.training.prepare.names import Names
from qwen3tts_np.training.prepare.outputs import write
from qwen3tts_np.training.prepare.parquet import ParquetSource
from qwen3tts_np.training.prepare.prepare import Preparation, Settings
from qwen3tts_np.training.prepare.rules import Range, least_cosine
from qwen3tts_np.training.prepare.source import ManifestSource
from qwen3tts_np.training.prepare.split import is_validation, share_of
from qwen3tts_np.training.prepare.tools import Tools
from qwen3tts_np.training.settings import TrainingSettings

ROOT = Path(__file__).parents[1]
RATE = 24000
VOICE, OTHER = 140.0, 470.0  # Hz


def clip(seed: int, seconds: float = 1.0, pitch: float = VOICE, noise: float = 0.0) -> np.ndarray:
    """A hum with syllables and pauses, different for every seed."""
    draw, t = np.random.default_rng(seed), np.arange(round(seconds * RATE)) / RATE
    syllables = np.maximum(0, np.sin(2 * np.pi * (2 + draw.random()) * t + draw.random()))
    wave = sum(np.sin(2 * np.pi * pitch * k * t + draw.random() * 6) / k for k in range(1, 6))
    return (0.15 * syllables * wave + noise * draw.standard_normal(len(t))).astype(np.float32)


@pytest.fixture(scope="module")
def tools(synthetic: Callable[..., Path]) -> Tools:
    return Tools.load(synthetic("tiny", "base"))


@pytest.fixture(autouse=True)
def _inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # sentences name the manifest as it was named


def rows_of(folder: Path, count: int = 12, text: str = "one two three") -> list[dict]:
    for i in range(count):
        soundfile.write(folder / f"{i}.wav", clip(i), RATE, subtype="FLOAT")
    return [{"audio": f"{i}.wav", "text": f"{text} {i % 10}", "ref_audio": "0.wav"} for i in range(count)]


def manifest(folder: Path, rows: list) -> Path:
    path = folder / "raw.jsonl"
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def prepare(folder: Path, rows: list, tools: Tools, **settings) -> tuple[dict, Preparation]:
    names = Names(folder / "out.jsonl")
    with open_journal(names.journal) as journal:
        done = Preparation(
            ManifestSource(manifest(folder, rows).relative_to(folder)), tools, journal, Settings(**settings)
        )
        done.measure(lambda rows, seconds: None)
        done.judge()
        return write(done, names), done


def test_rows_become_codes_and_an_x_vector(tmp_path, tools):
    rows = [{**row, "speaker": "Ada", "language": "en"} for row in rows_of(tmp_path)]
    summary, _ = prepare(tmp_path, rows, tools, validation=0.3)
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    held = [json.loads(line) for line in (tmp_path / "out.validation.jsonl").read_text().splitlines()]
    assert summary["findings"] == [] and len(found) + len(held) == 12 and held
    assert all(is_validation(row["text"], 0.3) for row in held)
    assert not any(is_validation(row["text"], 0.3) for row in found)
    for row in found:
        codes = tools.codec.encode(str(tmp_path / row["audio"])).audio_codes[0]
        np.testing.assert_array_equal(row["audio_codes"], codes)
        assert row["speaker"] == "ada" and row["language"] == "en" and row["ref_audio"] == "0.wav"
    assert tools.voices is not None
    (vector,) = [t.data for t in Checkpoint.open(tmp_path / "out.safetensors").values()]
    np.testing.assert_array_equal(vector, tools.voices.embedding(clip(0), RATE))
    assert sum(row.audio_codes is not None for row in Manifest(tmp_path / "out.jsonl").rows()) == len(found)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="FIFOs")
def test_a_fifo_to_which_nothing_is_written_stays(tmp_path, synthetic):
    """There are no validation rows, and of a model without an encoder no x-vectors."""
    for name in ("out.validation.jsonl", "out.safetensors"):
        os.mkfifo(tmp_path / name)
    tools = Tools.load(synthetic("tiny", "custom_voice"))
    prepare(tmp_path, rows_of(tmp_path), tools, validation=0, round_trips=0)
    assert all((tmp_path / name).is_fifo() for name in ("out.validation.jsonl", "out.safetensors"))


def test_a_row_without_a_speaker_can_be_named_when_it_is_trained(tmp_path, tools):
    prepare(tmp_path, rows_of(tmp_path), tools, validation=0, round_trips=0)
    for settings, name in ((TrainingSettings(), "speaker"), (TrainingSettings(speaker_name="Ada"), "ada")):
        clips = read_clips(tmp_path / "out.jsonl", tools.config, settings)
        assert {clip.speaker for clip in clips} == {name}
        assert {clip.given_speaker for clip in clips} == {"speaker"}  # under which its x-vector is kept


def test_an_x_vector_is_the_mean_of_the_references(tmp_path, tools):
    rows = rows_of(tmp_path, 4)
    for row, name in zip(rows, ("1.wav", "2.wav", "1.wav", "none.wav"), strict=True):
        row["ref_audio"] = name
    summary, _ = prepare(tmp_path, rows, tools, validation=0)
    (vector,) = [t.data for t in Checkpoint.open(tmp_path / "out.safetensors").values()]
    mean = np.mean([tools.voices.embedding(clip(i), RATE).astype(np.float64) for i in (1, 2)], axis=0)
    np.testing.assert_array_equal(vector, mean.astype(np.float32))
    assert [s for s in summary["findings"] if "none.wav" in s and "left out" in s]
    assert not (tmp_path / "out.validation.jsonl").exists()


def _write(folder: Path, name: str, wave: np.ndarray) -> dict:
    soundfile.write(folder / name, wave, RATE, subtype="FLOAT")
    return {"audio": name, "text": "one two three 4", "ref_audio": "0.wav"}


BROKEN: dict[str, Callable[[Path], dict | str]] = {
    "unreadable: No such file": lambda f: {"audio": "none.wav", "text": "one two three 4"},
    "unreadable: not finite": lambda f: _write(f, "x.wav", np.where(np.arange(RATE) == 9, np.nan, clip(99))),
    "unreadable: neither audio nor": lambda f: {"text": "one two three 4"},
    "unreadable: not valid JSON": lambda f: "nonsense",
    "unreadable: libsndfile": lambda f: ((f / "x.wav").write_bytes(b"RIFF" * 9), {"audio": "x.wav", "text": "one"})[1],
    "unreadable: a directory": lambda f: {"audio": ".", "text": "one two three 4"},
    "unreadable: codes": lambda f: {"text": "one two three 4", "audio_codes": [[1, 2]]},
    "text: has no text": lambda f: {"audio": "1.wav"},
    "text: has the text '...', which no": lambda f: {**_write(f, "x.wav", clip(99)), "text": "..."},
    "text: which no clip can say": lambda f: {**_write(f, "x.wav", clip(99)), "text": "O\0n\0e\0"},
    "speaker: cannot be the name of a voice": lambda f: {**_write(f, "x.wav", clip(99)), "speaker": "a\0b"},
    "text: has a text of 5001 characters": lambda f: {**_write(f, "x.wav", clip(99)), "text": "x" * 5001},
    "speaker: '__metadata__' cannot be": lambda f: {**_write(f, "x.wav", clip(99)), "speaker": "__metadata__"},
    "speaker: '  ' cannot be": lambda f: {**_write(f, "x.wav", clip(99)), "speaker": "  "},
    "short: 0.20 s": lambda f: _write(f, "x.wav", clip(99, 0.2)),
    "long: 31.00 s": lambda f: _write(f, "x.wav", clip(99, 31)),
    "silent: -200 dB": lambda f: _write(f, "x.wav", np.zeros(RATE)),
    "scale: has values up to": lambda f: _write(f, "x.wav", 32767 * clip(99)),
    "equal codes: has the codes of raw.jsonl:2": lambda f: {"audio": "1.wav", "text": "another text"},
    "clipped: cut flat": lambda f: _write(f, "x.wav", np.clip(20 * clip(99), -0.9, 0.9)),
    "noise: below the voice": lambda f: _write(f, "x.wav", clip(99, noise=0.02)),
    "rate: frames per text token": lambda f: {**_write(f, "x.wav", clip(99)), "text": "one two " * 20},
    "voice: sounds like another": lambda f: _write(f, "x.wav", clip(99, pitch=OTHER)),
    "language: 'klingon'": lambda f: {**_write(f, "x.wav", clip(99)), "language": "klingon"},
    "few codes: 1 different": lambda f: {"text": "one two three 4", "audio_codes": [[7] * 16] * 13},
}


@pytest.mark.parametrize("broken", BROKEN)
def test_every_rule_is_named_in_one_sentence(tmp_path, tools, broken, monkeypatch):
    monkeypatch.setattr("qwen3tts_np.training.prepare.rules.OTHER_VOICE", 0.0)  # of random weights all sound alike
    rule, told = broken.split(": ")
    rows = rows_of(tmp_path)
    if rule != "voice":
        monkeypatch.setattr("qwen3tts_np.training.prepare.rules.FEWEST_OF_VOICE", 99)
    summary, done = prepare(tmp_path, [*rows, BROKEN[broken](tmp_path)], tools, round_trips=0)
    assert rule in summary["rules"]
    (finding,) = [finding for finding in done.findings if finding.rule == rule and finding.where == "raw.jsonl:13"]
    assert told in finding.sentence() and finding.sentence().startswith("raw.jsonl:13: ")
    assert "\n" not in finding.sentence()
    assert summary["train"]["rows"] + summary["validation"]["rows"] == (12 if finding.refuses else 13)
    assert finding.sentence().replace("<", "&lt;").split("'")[0] in (tmp_path / "out.html").read_text()


def test_a_reference_that_would_fill_the_memory_is_left_out(tmp_path, tools, monkeypatch):
    monkeypatch.setattr(measuring, "MOST_SECONDS", 0.9)
    summary, _ = prepare(tmp_path, rows_of(tmp_path, 2), tools, round_trips=0)
    finding, _ = summary["findings"]  # of either row
    assert "has a reference that cannot be used: it lasts 1 s, and 0.9 s are the most; a reference can be" in finding


def test_a_clip_that_the_codec_loses_is_named(tmp_path, tools, monkeypatch):
    distances = dict(enumerate([5.0, 5.1, 4.9, 5.0, 5.1, 5.2, 30.0]))
    monkeypatch.setattr(
        "qwen3tts_np.training.prepare.prepare.round_trip", lambda row, *_: distances[int(Path(row.audio).stem)]
    )
    summary, done = prepare(tmp_path, rows_of(tmp_path), tools, round_trips=7)
    assert [f.where for f in done.findings if f.rule == "round trip"] == ["raw.jsonl:7"]
    assert summary["round_trip"] == {"clips": 7, "median_db": 5.1, "worst_db": 30.0}


def test_the_round_trip_is_that_of_the_codec(tmp_path, tools):
    _, done = prepare(tmp_path, rows_of(tmp_path, 2), tools, round_trips=1)
    assert np.isfinite(done.trips).tolist() == [True, False] and done.trips[0] > 0


def test_nothing_usable_is_one_sentence(tmp_path, tools):
    with pytest.raises(RequestError, match=r"none of its 1 rows can be used; the first: raw\.jsonl:1: has no text"):
        prepare(tmp_path, [{"audio": "0.wav"}] if rows_of(tmp_path, 1) else [], tools)
    with pytest.raises(RequestError, match="is empty"):
        prepare(tmp_path, [], tools)


# --- threads --------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_the_order_of_their_items(threads):
    taken, made = [], []

    def items():
        for i in range(40):
            taken.append(i)
            yield i

    def work(i):
        time.sleep(0.001 * (i % 3))
        made.append(i)
        return -i

    for item, result in in_order(work, items(), threads):
        assert result == -item and len(taken) <= item + 2 * threads  # no more of them wait in memory
    assert sorted(made) == taken == list(range(40))


@pytest.mark.parametrize("threads", [1, 3])
def test_what_fails_fails_in_its_turn(threads):
    results = in_order(lambda i: 1 // (i - 7), range(99), threads)
    assert [next(results)[0] for _ in range(7)] == list(range(7))
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_threads_change_no_byte(tmp_path, tools):
    rows = rows_of(tmp_path, 6)
    rows += rows[1:3]  # the same rows again, perhaps while they are in work
    found = []
    for threads in (1, 4):
        prepare(tmp_path, rows, replace(tools, threads=threads))
        found.append({path.name: path.read_bytes() for path in tmp_path.glob("out.*")})
        for path in tmp_path.glob("out.*"):
            path.unlink()
    assert (
        found[0] == found[1] and found[0]["out.journal"].count(b"\n") == 1 + 6 + 1 + 6
    )  # the mark, rows, their reference, trips


# --- the page -------------------------------------------------------------------------------------


def test_the_page_has_what_was_measured_and_not_all_of_100000_findings(tmp_path, tools, monkeypatch):
    monkeypatch.setattr("qwen3tts_np.training.prepare.report.LISTED", 2)
    bad = [{"text": f"{i}"} for i in range(5)]
    prepare(tmp_path, [*rows_of(tmp_path, 3), *bad], tools, round_trips=0)
    page = (tmp_path / "out.html").read_text()
    assert page.count("<li>") == 2 and "and 3 more, which the .json file" in page
    assert page.count("<svg") == 4 and "What the codec itself loses" not in page


@given(st.floats(-1e4, 1e4), st.floats(1e-3, 1e6))
def test_ticks_are_some_round_numbers_within(low, length):
    found = ticks(low, low + length)
    assert 1 <= len(found) <= TICKS and all(low - 1e-9 * length <= tick <= low + length * (1 + 1e-9) for tick in found)
    steps = {f"{b - a:.5e}"[:1] for a, b in pairwise(found) if b - a > 1e-9 * abs(b)}
    assert len(found) == 1 or steps <= {"1", "2", "4", "5", "9"}


# --- interruptions --------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("out.*") if path.suffix != ".journal"}


def test_what_has_been_measured_is_not_measured_again(tmp_path, tools, monkeypatch):
    rows = rows_of(tmp_path)
    _, whole = prepare(tmp_path, rows, tools)
    expected = contents(tmp_path)
    assert whole.made == 12
    for path in tmp_path.glob("out.*"):
        path.unlink()
    first = measuring.measure

    def dying(row, tools):
        if row.audio.endswith("7.wav"):
            raise KeyboardInterrupt
        return first(row, tools)

    with monkeypatch.context() as patch:
        patch.setattr("qwen3tts_np.training.prepare.prepare.measure", dying)
        with pytest.raises(KeyboardInterrupt):
            prepare(tmp_path, rows, tools)
    assert contents(tmp_path) == {}
    with (tmp_path / "out.journal").open("ab") as journal:
        journal.write(b'{"key": "half a li')  # what a killed process leaves
    _, resumed = prepare(tmp_path, rows, tools)
    assert resumed.made == 5 and contents(tmp_path) == expected
    _, again = prepare(tmp_path, rows, tools)
    assert again.made == 0 and contents(tmp_path) == expected
    rows[3]["text"] = "another text"
    assert prepare(tmp_path, rows, tools)[1].made == 1


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="a system without SIGKILL")
def test_a_killed_program_leaves_nothing_half_written(tmp_path, synthetic):
    rows_of(tmp_path, 3)
    raw, out = manifest(tmp_path, rows_of(tmp_path, 3)), tmp_path / "out.jsonl"
    killing = (
        "import os, signal, sys\nfrom qwen3tts_np import cli\n"
        "from qwen3tts_np.training.prepare import prepare\nfirst = prepare.measure\n"
        "def dying(row, tools):\n    if row.audio.endswith('2.wav'):\n        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return first(row, tools)\nprepare.measure = dying\ncli.main(sys.argv[1:])"
    )
    command = ["train", "prepare", str(raw), str(out), "--model", str(synthetic("tiny", "base")), "--round-trips", "0"]
    command += ["--threads", "1"]  # of several, one would have the third row in work before the first is written
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")])}
    done = subprocess.run([sys.executable, "-c", killing, *command], env=environment, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [path.name for path in tmp_path.glob("*out*")] == ["out.journal"]
    assert len((tmp_path / "out.journal").read_bytes().splitlines()) == 4  # the mark, two rows, the reference
    assert cli.main(command) == 0
    assert len(out.read_text().splitlines()) + len(list(tmp_path.glob("out.validation*"))) >= 3


def test_a_journal_is_nobody_elses_file(tmp_path):
    (tmp_path / "mine.journal").write_text("my diary\n")
    with pytest.raises(OutputError, match="no journal of this program"), open_journal(tmp_path / "mine.journal"):
        pass
    assert (tmp_path / "mine.journal").read_text() == "my diary\n"
    (tmp_path / "cut.journal").write_bytes(MARK[:5])
    with open_journal(tmp_path / "cut.journal") as journal:
        journal.add("a", {"x": 1})
        with pytest.raises(OutputError, match="another process"), open_journal(tmp_path / "cut.journal"):
            pass
    with open_journal(tmp_path / "cut.journal") as journal:
        assert "a" in journal and journal["a"]["x"] == 1 and "b" not in journal


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a system without /dev/full")
def test_a_full_disk_is_one_sentence(tmp_path):
    full = os.open("/dev/full", os.O_RDWR)
    with open_journal(tmp_path / "a.journal") as journal:
        journal.add("a", {})
    with contextlib.suppress(OutputError), open_journal(tmp_path / "a.journal") as journal:
        os.dup2(full, journal._file.fileno())
        with pytest.raises(OutputError, match="cannot be written: No space left"):
            journal.add("b", {"x": "y" * 100_000})
    os.close(full)
    with open_journal(tmp_path / "a.journal") as journal:
        assert "a" in journal and "b" not in journal


# --- the split ------------------------------------------------------------------------------------


@given(st.text(max_size=40), st.floats(0, 0.5))
def test_equal_texts_are_on_one_side(text, share):
    side = is_validation(text, share)
    assert is_validation(f"  {text.upper().lower()}\n".casefold(), share) == is_validation(text.upper().lower(), share)
    assert is_validation(f" {text} ", share) == side
    assert not (side and not is_validation(text, 0.5))  # a larger share holds the smaller one


def test_the_share_is_that_of_the_texts():
    held = sum(is_validation(f"text {i}", 0.05) for i in range(4000))
    assert 150 < held < 250
    assert share_of("5%") == share_of("0.05") == 0.05
    for wrong in ("x", "-1%", "60%", "", "nan"):
        with pytest.raises(RequestError, match="share"):
            share_of(wrong)


# --- rules ----------------------------------------------------------------------------------------


def test_ranges_are_robust():
    values = np.array([3.0, 3.1, 2.9, 3.0, 3.05, 2.95, 3.0, 3.1, 2.9, 50.0, np.nan])
    usual = Range.of(values)
    assert usual is not None and 3.1 in usual and 50.0 not in usual and float("nan") in usual
    assert Range.of(values[:5]) is None
    assert least_cosine(np.array([0.9, 0.91, 0.92, 0.9, 0.9])) == pytest.approx(0.8)
    assert least_cosine(np.array([0.9, 0.9])) is None


# --- data sets ------------------------------------------------------------------------------------


def wav(seed: int) -> bytes:
    content = io.BytesIO()
    soundfile.write(content, clip(seed), RATE, format="WAV", subtype="FLOAT")
    return content.getvalue()


def tables(folder: Path, files: dict[str, int], **renamed: str) -> None:
    """Parquet files with as many rows each; every clip is another one."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    seed = 0
    for name, rows in files.items():
        columns = {
            renamed.get("audio", "audio"): [{"bytes": wav(seed + i), "path": "x.wav"} for i in range(rows)],
            renamed.get("text", "sentence"): [f"one two three {seed + i}" for i in range(rows)],
            "speaker_id": [7] * rows,
            "duration": [1.0] * rows,
        }
        seed += rows
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pyarrow.table(columns), folder / name)


def run(*words: object, capsys) -> tuple[int, str, str]:
    status = cli.main(["train", "prepare", *map(str, words)])
    return status, *capsys.readouterr()


def test_a_folder_of_parquet_files_is_read(tmp_path, synthetic, capsys):
    files = {"data/train-00000-of-00002.parquet": 3, "data/train-00001-of-00002.parquet": 2, "data/test.parquet": 4}
    tables(tmp_path / "set", files)
    status, out, _ = run(tmp_path / "set", "--info", "--json", capsys=capsys)
    info = json.loads(out)
    assert status == 0 and info["rows"] == 5 and info["hours"] == pytest.approx(5 / 3600)
    model = synthetic("tiny", "base")
    options = ("--model", model, "--validation", "0%", "--round-trips", "0")
    assert run(tmp_path / "set", tmp_path / "out.jsonl", *options, capsys=capsys)[0] == 0
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == [f"one two three {i}" for i in range(5)]
    assert {row["speaker"] for row in rows} == {"7"} and "audio" not in rows[0]
    assert run(tmp_path / "set", tmp_path / "o.jsonl", *options, "--max-samples", "2", capsys=capsys)[0] == 0
    assert len((tmp_path / "o.jsonl").read_text().splitlines()) == 2
    status, _, err = run(tmp_path / "set", "--info", "--split", "dev", capsys=capsys)
    assert status == 2 and "it has test, train" in err


def test_columns_have_other_names(tmp_path, synthetic, capsys):
    tables(tmp_path / "set", {"a.parquet": 1}, audio="sound", text="words")
    status, _, err = run(tmp_path / "set", tmp_path / "o.jsonl", "--model", synthetic("tiny", "base"), capsys=capsys)
    assert status == 2 and "has no column 'text' for text; it has sound, words" in err
    columns = ("--column", "text=words", "--column", "audio=sound")
    options = ("--model", synthetic("tiny", "base"), "--validation", "0%", "--round-trips", "0", *columns)
    assert run(tmp_path / "set", tmp_path / "o.jsonl", *options, capsys=capsys)[0] == 0
    assert run(tmp_path / "set", tmp_path / "o.jsonl", "--column", "x", capsys=capsys)[0] == 2


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"\xff" * 40 + b"PAR1", b"x" * 100])
def test_a_damaged_table_is_one_sentence(tmp_path, content, capsys):
    pytest.importorskip("pyarrow")
    (tmp_path / "a.parquet").write_bytes(content)
    status, _, err = run(tmp_path, "--info", capsys=capsys)
    assert status == 2 and "no Parquet file that can be read" in err and len(err.splitlines()) == 1


def test_columns_of_another_type_are_one_sentence(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    texts, clips = pyarrow.array(["a"]), pyarrow.array([{"bytes": wav(0), "path": "x"}])
    for columns, told in (
        ({"audio": clips, "text": [["a"]]}, "column 'text' for text is 'list<element: string>', expected text"),
        ({"audio": clips, "text": [7]}, "column 'text' for text is 'int64', expected text"),
        (
            {"audio": [[0.5]], "text": texts},
            "column 'audio' for audio is 'list<element: double>', expected the content",
        ),
        ({"audio": [{"bytes": "x"}], "text": texts}, "for audio is 'struct<bytes: string>', expected the content"),
        ({"audio": pyarrow.nulls(1), "text": texts}, "column 'audio' for audio is 'null', expected the content of"),
        ({"audio": clips, "text": texts, "speaker": [0.5]}, "for speaker is 'double', expected text or whole numbers"),
    ):
        parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
        with pytest.raises(RequestError) as refused:
            next(iter(ParquetSource.of_folder(tmp_path, "train", {})))
        assert told in str(refused.value)
    parquet.write_table(pyarrow.table({"audio": clips, "text": texts.dictionary_encode()}), tmp_path / "a.parquet")
    assert next(iter(ParquetSource.of_folder(tmp_path, "train", {}))).fields == {"text": "a"}


def test_a_damaged_row_of_a_table_is_refused(tmp_path, tools, synthetic, capsys):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    audio = [{"bytes": b"none", "path": None}, {"bytes": None, "path": "a.wav"}, None, {"bytes": wav(1), "path": "b"}]
    table = pyarrow.table({"audio": audio, "text": ["a", "b", "c", "one two three"]})
    parquet.write_table(table, tmp_path / "a.parquet")
    options = ("--model", synthetic("tiny", "base"), "--round-trips", "0", "--json")
    status, out, _ = run(tmp_path, tmp_path / "o.jsonl", *options, capsys=capsys)
    summary = json.loads(out)
    assert status == 0 and summary["refused"] == 3
    assert [s.partition(":")[2].partition(":")[0] for s in summary["findings"]] == ["1", "2", "3"]


class Cut(io.BytesIO):
    """A file at the hub whose connection ends: an error of the HTTP library, which is no OSError."""

    def read(self, *_):
        raise RuntimeError("cut off")


class Hub(types.ModuleType):
    """huggingface_hub with one data set, whose files lie in a folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__("huggingface_hub")
        self.folder, self.fetched = folder, []

    def HfApi(self):
        return self

    def HfFileSystem(self):
        return self

    def list_repo_files(self, name, *, repo_type, revision):
        if name != "ada/speech" or repo_type != "dataset":
            raise OSError(f"404: there is no {name}\nsecond line")
        found = [path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*.parquet")]
        return ["README.md", *(found if revision == "refs/convert/parquet" else [])]

    def hf_hub_download(self, name, file, **where):
        self.fetched.append(file)
        return str(self.folder / file)

    def open(self, path, *, block_size):
        return (self.folder / path.split("parquet/", 1)[1]).open("rb")


def test_a_data_set_of_the_hub(tmp_path, synthetic, capsys, monkeypatch):
    tables(tmp_path / "hub", {"en/train/0000.parquet": 2, "en/train/0001.parquet": 2, "de/train/0000.parquet": 1})
    hub = Hub(tmp_path / "hub")
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    status, _, err = run("hub:ada/speech", "--info", capsys=capsys)
    assert status == 2 and "has the subsets de, en; name one: hub:ada/speech/de" in err
    status, out, _ = run("hub:ada/speech/en", "--info", "--json", capsys=capsys)
    assert status == 0 and json.loads(out)["rows"] == 4 and hub.fetched == []
    options = ("--model", synthetic("tiny", "base"), "--round-trips", "0", "--max-samples", "2")
    assert run("hub:ada/speech/en", tmp_path / "o.jsonl", *options, capsys=capsys)[0] == 0
    assert hub.fetched == ["en/train/0000.parquet"]  # what is not needed is not fetched
    for name, told in (("hub:bob/none", "404: there is no bob/none"), ("hub:x", "must be hub:OWNER/NAME")):
        status, _, err = run(name, "--info", capsys=capsys)
        assert status == 2 and told in err and len(err.splitlines()) == 1
    assert run("hub:ada/speech/en", "--info", "--offline", capsys=capsys)[0] == 2
    monkeypatch.setattr(hub, "open", lambda path, **_: Cut(b"PAR1" * 99))
    status, _, err = run("hub:ada/speech/en", "--info", capsys=capsys)
    assert (status, err) == (2, "qwen3tts-np train: hub:ada/speech: en/train/0000.parquet cannot be read: cut off\n")


# --- the command ----------------------------------------------------------------------------------


def test_what_cannot_be_is_refused_before_the_work(tmp_path, synthetic, capsys):
    raw, model = manifest(tmp_path, rows_of(tmp_path, 1)), synthetic("tiny", "base")
    custom, larger = synthetic("tiny", "custom_voice"), synthetic("tiny-1.7b", "base")
    for words, told in (
        ((raw,), "name OUT"),
        ((raw, tmp_path / "o.json"), "must be named .jsonl"),
        ((raw, raw), "would overwrite what RAW"),
        ((tmp_path / "none.jsonl", tmp_path / "o.jsonl", "--model", model), "No such file"),
        ((raw, tmp_path / "o.jsonl", "--validation", "200%"), "share"),
        ((raw, tmp_path / "o.jsonl", "--speaker", " "), "--speaker is empty"),
        ((raw, tmp_path / "o.jsonl", "--max-samples", "0"), "--max-samples"),
        ((raw, tmp_path / "o.jsonl", "--model", model, "--speaker-encoder", custom), "has none"),
        ((raw, tmp_path / "o.jsonl", "--model", model, "--speaker-encoder", larger), "values"),
    ):
        try:
            status, _, err = run(*words, capsys=capsys)
        except SystemExit as e:
            status, err = e.code, capsys.readouterr().err
        assert status == 2 and told in err and len(err.splitlines()) == 1, err


@pytest.mark.parametrize("field", ["audio", "ref_audio", "audio_codes"])
def test_a_file_that_a_row_reads_is_not_replaced(tmp_path, synthetic, capsys, field):
    row = {"audio": "0.wav", "text": "one two three"} if field != "audio_codes" else {"text": "one two three"}
    raw = manifest(tmp_path, [*rows_of(tmp_path, 1), {**row, field: "o.html"}])
    content = (tmp_path / "0.wav").read_bytes()
    (tmp_path / "o.html").write_bytes(content)
    status, _, err = run(raw, tmp_path / "o.jsonl", "--model", synthetic("tiny", "base"), capsys=capsys)
    assert status == 2 and f"o.html would overwrite what {raw}:2 reads; name another OUT" in err
    assert (tmp_path / "o.html").read_bytes() == content


def test_a_model_without_a_speaker_encoder_borrows_one(tmp_path, synthetic, capsys):
    raw, custom, base = (
        manifest(tmp_path, rows_of(tmp_path, 2)),
        synthetic("tiny", "custom_voice"),
        synthetic("tiny", "base"),
    )
    options = ("--model", custom, "--round-trips", "0")
    status, out, _ = run(raw, tmp_path / "o.jsonl", *options, capsys=capsys)
    assert status == 0 and "no x-vectors" in out and not (tmp_path / "o.safetensors").exists()
    assert run(raw, tmp_path / "o.jsonl", *options, "--speaker-encoder", base, capsys=capsys)[0] == 0
    assert (tmp_path / "o.safetensors").exists()


# --- augmentation ---------------------------------------------------------------------------------


@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 6), st.floats(0, 1))
def test_exchanged_frames_keep_code_0_and_come_from_the_pool(seed, count, groups, share):
    draw = np.random.default_rng(seed)
    speech = draw.integers(0, 5, (60, groups))
    frames = draw.integers(0, 8, (count, groups))
    before = frames.copy()
    pool = FramePool.of(speech)
    read = exchanged(frames, pool, np.random.default_rng(seed), codebook_size=8, share=share, wrong=0.0)
    np.testing.assert_array_equal(frames, before)
    np.testing.assert_array_equal(read[:, 0], frames[:, 0])
    known = {tuple(frame) for frame in speech}
    changed = (read != frames).any(axis=1)
    assert all(tuple(frame) in known for frame in read[changed])
    again = exchanged(frames, pool, np.random.default_rng(seed), codebook_size=8, share=share, wrong=0.0)
    np.testing.assert_array_equal(read, again)


def test_shares_are_as_asked():
    draw = np.random.default_rng(0)
    frames = draw.integers(0, 4, (20_000, 16))
    frames[:, 0] = np.arange(len(frames)) % 4
    pool = FramePool.of(frames)
    read = exchanged(frames, pool, draw, codebook_size=128)
    assert 0.45 < (read[:, 1:8] != frames[:, 1:8]).any(axis=1).mean() < 0.63
    assert 0.02 < (read[:, 0] != frames[:, 0]).mean() < 0.04
    whole = exchanged(frames, pool, draw, codebook_size=128, share=1.0, wrong=0.0)
    places = [np.flatnonzero((pool.frames == frame).all(axis=1))[0] for frame in whole[:400]]
    assert len(set(places)) > 300  # any of the pool, not one of each
    with pytest.raises(RequestError, match="share=2 must be from 0 to 1"):
        exchanged(frames, pool, draw, codebook_size=4, share=2)
    with pytest.raises(QwenTTSError, match="hold none to exchange"):
        FramePool.of(frames[:0])
