"""Graphs in ONNX Runtime against the network that they are made from, at tiny sizes."""

from __future__ import annotations

import runpy
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qwen3tts_np_kernels.pack import FormatName, linear_ref, pack

from qwen3tts_np.checkpoint.keys import load
from qwen3tts_np.checkpoint.safetensors import Checkpoint
from qwen3tts_np.checkpoint.tensor import StoredTensor
from qwen3tts_np.errors import CheckpointError, OutputError, RequestError
from qwen3tts_np.export import onnx_target, weights
from qwen3tts_np.export.coreml_export import export_coreml
from qwen3tts_np.export.onnx_export import export_onnx, write_piece
from qwen3tts_np.export.pieces import PIECES, Network
from qwen3tts_np.export.source import CODEC, fixed_lengths, network_of
from qwen3tts_np.export.weights import EXPORT_FORMATS
from qwen3tts_np.layout.convert import convert
from qwen3tts_np.parity.compare import compare
from qwen3tts_np.parity.fixture import read_fixture
from qwen3tts_np.parity.in_format import InFormat
from qwen3tts_np.parity.report import as_text
from qwen3tts_np.talker.talker import TalkerWeights, new_cache, talker_sizes, text_projection, transformer

onnx = pytest.importorskip("onnx")
runtime: Any = pytest.importorskip("onnxruntime")
ROOT = Path(__file__).parents[1]
TENSORS = ROOT / "golden" / "runners" / "tensors_onnx.py"
FLOAT32 = np.dtype(np.float32)


@pytest.fixture(params=["tiny", "tiny-1.7b"])
def network(request: pytest.FixtureRequest, synthetic: Callable[..., Path]) -> Network:
    return network_of(synthetic(request.param, "base"))


def session(network: Network, piece: str, folder: Path, form: str = "float32", **lengths: int) -> Any:
    """The graph of a piece, checked, in ONNX Runtime."""
    write_piece(network, piece, folder, form, fixed_lengths(lengths) if lengths else None)
    onnx.checker.check_model(str(folder / "model.onnx"), full_check=True)
    return runtime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])


def talker_of(network: Network) -> tuple[TalkerWeights, Any]:
    c = network.config.talker_config
    return load(TalkerWeights, network.model, talker_sizes(c), "talker.", FLOAT32), c  # type: ignore[arg-type]


def test_text(network: Network, tmp_path: Path) -> None:
    w, _ = talker_of(network)
    ids = np.array([3, 0, 77])
    (got,) = session(network, "text", tmp_path).run(None, {"talker.model.text_embedding.input_ids": ids})
    np.testing.assert_allclose(got, text_projection(w, ids), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("calls", [[6], [1, 1, 1, 1, 1, 1], [3, 2, 1]])
def test_talker_in_any_number_of_calls(network: Network, tmp_path: Path, calls: list[int]) -> None:
    w, c = talker_of(network)
    x = np.random.default_rng(0).standard_normal((6, c.hidden_size)).astype(np.float32)
    expected = transformer(x, w.layers, w.norm, new_cache(c), c, "talker.model")
    talker = session(network, "talker", tmp_path)
    got, logits = spoken(talker, x, calls)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(logits, expected[-1:] @ w.codec_head.T, rtol=1e-4, atol=1e-5)


def test_talker_of_fixed_lengths(network: Network, tmp_path: Path) -> None:
    w, c = talker_of(network)
    x = np.random.default_rng(1).standard_normal((6, c.hidden_size)).astype(np.float32)
    expected = transformer(x, w.layers, w.norm, new_cache(c), c, "talker.model")
    talker = session(network, "talker", tmp_path, places=8)
    assert all(isinstance(size, int) for part in (*talker.get_inputs(), *talker.get_outputs()) for size in part.shape)
    np.testing.assert_allclose(spoken(talker, x, [1] * 6)[0], expected, rtol=1e-4, atol=1e-5)


# int4: an input beside the border of two levels is now and then rounded to the other one.
@pytest.mark.parametrize(("form", "limit"), [("float32", 2e-6), ("int4", 0.05)])
@pytest.mark.parametrize("length", [3, 4, 6, 10, 11])  # of the 11 places: prompts of one call and more, full and not
def test_a_prompt_in_fixed_lengths(network: Network, tmp_path: Path, form: str, limit: float, length: int) -> None:
    """Four positions a call, the last call padded with anything, then steps on the same caches and arrays."""
    c = network.config.talker_config
    rng = np.random.default_rng(length)
    x = rng.standard_normal((11, c.hidden_size)).astype(np.float32)
    step = session(network, "talker", tmp_path, form, places=11, prompt=4)
    expected = [spoken(step, x[: length + n], [1] * (length + n)) for n in range(12 - length)]
    onnx.checker.check_model(str(tmp_path / "prompt.onnx"), full_check=True)
    prompt = runtime.InferenceSession(str(tmp_path / "prompt.onnx"), providers=["CPUExecutionProvider"])
    assert not list(tmp_path.glob("prompt.onnx.data*")), "all arrays are those of the step"
    carried, found = no_past(step), {}
    for start in range(0, length, 4):
        rows = np.concatenate([x[start : min(start + 4, length)], 9 * np.ones((4, c.hidden_size), np.float32)])[:4]
        more = {"talker.codec_head.index": np.array([min(length - start, 4) - 1])}
        carried, found = called(prompt, rows, np.arange(start, start + 4), carried, **more)
        kept = found["talker.model.norm"][: length - start]
        assert relative(kept, expected[0][0][start : start + len(kept)]) < limit
    for n in range(12 - length):
        assert relative(found["talker.codec_head"], expected[n][1]) < limit
        if length + n < 11:
            at = np.array([length + n])
            carried, found = called(step, x[at], at, carried)


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    """RMS of the difference / RMS."""
    return float(np.sqrt(((found - expected) ** 2).mean() / (expected**2).mean()))


def no_past(talker: Any) -> dict[str, np.ndarray]:
    """Caches of nothing: zeros, and no positions where their number is not fixed."""
    return {
        part.name: np.zeros([0 if isinstance(size, str) else size for size in part.shape], np.float32)
        for part in talker.get_inputs()
        if part.name.endswith(".past")
    }


def called(
    talker: Any, x: np.ndarray, positions: np.ndarray, carried: dict[str, np.ndarray], **more: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What is carried on after one call, and all that it gives."""
    names = [part.name for part in talker.get_outputs()]
    inputs = {"talker.model.inputs_embeds": x, "talker.model.position_ids": positions, **more, **carried}
    found = dict(zip(names, talker.run(names, inputs), strict=True))
    return {name: found[name.removesuffix("past") + "present"] for name in carried}, found


def spoken(talker: Any, x: np.ndarray, calls: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Hidden states of all positions, and the logits of the last, read in calls of so many positions."""
    carried = no_past(talker)
    hidden, start = [], 0
    for count in calls:
        positions = np.arange(start, start + count)
        carried, found = called(talker, x[positions], positions, carried)
        hidden.append(found["talker.model.norm"])
        start += count
    return np.concatenate(hidden), found["talker.codec_head"]


FORBIDDEN = {"If", "Loop", "Scan", "NonZero"}


@pytest.mark.parametrize("fixed", [None, {}], ids=["symbolic", "fixed"])
@pytest.mark.parametrize("form", EXPORT_FORMATS)
def test_every_graph_is_valid_and_has_no_control_flow(
    synthetic: Callable[..., Path], tmp_path: Path, form: str, fixed: dict[str, int] | None
) -> None:
    made = [name for name, _ in export_onnx(synthetic("tiny", "base"), tmp_path, form, lengths=fixed)]
    assert made == list(PIECES)
    keys = {*Checkpoint.open(synthetic("tiny", "base")), *Checkpoint.open(synthetic("tiny", "base") / CODEC)}
    for name in made:
        for file in (tmp_path / name).glob("*.onnx"):
            onnx.checker.check_model(str(file), full_check=True)
            nodes = onnx.load(file, load_external_data=False).graph.node
            assert not {node.op_type for node in nodes} & FORBIDDEN
        graph = onnx.load(tmp_path / name / "model.onnx", load_external_data=False).graph
        operators = {node.op_type for node in graph.node}
        assert ("MatMulNBits" in operators) <= (form in ("int8", "int4"))
        sizes = [dim for part in (*graph.input, *graph.output) for dim in part.type.tensor_type.shape.dim]
        assert all(dim.HasField("dim_value") for dim in sizes) or fixed is None
        exact = {array.name for array in graph.initializer} & keys
        assert exact or name == "frame_embedding" or form != "float32"


def test_float16_is_that_of_convert(synthetic: Callable[..., Path], tmp_path: Path) -> None:
    source = synthetic("tiny", "custom_voice")
    convert(source, tmp_path / "converted", "float16")
    network = network_of(tmp_path / "converted")
    x = np.random.default_rng(2).standard_normal((5, network.config.talker_config.hidden_size)).astype(np.float32)
    for folder in ("wide", "narrow"):
        (tmp_path / folder).mkdir()
    wide = spoken(session(network, "talker", tmp_path / "wide"), x, [5])
    narrow = spoken(session(network_of(source), "talker", tmp_path / "narrow", "float16"), x, [5])
    for a, b in zip(wide, narrow, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("form", ["int8", "int4"])
@pytest.mark.parametrize("inputs", [64, 80, 96])  # 80: the last group of 32 is not full
def test_a_quantised_product_is_that_of_the_kernels(tmp_path: Path, form: FormatName, inputs: int) -> None:
    """The same levels and scales, and inputs rounded to 8 bits in groups of 32 as the kernels round them."""
    rng = np.random.default_rng(inputs)
    name = "talker.model.layers.0.mlp.up_proj"
    matrices = [rng.standard_normal((48, inputs)).astype(np.float32) for _ in range(3)]
    heads = [f"talker.code_predictor.lm_head.{i}" for i in range(3)]
    tensors = {f"{head}.weight": StoredTensor(head, "F32", w) for head, w in zip(heads, matrices, strict=True)}
    tensors |= {f"{name}.weight": StoredTensor(name, "F32", matrices[0])}
    t = onnx_target.OnnxTarget(tensors, form)
    x = t.input("x", ["positions", inputs])
    t.output(t.linear(x, name), "one", ["positions", 48])
    which = t.input("which", [1], "int64")
    t.output(t.one_of_linear(x, heads, which, "several"), "chosen", ["positions", 48])
    t.save(tmp_path, "products")
    graph = runtime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    x_ = rng.standard_normal((5, inputs)).astype(np.float32)
    one, chosen = graph.run(None, {"x": x_, "which": np.array([2])})
    expected = linear_ref(x_, pack(matrices[0], form), 48)
    np.testing.assert_allclose(one, expected, rtol=0, atol=4e-6 * np.abs(expected).max())
    expected = linear_ref(x_, pack(matrices[2], "int8"), 48)  # heads have 8 bits in both
    np.testing.assert_allclose(chosen, expected, rtol=0, atol=4e-6 * np.abs(expected).max())


@pytest.mark.parametrize("form", ["int8", "int4"])
def test_a_quantised_graph_is_the_converted_model(network: Network, tmp_path: Path, form: FormatName) -> None:
    """Text and talker: what differs is the order of sums, and the few inputs that it moves to another level."""
    checkpoint = InFormat(network.model, form)  # type: ignore[arg-type]
    c = network.config.talker_config
    w = load(TalkerWeights, checkpoint, talker_sizes(c), "talker.", FLOAT32)
    for folder in ("text", "talker"):
        (tmp_path / folder).mkdir()
    ids = np.arange(40)
    (x,) = session(network, "text", tmp_path / "text", form).run(None, {"talker.model.text_embedding.input_ids": ids})
    np.testing.assert_allclose(x, text_projection(w, ids), rtol=1e-4, atol=1e-5)
    talker, errors = session(network, "talker", tmp_path / "talker", form), []
    for row in x:
        expected = transformer(row[None], w.layers, w.norm, new_cache(c), c, "talker.model")
        got, logits = spoken(talker, row[None], [1])
        errors.append(max(relative(got, expected), relative(logits, expected @ w.codec_head.T)))
    assert np.median(errors) < 2e-6
    assert max(errors) < {"int8": 0.02, "int4": 0.06}[form]


def test_what_is_finished_stays(
    synthetic: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(t: Any, network: Network) -> None:
        raise OutputError("the disk is full")

    source, target = synthetic("tiny", "base"), tmp_path / "graphs"
    monkeypatch.setitem(PIECES, "code_predictor", replace(PIECES["code_predictor"], build=fail))
    with pytest.raises(OutputError, match="the disk is full"):
        list(export_onnx(source, target))
    assert sorted(path.name for path in target.iterdir() if path.is_dir()) == [CODEC, "talker", "text"]
    monkeypatch.undo()
    with pytest.raises(OutputError, match="text exists already"):
        list(export_onnx(source, target))
    assert [name for name, _ in export_onnx(source, target, only=["code_predictor"])] == ["code_predictor"]


def test_files_of_something_else_are_not_replaced(synthetic: Callable[..., Path], tmp_path: Path) -> None:
    """Another checkpoint has a config.json too, and so has the folder of many a program."""
    source, other = synthetic("tiny", "base"), tmp_path / "other"
    shutil.copytree(synthetic("tiny", "custom_voice"), other)
    before = {path: path.read_bytes() for path in other.rglob("*") if path.is_file()}
    with pytest.raises(OutputError, match=r"config\.json exists and belongs to something else; name another folder"):
        list(export_onnx(source, other, only=["text"]))
    with pytest.raises(OutputError, match="is the checkpoint itself; name another folder"):
        list(export_onnx(other, other, only=["text"]))
    assert {path: path.read_bytes() for path in other.rglob("*") if path.is_file()} == before


def test_files_stay_below_the_limit(
    synthetic: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_target, "LARGEST_FILE", 1 << 19)
    network = network_of(synthetic("tiny", "base"))
    x = np.ones((3, network.config.talker_config.hidden_size), np.float32)
    got, _ = spoken(session(network, "talker", tmp_path), x, [3])
    monkeypatch.undo()
    assert max(file.stat().st_size for file in tmp_path.iterdir()) <= 1 << 19
    assert (tmp_path / "model.onnx.data.1").exists()
    (tmp_path / "one").mkdir()
    np.testing.assert_array_equal(got, spoken(session(network, "talker", tmp_path / "one"), x, [3])[0])


def test_no_more_than_a_chunk_is_in_memory(synthetic: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_VALUES", 1000)
    tensor = Checkpoint.open(synthetic("tiny", "base"))["talker.model.text_embedding.weight"]
    pieces = list(weights.floats([tensor], "float32").pieces())
    assert max(piece.size for piece in pieces) <= 1000
    np.testing.assert_array_equal(np.concatenate(pieces), tensor.widen(FLOAT32))


def test_a_value_beyond_float16_is_refused(synthetic: Callable[..., Path]) -> None:
    tensor = StoredTensor("w", "F32", np.full((2, 2), 1e5, np.float32))
    with pytest.raises(CheckpointError, match="w holds 100000, and float16 ends at 65504"):
        list(weights.floats([tensor], "float16").pieces())


@pytest.mark.parametrize(
    ("like", "case"), [("tiny", "activations_custom_voice"), ("tiny-1.7b", "activations_instruct")]
)
def test_every_activation_is_that_of_the_official_package(
    synthetic: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, like: str, case: str
) -> None:
    """Every tensor of talker and code predictor that the golden case has, under its official name."""
    pytest.importorskip("safetensors.numpy")
    list(export_onnx(synthetic(like, "custom_voice"), tmp_path / "graphs", only=["talker", "code_predictor"]))
    golden, theirs = ROOT / "golden" / "cases" / case, tmp_path / "theirs.safetensors"
    words = [str(TENSORS), str(tmp_path / "graphs"), str(golden), str(theirs)]
    monkeypatch.setattr(sys, "argv", words)
    runpy.run_path(str(TENSORS), run_name="__main__")
    found = compare(read_fixture(golden), read_fixture(theirs))
    assert found.first is None, as_text(found)
    assert found.unknown == []
    absent = {row.name.rpartition("@")[0] for row in found.rows if row.status == "missing"}
    inner = {name for name in absent if ".layers." in name and name.startswith("talker.")}
    assert all(name.endswith((".mlp", ".self_attn")) for name in inner)  # their last projections, which are there
    assert not any(
        name.endswith(("norm", "codec_head")) or "lm_head" in name for name in absent - inner if "talker" in name
    )


def test_the_readme_lists_the_operators(synthetic: Callable[..., Path], tmp_path: Path) -> None:
    used: set[str] = set()
    for form, fixed in (("float32", None), ("int4", None), ("float16", {})):
        folder = tmp_path / form
        for name, _ in export_onnx(synthetic("tiny-1.7b", "base"), folder, form, lengths=fixed):
            used |= {
                node.op_type for node in onnx.load(folder / name / "model.onnx", load_external_data=False).graph.node
            }
    page = (ROOT / "qwen3tts_np" / "export" / "README.md").read_text(encoding="utf-8")
    listed = page.partition("### Operators")[2].split("`Abs ", 1)[1].partition("`")[0]
    assert f"Opset {onnx_target.OPSET}, IR version {onnx_target.IR_VERSION}" in page
    assert {"Abs", *listed.split()} | {"MatMulNBits"} == used


@pytest.mark.parametrize(
    ("piece", "lengths", "fault"),
    [
        ("talker", {"places": 10**9}, "places=1000000000 must be at most 32768, the positions of the model"),
        ("codec_decoder", {"frames": 10**5}, "frames=100000 must be at most 32768"),
        ("text", {"tokens": 32769}, "tokens=32769 must be at most 32768"),
        ("speaker_encoder", {"samples": 100}, "samples=100 must be at least 1280, which the speaker encoder needs"),
    ],
)
@pytest.mark.parametrize(("export", "form"), [(export_onnx, "float32"), (export_coreml, ["int8"])])
def test_lengths_that_no_call_can_have(synthetic, tmp_path, export, form, piece, lengths, fault):
    """They took all memory, hours, or a traceback of the runtime's own library."""
    with pytest.raises(RequestError, match=f"length {fault}"):
        next(export(synthetic("tiny", "base"), tmp_path / "out", form, [piece], lengths))
    assert not (tmp_path / "out").exists()
