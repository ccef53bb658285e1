"""``verify``: silent about healthy checkpoints, and every damage found, by the section that should find it."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Callable
from copy import deepcopy as copy_of
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3tts_np import Qwen3TTSModel, cli, trace
from qwen3tts_np.checkpoint import published as publishing
from qwen3tts_np.checkpoint.config_file import read_model_config
from qwen3tts_np.checkpoint.published import PublishedFile, PublishedModel, PublishedWeights
from qwen3tts_np.checkpoint.safetensors import Checkpoint
from qwen3tts_np.layout.convert import convert
from qwen3tts_np.layout.description import describe
from qwen3tts_np.synthetic.layouts import TYPES
from qwen3tts_np.verify import live, official_probe
from qwen3tts_np.verify.official_probe import Answers
from qwen3tts_np.verify.sections import OK, SKIPPED, WRONG, statistics_section
from qwen3tts_np.verify.statistics import problems_of, row_statistics

Tiny = Callable[..., Path]


def verify(directory: Path, capsys: Any, *options: str) -> tuple[int, dict[str, Any]]:
    status = cli.main(["verify", str(directory), "--json", *options])
    report = json.loads(capsys.readouterr().out)
    assert status == report["wrong"]
    return status, {section["title"]: section for section in report["sections"]}


@pytest.fixture
def copy(synthetic: Tiny, tmp_path: Path) -> Path:
    return shutil.copytree(synthetic("tiny", "base"), tmp_path / "checkpoint")


# --- files, keys, statistics ------------------------------------------------------------------------


@pytest.mark.parametrize("like", ["tiny", "tiny-1.7b"])
@pytest.mark.parametrize("model_type", TYPES)
def test_a_healthy_checkpoint(synthetic, capsys, like, model_type):
    status, sections = verify(synthetic(like, model_type), capsys)
    assert status == 0
    assert [s["status"] for s in sections.values()] == [SKIPPED, OK, OK]
    assert sections["statistics"]["rows"][0][0] == "text embedding"


@pytest.mark.parametrize("model_format", ["float16", "int8", "int4"])
def test_a_healthy_conversion(synthetic, tmp_path, capsys, model_format):
    convert(synthetic("tiny", "custom_voice"), tmp_path / "converted", model_format)
    status, sections = verify(tmp_path / "converted", capsys, "--official", sys.executable)
    assert status == (0 if model_format != "float16" else 1)  # this Python has no official package
    expected = "does not have the official package" if model_format == "float16" else "does not read quantised weights"
    assert expected in json.dumps(sections["official package"])


def test_a_codec_alone(synthetic, capsys):
    folder = synthetic("tiny", "base") / "speech_tokenizer"
    status, sections = verify(folder, capsys, "--official", sys.executable)
    assert status == 0
    assert sections["official package"]["summary"] == "there is no talker in this directory"
    assert sections["statistics"]["rows"][0][0] == "decoder codebooks"


@pytest.mark.parametrize("sizes_too", [False, True])
def test_published_files(copy, capsys, monkeypatch, sizes_too):
    """A published model of the tiny size: the files are its own, then one differs."""
    found = describe(copy)
    files = {name: PublishedFile(size, publishing.sha256_of(copy / name)) for name, size in found.files.items()}
    weights = [PublishedWeights(w.tensors, w.parameters, files[w.file]) for w in found.weights]
    model = PublishedModel("Tiny", "0", "tiny", "base", weights[0], files["config.json"])
    for module in ("qwen3tts_np.layout.description", "qwen3tts_np.checkpoint.published"):
        monkeypatch.setattr(f"{module}.MODELS", (model,))
        monkeypatch.setattr(f"{module}.CODEC_WEIGHTS", weights[1])
    monkeypatch.setattr(publishing, "COMMON_FILES", {name: files[name] for name in ("vocab.json", "merges.txt")})
    status, sections = verify(copy, capsys)
    assert (status, sections["published files"]["summary"]) == (0, "byte for byte those of Tiny")
    merges = copy / "merges.txt"
    raw = merges.read_bytes()
    merges.write_bytes(raw + b"\n" if sizes_too else raw.replace(b"e r", b"r e", 1))
    assert len(raw) + sizes_too == merges.stat().st_size
    status, sections = verify(copy, capsys)
    (problem,) = sections["published files"]["problems"]
    assert problem.startswith(f"merges.txt: {f'{len(raw) + 1} bytes' if sizes_too else 'sha256'}")
    assert verify(copy, capsys, "--fine-tuned")[1]["published files"]["status"] == SKIPPED


def test_a_missing_tensor_does_not_stop_the_statistics(copy, capsys):
    raw = (copy / "model.safetensors").read_bytes()
    name = b'"talker.model.norm.weight"'
    (copy / "model.safetensors").write_bytes(raw.replace(name, b'"talker.model.morn.weight"', 1))
    status, sections = verify(copy, capsys, "--official", sys.executable)
    assert status == 1
    assert "'talker.model.norm.weight' is missing" in sections["key tables"]["problems"][0]
    assert sections["statistics"]["status"] == OK
    assert sections["official package"]["summary"].startswith("the key tables are wrong")


def test_a_file_cut_short_is_one_sentence_in_each_section(copy, capsys):
    weights = copy / "speech_tokenizer" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    status, sections = verify(copy, capsys)
    assert status == 1
    assert all(len(sections[title]["problems"]) == 1 for title in ("key tables", "statistics"))


def damaged(file: Path, name: str, values: np.ndarray) -> None:
    """Write ``values`` in the place of a tensor."""
    stored = Checkpoint.open(file)[name]
    raw = bytearray(file.read_bytes())
    start = 8 + int.from_bytes(raw[:8], "little")
    offset = start + json.loads(raw[8:start])[name]["data_offsets"][0]
    raw[offset : offset + stored.nbytes] = values.astype(stored.data.dtype).tobytes()
    file.unlink()  # the old one may still be mapped
    file.write_bytes(raw)


DAMAGES = ("NaN", "infinity", "zeros", "constant", "a turned bit", "a lost block", "huge")


@settings(max_examples=60)
@given(data=st.data())
def test_any_damage_is_found_in_the_tensor_that_has_it(synthetic, data):
    """Of tensors of every block, as arrays: what goes into ``problems_of`` is what the file holds."""
    folder = synthetic("tiny", "base")
    names = [n for n, t in model_tensors(folder).items() if t.size >= 64 and not n.endswith(".initialized")]
    name = data.draw(st.sampled_from(names))
    stored = model_tensors(folder)[name]
    assert problems_of(name, row_statistics(stored)) == []
    damage = data.draw(st.sampled_from(DAMAGES))
    bits = np.array(stored.data)
    flat = bits.reshape(-1)
    at = data.draw(st.integers(0, flat.size - 1))
    one = {"uint16": 0x3F80, "float32": 1.0}[flat.dtype.name]
    if damage == "NaN":
        flat[at] = {"uint16": 0x7FC1, "float32": np.nan}[flat.dtype.name]
    elif damage == "infinity":
        flat[at] = {"uint16": 0xFF80, "float32": -np.inf}[flat.dtype.name]
    elif damage == "zeros":
        if name.endswith(".bias"):  # may be trained to nothing
            return
        flat[:] = 0
    elif damage == "constant":
        flat[:] = one
    elif damage == "a turned bit":  # the highest of the exponent, of a number that it makes huge and not tiny
        width = flat.dtype.itemsize * 8
        as_integers = flat.view(f"uint{width}")
        small = np.flatnonzero(((as_integers >> (width - 2)) & 1 == 0) & (as_integers != 0))
        if not small.size:
            return
        as_integers[small[at % small.size]] ^= np.asarray(1 << (width - 2), as_integers.dtype)
    elif damage == "a lost block":
        if bits.ndim < 2 or len(bits) < 16 or "embed" in name:
            return
        bits[8:16] = 0
    else:
        flat[at] = {"uint16": 0x5000, "float32": 1e10}[flat.dtype.name]  # 8.6e9 as bfloat16
    found = problems_of(name, row_statistics(dataclasses.replace(stored, data=bits)))
    assert found and all(problem.startswith(f"{name}: ") for problem in found), damage


def model_tensors(folder: Path) -> dict[str, Any]:
    return dict(Checkpoint.open(folder)) | dict(Checkpoint.open(folder / "speech_tokenizer"))


@pytest.mark.parametrize(
    ("file", "name", "row"),
    [("model.safetensors", "talker.model.layers.1.mlp.up_proj.weight", 7),
     ("speech_tokenizer/model.safetensors", "decoder.pre_conv.conv.weight", 0)],
)  # fmt: skip
def test_the_command_names_tensor_and_row(copy, capsys, file, name, row):
    stored = Checkpoint.open(copy / file)[name]
    values = np.array(stored.data)
    values[row].reshape(-1)[0] = 0x7FC0 if values.dtype == np.uint16 else np.nan
    damaged(copy / file, name, values)
    status, sections = verify(copy, capsys)
    expected = f"{name}: NaN or infinity in 1 of {len(values)} rows, the first in row {row}"
    assert (status, sections["statistics"]["problems"]) == (1, [expected])
    assert cli.main(["verify", str(copy)]) == 1
    shown = capsys.readouterr().out
    assert expected in shown and shown.endswith("wrong: statistics\n")


def test_a_blank_row_that_prompts_look_up(copy):
    config = read_model_config(copy)
    name = "talker.model.codec_embedding.weight"
    values = np.array(Checkpoint.open(copy)[name].data)
    row = config.talker_config.codec_language_id["german"]
    values[row] = 0
    damaged(copy / "model.safetensors", name, values)
    assert statistics_section(describe(copy)).problems == [f"{name}: the row of language german, {row}, is all zeros"]


def test_markdown(synthetic, tmp_path, capsys):
    file = tmp_path / "report.md"
    assert cli.main(["verify", str(synthetic("tiny", "custom_voice")), "--markdown", str(file)]) == 0
    text = file.read_text(encoding="utf-8")
    assert "nothing is wrong" in text and "| block | tensors |" in text and "| talker layers | 34 |" in text
    assert os.listdir(tmp_path) == ["report.md"]
    capsys.readouterr()
    assert cli.main(["verify", str(synthetic("tiny", "custom_voice")), "--markdown", str(tmp_path / "no" / "x")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_no_such_python(synthetic, capsys):
    assert cli.main(["verify", str(synthetic("tiny", "base")), "--official", "/no/python"]) == 2
    assert capsys.readouterr().err.startswith("qwen3tts-np verify: --official /no/python: there is no such program; ")


# --- the live comparison ----------------------------------------------------------------------------


@cache
def played(directory: Path) -> tuple[Qwen3TTSModel, dict[str, dict[str, np.ndarray]]]:
    """The official package, played by ourselves: a model and what ``ask`` would bring."""
    model = Qwen3TTSModel.from_pretrained(directory, backend="reference")
    answers: dict[str, dict[str, np.ndarray]] = {}
    for run in live.runs(model.config):
        with trace() if run.activations else trace("nothing") as t:
            (wave,), _, (codes,) = getattr(model, run.method)(**run.arguments, seed=run.seed, return_codes=True)
        # Choices are no output of an official module.
        modules = {name: x for name, x in t.items() if not name.partition("@")[0].endswith((".scores", ".token"))}
        answers[run.name] = {**modules, "codes.0": codes, "wav.0": wave}
    return model, answers


def against(monkeypatch: Any, directory: Path, falsify: Any = lambda answers: None) -> Any:
    """The live section where the official package answers what we do, but for what ``falsify`` changes."""
    monkeypatch.setattr(live, "FRAMES", 4)
    monkeypatch.setattr(live, "TRACED_FRAMES", 1)
    model, answers = played(directory)
    answers = copy_of(answers)
    falsify(answers)
    versions = {"qwen-tts": "0", "transformers": "0", "torch": "0"}
    monkeypatch.setattr(live, "ask", lambda *_: Answers(answers, versions))
    monkeypatch.setattr(live.Qwen3TTSModel, "from_pretrained", lambda *_, **__: model)
    return live.official_section(directory, read_model_config(directory), "python")


@pytest.mark.parametrize("model_type", TYPES)
def test_a_model_agrees_with_itself(monkeypatch, synthetic, model_type):
    section = against(monkeypatch, synthetic("tiny", model_type))
    assert section.status == OK
    parts = {row[0] for row in section.rows}
    assert {"greedy codes", "greedy audio", "sampled codes", "sampled audio", "activations of talker"} <= parts
    assert ("activations of speaker_encoder" in parts) == (model_type == "base")


def other_code(answers: Any) -> None:
    answers["greedy"]["codes.0"][3, 5] += 1


def other_sampled_code(answers: Any) -> None:
    answers["sampled"]["codes.0"][0, 0] += 1


def shorter(answers: Any) -> None:
    answers["greedy"]["codes.0"] = answers["greedy"]["codes.0"][:-1]


def noise(answers: Any) -> None:
    answers["greedy"]["wav.0"] = answers["greedy"]["wav.0"] + np.float32(1e-3)


def activation(answers: Any) -> None:
    run = answers["activations"]
    for name in ("talker.model.layers.1.self_attn.q_norm@1", "talker.model.layers.2@1"):
        run[name] = run[name] * np.float32(1.001)


@pytest.mark.parametrize(
    ("falsify", "problem"),
    [
        (other_code, "greedy codes: the first difference is in frame 3, code 5: "),
        (other_sampled_code, "sampled codes: the first difference is in frame 0, code 0: "),
        (shorter, "greedy codes: the speech ends in another place"),
        (noise, "greedy audio: "),
        (activation, "activations of talker: the first that differs is talker.model.layers.1.self_attn.q_norm@1, by "),
    ],
)
def test_each_kind_of_difference_is_found(monkeypatch, synthetic, falsify, problem):
    section = against(monkeypatch, synthetic("tiny", "custom_voice"), falsify)
    assert section.status == WRONG
    assert len(section.problems) == 1
    assert section.problems[0].startswith(problem)


def test_a_tie_is_no_difference(monkeypatch, synthetic):
    monkeypatch.setattr(live, "TIE", 1e9)
    section = against(monkeypatch, synthetic("tiny", "custom_voice"), other_code)
    assert section.status == OK
    assert "a tie" in section.rows[0][1]


def test_the_probe_needs_a_checkout(monkeypatch, synthetic, tmp_path, capsys):
    monkeypatch.setattr(official_probe, "PROBE", tmp_path / "golden" / "probe.py")
    status, sections = verify(synthetic("tiny", "base"), capsys, "--official", sys.executable)
    assert status == 1
    assert "source tree only" in sections["official package"]["problems"][0]


def test_against_the_official_package(synthetic, capsys):
    python = os.environ.get("QWEN3TTS_OFFICIAL_PYTHON")
    if python is None:
        pytest.skip("needs QWEN3TTS_OFFICIAL_PYTHON, the interpreter of the official package")
    for model_type in TYPES:
        status, sections = verify(synthetic("tiny", model_type), capsys, "--official", python)
        assert (status, sections["official package"]["status"]) == (0, OK)
