"""Manifests spoken: the bytes of a row depend on nothing but the row, what is finished is kept."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import batch_runs
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from qwen3tts_np import Qwen3TTSModel, RequestError, cli
from qwen3tts_np.batch import ray, voices
from qwen3tts_np.batch.apart import Apart
from qwen3tts_np.batch.folder import Folder
from qwen3tts_np.batch.identity import Shard, fault_of_id, number_of, seed_of, shard_of_environment, survey
from qwen3tts_np.batch.run import missing, run
from qwen3tts_np.batch.settings import Settings
from qwen3tts_np.batch.speaker import Speaker
from qwen3tts_np.errors import OutputError
from qwen3tts_np.files.input import read_bytes
from qwen3tts_np.manifest import BadRow, Manifest, Row
from qwen3tts_np.speech.longform import narrate

LONG = "It rained all day. The sun came out. " * 8  # two pieces
MOST = 12
ROWS: list[dict[str, Any]] = [
    {"id": "short", "text": "Good morning.", "speaker": "ryan", "language": "english"},
    {"id": "long", "text": LONG, "speaker": "vivian", "seed": 5},
    {"id": "Straße 7", "text": "Guten Morgen.", "temperature": 0.5, "max_new_tokens": 9},
]
Model = Qwen3TTSModel


@pytest.fixture(scope="module")
def model(synthetic: Callable[..., Path]) -> Model:
    return Model.from_pretrained(synthetic("tiny", "custom_voice"), threads=1)


@pytest.fixture(scope="module")
def base(synthetic: Callable[..., Path]) -> Model:
    return Model.from_pretrained(synthetic("tiny", "base"), threads=1)


def write(folder: Path, rows: list[dict[str, Any]], name: str = "manifest.jsonl") -> Manifest:
    return Manifest(batch_runs.write_manifest(folder / name, rows))


def speak(model: Model, manifest: Manifest, out: Path, shard: Shard | None = None, **options: Any) -> Any:
    """Speak a manifest; how many rows were (spoken, kept, failed)."""
    size = options.pop("batch_size", 3)
    settings = Settings(**{"sampling": {"max_new_tokens": MOST}, **options})
    found = run(Speaker(model, out, settings, size), manifest, shard or Shard(), lambda _: None)
    return found.spoken, found.kept, found.failed


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_row_is_what_say_makes_of_it(tmp_path, model):
    """Also a text of several pieces, and whatever is spoken beside it."""
    assert speak(model, write(tmp_path, ROWS), tmp_path / "out") == (3, 0, 0)
    for line, row in zip(lines(tmp_path / "out"), ROWS, strict=True):
        given = ("speaker", "language", "temperature", "max_new_tokens")
        arguments = {"max_new_tokens": MOST, **{name: row[name] for name in given if name in row}}
        seed = row.get("seed", number_of(f"0/{row['id']}"))
        file = tmp_path / "said.wav"
        said = narrate(model, row["text"], file, seed=seed, runaway_guard=True, **arguments)
        assert len(said.pieces) == (2 if row["text"] == LONG else 1)
        assert (line["id"], line["file"], line["seed"]) == (row["id"], f"{row['id']}.wav", seed)
        assert line["frames"] == sum(piece.frames for piece in said.pieces)
        assert line["seconds"] == said.seconds
        assert (tmp_path / "out" / line["file"]).read_bytes() == file.read_bytes()


def test_every_way_gives_the_same_bytes(tmp_path, model):
    rows = batch_runs.rows_of(10, MOST)
    forward, backward = write(tmp_path, rows), write(tmp_path, rows[::-1], "backward.jsonl")
    speak(model, forward, tmp_path / "first", batch_size=8)
    wanted = batch_runs.spoken(tmp_path / "first")
    assert len(wanted) == 10
    speak(model, forward, tmp_path / "alone", batch_size=1)
    speak(model, backward, tmp_path / "backward", batch_size=2)
    for number in (2, 3, 1):
        assert not (tmp_path / "shards" / "results.jsonl").exists()
        speak(model, forward, tmp_path / "shards", Shard(number, 3))
    for way in ("alone", "backward", "shards"):
        assert batch_runs.spoken(tmp_path / way) == wanted, way


def test_more_rows_at_once_than_there_can_be_places(tmp_path, model):
    manifest = write(tmp_path, ROWS[:1])
    assert run(Speaker(model, tmp_path / "out", batch_size=2**63), manifest, Shard(), lambda _: None).spoken == 1


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_what_a_killed_process_was_speaking_is_spoken_again(tmp_path, synthetic, model):
    rows = batch_runs.rows_of(16, MOST)
    rows_file, out = batch_runs.write_manifest(tmp_path / "rows.jsonl", rows), tmp_path / "out"
    batch_runs.speak_and_kill(synthetic("tiny", "custom_voice"), rows_file, out, "--batch-size", "2", after=4)
    spoken, kept, failed = speak(model, Manifest(rows_file), out, sampling={})
    assert spoken > 0 and kept >= 3 and failed == 0
    assert not list(out.rglob("*.partial"))
    assert speak(model, Manifest(rows_file), tmp_path / "again", sampling={}) == (16, 0, 0)
    assert batch_runs.spoken(tmp_path / "again") == batch_runs.spoken(out)


def test_results_are_a_manifest_of_the_same_speech(tmp_path, model):
    speak(model, write(tmp_path, ROWS), tmp_path / "out")
    results = Manifest(tmp_path / "out" / "results.jsonl")
    assert [row.audio for row in results.rows()] == [str(tmp_path / "out" / f"{row['id']}.wav") for row in ROWS]
    assert speak(model, results, tmp_path / "again", sampling={}) == (3, 0, 0)
    assert batch_runs.spoken(tmp_path / "again") == batch_runs.spoken(tmp_path / "out")


def test_what_is_finished_is_kept_and_what_has_changed_is_not(tmp_path, model):
    manifest, out = write(tmp_path, ROWS), tmp_path / "out"
    assert speak(model, manifest, out) == (3, 0, 0)
    before = batch_runs.spoken(out)
    assert speak(model, manifest, out, batch_size=1) == (0, 3, 0)
    (out / "short.wav").unlink()
    assert speak(model, manifest, out) == (1, 2, 0)
    other = write(tmp_path, [{**ROWS[0], "text": "Good evening."}, *ROWS[1:]], "other.jsonl")
    assert speak(model, other, out) == (1, 2, 0)
    assert batch_runs.spoken(out)["short"] != before["short"]
    assert speak(model, manifest, out) == (1, 2, 0), "the speech of another text is no speech of this one"
    assert batch_runs.spoken(out) == before
    assert speak(model, manifest, out, seed=1) == (2, 1, 0), "one row has a seed of its own"
    assert speak(model, manifest, out, seed=1, speaker="aiden") == (1, 2, 0), "only one row has no speaker"
    assert speak(model, manifest, out, seed=1, speaker="aiden", audio_format="flac") == (3, 0, 0)
    assert speak(model, manifest, out, sampling={"max_new_tokens": 5}) == (3, 0, 0)


BAD = [
    ({"text": "..."}, "there is nothing to say"),
    ({"speaker": "ryan"}, "there is no text"),
    ({"text": "Hi", "speaker": "nobody"}, "speaker 'nobody' is not in this model"),
    ({"text": "Hi", "language": "klingon"}, "'klingon' is not in this model"),
    ({"text": "Hi", "ref_audio": "a.wav"}, "a.wav"),
    ({"text": "Hi", "temperature": 0}, "temperature=0 must be a finite number above 0"),
    ({"text": "Hi", "temperature": 1e-45}, "temperature=1e-45"),  # known when it is drawn
    ({"text": 5}, "manifest.jsonl:8: text is 5, expected text"),
]


@pytest.mark.skipif(sys.platform == "win32", reason="permissions and links")
def test_what_is_spoken_again_keeps_its_permissions_and_links(tmp_path, model):
    manifest, out = write(tmp_path, [{"id": "a", "text": "Hi."}]), tmp_path / "out"
    speak(model, manifest, out)
    (out / "results.jsonl").rename(tmp_path / "lines.jsonl")
    (out / "results.jsonl").symlink_to(tmp_path / "lines.jsonl")
    private = [out / "a.wav", out / "results" / "a.json", tmp_path / "lines.jsonl"]
    for path in private:
        path.chmod(0o600)
    assert speak(model, manifest, out, seed=2) == (1, 0, 0)
    assert (out / "results.jsonl").is_symlink() and lines(out)[0]["id"] == "a"
    assert {path.stat().st_mode & 0o777 for path in private} == {0o600}


def test_a_bad_row_is_a_line_with_an_error(tmp_path, model):
    rows = [{"id": f"bad{i}", **row} for i, (row, _) in enumerate(BAD)]
    good = [{"id": f"good{i}", "text": "Good morning."} for i in range(2)]
    out = tmp_path / "out"
    assert speak(model, write(tmp_path, [*rows, *good]), out) == (2, 0, len(BAD))
    found = lines(out)
    for line, (_, told) in zip(found, BAD, strict=False):
        assert told in line["error"] and "file" not in line
    assert [line.get("error") for line in found[len(BAD) :]] == [None, None]
    assert sorted(path.name for path in out.glob("*.*")) == [
        "good0.wav", "good1.wav", "results.jsonl", "shard-1-of-1.done"
    ]  # fmt: skip
    assert speak(model, write(tmp_path, good), out) == (0, 2, 0), "their speech is the same without the others"


def test_voices_are_known_by_their_content(tmp_path, base):
    t = np.arange(48000) / 24000
    for name, pitch in (("a", 150), ("b", 200)):
        soundfile.write(tmp_path / f"{name}.wav", 0.3 * np.sin(2 * np.pi * pitch * t), 24000)
    rows = [{"id": "a", "text": "Hi.", "ref_audio": "a.wav"}, {"id": "b", "text": "Hi.", "ref_audio": "b.wav"}]
    manifest, out = write(tmp_path, rows), tmp_path / "out"
    assert speak(base, manifest, out) == (2, 0, 0)
    assert [line["ref_audio"] for line in lines(out)] == ["../a.wav", "../b.wav"]
    assert all("reference clip" in line["warnings"][0] for line in lines(out))
    (tmp_path / "a.wav").write_bytes((tmp_path / "b.wav").read_bytes())
    assert speak(base, manifest, out) == (1, 1, 0)
    base.voice(ref_audio=str(tmp_path / "a.wav")).item.save(tmp_path / "a.safetensors")
    saved = write(tmp_path, [{"id": "a", "text": "Hi.", "voice": "a.safetensors"}, rows[1]], "saved.jsonl")
    assert speak(base, saved, out) == (1, 1, 0)
    assert speak(base, manifest, out, voice=str(tmp_path / "a.safetensors")) == (1, 1, 0), "a row's own voice counts"


def test_a_clip_that_many_rows_name_is_read_once(tmp_path, base, monkeypatch):
    clip, read = tmp_path / "a.wav", []
    soundfile.write(clip, 0.3 * np.sin(np.arange(48000) / 30), 24000)
    monkeypatch.setattr(voices, "read_bytes", lambda file: read.append(file) or read_bytes(file))
    rows = [{"id": f"{i}", "text": "Hi.", "ref_audio": "a.wav"} for i in range(6)]
    assert speak(base, write(tmp_path, rows), tmp_path / "out") == (6, 0, 0)
    assert read == [str(clip)]
    known = voices.Voices(base)
    late, text = known.wanted({"ref_audio": str(clip)}), {"ref_audio": str(clip), "ref_text": "Hi."}
    assert known.wanted(text).key != late.key == known.wanted({"ref_audio": str(clip)}).key
    soundfile.write(clip, 0.3 * np.sin(np.arange(48000) / 20), 24000)
    assert known.wanted({"ref_audio": str(clip)}).key != late.key
    with pytest.raises(RequestError, match=r"a\.wav has changed since the run came to this row"):
        known.made(late)


def test_a_voice_of_several_files_is_known_by_all_of_them(tmp_path, base):
    voice, known = tmp_path / "a.spk", voices.Voices(base)
    item = base.voice(ref_audio=(np.zeros(24000, np.float32), 24000), ref_text="Silence.").item
    item.save(voice)
    keys = [known.wanted({"voice": str(voice)}).key]
    for suffix, content in ((".txt", b"Nothing."), (".rvq", bytes(22)), (".spk", voice.read_bytes()[::-1])):
        voice.with_suffix(suffix).write_bytes(content)
        keys.append(known.wanted({"voice": str(voice)}).key)
    assert len(set(keys)) == 4


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("a/b", "it holds '/'"),
        ("a\\b", "it holds"),
        ("c:", "it holds ':'"),
        ("", "it is empty"),
        (".", "begins with a dot"),
        ("..", "begins with a dot"),
        ("a ", "ends with a dot or a blank"),
        ("con", "Windows has a device of this name"),
        ("Aux.txt", "Windows has a device"),
        ("é" * 91, "more than 180 bytes"),
        ("a\n", "it holds '\\n'"),
    ],
)
def test_ids_that_cannot_be_names_of_files_are_named_before_the_work(tmp_path, model, name, fault):
    manifest = write(tmp_path, [{"id": "first", "text": "Hi."}, {"id": name, "text": "Hi."}])
    with pytest.raises(RequestError, match=r"line 2: ") as caught:
        survey(manifest, Shard())
    assert fault.replace("\\\\", "\\") in str(caught.value).replace("\\\\", "\\")


def test_a_name_that_the_locale_cannot_write_is_named_before_the_work(tmp_path, monkeypatch):
    manifest = write(tmp_path, [{"id": "smørrebrød", "text": "Hi."}])
    monkeypatch.setattr(os, "fsencode", lambda name: os.fspath(name).encode("ascii", "surrogateescape"))
    with pytest.raises(RequestError, match=r"'smørrebrød' .* names of files are ascii here, which has no 'ø'"):
        survey(manifest, Shard())


@pytest.mark.parametrize("twin", ["Ä", "ä", "A\u0308"])
def test_equal_ids_are_named_before_the_work(tmp_path, twin):
    rows = [{"id": name, "text": "Hi."} for name in ("Ä", "b", twin)]
    with pytest.raises(RequestError, match="lines 1 and 3 both have"):
        survey(write(tmp_path, rows), Shard())
    rows = [{"text": "Hi."}, {"text": "Hi.", "speaker": "ryan"}, {"text": "Hi."}]
    with pytest.raises(RequestError, match="lines 1 and 3 both have"):
        survey(write(tmp_path, rows), Shard())


@given(st.lists(st.text(min_size=1, max_size=20), unique=True), st.integers(1, 9))
def test_shards_are_a_partition(names, count):
    rows = [Row(1, name) for name in names]
    for row in rows:
        assert sum(Shard(number, count).has(row) for number in range(1, count + 1)) == 1
        assert 0 <= seed_of(row, 3) < 2**32


def test_seeds_and_shards_are_by_the_written_rule():
    """``printf 0/a1 | sha256sum``, ``printf a1 | sha256sum``."""
    assert seed_of(Row(1, "a1"), 0) == 0x1502B6DF
    assert seed_of(Row(1, "a1", seed=7), 0) == 7
    assert Shard(0xF55FF16F % 5 + 1, 5).has(Row(1, "a1"))


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        ({}, None),
        ({"ID": "3"}, None),
        ({"ID": "0", "COUNT": "5"}, Shard(1, 5)),
        ({"ID": "3", "COUNT": "5", "MIN": "1"}, Shard(3, 5)),
        ({"ID": "3", "COUNT": "4", "MIN": "0", "STEP": "1"}, Shard(4, 4)),
        ({"ID": "14", "COUNT": "3", "MIN": "10", "STEP": "2"}, Shard(3, 3)),
    ],
)
def test_the_shard_of_a_slurm_task(found, wanted):
    assert shard_of_environment({f"SLURM_ARRAY_TASK_{name}": value for name, value in found.items()}) == wanted


def test_a_slurm_array_that_cannot_be_one():
    with pytest.raises(RequestError, match="shard 9/2: the shards of 2 are 1 to 2"):
        shard_of_environment({"SLURM_ARRAY_TASK_ID": "9", "SLURM_ARRAY_TASK_COUNT": "2"})
    with pytest.raises(RequestError, match="SLURM_ARRAY_TASK_ID=x"):
        shard_of_environment({"SLURM_ARRAY_TASK_ID": "x", "SLURM_ARRAY_TASK_COUNT": "2"})
    with pytest.raises(RequestError, match="SLURM_ARRAY_TASK_STEP=0"):
        shard_of_environment({f"SLURM_ARRAY_TASK_{name}": "0" for name in ("ID", "COUNT", "STEP")})


def test_ids_of_rows_that_cannot_be_read(command, tmp_path):
    """Such a row is a line of its own in results.jsonl, whatever its id is, and writes nothing elsewhere."""
    rows = ['{"id": "\\ud800", "text": "Hi."}', '{"id": "../b", "text": 5}', '{"id": "c", "text": "Hi."}']
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    status, out, _ = command()
    assert (status, out.partition("; ")[0]) == (
        1,
        "out: 3 rows, 1 spoken, 0 there already, 2 failed (out/results.jsonl says why)",
    )
    lines = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [None, "../b", "c"]
    assert "U+D800 at position 0 is half a surrogate pair" in lines[0]["error"]
    assert {path.name for path in tmp_path.iterdir()} == {"rows.jsonl", "out"}
    assert command("--missing")[:2] == (1, "line 1\n../b\n")


@pytest.mark.parametrize(
    ("row", "options", "reader"),
    [
        ({"id": "ada", "ref_audio": "ada.wav"}, {}, "line 1"),
        ({"id": "ADA", "ref_audio": "./none/../ada.wav"}, {}, "line 1"),
        ({"id": "ada"}, {"ref_audio": "ada.wav"}, "--ref-audio"),
        ({"id": "ada"}, {"voice": "ada.wav"}, "--voice"),
        ({"id": "ada", "ref_audio": "elsewhere/ada.wav"}, {}, ""),
        ({"id": "ada", "ref_audio": "ada.flac"}, {}, ""),
        ({"id": "ada", "ref_audio": "data:,ada.wav"}, {}, ""),
    ],
)
def test_speech_is_not_written_over_what_is_read(tmp_path, monkeypatch, row, options, reader):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "none").mkdir()
    manifest = write(tmp_path, [{"text": "Hi.", **row}])
    apart = Apart(Path(), Settings(**options))
    survey(manifest, Shard(), apart.add)
    if reader:
        with pytest.raises(OutputError, match=f"its speech, .*, would overwrite what {reader} reads; name another OUT"):
            apart.check(manifest)
    else:
        apart.check(manifest)


def test_the_command_keeps_clips_that_it_reads(tmp_path, synthetic, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    soundfile.write("ada.wav", np.zeros(24_000, np.float32), 24_000)
    before = Path("ada.wav").read_bytes()
    batch_runs.write_manifest(tmp_path / "rows.jsonl", [{"id": "ada", "text": "Hi.", "ref_audio": "ada.wav"}])
    assert cli.main(["batch", str(synthetic("tiny", "base")), "rows.jsonl", "."]) == 2
    assert "rows.jsonl:1: its speech, 'ada.wav', would overwrite what line 1 reads" in capsys.readouterr().err
    assert Path("ada.wav").read_bytes() == before


def test_results_are_not_spoken_over_themselves(tmp_path, model):
    speak(model, write(tmp_path, ROWS[:1]), tmp_path / "out")
    results = tmp_path / "out" / "results.jsonl"
    with pytest.raises(OutputError, match=r"results\.jsonl .* would overwrite what MANIFEST .* reads"):
        Folder(tmp_path / "out").check(Manifest(results))


def test_a_shard_has_one_holder_and_leftovers_go(tmp_path, model):
    folder, manifest = Folder(tmp_path / "out"), write(tmp_path, ROWS[:1])
    with folder.held(Shard()) as report:
        with pytest.raises(OutputError, match="is being written by process"):
            speak(model, manifest, tmp_path / "out")
        assert speak(model, manifest, tmp_path / "out", Shard(1, 2))[2] == 0, "another shard is free"
        report["rows"] = 0
    assert json.loads((tmp_path / "out" / "shard-1-of-1.done").read_text()) == {"rows": 0}
    old = tmp_path / "out" / ".short.wav.4194305-00000000.partial"
    old.write_bytes(b"RIFF")
    os.utime(old, (0, 0))
    speak(model, manifest, tmp_path / "out")
    assert not old.exists()


@pytest.fixture
def command(tmp_path, synthetic, monkeypatch, capsys):
    """``command(*options)`` speaks ``rows.jsonl`` into ``out``: (status, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    batch_runs.write_manifest(tmp_path / "rows.jsonl", [{"id": "a", "text": "Hi."}, {"id": "b", "text": "Ho."}])

    def run_command(*options: str) -> tuple[int, str, str]:
        model = str(synthetic("tiny", "custom_voice"))
        status = cli.main(["batch", model, "rows.jsonl", "out", "--max-new-tokens", "5", *options])
        return status, *capsys.readouterr()

    return run_command


def test_the_command_says_what_it_did_and_what_is_missing(command, monkeypatch):
    assert command("--missing")[:2] == (1, "a\nb\n")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "2")
    shards = [number_of(name) % 2 + 1 for name in "ab"]
    status, _, said = command("--json")
    assert (status, said) == (0, "qwen3tts-np batch: shard 1/2, as this task of Slurm\n")
    assert json.loads(command("--json")[1])["kept"] == shards.count(1)
    status, out, _ = command("--missing", "--shard", "1/1", "--json")
    assert json.loads(out)["missing"] == [name for name, shard in zip("ab", shards, strict=True) if shard == 2]
    assert status == (2 in shards)
    status, out, _ = command("--shard", "1/1", "--audio-format", "FLAC")
    assert (status, out.partition(";")[0]) == (0, "out: 2 rows, 2 spoken, 0 there already, 0 failed")
    assert {path.name for path in Path("out").glob("*.flac")} == {"a.flac", "b.flac"}
    assert command("--shard", "1/1", "--audio-format", "flac", "--missing")[:2] == (0, "")


def test_a_bar_on_a_terminal_counts_speech_and_the_time_left(command, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    status, _, shown = command()
    assert status == 0
    assert "s of speech, ? left" in shown


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--shard", "0/2"], "shard 0/2: the shards of 2 are 1 to 2"),
        (["--shard", "2"], "--shard '2' is not I/N, such as 2/5"),
        (["--audio-format", "txt"], "'.txt' names no audio format"),
        (["--voice", "a", "--ref-text", "b"], "--voice goes without --ref-audio and --ref-text"),
        (["--speaker", "nobody"], "speaker 'nobody' is not in this model"),
        (["--temperature", "0"], "temperature=0.0 must be a finite number above 0"),
        (["--seed", str(2**64)], "must be a whole number from -2**63"),
        (["--batch-size", "0"], "batch_size=0 must be a whole number of at least 1"),
    ],
)
def test_what_the_command_refuses(command, options, told):
    status, _, error = command(*options)
    assert (status, error.count("\n")) == (2, 1)
    assert told in error
    assert not Path("out").exists()


def test_marks_casts_and_lexicons_are_those_of_say(tmp_path, model):
    rows = [{"id": "a", "text": "Good. [pause 2s] Morning."}, {"id": "b", "text": "Good. Morning."}]
    manifest, out = write(tmp_path, rows), tmp_path / "out"
    assert speak(model, manifest, out, markup=True) == (2, 0, 0)
    assert speak(model, manifest, out) == (1, 1, 0), "only one row has marks"
    assert speak(model, manifest, out, markup=True) == (1, 1, 0)
    script = Settings(markup=True).script_of(rows[0]["text"])
    said = narrate(model, script, tmp_path / "a.wav", seed=number_of("0/a"), max_new_tokens=MOST, runaway_guard=True)
    assert (tmp_path / "a.wav").read_bytes() == (out / "a.wav").read_bytes()
    assert said.seconds > 2


def test_missing_rows_are_those_that_a_run_would_speak(tmp_path, model):
    manifest = write(tmp_path, [*ROWS, {"id": "bad", "text": 5}])
    speaker = Speaker(model, tmp_path / "out", Settings(sampling={"max_new_tokens": MOST}))
    assert len(list(missing(speaker, manifest, Shard()))) == 4
    speak(model, manifest, tmp_path / "out")
    (row,) = missing(speaker, manifest, Shard())
    assert isinstance(row, BadRow) and row.id == "bad"


def test_ray_is_asked_for_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(RequestError, match=r"needs ray, which is not installed: pip install 'qwen3tts-np\[ray\]'"):
        ray.speak("model", write(tmp_path, ROWS), tmp_path / "out", workers=2)
    assert not (tmp_path / "out").exists()


class RayData:
    """A stand-in for ``ray.data``: blocks spoken by the actors in turn, the last one first, in this process."""

    def __init__(self, go: Callable[[], None]) -> None:
        """``go`` to the working directory of the workers."""
        self.blocks: list[list[dict[str, str]]] = []
        self.go = go

    def ActorPoolStrategy(self, size: int) -> int:
        return size

    def from_items(self, items: list[dict[str, str]], override_num_blocks: int) -> RayData:
        self.blocks = [items[i::override_num_blocks] for i in reversed(range(override_num_blocks))]
        return self

    def map_batches(self, actor: Any, *, compute: int, **options: Any) -> RayData:
        self.go()
        arguments, named = options["fn_constructor_args"], options["fn_constructor_kwargs"]
        self.actors = [actor(*arguments, **named) for _ in range(compute)]
        return self

    def iter_rows(self) -> Any:
        for i, block in enumerate(self.blocks):
            column = np.array([item["row"] for item in block], dtype=object)
            yield from ({"result": found} for found in self.actors[i % len(self.actors)]({"row": column})["result"])


def test_on_a_cluster_every_row_has_the_bytes_of_one_process(tmp_path, synthetic, model, monkeypatch):
    data = RayData(lambda: monkeypatch.chdir(Path(__file__).parent))
    monkeypatch.setitem(sys.modules, "ray.data", data)
    manifest = write(tmp_path, [*ROWS, {"id": "worse", "text": 5}, {"id": "bad", "text": "..."}])
    source, settings = synthetic("tiny", "custom_voice"), Settings(sampling={"max_new_tokens": MOST})
    assert speak(model, manifest, tmp_path / "one") == (3, 0, 2)
    for wanted in ((3, 0, 2), (0, 3, 2)):
        monkeypatch.chdir(tmp_path)
        found = ray.speak(source, Manifest(Path("manifest.jsonl")), Path("two"), settings, workers=2)
        assert (found.spoken, found.kept, found.failed) == wanted
        assert sorted(map(len, data.blocks)) == [1] * 4
    for name in ("results.jsonl", *(f"{row['id']}.wav" for row in ROWS)):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    twins = write(tmp_path, [*ROWS, *ROWS], "twins.jsonl")
    with pytest.raises(RequestError, match="both have"):
        ray.speak(source, twins, tmp_path / "three", workers=2)
    assert not (tmp_path / "three").exists()


def test_a_speaker_takes_blocks_of_ray_data(tmp_path, model):
    speaker = Speaker(model, tmp_path / "out", Settings(sampling={"max_new_tokens": MOST}))
    rows = np.array([json.dumps({"line": 1, "name": "a", "id": "a", "text": "Hi."})], dtype=object)
    (found,) = speaker({"row": rows})["result"]
    line, kept = json.loads(found)
    assert (line["file"], kept, fault_of_id(line["id"])) == ("a.wav", False, None)
