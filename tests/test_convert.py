"""Other weight formats: what is stored, what is read back, and that every command can use it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file, save_file

from qwen3tts_np import CheckpointError, Qwen3TTSModel
from qwen3tts_np.checkpoint.quantised import BITS, QuantisedTensor, pack_bits, stored_format, unpack_bits
from qwen3tts_np.checkpoint.safetensors import Checkpoint
from qwen3tts_np.cli import main
from qwen3tts_np.layout.convert import STORED_FORMATS, convert

F32 = np.dtype(np.float32)
LAYER = "talker.model.layers.0.mlp.up_proj.weight"
HEAD = "talker.codec_head.weight"


@pytest.fixture(scope="module")
def source(synthetic: Callable[..., Path]) -> Path:
    return synthetic("tiny", "custom_voice")


@pytest.fixture(scope="module")
def converted(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("formats")
    for model_format in STORED_FORMATS:
        convert(source, folder / model_format, model_format)
    return {model_format: folder / model_format for model_format in STORED_FORMATS}


@given(st.sampled_from(sorted(BITS.values())), st.data())
def test_bit_streams_keep_every_level(bits: int, data: st.DataObject) -> None:
    half = 1 << (bits - 1)
    shape = (data.draw(st.integers(1, 5)), 8 * data.draw(st.integers(1, 9)))
    levels = data.draw(hnp.arrays(np.int8, shape, elements=st.integers(-half, half - 1)))
    stream = pack_bits(levels, bits)
    assert stream.shape == (shape[0], shape[1] * bits // 8)
    np.testing.assert_array_equal(unpack_bits(stream, bits), levels)


def test_a_bit_stream_has_the_lowest_bits_first() -> None:
    rising = np.array([[-8, -7, -6, -5, -4, -3, -2, -1]], np.int8)
    np.testing.assert_array_equal(pack_bits(rising, 4), [[0x10, 0x32, 0x54, 0x76]])
    assert pack_bits(np.array([[1, 0, 0, 0, 0, 0, 0, 0]], np.int8), 5)[0, 0] == 17 + (16 << 5) % 256


@pytest.mark.parametrize("model_format", ["float32", "bfloat16"])
def test_wide_formats_lose_nothing(source: Path, converted: dict[str, Path], model_format: str) -> None:
    before, after = Checkpoint.open(source), Checkpoint.open(converted[model_format])
    assert list(before) == list(after)
    for name, tensor in before.items():
        np.testing.assert_array_equal(tensor.widen(F32), after[name].widen(F32))


@pytest.mark.parametrize("model_format", BITS)
def test_quantised_weights_are_near_and_everything_else_is_equal(
    source: Path, converted: dict[str, Path], model_format: str
) -> None:
    before, after = Checkpoint.open(source), Checkpoint.open(converted[model_format])
    assert set(before) == set(after)
    for name, tensor in before.items():
        small = stored_format(name, model_format)
        if small is None:
            np.testing.assert_array_equal(tensor.data, after[name].data)
            continue
        assert isinstance(after[name], QuantisedTensor)
        assert after[name].shape == tensor.shape
        exact, near = tensor.widen(F32), after[name].widen(F32)
        np.testing.assert_array_equal(after[name].rows(np.array([3, 1]), F32), near[[3, 1]])
        # Levels are half a step off at most, uniformly: an RMS error of step / sqrt(12), with a step of at most
        # 2 * peak / levels and peak at most sqrt(3) times the RMS of these uniformly distributed weights.
        bound = np.sqrt(np.mean(exact**2)) * 2 * np.sqrt(3) / 2 ** BITS[small] / np.sqrt(12)
        assert np.sqrt(np.mean((exact - near) ** 2)) < 1.1 * bound


def test_heads_keep_8_bits_and_embeddings_are_not_touched(converted: dict[str, Path]) -> None:
    checkpoint = Checkpoint.open(converted["int4"])
    assert checkpoint[LAYER].dtype == "INT4"
    assert checkpoint[HEAD].dtype == "INT8"
    assert checkpoint["talker.model.codec_embedding.weight"].dtype == "BF16"


def test_sizes_fall_with_the_bits(converted: dict[str, Path]) -> None:
    sizes = [(converted[f] / "model.safetensors").stat().st_size for f in ("float32", "bfloat16", *BITS)]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("model_format", STORED_FORMATS)
def test_every_format_speaks_and_describes_itself(
    converted: dict[str, Path], model_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Qwen3TTSModel.from_pretrained(converted[model_format])
    (wave,), _ = model.generate_custom_voice("Hello.", "vivian", max_new_tokens=3, seed=0)
    assert np.abs(wave).max() > 0
    assert main(["info", str(converted[model_format])]) == 0
    assert "problems: none" in capsys.readouterr().out


def test_info_counts_weights_not_bytes(
    source: Path, converted: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    counts = []
    for folder in (source, converted["int5"]):
        main(["info", str(folder)])
        counts.append([line for line in capsys.readouterr().out.splitlines() if line.strip().startswith("parameters")])
    assert counts[0] == counts[1]


def test_what_cannot_be_converted_is_said(source: Path, converted: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="exists already"):
        convert(source, converted["int4"], "int4")
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("model_format", ["int8", "int6", "int5", "int4"])
def test_a_quantised_checkpoint_keeps_its_levels(converted: dict[str, Path], tmp_path: Path, model_format: str) -> None:
    with pytest.warns(UserWarning, match="quantised already: what its weights have lost stays lost"):
        convert(converted[model_format], tmp_path / "same", model_format)
    same, before = tmp_path / "same" / "model.safetensors", converted[model_format] / "model.safetensors"
    assert same.read_bytes() == before.read_bytes()
    with pytest.warns(UserWarning, match="quantised already"):
        convert(converted[model_format], tmp_path / "wide", "float32")
    wide, narrow = Checkpoint.open(tmp_path / "wide"), Checkpoint.open(converted[model_format])
    for name, tensor in wide.items():
        np.testing.assert_array_equal(tensor.data, narrow[name].widen(np.dtype(np.float32)))


def test_weights_beyond_float16_are_refused(source: Path, tmp_path: Path) -> None:
    huge = tmp_path / "huge"
    convert(source, huge, "float32")
    tensors = load_file(huge / "model.safetensors")
    tensors[LAYER][0, 0] = 1e6
    save_file(tensors, huge / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"up_proj.weight holds 1e\+06, and float16 ends at 65504"):
        convert(huge, tmp_path / "half", "float16")
    assert not (tmp_path / "half").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.pop(f"{LAYER}.int4.scales"), r"has no .*int4\.scales"),
        (lambda t: t.update({f"{LAYER}.int4.scales": np.zeros((128, 1), np.float16)}), r"is \[128, 1\], expected"),
        (lambda t: t.update({f"{LAYER}.int4": np.zeros((128, 31), np.uint8)}), "a multiple of 4"),
        (lambda t: t.update({f"{LAYER}.int4": np.zeros((128, 32), np.int8)}), "is I8"),
    ],
)
def test_a_damaged_quantised_matrix_is_refused(
    tmp_path: Path, change: Callable[[dict[str, np.ndarray]], object], sentence: str
) -> None:
    tensors = {f"{LAYER}.int4": np.zeros((128, 32), np.uint8), f"{LAYER}.int4.scales": np.ones((128, 2), np.float16)}
    save_file(tensors, tmp_path / "model.safetensors")
    assert Checkpoint.open(tmp_path)[LAYER].shape == (128, 64)
    change(tensors)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=sentence):
        Checkpoint.open(tmp_path)
