"""Vocabulary and merges in a file of their own, from which a tokenizer for a given text is made in milliseconds.

``tokenizer.packed.safetensors`` holds the tokens as bytes, one after the other in the order of their ids, their
lengths, and the merges as pairs of ids in the order of their ranks. ``METADATA_KEY`` of its header states the version
and a digest of all of this and of the files that it was made of; with other files beside it, it is left alone.

To read the 151,643 tokens of the official files and hand them to the ``tokenizers`` package takes 0.8 s. A text has few
different pairs of neighbouring bytes, and a token of which some pair is not in the text can be neither in the result
nor on the way to it. So the package is given the others only, some hundreds, with their ids: the result is the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import models

from ..checkpoint.beside import read_beside
from ..checkpoint.json_file import MOST_JSON
from ..checkpoint.keys import TensorSpec
from ..checkpoint.safetensors import Checkpoint
from ..checkpoint.writer import write_safetensors
from ..files.input import read_bytes

NAME = "tokenizer.packed.safetensors"
METADATA_KEY = "qwen3tts_np.packed_tokenizer"
VERSION = 1
SOURCES = ("vocab.json", "merges.txt", "tokenizer_config.json", "tokenizer.json")
_DTYPES = {"tokens": "U8", "lengths": "I32", "merges": "I32"}

_PRINTED = [*range(33, 127), *range(161, 173), *range(174, 256)]  # bytes whose symbol is the character of their number
SYMBOL_OF = {b: chr(b) for b in _PRINTED} | {
    b: chr(256 + i) for i, b in enumerate(b for b in range(256) if b not in _PRINTED)
}
"""The character that stands for a byte in vocab.json, as GPT-2 introduced it: ``bytes_to_unicode``."""
_BYTE_OF = {symbol: b for b, symbol in SYMBOL_OF.items()}


@dataclass(frozen=True)
class PackedVocabulary:
    """The tables of the file."""

    tokens: NDArray[np.uint8]  # all, flat
    lengths: NDArray[np.int32]  # [tokens], each at least 1
    merges: NDArray[np.int32]  # [merges, 2]

    def __len__(self) -> int:
        return len(self.lengths)

    def model(self, pairs: NDArray[np.bool_] | None, more: Mapping[str, int]) -> models.BPE:
        """The byte-level BPE of texts with these pairs of bytes, [65536], or of all; ``more``: further tokens."""
        ends = np.cumsum(self.lengths, dtype=np.int64)
        first, last = self.tokens[ends - self.lengths], self.tokens[ends - 1]
        kept, merges = np.ones(len(self), np.bool_), self.merges
        if pairs is not None:
            kept = self._consist_of(pairs, ends)
            left, right = merges.T
            merges = merges[kept[left] & kept[right] & pairs[_pair(last[left], first[right])]]
        table = str.maketrans({chr(b): symbol for b, symbol in SYMBOL_OF.items()})
        names = {
            i: self.tokens[ends[i] - self.lengths[i] : ends[i]].tobytes().decode("latin-1").translate(table)
            for i in np.flatnonzero(kept).tolist()
        }
        vocab = {**{name: i for i, name in names.items()}, **more}
        return models.BPE(vocab=vocab, merges=[(names[left], names[right]) for left, right in merges.tolist()])

    def _consist_of(self, pairs: NDArray[np.bool_], ends: NDArray[np.int64]) -> NDArray[np.bool_]:
        """[tokens] whether all pairs within a token are among ``pairs``; single bytes always."""
        missing = np.append(~pairs[_pair(self.tokens[:-1], self.tokens[1:])], False)
        missing[ends - 1] = False  # this pair reaches into the next token
        found: NDArray[np.bool_] = np.add.reduceat(missing, ends - self.lengths, dtype=np.int64) == 0
        return found


def pairs_of(text: str) -> NDArray[np.bool_]:
    """[65536] which pairs of neighbouring bytes a text has."""
    data = np.frombuffer(text.encode(), np.uint8)
    pairs = np.zeros(1 << 16, np.bool_)
    pairs[_pair(data[:-1], data[1:])] = True
    return pairs


def _pair(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> NDArray[np.uint16]:
    return left.astype(np.uint16) * np.uint16(256) + right


def write_packed(folder: Path, vocab: Mapping[str, int], merges: list[tuple[str, str]], added: Sequence[str]) -> bool:
    """Write the file beside its sources; whether that is possible.

    It is where all tokens consist of symbols for bytes, and no added token could be taken for such a symbol.
    """
    names = sorted(vocab, key=vocab.__getitem__)
    if any(not name or not _BYTE_OF.keys() >= set(name) for name in names) or any(len(name) < 2 for name in added):
        return False
    tokens = [bytes(map(_BYTE_OF.__getitem__, name)) for name in names]
    arrays: dict[str, NDArray[Any]] = {
        "tokens": np.frombuffer(b"".join(tokens), np.uint8),
        "lengths": np.array([len(token) for token in tokens], np.int32),
        "merges": np.array([(vocab[left], vocab[right]) for left, right in merges], np.int32).reshape(-1, 2),
    }
    stated = {"version": VERSION, "of": _digest(folder, arrays)}
    specs = [TensorSpec(name, array.shape, "", _DTYPES[name]) for name, array in arrays.items()]
    write_safetensors(folder / NAME, specs, lambda spec: [arrays[spec.key]], {METADATA_KEY: json.dumps(stated)})
    return True


def read_packed(folder: Path) -> PackedVocabulary | None:
    """The tables in the file, mapped; None where there is none, or it is of other files.

    CheckpointError where it is damaged, or was written in another version.
    """
    return read_beside(folder / NAME, METADATA_KEY, VERSION, lambda packed: _digest(folder, _arrays(packed)), _built)


def _arrays(packed: Checkpoint) -> dict[str, NDArray[Any]]:
    return {name: packed[name].data for name in _DTYPES}


def _built(stated: Any, packed: Checkpoint) -> PackedVocabulary:
    arrays = _arrays(packed)
    _check(arrays)
    return PackedVocabulary(**arrays)


def _check(arrays: Mapping[str, NDArray[Any]]) -> None:
    """ValueError for tables that cannot be read: whoever writes a file can also write its digest."""
    tokens, lengths, merges = arrays["tokens"], arrays["lengths"], arrays["merges"]
    if (tokens.ndim, lengths.ndim, merges.shape[1:]) != (1, 1, (2,)) or {
        arrays[name].dtype for name in ("lengths", "merges")
    } != {np.dtype(np.int32)}:
        raise ValueError("shapes")
    if lengths.min(initial=1) < 1 or lengths.sum(dtype=np.int64) != tokens.size or tokens.dtype != np.uint8:
        raise ValueError("lengths")
    if merges.size and not 0 <= merges.min() <= merges.max() < len(lengths):
        raise ValueError("merges")


def _digest(folder: Path, arrays: Mapping[str, NDArray[Any]]) -> str:
    found = hashlib.sha256()
    for source in (folder / name for name in SOURCES):
        found.update(hashlib.sha256(read_bytes(source, MOST_JSON) if source.exists() else b"").digest())
    for name in _DTYPES:
        found.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape}".encode())
        found.update(np.ascontiguousarray(arrays[name]).data)
    return found.hexdigest()
