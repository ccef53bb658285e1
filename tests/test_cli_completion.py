"""Shell completion, asked of the shells themselves; zsh and fish where they are installed."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_world

from qwen3tts_np import cli
from qwen3tts_np.checkpoint.hub import published_names
from qwen3tts_np.cli.completion import bash, fish, tree, zsh
from qwen3tts_np.compiled.engine import WEIGHT_FORMATS

PARSER = cli.program_parser()
ASK = """
source ./script
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_qwen3tts_np
printf '%s\\n' "${COMPREPLY[@]}"
"""
CASES = [
    (
        [""],
        {"say", "clone", "voice", "encode", "decode", "convert", "info", "bench", "synth", "completion"},
        {"--help"},
    ),
    (["sa"], {"say"}, {"synth"}),
    (["say", "--str"], {"--stream"}, {"--srt"}),
    (["say", "-"], {"-h", "-o", "--output", "--top-k", "--no-do-sample"}, {"--ref-audio"}),
    (["clone", "--ref"], {"--ref-audio", "--ref-text"}, set()),
    (["say", "--format", "int"], {"int4", "int8"}, {"float32"}),
    (["voice", ""], {"create", "design", "show", "list"}, {"say"}),
    (["voice", "create", "--te"], {"--text"}, {"--temperature"}),
    (["completion", ""], {"bash", "zsh", "fish"}, set()),
]


@pytest.fixture
def ask(tmp_path):
    """``ask(["say", "--st"])``: what bash would offer."""
    (tmp_path / "script").write_text(bash(PARSER))
    (tmp_path / "two words.wav").touch()

    def asked(words: list[str]) -> set[str]:
        command = ["bash", "--norc", "-c", ASK, "bash", "qwen3tts-np", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return set(done.stdout.splitlines()) - {""}

    return asked


@pytest.mark.parametrize(
    ("words", "offered", "others"), CASES, ids=lambda x: " ".join(x) if isinstance(x, list) else ""
)
def test_bash_offers(ask, words, offered, others):
    found = ask(words)
    assert offered <= found
    assert not others & found
    assert all(word.startswith(words[-1]) for word in found)


def test_bash_offers_models_files_and_nothing_for_free_text(ask):
    assert set(published_names()) <= ask(["say", "Qw"])
    assert ask(["say", "MODEL", "--file", "tw"]) == {"two words.wav"}
    assert ask(["say", "MODEL", "--instruct", ""]) == set()


def test_bash_offers_the_speakers_and_languages_of_the_given_model(ask, tmp_path, synthetic, monkeypatch):
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "qwen3tts-np"
    path = os.pathsep.join([str(tiny_world.ROOT), str(tiny_world.ROOT / "kernels")])
    program.write_text(tiny_world.PROGRAM.format(path=shlex.quote(path), python=shlex.quote(sys.executable)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    model = shutil.copytree(synthetic("tiny", "custom_voice"), tmp_path / "models" / "mine")
    config = json.loads((model / "config.json").read_text("utf-8"))
    config["talker_config"]["spk_id"] = {"ryan": 200, "ruth anne": 201, "Ada": 202}
    config["talker_config"]["spk_is_dialect"] = {}
    (model / "config.json").write_text(json.dumps(config), "utf-8")
    assert ask(["say", str(model), "--format", "int4", "--speaker", "r"]) == {"ryan", "ruth anne"}
    assert {"english", "auto"} <= ask(["say", str(model), "--language", ""])
    assert ask(["say", "Qwen/nobody-has-this", "--speaker", ""]) == ask(["say", "--speaker", ""]) == set()


def test_every_option_of_every_command_is_in_every_script():
    commands = list(tree(PARSER))
    assert len(commands) > 25
    for script in (bash(PARSER), zsh(PARSER)):
        for command in commands:
            assert all(flag in script for flag in command.flags)
    script = fish(PARSER)
    for command in commands:
        assert all(f" -l {flag[2:]} " in f"{script} " for flag in command.flags if flag.startswith("--"))
    (say,) = (command for command in commands if command.words == ("say",))
    assert next(o for o in say.options if "--format" in o.flags).choices == ("auto", *WEIGHT_FORMATS)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_valid_and_printed(shell, tmp_path, capsys):
    assert cli.main(["completion", shell]) == 0
    path = tmp_path / "script"
    path.write_text(capsys.readouterr().out)
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    subprocess.run([shell, "-n", str(path)], check=True, capture_output=True)


def test_zsh_takes_it(tmp_path: Path):
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not installed")
    (tmp_path / "script").write_text(zsh(PARSER))
    line = "autoload -U compinit; compinit -D -u; source ./script; print $_comps[qwen3tts-np]; "
    line += "whence -w _qwen3tts_np_voice_create"
    done = subprocess.run(["zsh", "-fc", line], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "_qwen3tts_np\n_qwen3tts_np_voice_create: function\n"


@pytest.mark.parametrize(
    ("words", "offered", "others"), CASES, ids=lambda x: " ".join(x) if isinstance(x, list) else ""
)
def test_fish_offers(words, offered, others, tmp_path):
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed")
    (tmp_path / "script").write_text(fish(PARSER))
    line = " ".join(["qwen3tts-np", *words])
    done = subprocess.run(
        ["fish", "-N", "-c", f"source ./script; complete -C '{line}'"],
        cwd=tmp_path,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = {answer.partition("\t")[0] for answer in done.stdout.splitlines()}
    assert offered <= found
    assert not others & found
