"""Foreign text reaches the terminal escaped: nobody's file moves the cursor, sets a title or adds lines."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import numpy as np
import pytest

from qwen3tts_np import cli
from qwen3tts_np.voice.prompt_item import VoiceClonePromptItem

EVIL = "\x1b]0;owned\x07\x1b[2J\nmore\u202e"
COMMANDS = Path(cli.__file__).parent
OWN_PRINTS = {"completion.py", "doctor.py", "warm_up.py", "progress.py"}  # print nothing foreign


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    item = VoiceClonePromptItem(
        np.zeros((4, 16), np.int64), np.zeros(64, np.float32), False, True, f"a{EVIL}", None, f"b{EVIL}"
    )
    item.save(tmp_path / "v.safetensors")
    table = {f"{EVIL}name": {"dtype": "F32", "shape": [17], "data_offsets": [0, 64]}}
    header = json.dumps(table).encode()
    (tmp_path / "w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(64))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": EVIL}))
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        ["voice", "show", "v.safetensors"],
        ["voice", "list", "."],
        ["voice", "show", "w.safetensors"],
        ["voice", "show", f"{EVIL}.safetensors"],
        ["info", "."],
        ["say", ".", "Hi", "-o", "x.wav"],
        ["decode", ".", f"{EVIL}.npy"],
    ],
    ids=" ".join,
)
def test_no_escape_sequence_reaches_the_terminal(
    folder: Path, command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    cli.main(command)
    said = capsys.readouterr()
    text = said.out + said.err
    assert text and not {"\x1b", "\x07", "\u202e"} & set(text)
    assert not any(line.startswith("more") for line in text.splitlines())


def test_commands_print_foreign_text_through_one_function() -> None:
    for path in COMMANDS.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "print" and path.name not in OWN_PRINTS:
                what = ast.unparse(node)
                allowed = what.startswith(("print(json.dumps", "print(printable(")) or "file=sys.stderr" in what
                assert allowed, f"{path.name}:{node.lineno}: {what}; use print_text"
