"""Every example that a help text prints runs as it is printed."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny_world
from qwen3tts_np_kernels.cpu import compiled

from qwen3tts_np import cli
from qwen3tts_np.cli.completion import tree

LONGER = "--official"  # in examples that need another environment
ENDLESS = "qwen3tts-np serve"  # test_serve_command.py has them


def examples(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The examples of a parser and of all below it, each once."""
    found = [*(line.strip() for line in (parser.epilog or "").splitlines()[1:])]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                found += examples(child)
    yield from dict.fromkeys(found)


PARSER = cli.program_parser()
EXAMPLES = [line for line in examples(PARSER) if LONGER not in line and not line.startswith(ENDLESS)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, synthetic: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    tiny_world.build(folder, synthetic)
    return folder


def test_every_command_has_examples(capsys):
    for command in tree(PARSER):
        with pytest.raises(SystemExit):
            cli.main([*command.words, "--help"])
        help_ = capsys.readouterr().out
        assert "\nexamples:\n  " in help_, command.words
        assert f"qwen3tts-np {' '.join(command.words)}".strip() in help_.partition("\nexamples:\n")[2]


@pytest.mark.parametrize("line", EXAMPLES)
def test_an_example_runs_as_printed(line, world, monkeypatch):
    if "--format int" in line and not compiled():
        pytest.skip("weight formats are for compiled kernels (NUMBA_DISABLE_JIT is set)")
    if "export onnx" in line:
        pytest.importorskip("onnx")
    if "export coreml" in line:
        pytest.importorskip("coremltools")
    monkeypatch.chdir(world)
    tiny_world.run(line, world)
