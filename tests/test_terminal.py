"""Foreign text reaches the terminal escaped: nobody's file moves the cursor, sets a title or adds lines."""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

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


NAME = "\"><script>alert(1)</script><img src=x onerror=alert(1)>'\x1b[31m|a|\n# head"


def test_reports_hold_no_elements_and_no_sequences_of_foreign_names(tmp_path: Path, synthetic: Any) -> None:
    """HTML, SVG and Markdown, which many viewers render as HTML."""
    for name, value in (("ours", 1), ("theirs", 2)):
        (tmp_path / f"{name}.safetensors").write_bytes(save({NAME: np.full(3, value, np.float32)}))
    model = tmp_path / "e<svg onload=alert(1)>"
    shutil.copytree(synthetic("tiny", "custom_voice"), model)
    config = json.loads((model / "config.json").read_text())
    config["talker_config"]["spk_id"][NAME] = 5
    (model / "config.json").write_text(json.dumps(config))
    reports = {kind: tmp_path / f"fixtures.{kind}" for kind in ("html", "svg", "markdown")}
    files = [str(tmp_path / f"{name}.safetensors") for name in ("ours", "theirs")]
    assert cli.main(["fixtures", "compare", *files, *(f"--{kind}={file}" for kind, file in reports.items())]) == 1
    cli.main(["verify", str(model), "--markdown", str(tmp_path / "verify.md")])
    cli.main(["explain", str(model), "--text", "Hi", "--speaker", NAME, "--html", str(tmp_path / "explain.html")])
    cli.main(["inspect", str(model), "--html", str(tmp_path / "inspect.html")])
    written = [*reports.values(), *(tmp_path / name for name in ("verify.md", "explain.html", "inspect.html"))]
    for file in written:
        content = file.read_text(encoding="utf-8")
        lines = ["\n# head"] if file.suffix in (".md", ".markdown") else []
        for part in ("<script>alert", "<img src=x", "<svg onload", "\x1b", *lines):
            assert part not in content, file.name
