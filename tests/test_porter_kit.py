"""golden/ as a course for porters: every step of the index runs alone, and the readers need no framework."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import CASES, GOLDEN, Case, case_names, load_case
from porter_steps import ELSEWHERE, OF_TEXT, OPERATIONS, Stage
from programs import program
from safetensors.numpy import load_file

from qwen3tts_np import Qwen3TTSModel
from qwen3tts_np.checkpoint.safetensors import Checkpoint

INDEX = json.loads((GOLDEN / "INDEX.json").read_text(encoding="utf-8"))["stages"]
STEPS = [(stage, step) for stage in INDEX for step in stage["steps"]]
RECORDED = [(stage, step) for stage, step in STEPS if step["op"] in OPERATIONS]
READERS = GOLDEN / "readers"
RELATIVE = 2e-6  # of probabilities and times, which libraries round differently; see the case's tolerance


def titles(steps: list[Any]) -> list[str]:
    return [f"{stage['stage']}-{step['op']}-{step['expected']}" for stage, step in steps]


@pytest.fixture(scope="module")
def stage_of(synthetic: Callable[..., Path]) -> Callable[[dict[str, Any]], Stage]:
    @cache
    def model(like: str, model_type: str) -> Qwen3TTSModel:
        return Qwen3TTSModel.from_pretrained(synthetic(like, model_type), backend="reference")

    def stage(step: dict[str, Any]) -> Stage:
        wanted = step.get("checkpoint", {"like": "tiny", "type": "base"})
        return Stage(model(wanted["like"], wanted["type"]), load(step["case"]), step)

    return stage


@cache
def load(name: str) -> Case:
    if name in case_names():
        return load_case(name)
    content = json.loads((CASES / name / "case.json").read_text(encoding="utf-8"))
    return Case(name, content, {}, load_file(CASES / name / "expected.safetensors"))


def tensor(case: Case, name: str) -> np.ndarray:
    plain = name.removesuffix(".T")
    value = case.inputs[plain] if plain in case.inputs else case.stored[plain]
    return value.T if name.endswith(".T") else value


def compute(s: Stage, directory: Path) -> np.ndarray:
    """The step from recorded tensors and the weights it names, and from nothing else that was recorded."""
    given = [tensor(s.case, name) for name in s.step["given"]]
    names = [name for name in s.step.get("weights", []) if not name.endswith(".")]
    if names:
        checkpoint = Checkpoint.open((directory / s.step["file"]).parent)
        given += [checkpoint[name].widen(np.dtype(np.float32)) for name in names]
    return OPERATIONS[s.step["op"]](s, *given)


def within(s: Stage, found: np.ndarray) -> bool:
    wanted = tensor(s.case, s.step["expected"])
    if wanted.dtype.kind in "iu":
        return bool(np.array_equal(found.reshape(wanted.shape), wanted))
    found = found.ravel()[: wanted.size]  # of the generator's times the first few are stored
    atol = s.step.get("atol", RELATIVE * np.abs(wanted.ravel()))
    return bool((np.abs(found - wanted.ravel()) <= atol).all())


@pytest.mark.parametrize(("stage", "step"), RECORDED, ids=titles(RECORDED))
def test_every_step_runs_alone(stage_of, synthetic, stage, step):
    s = stage_of(step)
    wanted = step.get("checkpoint", {"like": "tiny", "type": "base"})
    found = compute(s, synthetic(wanted["like"], wanted["type"]))
    assert within(s, found)
    if found.dtype.kind == "f":
        assert not within(s, found * np.float32(1.001))  # a tolerance that says something


@pytest.mark.parametrize("op", OF_TEXT)
def test_the_tokenizer_stage(op):
    assert OF_TEXT[op]()


def test_every_operation_is_known_and_described():
    ops = {step["op"] for _, step in STEPS}
    assert ops == OPERATIONS.keys() | OF_TEXT.keys() | ELSEWHERE.keys()
    readme = (GOLDEN / "README.md").read_text(encoding="utf-8")
    assert [op for op in sorted(ops) if f"`{op}`" not in readme] == []
    assert [stage["name"] for stage in INDEX if f"| {stage['stage']} | {stage['name']} |" not in readme] == []


def test_the_stages_are_those_of_a_growing_port():
    assert [stage["stage"] for stage in INDEX] == list(range(1, 12))
    assert [stage["name"] for stage in INDEX] == [
        "tokenizer", "prompt ids", "embeddings", "one layer", "talker", "code predictor frame", "sampler",
        "codec", "mel", "speaker encoder", "whole requests",
    ]  # fmt: skip


def test_the_index_is_up_to_date():
    module = program(GOLDEN / "index.py")
    made = module.dump(module.index())
    assert made == (GOLDEN / "INDEX.json").read_text(encoding="utf-8"), "run: python golden/index.py"


# --- the readers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["read.py", "read.c"])
def test_a_reader_is_short(name):
    assert len((READERS / name).read_text(encoding="utf-8").splitlines()) < 60


def test_the_python_reader_imports_numpy_alone():
    imported = re.findall(r"^(?:import|from) (\w+)", (READERS / "read.py").read_text(encoding="utf-8"), re.M)
    assert set(imported) - sys.stdlib_module_names == {"numpy"}


def python_reader(checkpoint: Path) -> subprocess.CompletedProcess[str]:
    # -I: nothing of this checkout is on the path
    return subprocess.run([sys.executable, "-I", READERS / "read.py", checkpoint], capture_output=True, text=True)


def test_the_python_reader(synthetic):
    done = python_reader(synthetic("tiny", "custom_voice"))
    assert done.returncode == 0, done.stdout + done.stderr
    ops = ("embedding", "linear", "rms_norm", "codebook")
    assert len(done.stdout.splitlines()) == sum(step["op"] in ops for _, step in STEPS) > 40


@pytest.fixture
def copy(synthetic, tmp_path) -> Path:
    return shutil.copytree(synthetic("tiny", "custom_voice"), tmp_path / "checkpoint")


def change_a_weight(file: Path) -> None:
    """One weight of layer 0's q_proj by its sign and a little more."""
    name = "talker.model.layers.0.self_attn.q_proj.weight"
    tensors = Checkpoint.open(file)
    raw = bytearray(file.read_bytes())
    at = bytes(raw).index(tensors[name].data.tobytes())
    raw[at + 1] ^= 0x80
    file.write_bytes(raw)


def test_the_python_reader_sees_a_changed_weight(copy):
    change_a_weight(copy / "model.safetensors")
    assert python_reader(copy).returncode == 1


def test_the_python_reader_refuses_a_file_cut_short(copy):
    file = copy / "model.safetensors"
    whole = file.read_bytes()
    for keep in (0, 7, 100, len(whole) // 2):
        file.write_bytes(whole[:keep])
        done = python_reader(copy)
        assert done.returncode == 1
        assert re.fullmatch(r"\S+model\.safetensors is cut short: [^\n]+\n", done.stderr), done.stderr


@pytest.fixture(scope="module")
def c_reader(tmp_path_factory) -> Callable[..., subprocess.CompletedProcess[str]]:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("needs a C compiler")
    program = tmp_path_factory.mktemp("reader") / "read"
    strict = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-g"]
    checked = [*strict, "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    for flags in (checked, strict):  # not every compiler has the sanitizers
        build = subprocess.run([compiler, *flags, "-o", program, READERS / "read.c", "-lm"], capture_output=True)
        if build.returncode == 0:
            break
    assert build.returncode == 0, build.stderr.decode()

    def run(*arguments: Any, under: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*under, program, *map(str, arguments)], capture_output=True, text=True)

    run.plain = lambda: plain_build(compiler, strict, program.with_name("plain"))  # type: ignore[attr-defined]
    return run


def plain_build(compiler: str, flags: list[str], program: Path) -> Path:
    subprocess.run([compiler, *flags, "-o", program, READERS / "read.c", "-lm"], check=True)
    return program


IN_C = [
    step
    for _, step in STEPS
    if step["op"] in ("linear", "rms_norm") and len(step["weights"]) == 1 and step["given"][0][-2:] != ".T"
]


def arguments(step: dict[str, Any], checkpoint: Path) -> list[Any]:
    names = [*step["given"], *step["weights"], step["expected"]]
    return [checkpoint / step["file"], CASES / step["case"], step["op"], *names]


def test_the_c_reader(c_reader, synthetic):
    assert len(IN_C) > 10
    for step in IN_C:
        done = c_reader(*arguments(step, synthetic("tiny", "custom_voice")))
        assert (done.returncode, done.stderr) == (0, ""), done
        assert done.stdout.startswith(f"{step['op']} {step['expected']}: ")


def test_the_c_reader_sees_a_changed_weight(c_reader, copy):
    change_a_weight(copy / "model.safetensors")
    step = next(step for step in IN_C if step["expected"].endswith("layers.0.self_attn.q_proj@0"))
    assert c_reader(*arguments(step, copy)).returncode == 1


@settings(max_examples=25)
@given(data=st.data())
def test_the_c_reader_refuses_a_damaged_file(c_reader, synthetic, tmp_path_factory, data):
    """Cut anywhere, or bytes of the header changed: one sentence, and nothing for a sanitizer to find."""
    whole = (synthetic("tiny", "custom_voice") / "model.safetensors").read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    raw = bytearray(whole)
    cut = data.draw(st.booleans())
    if cut:
        end = data.draw(st.one_of(st.integers(0, header), st.integers(0, len(whole) // 3)))
        raw = raw[:end]
    else:
        for at in data.draw(st.lists(st.integers(0, header - 1), min_size=1, max_size=40)):
            raw[at] = data.draw(st.integers(0, 255))
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "model.safetensors").write_bytes(raw)
    done = c_reader(*arguments(IN_C[1], folder))
    assert done.returncode in ((2,) if cut else (0, 1, 2)), done
    if done.returncode == 2:
        assert re.fullmatch(r"read: [^\n]+\n", done.stderr), done.stderr
    else:
        assert done.stderr == ""


def test_the_c_reader_under_valgrind(c_reader, synthetic):
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        pytest.skip("needs valgrind")
    program = c_reader.plain()
    command = [valgrind, "--quiet", "--error-exitcode=99", "--leak-check=full", program]
    command += arguments(IN_C[0], synthetic("tiny", "custom_voice"))
    done = subprocess.run(command, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
