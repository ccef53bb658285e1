"""Graphs of the codec and of the speaker encoder, in ONNX Runtime, against the network that they are made from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from parity import CASES

from qwen3tts_np import Qwen3TTSModel
from qwen3tts_np.codec.decoder import decode
from qwen3tts_np.codec.encoder import encode
from qwen3tts_np.export.onnx_export import write_piece
from qwen3tts_np.export.pieces import Network
from qwen3tts_np.export.source import fixed_lengths, network_of
from qwen3tts_np.ops import Array, Ints
from qwen3tts_np.parity.compare import compare
from qwen3tts_np.parity.fixture import Fixture, read_fixture
from qwen3tts_np.parity.report import as_text
from qwen3tts_np.speaker.encoder import shortest_clip, speaker_embedding

onnx = pytest.importorskip("onnx")
runtime: Any = pytest.importorskip("onnxruntime")
CODES = np.random.RandomState(0).randint(0, 128, (30, 16))  # more than the tiny window of 24
NOISE = 5e-6  # of float32, in samples; ten times what was seen


@pytest.fixture(scope="module")
def folder(synthetic: Callable[..., Path]) -> Path:
    return synthetic("tiny", "base")


@pytest.fixture(scope="module")
def model(folder: Path) -> Qwen3TTSModel:
    return Qwen3TTSModel.from_pretrained(folder, backend="reference")


@pytest.fixture(scope="module")
def graph(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    network, made = network_of(folder), {}

    def session(piece: str, **lengths: int) -> Any:
        key = (piece, *lengths.items())
        if key not in made:
            made[key] = _session(network, piece, tmp_path_factory.mktemp(piece), lengths)
        return made[key]

    return session


def _session(network: Network, piece: str, folder: Path, lengths: dict[str, int]) -> Any:
    write_piece(network, piece, folder, "float32", fixed_lengths(lengths) if lengths else None)
    onnx.checker.check_model(str(folder / "model.onnx"), full_check=True)
    operators = {node.op_type for node in onnx.load(folder / "model.onnx", load_external_data=False).graph.node}
    assert not operators & {"If", "Loop", "Scan", "NonZero"}
    return runtime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])


def decoded(decoder: Any, codes: Ints, frames: int) -> Array:
    """The samples of ``codes`` in calls of so many frames, each given what the one before it left."""
    carried = {x.name: np.zeros(x.shape, np.float32) for x in decoder.get_inputs() if x.name.endswith(".past")}
    names, parts = [x.name for x in decoder.get_outputs()], []
    for start in range(0, len(codes), frames):
        found = decoder.run(names, {"codes": codes[start : start + frames], **carried})
        results = dict(zip(names, found, strict=True))
        carried = {name: results[name.removesuffix("past") + "present"] for name in carried}
        parts.append(results["decoder"])
    return np.concatenate(parts)


def chirp(samples: int) -> Array:
    t = np.arange(samples) / 24000
    return (0.3 * np.sin(1500 * t * (1 + t)) + 0.1 * np.sin(9000 * t)).astype(np.float32)


@pytest.mark.parametrize("frames", [30, 1, 2, 7])
def test_chunks_of_any_size_are_the_whole(frames: int, graph: Callable[..., Any], model: Qwen3TTSModel) -> None:
    whole = decode(CODES, model.speech_tokenizer.decoder)
    np.testing.assert_allclose(decoded(graph("codec_decoder"), CODES, frames), whole, rtol=0, atol=NOISE)


def test_a_decoder_of_fixed_lengths(graph: Callable[..., Any], model: Qwen3TTSModel) -> None:
    decoder = graph("codec_decoder", frames=5)
    assert all(isinstance(size, int) for x in (*decoder.get_inputs(), *decoder.get_outputs()) for size in x.shape)
    whole = decode(CODES, model.speech_tokenizer.decoder)
    np.testing.assert_allclose(decoded(decoder, CODES, 5), whole, rtol=0, atol=NOISE)


@pytest.mark.parametrize("samples", [1, 1919, 1920, 1921, 20000, 50001])
def test_the_encoder_has_the_codes_of_ours(samples: int, graph: Callable[..., Any], model: Qwen3TTSModel) -> None:
    wave = chirp(samples)
    (codes,) = graph("codec_encoder").run(None, {"waveform": wave})
    np.testing.assert_array_equal(codes, encode(wave, model.speech_tokenizer.encoder))


def test_an_encoder_of_fixed_lengths(graph: Callable[..., Any], model: Qwen3TTSModel) -> None:
    encoder = graph("codec_encoder", samples=20000)
    assert [x.shape for x in (*encoder.get_inputs(), *encoder.get_outputs())] == [[20000], [11, 16]]
    (codes,) = encoder.run(None, {"waveform": chirp(20000)})
    np.testing.assert_array_equal(codes, encode(chirp(20000), model.speech_tokenizer.encoder))


@pytest.mark.parametrize("samples", [0, 9600, 20000, 50001])
def test_the_x_vector_is_ours(samples: int, graph: Callable[..., Any], model: Qwen3TTSModel) -> None:
    c = model.config.speaker_encoder_config
    assert c is not None and model.speaker_encoder is not None
    wave = chirp(samples or shortest_clip(c))
    (found,) = graph("speaker_encoder").run(None, {"waveform": wave})
    np.testing.assert_allclose(found, speaker_embedding(wave, model.speaker_encoder, c), rtol=0, atol=1e-5)


def test_the_official_results(graph: Callable[..., Any]) -> None:
    """Recorded from the official package: a decode, the codes of a clip, and its x-vector."""
    case = read_fixture(CASES / "decode_40")
    (codes,) = case.inputs.values()
    found = decoded(graph("codec_decoder"), codes.astype(np.int64), 7)
    np.testing.assert_allclose(found, case.tensors["wav.0"], rtol=0, atol=case.atol("wav.0"))
    case = read_fixture(CASES / "activations_clone")
    wave = case.inputs["audio.0"] / np.float32(32768)
    (codes,) = graph("codec_encoder").run(None, {"waveform": wave})
    np.testing.assert_array_equal(codes, case.tensors["ref_codes.0"])
    (vector,) = graph("speaker_encoder").run(None, {"waveform": wave})
    np.testing.assert_allclose(
        vector, case.tensors["speaker_embedding.0"], rtol=0, atol=case.atol("speaker_embedding.0")
    )


def activations(folder: Path, inputs: dict[str, Array]) -> dict[str, Array]:
    """Every value of a graph by its name, in a single call."""
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    made = {x for node in model.graph.node for x in node.output} - {x.name for x in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(made))
    onnx.save(model, folder / "observed.onnx")
    observed = runtime.InferenceSession(str(folder / "observed.onnx"), providers=["CPUExecutionProvider"])
    for x in observed.get_inputs():
        if x.name.endswith(".past"):
            inputs[x.name] = np.zeros(x.shape, np.float32)
    names = [x.name for x in observed.get_outputs()]
    return dict(zip(names, observed.run(names, inputs), strict=True))


@pytest.mark.parametrize(
    ("piece", "case", "least"),
    [
        ("codec_decoder", "activations_custom_voice", 125),
        ("codec_encoder", "activations_clone", 80),
        ("speaker_encoder", "activations_clone", 70),
    ],
)
def test_every_activation_is_that_of_the_official_package(
    piece: str, case: str, least: int, folder: Path, tmp_path: Path
) -> None:
    """Values in the graphs have the official names; each one that the golden case has is within its tolerance."""
    golden = read_fixture(CASES / case)
    write_piece(network_of(folder), piece, tmp_path, "float32", None)
    given = (
        {"codes": golden.tensors["codes.0"].astype(np.int64)}
        if piece == "codec_decoder"
        else {"waveform": golden.inputs["audio.0"] / np.float32(32768)}
    )
    values = activations(tmp_path, given)
    prefix = "speech_tokenizer." if piece.startswith("codec") else ""
    theirs = {f"{prefix}{name}@0": value for name, value in values.items()}
    known = {name: value for name, value in theirs.items() if name in golden.tensors}
    found = compare(golden, Fixture(tmp_path, known))
    assert found.first is None, as_text(found)
    assert len(found.compared) >= least
