"""Packed checkpoints: the same bytes on every CPU, used where they are mapped, refused when damaged."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from qwen3tts_np_kernels.cpu import compiled
from safetensors import safe_open

from qwen3tts_np import CheckpointError, Qwen3TTSModel, Qwen3TTSTokenizer, RequestError, cli
from qwen3tts_np.checkpoint.config_file import read_model_config
from qwen3tts_np.checkpoint.keys import TensorSpec
from qwen3tts_np.checkpoint.packed import ARENAS_KEY, LINE, PackedTensor
from qwen3tts_np.checkpoint.quantised import QuantisedTensor
from qwen3tts_np.checkpoint.safetensors import Checkpoint, map_file
from qwen3tts_np.checkpoint.writer import write_safetensors
from qwen3tts_np.compiled.codec import packed as packed_decoder
from qwen3tts_np.compiled.codec.packed import METADATA_KEY as DECODER_KEY
from qwen3tts_np.compiled.codec.packed import NAME, read_packed_decoder, write_packed_decoder
from qwen3tts_np.compiled.frame_loop import FrameLoop
from qwen3tts_np.compiled.talker.weights import CompiledWeights, pack_weights
from qwen3tts_np.layout import convert as converter
from qwen3tts_np.layout.convert import convert
from qwen3tts_np.layout.description import describe
from qwen3tts_np.speech.store import fingerprint
from qwen3tts_np.synthetic import layouts, weights

F32 = np.dtype(np.float32)
LIKES, FORMATS = ("tiny", "tiny-1.7b"), ("int8", "int4")
QKV = "packed.talker.qkv"


@pytest.fixture(scope="module")
def sources(synthetic: Callable[..., Path]) -> dict[str, Path]:
    return {like: synthetic(like, "custom_voice") for like in LIKES}


@pytest.fixture(scope="module")
def packed(sources: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    folder = tmp_path_factory.mktemp("packed")
    found = {(like, form): folder / like / form for like in LIKES for form in FORMATS}
    for (like, form), target in found.items():
        target.parent.mkdir(exist_ok=True)
        convert(sources[like], target, form)
    return found


@pytest.fixture(scope="module")
def unpacked(sources: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """The same in the layout of version 0.1: every matrix by itself."""
    folder, found = tmp_path_factory.mktemp("unpacked"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(converter, "arenas_of", lambda c, model_format: [])
        for like in LIKES:
            (folder / like).mkdir()
            for form in FORMATS:
                found[like, form] = folder / like / form
                convert(sources[like], found[like, form], form)
    return found


def arrays(weights: CompiledWeights) -> list[np.ndarray]:
    def inside(value: Any) -> list[np.ndarray]:
        if isinstance(value, np.ndarray):
            return [value]
        return [a for part in value for a in inside(part)] if isinstance(value, tuple) else []

    return inside((weights.model, weights.text_projection))


@pytest.mark.parametrize("like", LIKES)
@pytest.mark.parametrize("form", FORMATS)
def test_every_tensor_is_what_it_is_unpacked(
    packed: dict[tuple[str, str], Path], unpacked: dict[tuple[str, str], Path], like: str, form: str
) -> None:
    one, other = Checkpoint.open(packed[like, form]), Checkpoint.open(unpacked[like, form])
    assert set(one) == set(other)
    assert any(isinstance(tensor, PackedTensor) for tensor in one.values())
    for name, tensor in one.items():
        assert (tensor.shape, tensor.dtype, tensor.nbytes) == (
            other[name].shape, other[name].dtype, other[name].nbytes,
        )  # fmt: skip
        np.testing.assert_array_equal(tensor.widen(F32), other[name].widen(F32), name)
        some = np.array([[0, len(tensor.widen(F32)) - 1]])
        np.testing.assert_array_equal(tensor.rows(some, F32), other[name].rows(some, F32), name)
        if isinstance(tensor, QuantisedTensor):
            for left, right in zip(tensor.unpacked(), other[name].unpacked(), strict=True):  # type: ignore[attr-defined]
                np.testing.assert_array_equal(left, right, name)


@pytest.mark.skipif(not compiled(), reason="kernels are off")
@pytest.mark.parametrize("like", LIKES)
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("asked", ["int8", "int4", "bfloat16"])
def test_kernels_get_the_arrays_that_packing_at_load_gives(
    packed: dict[tuple[str, str], Path], unpacked: dict[tuple[str, str], Path], like: str, form: str, asked: str
) -> None:
    one, other = (
        arrays(pack_weights(Checkpoint.open(folder), read_model_config(folder).talker_config, asked))
        for folder in (packed[like, form], unpacked[like, form])
    )
    for ready, made in zip(one, other, strict=True):
        assert ready.dtype == made.dtype
        trailing = ready.ravel()[made.size :]
        assert not trailing.any() and trailing.nbytes < LINE
        np.testing.assert_array_equal(ready.ravel()[: made.size], made.ravel())


@pytest.mark.skipif(not compiled(), reason="kernels are off")
def test_arenas_are_used_in_place(packed: dict[tuple[str, str], Path]) -> None:
    folder = packed["tiny", "int4"]
    checkpoint = Checkpoint.open(folder)
    model = pack_weights(checkpoint, read_model_config(folder).talker_config, "int4").model
    for name, stack in (
        ("talker.qkv", model.talker.layers.qkv),
        ("talker.gate_up", model.talker.layers.gate_up),
        ("predictor.down_proj", model.predictor.layers.down_proj),
        ("predictor.heads", model.predictor.heads),
    ):
        arena = checkpoint.arenas[name]
        assert stack.values.ctypes.data == arena.values.ctypes.data
        assert stack.scales.ctypes.data == arena.scales.ctypes.data
        assert not stack.values.ctypes.data % LINE and not stack.scales.ctypes.data % LINE
    assert model.tables.values.ctypes.data == checkpoint.arenas["code_tables"].values.ctypes.data


def test_other_readers_of_safetensors_read_the_container(packed: dict[tuple[str, str], Path]) -> None:
    path = packed["tiny", "int4"] / "model.safetensors"
    with safe_open(path, "np") as file:
        stated = json.loads(file.metadata()[ARENAS_KEY])
        names = set(file.keys())
    assert stated["version"] == 1
    assert {f"packed.{arena['name']}" for arena in stated["arenas"]} <= names
    assert (8 + int.from_bytes(path.read_bytes()[:8], "little")) % LINE == 0


def _sha(path: Path) -> str:
    return hashlib.sha256((path / "model.safetensors").read_bytes()).hexdigest()


def test_the_bytes_do_not_depend_on_the_cpu(
    sources: dict[str, Path], packed: dict[tuple[str, str], Path], tmp_path: Path
) -> None:
    old = {"NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX2 FMA3"}
    numba = {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": ""}
    line = f"from pathlib import Path; convert(Path({str(sources['tiny'])!r}), Path({str(tmp_path / 'old')!r}), 'int4')"
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"from qwen3tts_np.layout.convert import convert; {line}"],
        env={**os.environ, **old, **numba},
        check=True,
    )
    assert _sha(tmp_path / "old") == _sha(packed["tiny", "int4"])


@pytest.mark.skipif(not compiled(), reason="the NumPy path has the weights of a converted checkpoint widened")
def test_speech_of_the_source_is_found_again(
    sources: dict[str, Path], packed: dict[tuple[str, str], Path], unpacked: dict[tuple[str, str], Path]
) -> None:
    keys = {}
    for form in FORMATS:
        loaded = Qwen3TTSModel.from_pretrained(sources["tiny"], weights_format=form)
        keys[form] = fingerprint(loaded)
        for folder in (packed["tiny", form], unpacked["tiny", form]):
            assert fingerprint(Qwen3TTSModel.from_pretrained(folder)) == keys[form]
    assert len(set(keys.values())) == len(FORMATS)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("backend", ["reference", "auto"])
def test_codes_are_those_of_the_unpacked_checkpoint(
    packed: dict[tuple[str, str], Path], unpacked: dict[tuple[str, str], Path], form: str, backend: str
) -> None:
    codes = []
    for folder in (packed["tiny", form], unpacked["tiny", form]):
        os.chmod(folder, 0o555)
        try:
            model = Qwen3TTSModel.from_pretrained(folder, backend=backend, threads=1)
            *_, (found,) = model.generate_custom_voice("Hello.", "vivian", max_new_tokens=6, seed=0, return_codes=True)
        finally:
            os.chmod(folder, 0o755)
        codes.append(found)
    np.testing.assert_array_equal(*codes)


def _state(change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any], dict[str, str]], object]:
    def changed(tensors: dict[str, Any], metadata: dict[str, str]) -> None:
        stated = json.loads(metadata[ARENAS_KEY])
        change(stated)
        metadata[ARENAS_KEY] = json.dumps(stated)

    return changed


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t, m: t.pop(f"{QKV}.scales"), r"packed.talker.qkv.scales is missing"),
        (lambda t, m: t.update({QKV: t[QKV][:-64]}), r"qkv is U8 .* expected U8"),
        (lambda t, m: t.update({QKV: t[QKV].view(np.int8)}), r"qkv is I8 .* expected U8"),
        (lambda t, m: t.pop("packed.code_tables"), r"packed.code_tables is not BF16"),
        (lambda t, m: m.update({ARENAS_KEY: "{"}), "damaged"),
        (lambda t, m: m.update({ARENAS_KEY: "[]"}), "damaged"),
        (_state(lambda s: s.update(version=2)), r"model.safetensors: written in version 2, and this package reads"),
        (_state(lambda s: s.pop("arenas")), "damaged"),
        (_state(lambda s: s["arenas"][0].update(format="int3")), "damaged"),
        (_state(lambda s: s["arenas"][0].update(matrices=-1)), "damaged"),
        (_state(lambda s: s["arenas"][0]["parts"][0].update(first=10**6)), "lies outside talker.qkv"),
        (_state(lambda s: s["arenas"][0].update(inputs=1 << 30)), "damaged"),
    ],
)
def test_a_damaged_container_is_refused(
    packed: dict[tuple[str, str], Path],
    tmp_path: Path,
    change: Callable[[dict[str, Any], dict[str, str]], object],
    sentence: str,
) -> None:
    tensors, metadata = map_file(packed["tiny", "int4"] / "model.safetensors")
    data = {name: tensor.data for name, tensor in tensors.items()}
    change(data, metadata)
    types = {name: tensor.dtype for name, tensor in tensors.items()}
    specs = [
        TensorSpec(name, array.shape, "", "I8" if array.dtype == np.int8 else types[name])
        for name, array in data.items()
    ]
    write_safetensors(tmp_path / "model.safetensors", specs, lambda spec: [data[spec.key]], metadata)
    with pytest.raises(CheckpointError, match=sentence):
        Checkpoint.open(tmp_path)


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``speech_tokenizer`` whose channels all fill the widest register tile, as the released ones do."""
    folder = tmp_path_factory.mktemp("codec") / "model"
    with pytest.MonkeyPatch.context() as patch:
        plain = layouts.codec_config

        def wide(like: Any) -> dict[str, Any]:
            config = plain(like)
            config["decoder_config"] |= {"decoder_dim": 512, "codebook_dim": 64}
            return config

        patch.setattr(layouts, "codec_config", wide)
        weights.write_checkpoint(folder, "tiny", "custom_voice")
    return folder / "speech_tokenizer"


@pytest.mark.skipif(not compiled(), reason="kernels are off")
def test_the_packed_decoder_gives_the_same_samples_where_it_is_mapped(codec: Path) -> None:
    codes = np.random.default_rng(0).integers(0, 128, (5, 16))
    plain = replace(Qwen3TTSTokenizer.from_pretrained(codec, threads=1), decoder_weights="int16")
    (expected,), _ = plain.decode({"audio_codes": codes})
    assert write_packed_decoder(codec)
    mapped = Qwen3TTSTokenizer.from_pretrained(codec, threads=1)
    loaded = mapped.compiled_decoder.weights
    assert loaded.first_conv.weight.dtype == np.int16
    assert not loaded.first_conv.weight.flags.writeable  # of the file, which is mapped to be read
    (found,), _ = mapped.decode({"audio_codes": codes})
    np.testing.assert_array_equal(found, expected)
    stream = mapped.stream()
    np.testing.assert_array_equal(np.concatenate([stream(codes[:2]), stream(codes[2:])]), expected)
    before, after = _leaves(plain.compiled_decoder.weights), _leaves(loaded)
    for one, other in zip(before, after, strict=True):
        assert type(one) is type(other)
        np.testing.assert_array_equal(one, other)


def test_info_and_inspect_say_what_is_packed(codec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_packed_decoder(codec)
    (found,) = describe(codec).packed
    assert found.file == NAME
    assert found.dtypes["I16"] > 10
    assert cli.main(["info", str(codec)]) == 0
    line = NAME + r": packed for the kernels \(\d+ F32, \d+ I16\), [\d,]+ bytes"
    assert re.search(f"^{line}$", capsys.readouterr().out, re.M)
    assert cli.main(["inspect", str(codec)]) == 0
    assert re.search(f"^{line}; what follows counts the official weights$", capsys.readouterr().out, re.M)
    assert cli.main(["inspect", str(codec), "--json"]) == 0
    (stated,) = json.loads(capsys.readouterr().out)["packed"]
    assert stated == {"file": NAME, "dtypes": found.dtypes, "bytes": found.data_bytes}


def test_a_decoder_packed_in_version_1_speaks_as_it_did(codec: Path, tmp_path: Path) -> None:
    """All of it float32, and nothing said of scales."""
    shutil.copytree(codec, tmp_path / "codec", ignore=shutil.ignore_patterns(NAME))
    codes = np.random.default_rng(0).integers(0, 128, (5, 16))
    (expected,), _ = Qwen3TTSTokenizer.from_pretrained(tmp_path / "codec", threads=1).decode({"audio_codes": codes})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed_decoder, "WEIGHTS", "float32")
        patch.setattr(packed_decoder, "VERSION", 1)
        assert write_packed_decoder(tmp_path / "codec")
    packed = Checkpoint.open(tmp_path / "codec" / NAME)
    stated = json.loads(packed.metadata[DECODER_KEY].replace('"scale":null,', ""))
    assert "scale" not in json.dumps(stated)
    arrays = {name: (tensor.dtype, tensor.data.copy()) for name, tensor in packed.items()}
    specs = [TensorSpec(name, array.shape, "", dtype) for name, (dtype, array) in arrays.items()]
    (tmp_path / "codec" / NAME).unlink()
    metadata = {DECODER_KEY: json.dumps(stated)}
    write_safetensors(tmp_path / "codec" / NAME, specs, lambda spec: [arrays[spec.key][1]], metadata)
    mapped = Qwen3TTSTokenizer.from_pretrained(tmp_path / "codec", threads=1)
    (found,), _ = mapped.decode({"audio_codes": codes})
    np.testing.assert_array_equal(found, expected)
    if compiled():
        assert not mapped.compiled_decoder.weights.first_conv.weight.flags.writeable


def _leaves(value: Any) -> list[Any]:
    if is_dataclass(value):
        return [leaf for f in fields(value) for leaf in _leaves(getattr(value, f.name))]
    return [leaf for part in value for leaf in _leaves(part)] if isinstance(value, tuple) else [value]


def test_a_decoder_of_odd_channels_is_not_packed_ahead(sources: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(sources["tiny"] / "speech_tokenizer", tmp_path / "codec")
    assert not write_packed_decoder(tmp_path / "codec")
    assert not (tmp_path / "codec" / NAME).exists()


def test_a_packed_decoder_of_other_weights_is_left_alone(codec: Path, tmp_path: Path) -> None:
    shutil.copytree(codec, tmp_path / "codec")
    write_packed_decoder(tmp_path / "codec")
    path = tmp_path / "codec" / "model.safetensors"
    assert read_packed_decoder(Checkpoint.open(path)) is not None
    raw = bytearray(path.read_bytes())
    raw[raw.index(Checkpoint.open(path)["decoder.pre_conv.conv.weight"].data.tobytes()[:64])] ^= 1
    path.unlink()
    path.write_bytes(raw)
    with pytest.warns(UserWarning, match="is damaged or not of the files beside it"):
        assert read_packed_decoder(Checkpoint.open(path)) is None


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: s.update(version=7), f"{NAME}: written in version 7, and this package reads version 2; remove"),
        (lambda s: s.update(version=0), f"{NAME}: written in version 0, and this package reads version 2; remove"),
        (lambda s: s["weights"]["pre_conv"].update(scale=None), "has 0 scales for"),
        (lambda s: s["weights"]["pre_conv"].update(bias="pre_conv.weight"), "does not fit its sizes|is int16"),
        (lambda s: s.pop("of"), "damaged"),
        (lambda s: s["weights"].update({"class": "Nothing"}), "damaged"),
        (lambda s: s["weights"].pop("pre_conv"), "damaged"),
        (lambda s: s["weights"]["pre_conv"].update(taps=5), "does not fit its sizes"),
        (lambda s: s.update(weights=[]), "does not describe a decoder"),
    ],
)
def test_a_damaged_packed_decoder_is_refused(
    codec: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], sentence: str
) -> None:
    write_packed_decoder(codec)
    packed = Checkpoint.open(codec / NAME)
    stated = json.loads(packed.metadata[DECODER_KEY])
    change(stated)
    shutil.copy(codec / "model.safetensors", tmp_path)
    specs = [TensorSpec(name, tensor.shape, "", tensor.dtype) for name, tensor in packed.items()]
    metadata = {DECODER_KEY: json.dumps(stated)}
    write_safetensors(tmp_path / NAME, specs, lambda spec: [packed[spec.key].data], metadata)
    with pytest.raises(CheckpointError, match=sentence):
        read_packed_decoder(Checkpoint.open(tmp_path))


def test_arguments_and_small_files_are_checked_before_weights_are_read(
    sources: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(self: Any) -> Any:
        raise AssertionError("weights were read")

    monkeypatch.setattr(FrameLoop, "used_weights", property(read))
    monkeypatch.setattr(Qwen3TTSTokenizer, "compiled_decoder", property(read))
    with pytest.raises(RequestError, match="pretokenizer 'latin'"):
        Qwen3TTSModel.from_pretrained(sources["tiny"], pretokenizer="latin")  # type: ignore[arg-type]


# --- every command --------------------------------------------------------------------------------

COMMANDS = (  # CUSTOM and BASE are packed checkpoints
    "info CUSTOM",
    "inspect CUSTOM",
    "explain CUSTOM --text Hi",
    "explain BASE --text Hi --ref-audio clip.wav",
    "trace CUSTOM --text Hi --seed 1 --max-new-tokens 3 --plots none -o traced",
    "verify CUSTOM --fine-tuned",
    "bench CUSTOM --seconds 0.1",
    "fixtures export CUSTOM request.json fixture",
    "fixtures compare fixture fixture --model CUSTOM",
    "say CUSTOM Hi --seed 1 --max-new-tokens 3",
    "voice create BASE clip.wav --text words",
    "say BASE Hi --voice voice.safetensors --seed 1 --max-new-tokens 3",
    "clone BASE Hi --ref-audio clip.wav --seed 1 --max-new-tokens 3",
    "encode BASE clip.wav -o codes.npy",
    "decode BASE codes.npy -o decoded.wav",
    "fidelity CUSTOM --format int4",
    "convert --format int8 CUSTOM again",
)


@pytest.mark.filterwarnings("ignore::qwen3tts_np.ReferenceClipWarning")
def test_every_command_reads_a_packed_checkpoint_and_leaves_its_folder_as_it_is(
    synthetic: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled():
        pytest.skip("needs Numba's compiler")
    folders = {kind.upper(): tmp_path / kind for kind in ("custom", "base")}
    for folder, kind in zip(folders.values(), ("custom_voice", "base"), strict=True):
        assert cli.main(["convert", "--format", "int4", str(synthetic("tiny", kind)), str(folder)]) == 0
        for path in (*folder.rglob("*"), folder):
            path.chmod(0o555 if path.is_dir() else 0o444)
    before = {path: path.stat().st_mtime_ns for folder in folders.values() for path in (folder, *folder.rglob("*"))}
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    soundfile.write("clip.wav", 0.3 * np.sin(np.arange(24000) * 0.05), 24000)
    call = {"method": "generate_custom_voice", "arguments": {"text": "Hi", "speaker": "ryan", "max_new_tokens": 3}}
    Path("request.json").write_text(json.dumps(call | {"seed": 1}), encoding="utf-8")
    for words in COMMANDS:
        assert cli.main([str(folders.get(word, word)) for word in words.split()]) == 0, words
    now = {path: path.stat().st_mtime_ns for folder in folders.values() for path in (folder, *folder.rglob("*"))}
    assert now == before
    for folder in folders.values():  # for pytest, which removes them
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755)
