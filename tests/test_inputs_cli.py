"""Every option of every command: a value that it cannot take is one line on standard error, and nothing is written.

Options of numbers and of choices are found by introspection. Those of names and texts are in ``WORDS``, with a value
and what is said of it; one that is in no table is printed.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from bad_values import LONG, TONE

from qwen3tts_np import Qwen3TTSModel, VoiceClonePromptItem, cli
from qwen3tts_np.cli.serve import NEEDED
from qwen3tts_np.files import input as gate

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.skipif(sys.platform == "win32", reason="file names")]
LINE = 1500  # characters: a path is shown up to 1,024
HALF = "a\ud800"
NUL, NONE = "\0", "no/such/thing"  # two words would be a name of the hub

# A command that works, as far as its arguments go; the word that an option replaces is found by its name.
USUAL: dict[str, dict[str, str]] = {
    "say": {"model": "custom", "text": "Hi", "--output": "a.wav", "--max-new-tokens": "2", "--seed": "1"},
    "clone": {"model": "base", "text": "Hi", "--voice": "v.safetensors", "--output": "a.wav", "--max-new-tokens": "2"},
    "batch": {"model": "custom", "manifest": "texts.jsonl", "out": "new", "--max-new-tokens": "2"},
    "voice create": {"model": "base", "clip": "a_clip.wav", "--output": "a.safetensors"},
    "voice design": {"design": "design", "model": "base", "description": "Old.", "--output": "a.safetensors"},
    "voice show": {},
    "voice list": {},
    "voice mix": {"first": "v.safetensors", "second": "v.safetensors", "--output": "a.safetensors"},
    "serve": {"models": "custom", "--port": "0"},
    "completion": {},
    "encode": {"model": "base", "audio": "a_clip.wav", "--output": "a.npy"},
    "decode": {"model": "base", "codes": "codes.npy", "--output": "a.wav"},
    "warm-up": {},
    "convert": {"--format": "float32", "source": "custom", "target": "new"},
    "export onnx": {"model": "custom", "target": "new"},
    "export coreml": {"model": "custom", "target": "new"},
    "info": {"model": "custom"},
    "inspect": {"model": "custom"},
    "verify": {"model": "custom", "--fine-tuned": ""},
    "fidelity": {"model": "custom", "--frames": "1"},
    "bench": {"model": "custom", "--seconds": "0.001"},
    "synth": {"--like": "tiny", "--type": "base", "directory": "new"},
    "explain": {"model": "custom", "--text": "Hi"},
    "trace": {"model": "custom", "--text": "Hi", "--output": "new", "--plots": "none", "--max-new-tokens": "2"},
    "fixtures export": {"model": "custom", "request": "request.json", "target": "new", "--no-float64": ""},
    "score": {"model": "custom", "manifest": "m.jsonl"},
    "evaluate": {"manifest": "m.jsonl", "--measure": "sound"},
    "train": {"model": "base", "data": "coded.jsonl", "output": "new", "--ref-audio": "a_clip.wav"},
    "train prepare": {"raw": "m.jsonl", "out": "new.jsonl", "--model": "base"},
    "fixtures compare": {"ours": "codes.npy", "theirs": "codes.npy"},
    "compare-audio": {"a": "a_clip.wav", "b": "a_clip.wav"},
}
MODEL = [(NONE, "is not a directory"), (NUL, "is not a directory"), (LONG, "is not a directory"), ("", "")]
READ = [(NONE, "No such file"), (NUL, "null byte"), (HALF, "half a surrogate pair"), (LONG, "name is too long")]
CLIP = [*READ[:3], (LONG, "libsndfile says"), ("folder", "it is a directory")]  # a long one is taken for base64
WRITTEN = [(NUL, "null byte"), (HALF, "half a surrogate pair"), ("folder", "it is a directory"), (f"{NONE}.x", "")]
FOLDER = [(NUL, "null byte"), (HALF, "half a surrogate pair"), ("full", "is not an empty directory")]
TEXT = [(HALF, "half a surrogate pair")]
SUBTITLES = [
    (f"{NUL}.srt", "null byte"),
    ("a.txt", "subtitles are .srt or .vtt files"),
    (f"{NONE}.srt", "no directory"),
]
SOUND = [("a.txt", "names no audio format"), (f"{NUL}.wav", "null byte"), (f"{NONE}.wav", "no directory")]
FIXTURE = [(NONE, "is not a fixture"), (NUL, "is not a fixture"), (LONG, "")]
LANGUAGE = [("klingon", "'klingon' is not in this model"), (LONG, "is not in this model")]
REQUEST = {
    "model": MODEL,
    "request": [(NONE, "not found"), (NUL, "null byte"), ("codes.npy", "is not UTF-8"), ("folder", "not found")],
    "text": TEXT,
    "speaker": [("nobody", "'nobody' is not in this model"), (LONG, "is not in this model"), *TEXT],
    "instruct": TEXT,
    "ref_audio": [("a_clip.wav", "has no argument ref_audio")],
    "ref_text": [("a", "has no argument ref_text")],
    "voice": [("v.safetensors", "has no argument voice_clone_prompt")],
    "language": LANGUAGE,
}
SPOKEN = {
    "model": MODEL,
    "text": [("...", "nothing to say"), *TEXT],
    "voice": READ,
    "file": READ,
    "output": [*SOUND, ("", "")],
    "language": LANGUAGE,
    "cast": [*READ, ("folder", "a directory"), ("codes.npy", "is not UTF-8"), ("empty.json", "the cast is empty")],
    "lexicon": [*READ, ("folder", "a directory"), ("codes.npy", "is not UTF-8"), ("request.json", "is no")],
    "srt": SUBTITLES,
    "vtt": SUBTITLES,
    "work": [(NUL, ""), (HALF, "")],
    "adapter": [(value, "an adapter is a folder with one") for value in (NONE, NUL, LONG, "folder", "codes.npy")],
}
WORDS: dict[str, dict[str, list[tuple[str, str]]]] = {
    "say": {**SPOKEN, "speaker": REQUEST["speaker"], "instruct": TEXT},
    "clone": {
        **SPOKEN,
        "ref_audio": [("a_clip.wav", "give the voice, once")],
        "ref_text": [("a", "goes with --ref-audio")],
    },
    "batch": {
        "model": MODEL,
        "manifest": [
            *READ,
            ("folder", "a directory"),
            ("codes.npy", "it holds a NUL, which no table of text has"),
            ("empty.txt", "is empty"),
        ],
        "out": [(NUL, "null byte"), (HALF, "half a surrogate pair"), ("a_clip.wav", "is not a directory")],
        "audio_format": [
            ("txt", "names no audio format"),
            ("raw", "is no format for speech"),
            (LONG, "names no audio"),
        ],
        "shard": [("2", "is not I/N"), ("0/2", "the shards of 2 are 1 to 2"), (LONG, "is not I/N")],
        "language": LANGUAGE,
        "speaker": REQUEST["speaker"],
        "instruct": TEXT,
        "voice": [*READ, ("v.safetensors", "has no argument voice_clone_prompt")],
        "ref_audio": [*CLIP[:3], ("a_clip.wav", "has no argument ref_audio")],
        "ref_text": [("a", "has no argument ref_text")],
        "cast": SPOKEN["cast"],
        "lexicon": SPOKEN["lexicon"],
    },
    "voice create": {"model": MODEL, "clip": CLIP, "text": TEXT, "output": WRITTEN},
    "voice design": {
        "design": MODEL,
        "model": [],  # it is loaded last
        "description": TEXT,
        "sentence": TEXT,
        "language": [(LONG, "invalid"), ("klingon", "invalid")],
        "clip": [("folder", "it is a directory"), (NUL, "null byte")],
        "output": WRITTEN,
    },
    "voice show": {"file": [*READ, ("folder", "a directory"), ("a_clip.wav", "is audio (WAV), not a saved voice")]},
    "voice mix": {**dict.fromkeys(("first", "second"), READ), "output": WRITTEN},
    "voice list": {"directory": [(NONE, "is not a directory"), (NUL, "is not a directory"), (LONG, "is not")]},
    "encode": {"model": MODEL, "audio": CLIP, "output": WRITTEN},
    "decode": {"model": MODEL, "codes": [*READ, ("a_clip.wav", "is not a .npy array")], "output": SOUND},
    "convert": {"source": MODEL, "target": FOLDER, "calibrate": []},  # of 4 to 6 bits; float32 has nothing to learn
    "export onnx": {
        "model": MODEL,
        "target": [*FOLDER[:2], ("codes.npy", "cannot be")],
        "only": [(value, "is none of text, talker") for value in (NONE, LONG, NUL)],
        "static": [(value, "must be a length and a number") for value in ("places", "places=x", NUL, LONG)],
    },
    "export coreml": {
        "model": MODEL,
        "target": [*FOLDER[:2], ("codes.npy", "cannot be")],
        "only": [(value, "is none of text, talker") for value in (NONE, LONG, NUL)],
        "format": [
            ("int5", "no 5-bit weights"),
            ("float32", "states"),
            (NUL, "is none of float16"),
            (LONG, "is none of"),
        ],
        "static": [(value, "must be a length and a number") for value in ("places", "places=x", NUL, LONG)],
    },
    "info": {"model": MODEL},
    "inspect": {"model": MODEL, "html": WRITTEN},
    "verify": {
        "model": MODEL,
        "markdown": WRITTEN,
        "official": [("nobody", "there is no such program"), (LONG, "no such")],
    },
    "fidelity": {"model": MODEL, "codes": READ},
    "bench": {
        "model": MODEL,
        "threads": [(value, "is no number, nor several") for value in ("x", "1,", NUL, LONG, "1.5")],
    },
    "synth": {"tokenizer": [(NONE, ""), (NUL, "")], "directory": FOLDER},
    "explain": {**REQUEST, "html": WRITTEN},
    "trace": {
        **REQUEST,
        "output": FOLDER,
        "heads": [("9:9", ""), ("x", ""), (LONG, "")],
        "keep": [],  # a pattern that fits no name keeps nothing
        "golden": [(NONE, ""), (NUL, "")],
    },
    "fixtures export": {
        "model": MODEL,
        "request": [*READ[1:3], (NONE, "not found")],
        "target": FOLDER,
        "tensors": [],  # a pattern that fits no name keeps none
        "codes": READ,
    },
    "fixtures compare": {
        **dict.fromkeys(("ours", "theirs"), FIXTURE),
        "names": [(NONE, "not found"), (NUL, "null byte"), ("codes.npy", "is not UTF-8")],
        "model": [],  # read once the fixtures are
        **dict.fromkeys(("json", "markdown", "html", "svg"), WRITTEN),
    },
    "compare-audio": {"a": CLIP, "b": CLIP, "plot": []},  # needs matplotlib first
    "serve": {
        "models": MODEL[:3],
        "host": [(NUL, "null character"), (HALF, "cannot be had"), (LONG, "cannot be had")],
        "api_key": [(key, "must be of printable ASCII") for key in (NUL, HALF, "\n", " ")],
        "voices": [(NUL, "null byte"), (HALF, "half a surrogate pair"), ("codes.npy", "cannot be made: File exists")],
        "cors": [],  # whatever a browser may send
        "lexicon": READ,
        **{name: [(NONE, "go together")] for name in ("ssl_certfile", "ssl_keyfile")},
    },
    "score": {"model": MODEL, "manifest": READ, "plot": []},  # needs matplotlib first
    "evaluate": {
        "manifest": READ,
        **{name: [] for name in ("recogniser", "words", "grammar")},  # of a recogniser, which is an extra
        "language": [("klingon", "--language 'klingon' must be one of"), (LONG, "must be one of"), (HALF, "must be")],
        "model": MODEL[:3],
        "codec": [(NONE, "--codec is given, and --measure has no codec")],
        "plug": [(value, "must be a name, '=' and a command") for value in (NONE, NUL, LONG, HALF)],
        "audio_dir": [(NONE, "a manifest names it")],
        "to_manifest": WRITTEN,
        "name": [],  # whatever a page may show
        "against": [(NONE, "not found"), *READ[1:]],
        "margin": [(value, "must be a name, '=' and a number") for value in ("wer=x", NONE, NUL, LONG, HALF)],
        "require": [(value, "must be a measure, one of") for value in ("wer=1", NONE, NUL, LONG, HALF)],
        "output": WRITTEN,
        "html": WRITTEN,
    },
    "train": {
        "model": MODEL,
        "data": [*READ, ("folder", "a directory"), ("codes.npy", "NUL"), ("empty.txt", "is empty")],
        "output": [
            *FOLDER[:2],
            (LONG, "cannot be made"),
            ("full", "holds no run"),
            ("codes.npy", "is not a directory"),
        ],
        "config": [*READ, ("folder", "a directory"), ("codes.npy", "is not UTF-8")],
        **{f"{name}_option": [(NONE, "is given twice")] for name in ("model", "data", "output")},
        "validation": READ,
        "codec": [(NONE, "is not a directory")],
        "ref_audio": [],  # of rows that have none
        "speaker_name": [],  # of rows that name none
        "language": [("klingon", "klingon"), (LONG, "")],
        "train": [(value, "") for value in ("", "last", "last:0", "last:x", NUL, LONG)],
        **{f"wandb_{name}": [] for name in ("project", "run_name", "entity")},
        **{f"hub_model_id_{name}": [] for name in ("best", "last")},  # with --upload-to-hub
    },
    "train prepare": {
        "raw": [*READ, ("folder", ".parquet"), ("codes.npy", "NUL"), ("empty.txt", "is empty"), ("hub:x", "hub:")],
        "out": [
            (f"{NUL}.jsonl", "null byte"),
            (f"{HALF}.jsonl", "half a surrogate pair"),
            ("m.jsonl", ""),
            ("a.txt", ".jsonl"),
        ],
        "model": MODEL[:3],
        "speaker_encoder": MODEL[:3],
        "speaker": [],  # of rows that name none
        "validation": [(value, "") for value in ("x", "-1", "200%", "", NUL, LONG)],
        "split": [],  # of a data set of the hub
        "column": [(value, "") for value in ("x", "a=b", NUL, LONG)],
    },
    "completion": {"speakers": [], "languages": []},  # a shell that asks of no model gets no names, and no error
}
ANYWHERE = {"cache_dir"}  # test_a_cache_folder_that_is_none
HUB = "Qwen/Qwen3-TTS-12Hz-0.6B-Base"

# Numbers of the right type that no command can take.
NUMBERS = [
    ("say", "--top-k", "-1", "must be a whole number from 0 up"),
    ("say", "--top-p", "1.5", "must be a number from 0 to 1"),
    ("say", "--temperature", "nan", "must be a finite number above 0"),
    ("say", "--temperature", "1e999", "must be a finite number above 0"),
    ("say", "--repetition-penalty", "-inf", "must be a finite number above 0"),
    ("say", "--subtalker-temperature", "0", "must be a finite number above 0"),
    ("say", "--subtalker-top-k", "-1", "must be a whole number from 0 up"),
    ("say", "--subtalker-top-p", "-1", "must be a number from 0 to 1"),
    ("say", "--max-new-tokens", "0", "must be a whole number of at least 1"),
    ("say", "--seed", "9" * 400, "must be a whole number from -2**63"),
    ("say", "--loudness", "nan", "loudness=nan must be a number from -50 to -5"),
    ("say", "--loudness", "0", "must be a number from -50 to -5"),
    ("say", "--tempo", "nan", "tempo=nan must be a number from 0.25 to 4"),
    ("say", "--tempo", "4.01", "must be a number from 0.25 to 4"),
    ("clone", "--tempo", "-1", "must be a number from 0.25 to 4"),
    ("say", "--threads", "0", "must be a whole number of at least 1"),
    ("say", "--batch-size", "-1", "must be a whole number of at least 1"),
    ("say", "--packet-frames", "0", "must be a whole number of at least 1"),
    ("batch", "--batch-size", "0", "must be a whole number of at least 1"),
    ("batch", "--seed", "9" * 400, "must be a whole number from -2**63"),
    ("clone", "--threads", "-" + "9" * 400, "must be a whole number of at least 1"),
    ("voice mix", "--share", "nan", "share=nan must be a number from 0 to 1"),
    ("voice mix", "--share", "-0.1", "must be a number from 0 to 1"),
    ("bench", "--seconds", "nan", "--seconds nan must be"),
    ("bench", "--seconds", "inf", "--seconds inf must be"),
    ("fidelity", "--frames", "0", "must be at least 1"),
    ("inspect", "--context", "nan", "must be above 0"),
    ("trace", "--top", "0", "must be at least 1"),
    ("fixtures compare", "--times", "nan", "must be above 0"),
    ("export onnx", "--static", "places=0", "places=0 must be at least 1"),
    ("export onnx", "--static", "prompt=4096", "prompt=4096 must be at most places=2048"),
    ("export coreml", "--static", "places=0", "places=0 must be at least 1"),
    ("score", "--limit", "0", "must be at least 1"),
    ("serve", "--places", "0", "must be at least 1"),
    ("serve", "--places", "9" * 400, "must be at most 1024"),
    ("serve", "--queue", "-1", "must be at least 0"),
    ("serve", "--max-text", "0", "must be at least 1"),
    ("serve", "--port", "65536", "cannot be had"),
]
SAMPLED = ("say", "clone")


def parsers() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """(command, its parser), those of actions included."""
    for name in cli.COMMANDS:
        groups = cli.program_parser(name)._subparsers
        assert groups is not None
        parser = groups._group_actions[0].choices[name]  # type: ignore[index,call-overload]
        actions = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
        yield from ((f"{name} {n}", p) for a in actions for n, p in a.choices.items())
        yield from ((f"{name} {n}", p) for n, p in getattr(parser, "commands", {}).items())
        if not actions:
            yield name, parser


OPTIONS = [(command, option) for command, parser in parsers() for option in parser._actions if option.nargs != 0]


@pytest.fixture(scope="module")
def folder(synthetic: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("commands")
    for name, kind in (("custom", "custom_voice"), ("base", "base"), ("design", "voice_design")):
        (made / name).symlink_to(synthetic("tiny", kind))
    soundfile.write(made / "a_clip.wav", np.tile(TONE, 4), 24000)
    np.save(made / "codes.npy", np.zeros((2, 16), np.int64))
    VoiceClonePromptItem(None, np.ones(64, np.float32) / 8, True, False).save(made / "v.safetensors")
    (made / "request.json").write_text(json.dumps({"text": "Hi", "max_new_tokens": 2, "seed": 1}))
    (made / "empty.json").write_text("{}")
    (made / "empty.txt").write_text("")
    (made / "texts.jsonl").write_text(json.dumps({"id": "a", "text": "Hi"}))
    coded = {"text": "Hi", "speaker": "ada", "audio_codes": [[0] * 16] * 8, "audio": "a_clip.wav"}
    (made / "coded.jsonl").write_text(json.dumps(coded))
    (made / "m.jsonl").write_text(json.dumps({"text": "Hi", "audio": "a_clip.wav"}))
    (made / "folder").mkdir()
    (made / "full").mkdir()
    (made / "full" / "file").touch()
    return made


@pytest.fixture
def refuse(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command, which has to fail with one line; returns it. Nothing is left behind."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")  # the reference is loaded in a moment
    monkeypatch.setattr(gate, "PATIENCE", 0.01)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))

    def run(words: list[str]) -> str:
        extras = {"serve": NEEDED, "export": [{"onnx": "onnx", "coreml": "coremltools"}.get(words[1], "onnx")]}
        for module in extras.get(words[0], ()):
            pytest.importorskip(module)
        before = {path.name for path in folder.iterdir()}
        try:
            status: object = cli.main(words)
        except SystemExit as e:
            status = e.code
        said = capsys.readouterr().err
        left = {path.name for path in folder.iterdir()} - before
        for name in left:
            shutil.rmtree(folder / name, ignore_errors=True)
        assert status == 2, (status, said)
        assert said.count("\n") == 1 and said.startswith("qwen3tts-np") and len(said) < LINE, said[:300]
        assert not any(ord(c) < 32 for c in said[:-1]), said[:300]
        assert not left
        return said

    return run


def command_line(command: str, name: str, value: str) -> list[str]:
    """The words of ``command`` with ``value`` for the option or the place ``name``."""
    usual = dict(USUAL[command])
    usual[name] = value
    if name == "--file":
        del usual["text"]
    places = [word for key, word in usual.items() if not key.startswith("--")]
    options = [f"{key}={word}" if word else key for key, word in usual.items() if key.startswith("--")]
    return [*command.split(), *options, "--", *places]


def name_of(option: argparse.Action) -> str:
    return max(option.option_strings, key=len) if option.option_strings else option.dest


# --- tests ----------------------------------------------------------------------------------------


def test_every_option_is_in_a_table() -> None:
    missing = [
        f"{command} {name_of(option)}"
        for command, option in OPTIONS
        if option.type not in (int, float) and not option.choices and option.dest not in ANYWHERE
        if option.dest not in WORDS.get(command, {}) and not isinstance(option, argparse._SubParsersAction)
    ]
    assert not missing, "no case names " + ", ".join(missing)


@pytest.mark.parametrize("command", dict.fromkeys(command for command, _ in OPTIONS))
def test_what_is_no_number_and_no_choice(command: str, refuse: Callable[..., str]) -> None:
    for owner, option in OPTIONS:
        if owner != command or not (option.type in (int, float) or option.choices) or not option.option_strings:
            continue
        for value in (LONG, "", "--", "\x1b[31m1", "1 1", HALF):
            said = refuse(command_line(command, name_of(option), value))
            assert name_of(option) in said and len(said) < 500, said


@pytest.mark.parametrize("command", WORDS)
def test_names_and_texts(command: str, refuse: Callable[..., str]) -> None:
    names = {option.dest: name_of(option) for owner, option in OPTIONS if owner == command}
    for dest, cases in WORDS[command].items():
        for value, says in cases:
            said = refuse(command_line(command, names[dest], value))
            assert says in said, (dest, value[:50], said)


@pytest.mark.parametrize("command", dict.fromkeys(c for c, option in OPTIONS if option.type is Path))
def test_an_empty_name(command: str, refuse: Callable[..., str]) -> None:
    """Of a variable that a shell does not know; it is not the current folder."""
    for owner, option in OPTIONS:
        if owner == command and option.type is Path:
            words = command_line(command, name_of(option) if option.option_strings else option.dest, "MARK")
            said = refuse([word.replace("MARK", "") for word in words])
            assert "it is empty, expected the name of a file or a folder" in said, (name_of(option), said)


@pytest.mark.parametrize(("command", "option", "value", "says"), NUMBERS)
def test_numbers(command: str, option: str, value: str, says: str, refuse: Callable[..., str]) -> None:
    assert says in refuse(command_line(command, option, value))


@pytest.mark.parametrize("command", [c for c, option in OPTIONS if option.dest == "cache_dir"])
def test_a_cache_folder_that_is_none(command: str, folder: Path, refuse: Callable[..., str]) -> None:
    """It is asked for models by name only. None is there, and nobody is asked for one."""
    usual = USUAL[command]
    place = next((name for name in ("models", "source", "design", "model") if name in usual), "--model")
    for value in (NUL, HALF, LONG, "codes.npy", NONE):
        words = command_line(command, place, HUB)
        said = refuse([*words[: words.index("--")], "--offline", f"--cache-dir={value}", *words[words.index("--") :]])
        assert "is not on this machine, and the network may not be used" in said


@pytest.mark.parametrize(("command", "option", "value", "says"), [row for row in NUMBERS if row[0] in SAMPLED])
def test_numbers_are_refused_before_weights_are_read(
    command: str, option: str, value: str, says: str, refuse: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Qwen3TTSModel, "_load", None)
    assert says in refuse(command_line(command, option, value))


@pytest.mark.parametrize("command", ["explain", "trace", "fixtures export"])
def test_numbers_of_a_request_are_refused_before_weights_are_read(
    command: str, folder: Path, refuse: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Qwen3TTSModel, "_load", None)
    (folder / "bad.json").write_text(json.dumps({"text": "Hi", "top_k": -1}))
    try:
        assert "top_k=-1 must be a whole number from 0 up" in refuse(command_line(command, "request", "bad.json"))
    finally:
        (folder / "bad.json").unlink()
