"""Checkpoint files: what the format's own library writes reads back unchanged, uncopied; anything else is refused."""

from __future__ import annotations

import json
import math
import mmap
import re
import tracemalloc
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from qwen3tts_np_kernels.bfloat16 import round_ref, widen_ref

from qwen3tts_np.checkpoint.config_file import read_codec_config, read_model_config
from qwen3tts_np.checkpoint.keys import Embedding, TensorSpec, block, blocks, check, embedding, load, problems, tensor
from qwen3tts_np.checkpoint.keys import specs as list_specs
from qwen3tts_np.checkpoint.published import CODEC_WEIGHTS, MODELS
from qwen3tts_np.checkpoint.safetensors import Checkpoint
from qwen3tts_np.checkpoint.tensor import DTYPES, StoredTensor
from qwen3tts_np.codec.decoder import CodecDecoderWeights, codec_decoder_sizes
from qwen3tts_np.codec.encoder import CodecEncoderWeights, codec_encoder_sizes
from qwen3tts_np.errors import CheckpointError
from qwen3tts_np.layout.specs import codec_specs, model_specs
from qwen3tts_np.speaker.encoder import SpeakerEncoderWeights, speaker_encoder_sizes
from qwen3tts_np.synthetic import layouts
from qwen3tts_np.synthetic.layouts import RELEASED_TEXT
from qwen3tts_np.talker.code_predictor import CodePredictorWeights, code_predictor_sizes
from qwen3tts_np.talker.talker import TalkerWeights, talker_sizes

F32 = np.dtype(np.float32)


def pack(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """A file with this header (an object, or its bytes), which may claim another length."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def library_file(arrays: dict[str, np.ndarray], metadata=None, bf16: tuple[str, ...] = ()) -> bytes:
    """The bytes that the safetensors library writes; the uint16 arrays named in ``bf16`` are declared BF16."""
    blob = safetensors.numpy.save(arrays, metadata)
    if bf16:
        length = int.from_bytes(blob[:8], "little")
        header = json.loads(blob[8 : 8 + length])
        for name in bf16:
            header[name]["dtype"] = "BF16"
        blob = pack(header, blob[8 + length :])
        safetensors.deserialize(blob)  # the library takes it
    return blob


def open_bytes(directory: Path, blob: bytes) -> Checkpoint:
    path = directory / "model.safetensors"
    path.write_bytes(blob)
    return Checkpoint.open(path)


# --- reading --------------------------------------------------------------------------------------

NAMES = st.text(min_size=1, max_size=12).filter(lambda name: name != "__metadata__")
STORED = [np.float16, np.float32, np.float64, np.int64, np.int32, np.uint8, np.bool_, np.uint16]
ARRAYS = st.dictionaries(
    NAMES,
    st.sampled_from(STORED).flatmap(lambda d: hnp.arrays(d, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0))),
    min_size=1,
    max_size=5,
)
METADATA = st.none() | st.dictionaries(st.text(max_size=6), st.text(max_size=6), max_size=3)


def assert_holds(checkpoint, arrays, bf16):
    assert set(checkpoint) == set(arrays)
    assert len(checkpoint) == len(arrays)
    for name, array in arrays.items():
        stored = checkpoint[name]
        assert (stored.name, stored.shape) == (name, array.shape)
        assert stored.dtype == "BF16" if name in bf16 else DTYPES[stored.dtype] == array.dtype
        assert stored.data.tobytes() == array.tobytes()
        assert_is_the_file(stored.data)


def assert_is_the_file(array):
    """``array`` is a read-only window on a mapped file."""
    assert not array.flags.owndata
    assert not array.flags.writeable
    while isinstance(array, np.ndarray):
        array = array.base
    assert isinstance(array.obj if isinstance(array, memoryview) else array, mmap.mmap)


@settings(max_examples=40)
@given(ARRAYS, METADATA)
def test_reads_what_the_library_writes(tmp_path_factory, arrays, metadata):
    bf16 = tuple(name for name, array in arrays.items() if array.dtype == np.uint16)
    checkpoint = open_bytes(tmp_path_factory.getbasetemp(), library_file(arrays, metadata, bf16))
    assert_holds(checkpoint, arrays, bf16)
    assert checkpoint.metadata == (metadata or {})


@given(ARRAYS, st.integers(1, 3), METADATA)
def test_reads_shards(tmp_path_factory, arrays, shards, metadata):
    directory = tmp_path_factory.mktemp("shards")
    weight_map = {name: f"model-{i % shards + 1:05}-of-{shards:05}.safetensors" for i, name in enumerate(arrays)}
    for shard in set(weight_map.values()):
        part = {name: array for name, array in arrays.items() if weight_map[name] == shard}
        (directory / shard).write_bytes(library_file(part, metadata))
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": weight_map}), encoding="utf-8")
    checkpoint = Checkpoint.open(directory)
    assert_holds(checkpoint, arrays, ())
    assert checkpoint.path == index


def test_a_directory_and_its_file_are_the_same_checkpoint(tmp_path):
    by_file = open_bytes(tmp_path, library_file({"a": np.arange(3)}))
    assert Checkpoint.open(tmp_path).path == by_file.path
    assert Checkpoint.open(tmp_path)["a"].data.tolist() == [0, 1, 2]


def test_a_file_that_is_not_padded_may_be_unaligned(tmp_path):
    values = np.array([1.5, -2.5], np.float32)
    for blanks in range(8):
        blob = pack(json.dumps({"a": entry()}).encode() + b" " * blanks, values.tobytes())
        assert open_bytes(tmp_path, blob)["a"].widen(F32).tolist() == [1.5, -2.5]


def test_opening_reads_no_weights(tmp_path):
    """64 MB of weights, but only the header becomes Python objects."""
    count, path = 16 << 20, tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.write(pack({"a": entry("F32", [count], [0, 4 * count])}))
        file.truncate(file.tell() + 4 * count)
    peak, checkpoint = peak_bytes(lambda: Checkpoint.open(path))
    assert checkpoint["a"].data[-1] == 0
    assert peak < 100_000
    peak, widened = peak_bytes(lambda: checkpoint["a"].widen(F32))
    assert np.shares_memory(widened, checkpoint["a"].data)
    assert peak < 10_000


def peak_bytes(call):
    tracemalloc.start()
    try:
        result = call()
        return tracemalloc.get_traced_memory()[1], result
    finally:
        tracemalloc.stop()


@given(hnp.arrays(np.uint16, hnp.array_shapes(max_dims=2)), st.data())
def test_rows_are_rows_of_the_whole(array, data):
    for dtype, stored in (("BF16", array), ("F16", array.view(np.float16)), ("F32", array.astype(np.float32))):
        table = StoredTensor("table", dtype, stored)
        ids = np.array(data.draw(st.lists(st.integers(0, len(array) - 1), max_size=4)), np.int64)
        for wanted in (np.dtype(np.float32), np.dtype(np.float64)):
            rows = table.rows(ids, wanted)
            assert rows.dtype == wanted
            np.testing.assert_array_equal(rows, table.widen(wanted)[ids])


# --- bfloat16 -------------------------------------------------------------------------------------


def bf16_value(bits: int) -> float:
    """The definition: sign, 8 bits of exponent, 7 of fraction."""
    sign, exponent, fraction = (-1) ** (bits >> 15), bits >> 7 & 0xFF, bits & 0x7F
    if exponent == 255:
        return sign * math.inf if not fraction else math.nan
    return sign * math.ldexp(fraction / 128 + (exponent > 0), max(exponent, 1) - 127)


ALL_BITS = np.arange(2**16, dtype=np.uint16)
VALUES = np.array([bf16_value(int(bits)) for bits in ALL_BITS])


def test_widening_is_exact_for_every_pattern():
    widened = widen_ref(ALL_BITS)
    assert widened.dtype == np.float32
    np.testing.assert_array_equal(widened, VALUES)
    np.testing.assert_array_equal(np.signbit(widened), ALL_BITS >= 0x8000)
    np.testing.assert_array_equal(widened.view(np.uint32), ALL_BITS.astype(np.uint32) * 65536)  # NaN payloads too


def test_rounding_undoes_widening():
    nan = np.isnan(VALUES)
    np.testing.assert_array_equal(round_ref(widen_ref(ALL_BITS))[~nan], ALL_BITS[~nan])
    rounded = round_ref(widen_ref(ALL_BITS[nan]))
    assert np.isnan(widen_ref(rounded)).all()
    np.testing.assert_array_equal(rounded, ALL_BITS[nan] | 0x40)  # quiet, the sign and the rest kept


@pytest.mark.parametrize("low", [0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF])
def test_rounding_takes_the_nearest_and_of_two_the_even(low):
    """Every float32 that lies this far above a bfloat16, against distances in float64, where all of them are exact."""
    below = ALL_BITS[np.isfinite(VALUES)]
    x = (below.astype(np.uint32) << 16 | low).view(np.float32)
    above = below + 1  # the next in magnitude
    toward, away = np.abs(VALUES[below]), np.abs(VALUES[above])
    away[np.isinf(away)] = 2.0**128  # what the next would be if the exponents went on
    to_below, to_above = np.abs(x.astype(np.float64)) - toward, away - np.abs(x.astype(np.float64))
    expected = np.where((to_below < to_above) | ((to_below == to_above) & (below % 2 == 0)), below, above)
    np.testing.assert_array_equal(round_ref(x), expected)


# --- files that lie -------------------------------------------------------------------------------

EIGHT = b"\0" * 8
DAMAGED = {
    "empty": (b"", "0 bytes, too short"),
    "seven bytes": (b"\0" * 7, "7 bytes, too short"),
    "no header": (pack(b""), "not valid JSON"),
    "header cut": (pack({"a": entry()}, EIGHT)[:30], "the header claims 61 of 30 bytes"),
    "10 GB of header": (pack({"a": entry()}, EIGHT, 10**10), "claims 10000000000 of 77 bytes"),
    "2^63 bytes of header": (pack({}, EIGHT, 2**63), f"claims {2**63} of 18 bytes"),
    "2^64-1 bytes of header": (pack({}, EIGHT, 2**64 - 1), "claims"),
    "not UTF-8": (pack(b'{"\xff": 1}'), "not valid JSON"),
    "not JSON": (pack(b"{a: 1}"), "not valid JSON"),
    "two values": (pack(b"{} {}"), "not valid JSON"),
    "a list": (pack([]), "the header is list, expected an object"),
    "NaN": (pack(b'{"__metadata__": {"a": NaN}}'), "NaN is not a number in JSON"),
    "Infinity": (pack({"a": entry(shape=[math.inf])}, EIGHT), "Infinity is not a number in JSON"),
    "nested": (pack(b'{"a":' * 50_000), "nested too deeply"),
    "a nest as a type": (pack(b'{"a": {"dtype": ' + b"[" * 300 + b"]" * 300 + b"}}"), "is none of BF16"),
    "5000 digits": (pack(b'{"a": ' + b"9" * 5000 + b"}"), "a"),
    "duplicate": (pack(b'{"a": 1, "b": 2, "b": 3}'), "the header names 'b' twice"),
    "duplicate inside": (pack(b'{"a": {"dtype": "F32", "dtype": "F16"}}'), "names 'dtype' twice"),
    "metadata": (pack({"__metadata__": [1]}), "__metadata__ must be an object of strings"),
    "metadata value": (pack({"__metadata__": {"a": 1}}), "__metadata__ must be an object of strings"),
    "entry": (pack({"a": 5}), "a: the header entry is int"),
    "no dtype": (pack({"a": {"shape": [2], "data_offsets": [0, 8]}}, EIGHT), "a: type None is none of BF16"),
    "dtype": (pack({"a": entry("F31")}, EIGHT), "a: type 'F31' is none of BF16"),
    "dtype of a list": (pack({"a": entry(["F32"])}, EIGHT), r"a: type \['F32'\] is none of"),
    "no shape": (pack({"a": {"dtype": "F32", "data_offsets": [0, 8]}}, EIGHT), "a: shape None is not a list"),
    "negative": (pack({"a": entry(shape=[-2])}, EIGHT), r"shape \[-2\] is not a list of at most 32 sizes"),
    "two negatives": (pack({"a": entry(shape=[-1, -2])}, EIGHT), r"shape \[-1, -2\] is not"),
    "bool": (pack({"a": entry(shape=[True, 2])}, EIGHT), r"shape \[True, 2\] is not"),
    "float": (pack({"a": entry(shape=[2.0])}, EIGHT), r"shape \[2.0\] is not"),
    "string": (pack({"a": entry(shape="2")}, EIGHT), "shape"),
    "null size": (pack({"a": entry(shape=[None])}, EIGHT), r"shape \[None\] is not"),
    "2^63": (pack({"a": entry(shape=[2**63])}, EIGHT), "is not a list of at most 32 sizes"),
    "huge numbers": (pack({"a": entry(shape=[10**4000, 10**4000])}, EIGHT), "is not a list of at most 32 sizes"),
    "10 GB of tensor": (pack({"a": entry("U8", [10**10], [0, 10**10])}, EIGHT), "bytes 0 to 10000000000 lie outside"),
    "10 GB of shape": (pack({"a": entry("U8", [10**10])}, EIGHT), r"U8 \[10000000000\] needs 10000000000 bytes"),
    "nothing, but huge": (pack({"a": entry("U8", [0, 2**62, 2**62], [0, 0])}), "no array can have the shape"),
    "33 dimensions": (pack({"a": entry(shape=[1] * 33 + [2])}, EIGHT), "is not a list of at most 32 sizes"),
    "too small": (pack({"a": entry(shape=[3])}, EIGHT), r"F32 \[3\] needs 12 bytes, data_offsets give 8"),
    "too large": (pack({"a": entry("F16")}, EIGHT), r"F16 \[2\] needs 4 bytes, data_offsets give 8"),
    "no offsets": (pack({"a": {"dtype": "F32", "shape": [2]}}, EIGHT), r"data_offsets None is not \[start, end\]"),
    "one offset": (pack({"a": entry(offsets=[8])}, EIGHT), r"data_offsets \[8\] is not \[start, end\]"),
    "bool offset": (pack({"a": entry(offsets=[False, 8])}, EIGHT), "is not"),
    "negative offset": (pack({"a": entry(offsets=[-8, 0])}, EIGHT), "is not"),
    "backwards": (pack({"a": entry(offsets=[8, 0])}, EIGHT), "bytes 8 to 0 lie outside the 8 bytes of data"),
    "data cut": (pack({"a": entry()}, EIGHT[:7]), "bytes 0 to 8 lie outside the 7 bytes of data"),
    "overlap": (pack({"a": entry(), "b": entry(offsets=[4, 12])}, EIGHT + EIGHT), "b overlaps a"),
    "same bytes": (pack({"a": entry(), "b": entry()}, EIGHT), "b overlaps a"),
    "hole": (pack({"a": entry(), "b": entry(offsets=[12, 20])}, EIGHT * 3), "b leaves 4 bytes unclaimed after a"),
    "hole in front": (pack({"a": entry(offsets=[4, 12])}, EIGHT * 2), "a leaves 4 bytes unclaimed after the header"),
    "trailing": (pack({"a": entry()}, EIGHT + b"!"), "1 bytes after the last tensor belong to none"),
    "only data": (pack({}, EIGHT), "8 bytes after the last tensor belong to none"),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_damaged_file(tmp_path, what):
    blob, told = DAMAGED[what]
    peak, message = peak_bytes(lambda: refusal(tmp_path, blob))
    assert re.search(told, message), message
    assert message.startswith(str(tmp_path / "model.safetensors")), message
    assert "\n" not in message
    assert len(message) < len(str(tmp_path)) + 250
    assert peak < 100_000 + 100 * len(blob)


def refusal(directory, blob) -> str:
    with pytest.raises(CheckpointError) as error:
        open_bytes(directory, blob)
    return str(error.value)


def test_a_header_beyond_the_limit_is_not_read(tmp_path):
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.write((150_000_000).to_bytes(8, "little"))
        file.truncate(200_000_000)  # sparse: the bytes are there to be read
    with pytest.raises(CheckpointError, match="the header claims 150000000 of 200000000 bytes"):
        Checkpoint.open(path)


VALID = library_file(
    {"a": np.ones((2, 3), np.float32), "b": np.ones(3, np.float16), "c": np.array(7), "d.e": np.zeros(0)},
    {"format": "pt"},
)


def opens_or_refuses(directory, blob):
    """The one property of every file. What opens must hold together: all of it can be read."""

    def use():
        try:
            checkpoint = open_bytes(directory, blob)
        except CheckpointError as e:
            return str(e)
        assert sum(stored.data.nbytes for stored in checkpoint.values()) <= len(blob)
        for name, stored in checkpoint.items():
            assert stored.name == name
            assert len(stored.data.tobytes()) == math.prod(stored.shape) * DTYPES[stored.dtype].itemsize
        return None

    peak, message = peak_bytes(use)
    assert peak < 200_000 + 100 * len(blob)
    return message


def test_truncated_anywhere(tmp_path):
    for length in range(len(VALID)):
        assert opens_or_refuses(tmp_path, VALID[:length]) is not None
    assert opens_or_refuses(tmp_path, VALID) is None


@given(st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 7)), min_size=1, max_size=4))
@settings(max_examples=200)
def test_flipped_bits(tmp_path_factory, flips):
    blob = bytearray(VALID)
    for at, bit in flips:
        blob[at] ^= 1 << bit
    opens_or_refuses(tmp_path_factory.getbasetemp(), bytes(blob))


@given(st.binary(max_size=64), st.binary(max_size=16))
def test_any_header_bytes(tmp_path_factory, text, data):
    opens_or_refuses(tmp_path_factory.getbasetemp(), pack(text, data))


NUMBERS = st.integers(-2, 9) | st.sampled_from([2**31, 2**62, 2**63, 2**64, 10**30]) | st.floats() | st.booleans()
ANYTHING = st.recursive(
    st.none() | NUMBERS | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
LIKELY = {
    "dtype": st.sampled_from(sorted(DTYPES)) | ANYTHING,
    "shape": st.lists(st.integers(0, 4), max_size=3) | st.lists(NUMBERS, max_size=40) | ANYTHING,
    "data_offsets": st.lists(st.integers(0, 16), min_size=2, max_size=2).map(sorted) | st.lists(NUMBERS) | ANYTHING,
}
ENTRIES = st.fixed_dictionaries({}, optional=LIKELY) | ANYTHING
HEADERS = st.dictionaries(st.sampled_from(["a", "b", "c", "__metadata__", ""]), ENTRIES, max_size=4)


@given(HEADERS | ANYTHING, st.integers(0, 16))
@example({"a": entry("U8", [16, 0, 2**60, 2**60], [0, 0])}, 0)
@settings(max_examples=200)
def test_any_header_values(tmp_path_factory, header, data_bytes):
    opens_or_refuses(tmp_path_factory.getbasetemp(), pack(header, b"\0" * data_bytes))


def test_nothing_there(tmp_path):
    with pytest.raises(CheckpointError, match=r"holds neither model\.safetensors nor model\.safetensors\.index\.json"):
        Checkpoint.open(tmp_path)
    with pytest.raises(CheckpointError, match=r"gone\.safetensors cannot be read: No such file"):
        Checkpoint.open(tmp_path / "gone.safetensors")
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        Checkpoint.open(tmp_path)


ONE = library_file({"a": np.zeros(2, np.float32)})
TWO = library_file({"b": np.zeros(2, np.float32)})


@pytest.mark.parametrize(
    ("index", "told"),
    [
        ("{", "not valid JSON"),
        ("[]", "a JSON object was expected"),
        ("[" * 100_000, "nested too deeply"),
        ("{}", "weight_map must name a file for each tensor"),
        ({"weight_map": ["1"]}, "weight_map must name a file"),
        ({"weight_map": {"a": 1}}, "weight_map must name a file"),
        ({"weight_map": {"a": ["1"]}}, "weight_map must name a file"),
        ({"weight_map": {"a": "../1"}}, "shard '../1' is not a file in the same directory"),
        ({"weight_map": {"a": ".."}}, r"shard '\.\.' is not a file"),
        ({"weight_map": {"a": ""}}, "shard '' is not a file"),
        ({"weight_map": {"a": "no"}}, "shard 'no' is not a file"),
        ({"weight_map": {"a": "\0"}}, r"shard '\\x00' is not a file"),
        ({"weight_map": {"a": "\ud800"}}, r"shard '\\ud800' is not a file"),
        ({"weight_map": {"a": "1", "b": "1"}}, "b is not in 1"),
        ({"weight_map": {"a": "2", "b": "2"}}, "a is not in 2"),
        ({"weight_map": {"a": "1", "c": "2"}}, "b is in 2, but the index says None"),
        ({"weight_map": {"a": "1", "b": "3"}}, "a is in 3, but the index says '1'"),
    ],
)
def test_wrong_index(tmp_path, index, told):
    for name, blob in {"1": ONE, "2": TWO, "3": library_file({"a": np.zeros(1), "b": np.zeros(1)})}.items():
        (tmp_path / name).write_bytes(blob)
    text = index if isinstance(index, str) else json.dumps(index)
    (tmp_path / "model.safetensors.index.json").write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=told) as error:
        Checkpoint.open(tmp_path)
    assert str(error.value).startswith(str(tmp_path / "model.safetensors.index.json"))


# --- key tables: the mechanism --------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    weight: Any = tensor("weight", "A B")
    bias: Any = tensor("bias", "A", when="biased")


@dataclass(frozen=True)
class Whole:
    table: Any = embedding("table", "B 3")
    one: Any = block(Part, "one.{at}", lambda s: {**s, "biased": 0})
    many: Any = blocks(Part, "many.{}", "n", lambda s, i: {**s, "A": 10 + i}, first=4)


SIZES = {"A": 2, "B": 5, "n": 2, "at": 7, "biased": 1}
WANTED = [
    TensorSpec("w.table", (5, 3), "B 3", "BF16"),
    TensorSpec("w.one.7.weight", (2, 5), "A B", "BF16"),
    TensorSpec("w.many.4.weight", (10, 5), "A B", "BF16"),
    TensorSpec("w.many.4.bias", (10,), "A", "BF16"),
    TensorSpec("w.many.5.weight", (11, 5), "A B", "BF16"),
    TensorSpec("w.many.5.bias", (11,), "A", "BF16"),
]


def in_memory(specs, **changes) -> Checkpoint:
    """A checkpoint that holds ``specs``, each tensor filled with its number."""
    tensors = {
        spec.key: StoredTensor(spec.key, "F32", np.full(spec.shape, i, np.float32)) for i, spec in enumerate(specs)
    }
    tensors |= {key: value for key, value in changes.items() if value is not None}
    return Checkpoint(Path("in memory"), {k: t for k, t in tensors.items() if changes.get(k, t) is not None}, {})


def test_specs_list_the_table():
    assert list(list_specs(Whole, SIZES, "w.", "BF16")) == WANTED
    assert [spec.size for spec in WANTED] == [15, 10, 50, 10, 55, 11]


def test_load_follows_the_table():
    whole = load(Whole, in_memory(WANTED), SIZES, "w.", np.dtype(np.float64))
    assert isinstance(whole.table, Embedding)
    np.testing.assert_array_equal(whole.table[[1, 1]], np.zeros((2, 3)))
    assert whole.table[3].dtype == np.float64
    assert whole.one.bias is None
    assert whole.one.weight.dtype == np.float64
    found = [whole.one.weight, *(a for part in whole.many for a in (part.weight, part.bias))]
    assert [(a.shape, a.flat[0]) for a in found] == [(s.shape, i) for i, s in enumerate(WANTED) if i]


def test_problems_are_named_with_expected_and_found():
    assert problems(in_memory(WANTED), WANTED) == []
    check(in_memory(WANTED), WANTED)
    wrong = {
        "w.table": StoredTensor("w.table", "I64", np.zeros((5, 3), np.int64)),
        "w.one.7.weight": StoredTensor("w.one.7.weight", "F32", np.zeros((5, 2), np.float32)),
        "w.many.4.bias": None,
        "w.extra": StoredTensor("w.extra", "F32", np.zeros(1, np.float32)),
    }
    found = problems(in_memory(WANTED, **wrong), WANTED)
    assert found == [
        "w.table: type I64, expected BF16 (or another of BF16, F16, F32)",
        "w.one.7.weight: shape [5, 2], expected [2, 5] = [A B]",
        "tensor 'w.many.4.bias' is missing, expected BF16 [10]",
        "tensor 'w.extra' is unexpected: the configuration has no place for it",
    ]
    with pytest.raises(CheckpointError, match=rf"^in memory: {re.escape(found[0])} \(3 more problems like this\)$"):
        check(in_memory(WANTED, **wrong), WANTED)


@pytest.mark.parametrize("dtype", ["F16", "F32", "BF16"])
def test_any_float_type_will_do(dtype):
    stored = StoredTensor("w.table", dtype, np.zeros((5, 3), DTYPES[dtype]))
    assert problems(in_memory(WANTED, **{"w.table": stored}), WANTED) == []


# --- key tables: the model ------------------------------------------------------------------------


def our_configs(directory, like, model_type):
    (directory / "speech_tokenizer").mkdir()
    config = layouts.model_config(like, model_type, RELEASED_TEXT)
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    codec = json.dumps(layouts.codec_config(like))
    (directory / "speech_tokenizer" / "config.json").write_text(codec, encoding="utf-8")
    return read_model_config(directory), read_codec_config(directory / "speech_tokenizer")


@pytest.mark.parametrize("published", MODELS, ids=lambda model: model.name)
def test_tables_count_what_the_released_files_hold(tmp_path, published):
    model, codec = our_configs(tmp_path, published.like, published.model_type)
    specs = list(model_specs(model))
    assert (len(specs), sum(spec.size for spec in specs)) == (published.weights.tensors, published.weights.parameters)
    specs = list(codec_specs(codec))
    assert (len(specs), sum(spec.size for spec in specs)) == (CODEC_WEIGHTS.tensors, CODEC_WEIGHTS.parameters)


def as_listed(specs):
    names = {"BF16": "bfloat16", "F32": "float32"}
    listed = {spec.key: {"shape": list(spec.shape), "dtype": names[spec.dtype]} for spec in specs}
    assert len(listed) == len(specs), "a key comes twice"
    return listed


@pytest.mark.parametrize("name", [model.name.removeprefix("Qwen3-TTS-12Hz-") for model in MODELS])
def test_tables_equal_the_released_files(reference, name):
    listed = json.loads((reference / "tensors" / f"{name}.tensors.json").read_text())
    config = read_model_config(reference / "configs" / name)
    assert as_listed(list(model_specs(config))) == listed
    codec = read_codec_config(reference / "configs" / name / "speech_tokenizer")
    listed = json.loads((reference / "tensors" / "speech_tokenizer.tensors.json").read_text())
    assert as_listed(list(codec_specs(codec))) == listed


def leaves(weights):
    """Every array of a weights object, in the order of its fields."""
    if isinstance(weights, Embedding):
        yield weights.tensor.data
    elif isinstance(weights, np.ndarray):
        yield weights
    elif isinstance(weights, tuple):
        for part in weights:
            yield from leaves(part)
    elif is_dataclass(weights):
        for field in fields(weights):
            yield from leaves(getattr(weights, field.name))


@pytest.mark.parametrize("like", ["tiny", "tiny-1.7b"])
def test_every_tensor_lands_in_one_field(tmp_path, like):
    model, codec = our_configs(tmp_path, like, "base")
    specs = [*model_specs(model), *codec_specs(codec)]
    checkpoint = in_memory(specs)
    talker, decoder, encoder = model.talker_config, codec.decoder_config, codec.encoder_config
    files = [
        (TalkerWeights, talker_sizes(talker), "talker."),
        (CodePredictorWeights, code_predictor_sizes(talker), "talker.code_predictor."),
        (SpeakerEncoderWeights, speaker_encoder_sizes(model.speaker_encoder_config), "speaker_encoder."),
        (CodecDecoderWeights, codec_decoder_sizes(decoder), "decoder."),
        (CodecEncoderWeights, codec_encoder_sizes(encoder), "encoder."),
    ]
    parts: list[Any] = [load(cls, checkpoint, sizes, prefix, F32) for cls, sizes, prefix in files]
    found = [array for part in parts for array in leaves(part)]
    assert [int(array.flat[0]) for array in found] == list(range(len(specs)))
    assert [array.shape for array in found] == [spec.shape for spec in specs]
    projection = parts[1].small_to_mtp_projection_weight
    assert (projection is None) == (like == "tiny")  # where the widths are equal there is nothing to project
