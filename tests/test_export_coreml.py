"""Core ML packages: what they are made of, their weights read back, and what they mean, computed in NumPy.

Core ML runs on a Mac only, so whether a runtime takes them is not tested.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwen3tts_np import Qwen3TTSModel, RequestError, cli
from qwen3tts_np.checkpoint.quantised import levels_of
from qwen3tts_np.codec.decoder import decode
from qwen3tts_np.codec.encoder import encode
from qwen3tts_np.errors import OutputError
from qwen3tts_np.export.coreml_export import COREML_FORMATS, PACKAGE, export_coreml
from qwen3tts_np.export.coreml_target import allowed
from qwen3tts_np.export.pieces import PIECES
from qwen3tts_np.export.source import network_of
from qwen3tts_np.generate import embed_frame
from qwen3tts_np.ops import Array
from qwen3tts_np.speaker.encoder import speaker_embedding
from qwen3tts_np.talker.code_predictor import last_logits
from qwen3tts_np.talker.talker import new_cache, text_projection, transformer

pytest.importorskip("coremltools", exc_type=ImportError)
mil_numpy: Any = pytest.importorskip("mil_numpy")
LENGTHS = {"places": 32, "tokens": 3, "samples": 20000}
NARROW = 3e-3  # RMS of the error / RMS, of float16 arithmetic in these few layers; three times what was seen
CODES = np.random.RandomState(0).randint(0, 128, (26, 16))  # more than the tiny window of 24
NUMBERS = np.random.default_rng(0)


@pytest.fixture(scope="module")
def checkpoint(synthetic: Callable[..., Path]) -> Path:
    return synthetic("tiny", "base")


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Qwen3TTSModel:
    return Qwen3TTSModel.from_pretrained(checkpoint, backend="reference")


@pytest.fixture(scope="module")
def packages(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All pieces in float16, and the talker in every format."""
    folder = tmp_path_factory.mktemp("coreml")
    made = [*export_coreml(checkpoint, folder, ["float16"], lengths=LENGTHS)]
    assert [name for _, name, _ in made] == list(PIECES)
    made += export_coreml(checkpoint, folder, COREML_FORMATS[1:], ["talker"], LENGTHS)
    for form, name, size in made:
        files = [file for file in (folder / form / name).rglob("*") if file.is_file()]
        assert size == sum(file.stat().st_size for file in files)
    return folder


@pytest.fixture(scope="module")
def program(packages: Path) -> Callable[..., Any]:
    return lambda piece, form="float16": mil_numpy.program_of(packages / form / piece / PACKAGE)


@pytest.fixture(scope="module")
def run(program: Callable[..., Any]) -> Callable[..., Any]:
    return lambda piece, form="float16": mil_numpy.Run(program(piece, form))


def error(found: Array, expected: Array) -> float:
    found = found.reshape(expected.shape).astype(np.float64)
    return float(np.sqrt(((found - expected) ** 2).mean() / (expected.astype(np.float64) ** 2).mean()))


# --- what they are made of ---


@pytest.mark.parametrize("piece", PIECES)
def test_a_package_is_a_program_for_ios_18_without_control_flow(
    piece: str, packages: Path, program: Callable[..., Any]
) -> None:
    from coremltools.models.utils import load_spec

    spec = load_spec(str(packages / "float16" / piece / PACKAGE))
    assert spec.specificationVersion == 9
    described = {part.name: part for part in spec.description.functions} or {"main": spec.description}
    assert set(described) == set(spec.mlProgram.functions) == {"main", *(["prompt"] if piece == "talker" else [])}
    for name, function in spec.mlProgram.functions.items():
        assert (function.opset, list(function.block_specializations)) == ("CoreML8", ["CoreML8"])
        found = [op.op_type for op in mil_numpy.operations(program(piece), name)]
        assert set(found) <= {*mil_numpy.OPERATIONS, "const", "read_state", "coreml_update_state"}
        assert found.count("read_state") == found.count("coreml_update_state") == len(described[name].state)
        for feature in (*described[name].input, *described[name].output):
            assert feature.name == allowed(feature.name)
            assert all(size > 0 for size in feature.type.multiArrayType.shape)


def test_every_format_has_the_files_that_go_with_it(packages: Path) -> None:
    for form in COREML_FORMATS:
        assert (packages / form / "tokenizer.json").is_file()
        assert (packages / form / "config.json").is_file()


# --- weights, read back ---


def constants(program: Any) -> dict[str, Any]:
    return {op.outputs[0].name: op.outputs[0].val for op in mil_numpy.operations(program) if op.op_type == "const"}


@pytest.mark.parametrize("piece", PIECES)
def test_float_weights_are_those_of_the_checkpoint(piece: str, program: Callable[..., Any], checkpoint: Path) -> None:
    """Every one that is not small: a weight is called as its tensor, and none is left out."""
    network = network_of(checkpoint)
    tensors = network.codec if PIECES[piece].of_codec else network.model
    names, seen = {allowed(key): key for key in tensors}, 0
    for name, value in constants(program(piece)).items():
        if name in names:
            wanted = tensors[names[name]].widen(np.dtype(np.float32)).astype(value.dtype)
            assert value.tobytes() == wanted.tobytes(), name
            seen += 1
    assert seen >= {"frame_embedding": 16, "text": 5}.get(piece, 20)


@pytest.mark.parametrize("form", ["int8", "int6", "int4"])
def test_levels_and_scales_are_ours(form: str, program: Callable[..., Any], checkpoint: Path) -> None:
    from coremltools.converters.mil.mil import types

    bits, seen, tensors = int(form[3:]), 0, network_of(checkpoint).model
    keys = {allowed(key): key for key in tensors}
    made = {op.outputs[0].name: op for op in mil_numpy.operations(program("talker", form))}
    for name, op in made.items():
        if op.op_type != "constexpr_blockwise_shift_scale":
            continue
        key = keys[name]
        levels, scales = levels_of(tensors[key], 8 if "head" in key else bits)
        data = op.data.val
        if form == "int6" and "head" not in key:
            table = made[op.data.name]
            data = mil_numpy.table(table.indices.val, table.lut.val)
            assert types.builtin_to_string(table.indices.dtype) == "uint6"
        np.testing.assert_array_equal(np.asarray(data, np.int8), levels)
        np.testing.assert_array_equal(op.scale.val, scales)
        seen += 1
    assert seen == 3 * 7 + 1


# --- what they mean ---


def test_text_and_embeddings(run: Callable[..., Any], model: Qwen3TTSModel) -> None:
    weights = model.frame_loop.weights
    ids = np.array([3, 0, 77])
    (found,) = run("text")(**{allowed("talker.model.text_embedding.input_ids"): ids}).values()
    assert error(found, text_projection(weights.talker, ids)) < NARROW
    (found,) = run("frame_embedding")(codes=CODES[:1]).values()
    assert error(found, embed_frame(CODES[0], weights)) < NARROW


# The limits are those of fidelity, which the reference of every format has been measured by.
@pytest.mark.parametrize(("form", "limit"), [("float16", NARROW), ("int8", 0.03), ("int6", 0.08), ("int4", 0.35)])
def test_talker(form: str, limit: float, run: Callable[..., Any], model: Qwen3TTSModel) -> None:
    c, w = model.config.talker_config, model.frame_loop.weights.talker
    x = NUMBERS.standard_normal((6, c.hidden_size)).astype(np.float32)
    expected, talker = transformer(x, w.layers, w.norm, new_cache(c), c, "talker.model"), run("talker", form)
    for t in range(6):
        found = talker(
            **{
                allowed("talker.model.inputs_embeds"): x[t : t + 1],
                allowed("talker.model.position_ids"): np.array([t], np.int32),
            }
        )
        assert error(found["talker_model_norm_output"], expected[t]) < limit
    assert error(found["talker_codec_head_output"], expected[-1] @ w.codec_head.T) < limit


def test_code_predictor(run: Callable[..., Any], model: Qwen3TTSModel) -> None:
    check_code_predictor(run("code_predictor"), model)


def test_a_code_predictor_that_is_narrower_than_the_talker(synthetic: Callable[..., Path], tmp_path: Path) -> None:
    checkpoint = synthetic("tiny-1.7b", "custom_voice")
    [*export_coreml(checkpoint, tmp_path, ["float16"], ["code_predictor"])]
    predictor = mil_numpy.Run(mil_numpy.program_of(tmp_path / "float16" / "code_predictor" / PACKAGE))
    check_code_predictor(predictor, Qwen3TTSModel.from_pretrained(checkpoint, backend="reference"))


def check_code_predictor(predictor: Any, model: Qwen3TTSModel) -> None:
    c = model.config.talker_config
    w, small = model.frame_loop.weights.code_predictor, c.code_predictor_config
    x, cache = NUMBERS.standard_normal((4, c.hidden_size)).astype(np.float32), new_cache(small)
    for t in range(4):
        found = predictor(
            **{
                allowed("talker.code_predictor.inputs_embeds"): x[t : t + 1],
                allowed("talker.code_predictor.model.position_ids"): np.array([t], np.int32),
                allowed("talker.code_predictor.lm_head.index"): np.array([t], np.int32),
            }
        )
        expected = last_logits(x[t : t + 1], w, w.lm_head[t].weight, cache, small, t)
        assert error(found["talker_code_predictor_lm_head_output"], expected) < NARROW


def test_codec_decoder(run: Callable[..., Any], model: Qwen3TTSModel) -> None:
    decoder = run("codec_decoder")
    found = np.concatenate([decoder(codes=CODES[t : t + 1])["decoder_output"] for t in range(len(CODES))])
    assert error(found, decode(CODES, model.speech_tokenizer.decoder)) < NARROW


def test_the_encoders_are_exact(run: Callable[..., Any], model: Qwen3TTSModel) -> None:
    t = np.arange(LENGTHS["samples"]) / 24000
    wave = (0.3 * np.sin(1500 * t * (1 + t)) + 0.1 * np.sin(9000 * t)).astype(np.float32)
    (codes,) = run("codec_encoder")(waveform=wave).values()
    np.testing.assert_array_equal(codes, encode(wave, model.speech_tokenizer.encoder))
    (vector,) = run("speaker_encoder")(waveform=wave).values()
    c = model.config.speaker_encoder_config
    assert c is not None and model.speaker_encoder is not None
    # The mel is float32 here and float64 there.
    np.testing.assert_allclose(vector, speaker_embedding(wave, model.speaker_encoder, c), rtol=0, atol=3e-4)


def test_the_weights_of_a_prompt_are_those_of_a_step(packages: Path) -> None:
    """Both functions name the same places of the file; and no file is as large as the next wider one."""
    from coremltools.models.utils import load_spec

    talkers = [packages / form / "talker" / PACKAGE for form in COREML_FORMATS]
    step, prompt = (
        {op.outputs[0].name: op.attributes["val"].blobFileValue.offset
         for op in function.block_specializations["CoreML8"].operations if op.type == "const"}
        for function in load_spec(str(talkers[0])).mlProgram.functions.values()
    )  # fmt: skip
    weights = [name for name in step if name.endswith("_weight")]
    assert len(weights) >= 3 * 7 + 1
    assert [step[name] for name in weights] == [prompt[name] for name in weights]
    sizes = [next(talker.rglob("weight.bin")).stat().st_size for talker in talkers]
    assert all(0.9 * wide > narrow for wide, narrow in itertools.pairwise(sizes)), sizes


@pytest.mark.parametrize("length", [3, 4, 7])
def test_a_prompt_and_the_steps_after_it(length: int, checkpoint: Path, model: Qwen3TTSModel, tmp_path: Path) -> None:
    """Four positions a call, the last call padded with anything, then steps on the same states."""
    [*export_coreml(checkpoint, tmp_path, ["float16"], ["talker"], {"places": 16, "prompt": 4})]
    c, w = model.config.talker_config, model.frame_loop.weights.talker
    x = NUMBERS.standard_normal((8, c.hidden_size)).astype(np.float32)
    expected = transformer(x, w.layers, w.norm, new_cache(c), c, "talker.model")
    program = mil_numpy.program_of(tmp_path / "float16" / "talker" / PACKAGE)
    prompt = mil_numpy.Run(program, "prompt")
    step = mil_numpy.Run(program, "main", prompt.states)
    names = tuple(
        allowed(f"talker.{name}") for name in ("model.inputs_embeds", "model.position_ids", "codec_head.index")
    )
    for start in range(0, length, 4):
        rows = np.concatenate([x[start : min(start + 4, length)], 9 * np.ones((4, c.hidden_size), np.float32)])[:4]
        last = min(length - start, 4) - 1
        given = rows, np.arange(start, start + 4, dtype=np.int32), np.array([last], np.int32)
        found = prompt(**dict(zip(names, given, strict=True)))
        assert error(found["talker_model_norm_output"][: last + 1], expected[start : start + last + 1]) < NARROW
        assert error(found["talker_codec_head_output"], expected[start + last] @ w.codec_head.T) < NARROW
    for t in range(length, 8):
        found = step(**dict(zip(names[:2], (x[t : t + 1], np.array([t], np.int32)), strict=True)))
        assert error(found["talker_model_norm_output"], expected[t]) < NARROW


# --- what is refused ---


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("int5", "Core ML has no 5-bit weights"),
        ("float32", "states of Core ML are float16"),
        ("q4", "format 'q4' is none of float16, int8, int6, int4"),
    ],
)
def test_formats_that_there_are_not(form: str, message: str, checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=message):
        [*export_coreml(checkpoint, tmp_path / "out", [form])]
    assert not (tmp_path / "out").exists()


def test_a_package_that_is_there_is_refused_before_the_work(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "int4" / "text").mkdir(parents=True)
    (tmp_path / "int4" / "text" / "mine").touch()
    with pytest.raises(OutputError, match="text"):
        [*export_coreml(checkpoint, tmp_path, only=["text"])]
    assert [path.name for path in tmp_path.iterdir()] == ["int4"]


def test_the_command(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "export",
        "coreml",
        str(checkpoint),
        str(tmp_path / "out"),
        "--only",
        "text",
        "--format",
        "float16",
        "int4",
    ]
    assert cli.main(command) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1].endswith("MB; not run: that takes a Mac")
    assert captured.err == "", "no progress bars of coremltools"
    assert cli.main(command) == 2
