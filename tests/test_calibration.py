"""Levels that are learned from speech: the errors of weights make good one another, and products come out nearer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qwen3tts_np_kernels.feedback import DAMPING, factors, quantise_with_feedback
from qwen3tts_np_kernels.pack import GROUP, quantise

from qwen3tts_np import Qwen3TTSModel, RequestError, cli
from qwen3tts_np.calibration import INPUTS, MATRIX, Moments, calibrated, moments_of
from qwen3tts_np.checkpoint.safetensors import Checkpoint
from qwen3tts_np.layout.convert import convert

TEXTS = ("Good morning.", "How are you?")


def some(seed: int, rows: int, inputs: int) -> tuple[np.ndarray, np.ndarray]:
    """A matrix, and second moments of inputs that say something of one another."""
    draw = np.random.default_rng(seed)
    x = draw.standard_normal((3 * inputs, inputs)) @ draw.standard_normal((inputs, inputs))
    return draw.standard_normal((rows, inputs)).astype(np.float32), x.T @ x / len(x)


def error(w: np.ndarray, moments: np.ndarray, found: tuple[np.ndarray, np.ndarray]) -> float:
    """Mean square of what is wrong with products."""
    off = w - found[0] * np.repeat(found[1].astype(np.float32), GROUP, axis=1)
    return float(np.einsum("ri,ij,rj->", off, moments, off))


def test_factors_are_those_of_the_damped_moments() -> None:
    _, moments = some(0, 1, 40)
    factor = factors(moments)
    damped = moments + DAMPING * np.trace(moments) / 40 * np.eye(40)
    np.testing.assert_array_equal(np.tril(factor, -1), 0)
    np.testing.assert_array_equal(np.diag(factor), 1)
    squares = np.diag(np.linalg.solve(factor, damped) @ np.linalg.inv(factor).T)  # of the diagonal of R
    np.testing.assert_allclose((factor * squares) @ factor.T, damped, atol=1e-9 * np.abs(damped).max())
    np.testing.assert_array_equal(factors(np.zeros((4, 4))), np.eye(4))


@given(st.integers(0, 99), st.sampled_from([4, 5, 6]))
def test_every_weight_is_rounded_where_the_errors_before_it_ask(seed: int, bits: int) -> None:
    w, moments = some(seed, 3, 64)
    factor = factors(moments)
    levels, scales = quantise_with_feedback(w, [factor], bits)
    steps = np.repeat(scales.astype(np.float64), GROUP, axis=1)
    errors = w - levels * steps
    for k in range(64):
        wanted = w[:, k] + sum(errors[:, i] * factor[i, k] for i in range(k))
        best = np.clip(np.rint(wanted / steps[:, k]), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        off = np.abs(wanted - levels[:, k] * steps[:, k]) - np.abs(wanted - best * steps[:, k])
        assert (off < 1e-9).all()


def test_products_come_out_nearer_and_blocks_do_not_know_each_other() -> None:
    w, moments = some(1, 200, 128)
    plain, found = quantise(w, 4), quantise_with_feedback(w, [factors(moments)], 4)
    assert error(w, moments, found) < 0.6 * error(w, moments, plain)
    parts = [slice(0, 64), slice(64, 128)]
    halves = [factors(moments[part, part]) for part in parts]
    together, scales = quantise_with_feedback(w, halves, 4)
    for n, part in enumerate(parts):
        alone = quantise_with_feedback(w[:, part].copy(), [halves[n]], 4)
        np.testing.assert_array_equal(together[:, part], alone[0])
        np.testing.assert_array_equal(scales[:, 2 * n : 2 * n + 2], alone[1])


@pytest.mark.parametrize("bits", [4, 6])
def test_of_inputs_that_say_nothing_of_one_another_levels_are_the_nearest(bits: int) -> None:
    w, _ = some(2, 40, 96)
    found = quantise_with_feedback(w, [factors(np.diag(np.arange(1.0, 97)))], bits)
    for a, b in zip(found, quantise(w, bits), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_calibrated_checkpoint_has_the_size_of_another_and_nearer_products(
    synthetic: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = synthetic("tiny", "custom_voice")
    Path("texts.txt").write_text("\n\n".join(TEXTS))
    monkeypatch.setattr("qwen3tts_np.cli.convert.pack_rest", lambda folder: None)  # it packs what is not calibrated
    assert cli.main(["convert", "--format", "int4", "--calibrate", "texts.txt", str(source), "a"]) == 0
    convert(source, Path("b"), "int4", rounded=calibrated(source, "int4", TEXTS))
    convert(source, Path("plain"), "int4")
    files = {name: Path(name, "model.safetensors").read_bytes() for name in ("plain", "a", "b")}
    assert files["a"] == files["b"] != files["plain"]
    assert len(files["a"]) == len(files["plain"])
    moments, original = moments_of(source, TEXTS), Checkpoint.open(source)
    whole = {name: Checkpoint.open(Path(name)) for name in ("plain", "a")}
    squares = dict.fromkeys(whole, 0.0)
    for key in filter(MATRIX.fullmatch, original):
        match = MATRIX.fullmatch(key)
        assert match is not None
        (block,) = moments.sums[f"{match[1]}.{INPUTS[match[2]]}"]
        w = original[key].widen(np.dtype(np.float32))
        for name, stored in whole.items():
            off = stored[key].widen(np.dtype(np.float32)) - w
            squares[name] += float(np.einsum("ri,ij,rj->", off, block, off) / np.einsum("ri,ij,rj->", w, block, w))
    assert squares["a"] < 0.8 * squares["plain"]
    model = Qwen3TTSModel.from_pretrained("a", threads=1)
    *_, (codes,) = model.generate_custom_voice("Hi.", "ryan", seed=1, max_new_tokens=4, return_codes=True)
    assert len(codes) == 3


def test_every_input_is_known(synthetic: Callable[..., Path]) -> None:
    source = synthetic("tiny", "voice_design")
    moments = moments_of(source, TEXTS[:1])
    named = {f"{m[1]}.{INPUTS[m[2]]}" for key in Checkpoint.open(source) if (m := MATRIX.fullmatch(key))}
    assert set(moments.sums) == named


def test_moments_are_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qwen3tts_np.calibration.BLOCK", 3)
    found, x = Moments(), np.arange(10.0).reshape(2, 5)
    found.add("talker.model.layers.0.input_layernorm", x)
    found.add("talker.model.layers.0.input_layernorm", x)
    found.add("talker.model.layers.0.self_attn.q_norm", x)
    (blocks,) = found.sums.values()
    np.testing.assert_array_equal(blocks[0], 2 * x[:, :3].T @ x[:, :3])
    np.testing.assert_array_equal(blocks[1], 2 * x[:, 3:].T @ x[:, 3:])


def test_what_cannot_be_calibrated(synthetic: Callable[..., Path], tmp_path: Path) -> None:
    source = synthetic("tiny", "custom_voice")
    with pytest.raises(RequestError, match="int8 is not calibrated; int6, int5, int4 are"):
        calibrated(source, "int8", TEXTS)
    with pytest.raises(RequestError, match="there is nothing to learn from"):
        calibrated(source, "int4", [])
    convert(source, tmp_path / "small", "int4")
    with pytest.raises(RequestError, match="is quantised already: calibrate the original"):
        calibrated(tmp_path / "small", "int4", TEXTS)
