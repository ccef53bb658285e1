"""Graphs in ONNX Runtime against the network that they are made from, at tiny sizes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwen3tts_np.checkpoint.keys import load
from qwen3tts_np.export.onnx_export import fixed_lengths, network_of, write_piece
from qwen3tts_np.export.pieces import Network
from qwen3tts_np.talker.talker import TalkerWeights, new_cache, talker_sizes, text_projection, transformer

onnx = pytest.importorskip("onnx")
runtime: Any = pytest.importorskip("onnxruntime")
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
    weights, _ = talker_of(network)
    ids = np.array([3, 0, 77])
    (got,) = session(network, "text", tmp_path).run(None, {"talker.model.text_embedding.input_ids": ids})
    np.testing.assert_allclose(got, text_projection(weights, ids), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("calls", [[6], [1, 1, 1, 1, 1, 1], [3, 2, 1]])
def test_talker_in_any_number_of_calls(network: Network, tmp_path: Path, calls: list[int]) -> None:
    weights, c = talker_of(network)
    x = np.random.default_rng(0).standard_normal((6, c.hidden_size)).astype(np.float32)
    expected = transformer(x, weights.layers, weights.norm, new_cache(c), c, "talker.model")
    talker = session(network, "talker", tmp_path)
    got, logits = spoken(talker, x, calls)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(logits, expected[-1:] @ weights.codec_head.T, rtol=1e-4, atol=1e-5)


def test_talker_of_fixed_lengths(network: Network, tmp_path: Path) -> None:
    weights, c = talker_of(network)
    x = np.random.default_rng(1).standard_normal((6, c.hidden_size)).astype(np.float32)
    expected = transformer(x, weights.layers, weights.norm, new_cache(c), c, "talker.model")
    talker = session(network, "talker", tmp_path, places=8)
    assert all(isinstance(size, int) for part in (*talker.get_inputs(), *talker.get_outputs()) for size in part.shape)
    np.testing.assert_allclose(spoken(talker, x, [1] * 6)[0], expected, rtol=1e-4, atol=1e-5)


def spoken(talker: Any, x: np.ndarray, calls: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Hidden states of all positions, and the logits of the last, read in calls of so many positions."""
    carried = {
        part.name: np.zeros([0 if isinstance(size, str) else size for size in part.shape], np.float32)
        for part in talker.get_inputs()
        if part.name.endswith(".past")
    }
    names = [part.name for part in talker.get_outputs()]
    hidden, start = [], 0
    for count in calls:
        positions = np.arange(start, start + count)
        inputs = {"talker.model.inputs_embeds": x[positions], "talker.model.position_ids": positions, **carried}
        found = dict(zip(names, talker.run(names, inputs), strict=True))
        carried = {name: found[name.removesuffix("past") + "present"] for name in carried}
        hidden.append(found["talker.model.norm"])
        start += count
    return np.concatenate(hidden), found["talker.codec_head"]
