"""The README: every command runs as printed, every error is the one it quotes, and no model is forgotten."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import tiny_world
from sound_card import SoundCard

from qwen3tts_np import cli
from qwen3tts_np.checkpoint.published import CODEC_NAME, CODEC_WEIGHTS, MODELS, VOICES
from qwen3tts_np.cli.completion import tree

README = (tiny_world.ROOT / "README.md").read_text(encoding="utf-8")
WITHOUT_SERVER = re.sub(r"^## Server\n.*?(?=^## )", "", README, flags=re.M | re.S)  # test_serve_command.py has that
SETS_UP = [line.strip() for line in re.findall(r"^ {4}(\S.*)$", README, re.M) if line.startswith("pip ")]
SHELL = [line for block in re.findall(r"^```sh\n(.*?)^```", WITHOUT_SERVER, re.M | re.S) for line in block.splitlines()]
PYTHON = re.findall(r"^```python\n(.*?)^```", WITHOUT_SERVER, re.M | re.S)

# Commands that take minutes, or install things: a person runs them. Each with the file it needs.
LONGER = {
    "pytest": "tests",
    "pytest tests/wheel.py": "tests/wheel.py",
    "pytest tests/full_size.py": "tests/full_size.py",
    "pytest tests/full_size_streaming.py": "tests/full_size_streaming.py",
    "pytest tests/full_size_batch.py": "tests/full_size_batch.py",
    "pytest tests/full_size_onnx.py": "tests/full_size_onnx.py",
    "pytest --hypothesis-profile thorough tests/test_model.py": "tests/test_model.py",
    "python tests/test_resources.py": "tests/test_resources.py",
    "python tests/test_server_company.py": "tests/test_server_company.py",
    "python tests/faults.py": "tests/faults.py",
    "python tests/surroundings.py": "tests/surroundings.py",
    "python tests/emulated_arm.py FOLDER": "tests/emulated_arm.py",
    "python tests/training_kills.py": "tests/training_kills.py",
    "python tests/batch_runs.py": "tests/batch_runs.py",
    "pytest tests/ray_cluster.py": "tests/ray_cluster.py",
    "python tests/mutants.py": "tests/mutants.py",
    "golden/setup_official.sh": "golden/setup_official.sh",
    ".venv-official/bin/python golden/record.py --check": "golden/record.py",
    ".venv-official/bin/python golden/record_peft.py --check": "golden/record_peft.py",
    ".venv-official/bin/python golden/demo_voice/spoil.py DIR": "golden/demo_voice/spoil.py",
    "python tests/spoiled_voices.py DIR": "tests/spoiled_voices.py",
    "python benchmarks/speed.py": "benchmarks/speed.py",
    "python benchmarks/speed.py --official .venv-official/bin/python": "benchmarks/speed.py",
    "python benchmarks/first_audio.py": "benchmarks/first_audio.py",
    "python benchmarks/serve.py": "benchmarks/serve.py",
    "python benchmarks/peers.py MODEL --peer 'NAME=COMMAND'": "benchmarks/peers.py",
    "python benchmarks/compare.py OLD_CHECKOUT MODEL": "benchmarks/compare.py",
    "python benchmarks/startup.py --from-outside small": "benchmarks/startup.py",
    "python benchmarks/oversubscription.py": "benchmarks/oversubscription.py",
    "python benchmarks/formats.py": "benchmarks/formats.py",
    "python benchmarks/cloning.py": "benchmarks/cloning.py",
    "python benchmarks/graph_fidelity.py": "benchmarks/graph_fidelity.py",
    "python benchmarks/runners.py": "benchmarks/runners.py",
    "python benchmarks/int4.py": "benchmarks/int4.py",
    "python benchmarks/teach_words.py": "benchmarks/teach_words.py",
    "python benchmarks/preparation.py": "benchmarks/preparation.py",
    "python benchmarks/training.py": "benchmarks/training.py",
    "python tests/fuzz.py": "tests/fuzz.py",
    "ffmpeg -i ada.m4a ada.wav": "README.md",
}


EXTRAS = {
    "--tempo": "av",
    "--loudness": "pyloudnorm",
}  # an option -> what it imports; without that its examples are not run


@pytest.fixture
def world(tmp_path: Path, synthetic: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    tiny_world.build(tmp_path, synthetic)
    SoundCard().install(monkeypatch)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_commands_run_as_printed_one_after_the_other(world):
    assert len(SHELL) > 10
    for line in SHELL:
        if all(find_spec(extra) for option, extra in EXTRAS.items() if option in line):
            tiny_world.run(line, world)
    written = "speech.wav ada.safetensors anything.mp3 voice.safetensors book.flac book.srt book.mp3 heard.wav"
    for file in written.split():
        assert (world / file).stat().st_size > 0, file


def test_two_commands_set_everything_up(world):
    """One speaks, the other passes the tests: this test is among them, so it runs the first only."""
    speaks, tests = SETS_UP
    tiny_world.run(speaks, world)
    assert (world / "speech.wav").exists()
    assert tests == "pip install -e '.[test]' && pytest"
    project = (tiny_world.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for extra in re.findall(r"pip install -e '\.\[(\w+)\]'", README):
        assert f"\n{extra} = [" in project


def test_every_other_command_is_a_longer_check_or_among_those(world):
    """What stands in backticks and looks like a command."""
    programs = r"qwen3tts-np|source|pytest|python|golden/setup\S*|\.venv-official\S*|ffmpeg"
    inline = [code for code in re.findall(r"`([^`\n]+)`", README) if re.match(rf"({programs})( |$)", code)]
    ours = [code for code in inline if code.startswith(("qwen3tts-np ", "source "))]
    forms = [code for code in ours if re.search(r"\b[A-Z]{3,}\b", code) or code.endswith(" A B")]  # MODEL is any
    commands = {" ".join(command.words) for command in tree(cli.program_parser())}
    assert {code.split()[1] for code in forms} <= commands
    here = [code for code in ours if code not in forms]
    assert set(inline) - set(ours) - {"python"} <= LONGER.keys()
    for code in here:
        tiny_world.run(code, world)
    for needed in LONGER.values():
        assert (tiny_world.ROOT / needed).exists()


def test_the_python_runs_as_printed_one_after_the_other(world):
    """``play`` and ``language_model`` are the reader's."""
    heard: list[np.ndarray] = []
    names = {"play": heard.append, "language_model": ["Hello ", "there, ", "everyone."]}
    for program in PYTHON:
        exec(program, names)
    assert len(PYTHON) == 2
    assert len(names["wavs"][0]) > 0
    assert len(heard) > 2
    assert {samples.dtype for samples in heard} == {np.dtype(np.float32)}


# Calls of the official examples, which a checker should accept as well.
OFFICIAL = """
import soundfile

model = Qwen3TTSModel.from_pretrained(
    "Qwen/Qwen3-TTS-12Hz-1.7B-Base", device_map="cuda:0", dtype="bfloat16", attn_implementation="flash_attention_2"
)
wavs, rate = model.generate_custom_voice(text=["Hi.", "Bye."], language=["English", "English"], speaker="Ryan")
wavs, rate = model.generate_voice_design(text="Hi.", language="English", instruct="Calm.", max_new_tokens=2048)
prompt = model.create_voice_clone_prompt(ref_audio=[(wavs[0], rate)], ref_text=["Hi."], x_vector_only_mode=[False])
wavs, rate = model.generate_voice_clone(text=["A.", "B."], language=["English"], voice_clone_prompt=prompt, top_k=50)
soundfile.write("a.wav", wavs[0], rate)
codes = model.generate_custom_voice("Hi.", "ryan", return_codes=True)[2]
tokenizer = Qwen3TTSTokenizer.from_pretrained("Qwen/Qwen3-TTS-Tokenizer-12Hz", device_map="cuda:0")
encoded = tokenizer.encode(["a.wav", "b.wav"])
wavs, rate = tokenizer.decode([{"audio_codes": codes} for codes in encoded.audio_codes])
item = VoiceClonePromptItem(codes[0], np.zeros(8, np.float32), x_vector_only_mode=False, icl_mode=True, ref_text="Hi.")
"""


def typed_program(folder: Path) -> Path:
    """The blocks of this page and calls of the official examples as one program."""
    given = "from typing import Any\nimport numpy as np\n\ndef play(samples: np.ndarray[Any, Any]) -> None: ...\n"
    names = "from qwen3tts_np import Qwen3TTSTokenizer, VoiceClonePromptItem\nlanguage_model: list[str] = []\n"
    program = folder / "readme.py"
    program.write_text(given + names + "\n".join(PYTHON) + OFFICIAL, encoding="utf-8")
    return program


def test_pyright_accepts_the_python_of_this_page_and_of_official_scripts(tmp_path):
    """In strict mode. Where pyright or Node.js is missing nothing is checked: it would download its own."""
    pytest.importorskip("pyright")
    if shutil.which("node") is None:
        pytest.skip("needs Node.js")
    paths = [str(tiny_world.ROOT), str(tiny_world.ROOT / "kernels")]
    config = {"extraPaths": paths, "typeCheckingMode": "strict", "reportMissingTypeStubs": False}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(config), encoding="utf-8")
    typed_program(tmp_path)
    own = {"PYRIGHT_PYTHON_GLOBAL_NODE": "1", "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    command = [sys.executable, "-m", "pyright", "-p", str(tmp_path), "--pythonpath", sys.executable]
    done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_python_has_the_types_that_it_is_printed_with(tmp_path):
    """mypy --strict on every block of this page, as a reader's checker sees it."""
    api = pytest.importorskip("mypy.api")
    program = typed_program(tmp_path)
    options = [
        "--strict",
        "--config-file",
        "",
        "--cache-dir",
        str(tiny_world.ROOT / ".mypy_cache" / "readme"),
        "--follow-imports",
        "silent",
    ]
    report, errors, status = api.run([*options, "--disable-error-code", "import-untyped", str(program)])
    assert (status, errors) == (0, ""), report


def test_all_models_are_described():
    weights = {model.name: model.weights for model in MODELS} | {CODEC_NAME: CODEC_WEIGHTS}
    described = re.findall(r"^\| `(Qwen/\S+)` \|", README, re.M)
    assert sorted(described) == sorted(f"Qwen/{name}" for name in weights)
    for name, published in weights.items():
        (row,) = (line for line in README.splitlines() if line.startswith(f"| `Qwen/{name}`"))
        assert row.endswith(f" {published.file.bytes / 1e9:.1f} GB |")


def test_all_voices_are_described():
    section = README.partition("## Models")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.+) \| (.+) \|$", section, re.M)
    assert {name: (what, native) for name, what, native in rows} == {
        name: (voice.description, voice.native) for name, voice in VOICES.items()
    }


def test_voices_have_the_dialects_of_the_released_configurations(reference):
    for path in sorted((reference / "configs").glob("*-CustomVoice/config.json")):
        talker = json.loads(path.read_text(encoding="utf-8"))["talker_config"]
        assert {name: voice.id for name, voice in VOICES.items()} == talker["spk_id"]
        for name, voice in VOICES.items():
            dialect = f"{voice.dialect.lower()}_dialect" if voice.dialect else False
            assert talker["spk_is_dialect"][name] == dialect
            assert not dialect or (voice.language == "Chinese" and dialect in talker["codec_language_id"])


def test_all_extras_are_described():
    project = (tiny_world.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = project.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    section = README.partition("## Install")[2].partition("\n## ")[0].partition("| extra |")[2]
    assert sorted(re.findall(r"^\| `(\w+)` \|", section, re.M)) == sorted(re.findall(r"^(\w+) = \[", extras, re.M))


FOLDERS = (".github", "benchmarks", "golden", "kernels", "qwen3tts_np")
PAGES = sorted(tiny_world.ROOT.glob("*.md")) + sorted(
    p for name in FOLDERS for p in (tiny_world.ROOT / name).rglob("*.md")
)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(tiny_world.ROOT).as_posix())
def test_links_lead_somewhere(path):
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if not link.startswith("https://"):
            file, _, heading = link.partition("#")
            target = path.parent / file if file else path
            assert target.exists(), link
            assert not heading or heading in anchors(target), link


def test_the_page_of_the_model_shows_its_tree():
    """Every file that it names is there, and every file and folder of the package's top is named."""
    package = tiny_world.ROOT / "qwen3tts_np"
    page = (package / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w[\w/]*(?:\.py|/))`", page))
    places = (package, tiny_world.ROOT / "kernels" / "qwen3tts_np_kernels", package / "demo_voice", tiny_world.ROOT)
    missing = [name for name in named if not any((place / name).exists() for place in places)]
    assert len(named) > 40 and missing == []
    tops = {path.name for path in package.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert tops - {name.split("/")[0] for name in named} == {"__init__.py", "__main__.py", "__pycache__"} & tops


@pytest.mark.parametrize(
    ("page", "package"),
    [("qwen3tts_np/README.md", "qwen3tts_np"), ("kernels/README.md", "kernels/qwen3tts_np_kernels")],
)
def test_every_file_is_in_a_table(page, package):
    """Under its name, or under that of its folder."""
    rows = re.findall(r"^\| (.+?) \|", (tiny_world.ROOT / page).read_text(encoding="utf-8"), re.M)
    named = {name for row in rows for name in re.findall(r"`([\w./]+(?:\.py|/))`", row)}
    folder = tiny_world.ROOT / package
    files = [path.relative_to(folder) for path in folder.rglob("*.py") if not path.name.startswith("__")]
    missing = [
        file.as_posix()
        for file in files
        if file.as_posix() not in named and not any(f"{above.as_posix()}/" in named for above in file.parents)
    ]
    assert len(files) > 20 and missing == []


def anchors(page: Path) -> set[str]:
    """Headings as links name them: small letters, hyphens for blanks, no other signs."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w-]", "", heading.lower().replace(" ", "-")) for heading in headings}


# --- errors ---------------------------------------------------------------------------------------

BASE, CUSTOM = "Qwen/Qwen3-TTS-12Hz-0.6B-Base", "Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice"


def no_hub(world: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    (world / "elsewhere").mkdir()
    monkeypatch.chdir(world / "elsewhere")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # importing it fails
    return ["clone", BASE, "Hello.", "--ref-audio", "ada.wav"]


def pointer(world: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    (world / CUSTOM / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:12\n")
    monkeypatch.chdir(world / CUSTOM)
    return ["say", ".", "Hello."]


def no_voice(world: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return ["say", BASE, "Hello."]


def no_speaker(world: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return ["say", CUSTOM, "Hello.", "--speaker", "bob"]


def no_clip(world: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    (world / "ada.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(500))  # how such files begin
    return ["clone", BASE, "Hello.", "--ref-audio", "ada.m4a"]


LIKELY = re.findall(r"^\| `(.*)` \| .+ \|$", README.partition("## Troubleshooting")[2].partition("\n## ")[0], re.M)


@pytest.mark.parametrize("cause", [no_hub, pointer, no_voice, no_speaker, no_clip])
def test_a_likely_error_is_quoted_verbatim_and_leaves_nothing(cause, world, monkeypatch, capsys):
    assert len(LIKELY) == 5
    arguments = cause(world, monkeypatch)
    before = sorted(Path().iterdir())
    assert cli.main(arguments) == 2
    err = capsys.readouterr().err
    assert err.removeprefix(f"qwen3tts-np {arguments[0]}: ").rstrip("\n") in LIKELY
    assert sorted(Path().iterdir()) == before
