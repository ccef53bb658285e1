"""The packed vocabulary: the same ids for every text, in small parts or complete; refused when damaged or of others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from qwen3tts_np.checkpoint.keys import TensorSpec
from qwen3tts_np.checkpoint.writer import write_safetensors
from qwen3tts_np.errors import CheckpointError
from qwen3tts_np.text.packed_vocabulary import METADATA_KEY, NAME, SYMBOL_OF, _digest, read_packed, write_packed
from qwen3tts_np.text.tokenizer import Backends, Tokenizer, pack_vocabulary

SMALL = Path(__file__).parents[1] / "golden" / "cases" / "text" / "tokenizer"
OFFICIAL = Tokenizer.from_directory(SMALL)
TEXTS = st.text(st.characters(codec="utf-8") | st.sampled_from("aeinst THE '\u0301\u0338>|"), max_size=30)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copied = tmp_path_factory.mktemp("packed") / "tokenizer"
    shutil.copytree(SMALL, copied)
    assert pack_vocabulary(copied)
    return copied


@pytest.fixture
def own(folder: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(folder, tmp_path / "own"))


@given(texts=st.lists(TEXTS | st.sampled_from(OFFICIAL.added), min_size=1, max_size=8), pieces=st.booleans())
def test_the_ids_are_those_of_the_official_files(folder: Path, texts: list[str], pieces: bool) -> None:
    """Text by text, so that what earlier ones needed is there as well, or all as one with added tokens inside."""
    packed = Tokenizer.from_directory(folder)
    for text in texts if pieces else ["".join(texts)]:
        assert packed.encode(text) == OFFICIAL.encode(text)
        assert packed.words(text) == OFFICIAL.words(text)
    assert (packed.vocab_size, packed.added) == (OFFICIAL.vocab_size, OFFICIAL.added)


def test_a_text_needs_few_tokens_and_many_texts_need_all(folder: Path) -> None:
    packed = Tokenizer.from_directory(folder)
    everything = OFFICIAL._backends.of_all_texts().get_vocab()
    sizes = []
    for i in range(Backends.MOST_SMALL + 1):
        backend = packed._backends.of(f"text {i}{i}")
        known = backend.get_vocab()
        assert known.items() <= everything.items()
        sizes.append(len(known))
    assert sizes[0] < len(everything) / 2
    assert sizes[-1] == len(everything)
    assert sizes == sorted(sizes)


def test_ids_are_decoded_with_the_complete_vocabulary(folder: Path) -> None:
    packed, ids = Tokenizer.from_directory(folder), list(range(OFFICIAL.vocab_size))
    assert packed.decode(ids) == OFFICIAL.decode(ids)


def test_symbols_are_those_of_the_package() -> None:
    assert sorted(SYMBOL_OF.values()) == sorted(pre_tokenizers.ByteLevel.alphabet())
    split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for byte, text in ((0x20, " "), (0x0A, "\n"), (0x41, "A")):
        assert split.pre_tokenize_str(text)[0][0] == SYMBOL_OF[byte]


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt", "tokenizer_config.json"])
def test_of_other_files_it_is_left_alone(own: Path, name: str) -> None:
    with (own / name).open("a") as file:
        file.write("\n")
    with pytest.warns(UserWarning, match="is damaged or not of the files beside it, which are read instead"):
        packed = Tokenizer.from_directory(own)
    assert packed.encode("Good morning.") == OFFICIAL.encode("Good morning.")


def test_a_damaged_table_is_not_read(own: Path) -> None:
    content = bytearray((own / NAME).read_bytes())
    content[-5] ^= 1
    (own / NAME).write_bytes(content)
    with pytest.warns(UserWarning, match="is damaged or not of the files beside it"):
        assert read_packed(own) is None


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"version": 2, "of": ""}, f"{NAME}: written in version 2, and this package reads version 1; remove"),
        ({"version": 1}, "in the header is damaged"),
        ([], "in the header is damaged"),
        (None, "in the header is damaged"),
    ],
)
def test_a_header_of_another_version_or_none(own: Path, stated: Any, message: str) -> None:
    content = (own / NAME).read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = {} if stated is None else {METADATA_KEY: json.dumps(stated)}
    text = json.dumps(header).encode()
    (own / NAME).write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    with pytest.raises(CheckpointError, match=message):
        Tokenizer.from_directory(own)


@pytest.mark.parametrize(
    ("lengths", "merges"),
    [
        ([1, 3], [[0, 1]]),
        ([0, 2], [[0, 1]]),
        ([-1, 3], [[0, 1]]),
        ([1, 1], [[0, 2]]),
        ([1, 1], [[-1, 0]]),
        ([2], [[0]]),
    ],
)
def test_tables_that_fit_their_digest_but_not_each_other(own: Path, lengths: list[int], merges: list[Any]) -> None:
    arrays: dict[str, Any] = {"tokens": np.frombuffer(b"ab", np.uint8)}
    arrays |= {"lengths": np.array(lengths, np.int32), "merges": np.array(merges, np.int32)}
    metadata = {METADATA_KEY: json.dumps({"version": 1, "of": _digest(own, arrays)})}
    specs = [TensorSpec(name, array.shape, "", "U8" if name == "tokens" else "I32") for name, array in arrays.items()]
    write_safetensors(own / NAME, specs, lambda spec: [arrays[spec.key]], metadata)
    with pytest.raises(CheckpointError, match="in the header is damaged"):
        read_packed(own)


def test_symbols_that_stand_for_no_byte_are_not_packed(tmp_path: Path) -> None:
    assert not write_packed(tmp_path, {"a": 0, "\u4e00": 1}, [], [])
    assert not write_packed(tmp_path, {"a": 0}, [], ["b"]), "an added token of one character would be taken for a byte"
    assert not (tmp_path / NAME).exists()
    assert np.array_equal(sorted(SYMBOL_OF), np.arange(256))
