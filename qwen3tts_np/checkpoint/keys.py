"""Key tables: a weights class declares, field by field, the official key and shape of its tensors.

    @dataclass(frozen=True)
    class GatedMLP:
        official: ClassVar[Names] = ("Qwen3TTSTalkerTextMLP",)  # the class of the official package

        gate_proj: Array = tensor("gate_proj.weight", "F H")
        up_proj: Array = tensor("up_proj.weight", "F H")
        down_proj: Array = tensor("down_proj.weight", "H F")

``specs`` lists the tensors that a file must hold for such a class, ``problems`` compares a file with that list, and
``load`` builds the class from a file. The letters are those of ``config.py``; a ``Sizes`` mapping gives their values,
so one table serves every size of model. A pair of letters is their product (ND = N * D).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, TypeAlias, TypeVar

import numpy as np

from ..errors import CheckpointError
from ..ops import Array
from .foreign import integers, layout_of
from .safetensors import Checkpoint
from .tensor import StoredTensor

Sizes = Mapping[str, int]
Names: TypeAlias = tuple[str, ...]  # of classes of the official package
_W = TypeVar("_W")
_FLOATS = ("BF16", "F16", "F32")
_QUANTISED = ("INT8", "INT6", "INT5", "INT4")


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of the official layout."""

    key: str
    shape: tuple[int, ...]
    letters: str  # the shape as the table writes it
    dtype: str  # as released: "BF16" or "F32"

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Embedding:
    """A table that stays on disk as stored; only the rows that are looked up are read and widened."""

    tensor: StoredTensor
    dtype: np.dtype[Any]

    def __getitem__(self, ids: Any) -> Array:
        """ids [...] -> [..., width]."""
        return self.tensor.rows(np.asarray(ids), self.dtype)


SPEAKER_ENCODER = "speaker_encoder."  # what the keys of its tensors begin with
_DERIVED = ".rotary_emb.inv_freq"  # follows from the configuration


def tensor(key: str, letters: str, *, when: str = "") -> Any:
    """A field that holds the tensor ``key`` of shape ``letters``; where ``sizes[when]`` is 0 it is None."""
    return field(metadata={"key": key, "letters": letters, "when": when})


def embedding(key: str, letters: str) -> Any:
    """A field that holds the table ``key`` as an :class:`Embedding`."""
    return field(metadata={"key": key, "letters": letters, "embedding": True})


def block(cls: type, key: str, sizes: Callable[[Sizes], Sizes] = dict) -> Any:
    """A field that holds one block, its keys under ``key``, with ``sizes[name]`` in place of ``{name}``."""
    return field(metadata={"block": cls, "key": key, "sizes": sizes})


def blocks(
    cls: type, key: str, count: str, sizes: Callable[[Sizes, int], Sizes] = lambda s, _: s, *, first: int = 0
) -> Any:
    """A field that holds a tuple of ``sizes[count]`` blocks under ``key.format(first + i)``."""
    return field(metadata={"blocks": cls, "key": key, "count": count, "sizes": sizes, "first": first})


def specs(cls: type, sizes: Sizes, prefix: str, dtype: str) -> Iterator[TensorSpec]:
    """Every tensor of ``cls``, in the order of its table."""
    for f in fields(cls):
        m = f.metadata
        if m.get("when") and not sizes[m["when"]]:
            continue
        if "letters" in m:
            yield TensorSpec(prefix + m["key"], _shape(m["letters"], sizes), m["letters"], dtype)
        for part, key, part_sizes in _parts(f, sizes):
            yield from specs(part, part_sizes, prefix + key, dtype)


def parts(cls: type, sizes: Sizes, prefix: str) -> Iterator[tuple[str, type]]:
    """(official name, class) of ``cls`` at ``prefix`` and of every block in it, outer ones first."""
    yield prefix.rstrip("."), cls
    for f in fields(cls):
        if not f.metadata.get("when") or sizes[f.metadata["when"]]:
            for part, key, part_sizes in _parts(f, sizes):
                yield from parts(part, part_sizes, prefix + key)


def problems(checkpoint: Checkpoint, wanted: Iterable[TensorSpec]) -> list[str]:
    """Tensors that are missing, unexpected, or of another shape or type, a sentence each; [] if there are none.

    A speaker encoder that the configuration does not declare is no problem: checkpoints for resumed training keep it.
    Nor are rotary frequencies, which some programs save with the weights.
    """
    found: list[str] = []
    wanted = list(wanted)
    unexpected = {key for key in checkpoint if not key.endswith(_DERIVED)}
    if not any(spec.key.startswith(SPEAKER_ENCODER) for spec in wanted):
        unexpected = {key for key in unexpected if not key.startswith(SPEAKER_ENCODER)}
    for spec in wanted:
        if spec.key not in checkpoint:
            found.append(f"tensor {spec.key!r} is missing, expected {spec.dtype} {list(spec.shape)}")
            continue
        unexpected.discard(spec.key)
        have = checkpoint[spec.key]
        if have.shape != spec.shape:
            found.append(f"{spec.key}: shape {list(have.shape)}, expected {list(spec.shape)} = [{spec.letters}]")
        elif have.dtype not in (*_FLOATS, *_QUANTISED):
            found.append(f"{spec.key}: type {have.dtype}, expected {spec.dtype} (or another of {', '.join(_FLOATS)})")
    found += [f"tensor {key!r} is unexpected: the configuration has no place for it" for key in sorted(unexpected)]
    return found


def check(checkpoint: Checkpoint, wanted: Iterable[TensorSpec]) -> None:
    """Raise ``CheckpointError`` with the first of :func:`problems` and the number of the others.

    Where the tensors are those of another layout, it says which. Vectors, such as norms and biases, must be finite:
    some kilobytes, which no training that diverged leaves as they were. ``verify`` reads all values.
    """
    wanted = list(wanted)
    found = problems(checkpoint, wanted)
    if found:
        types = [checkpoint[spec.key].dtype for spec in wanted if spec.key in checkpoint]
        if other := layout_of(checkpoint, checkpoint.metadata) or integers(types):
            raise CheckpointError(f"{checkpoint.path} {other}")
        more = f" ({len(found) - 1} more problems like this)" if len(found) > 1 else ""
        raise CheckpointError(f"{checkpoint.path}: {found[0]}{more}")
    for spec in wanted:
        if len(spec.shape) == 1 and not checkpoint[spec.key].is_finite():
            fault = "holds values that are not finite; the file is damaged, or its training diverged"
            raise CheckpointError(f"{checkpoint.path}: {spec.key} {fault}")


def load(cls: type[_W], checkpoint: Checkpoint, sizes: Sizes, prefix: str, dtype: np.dtype[Any]) -> _W:
    """Build ``cls`` from ``checkpoint``, every tensor widened to ``dtype``; embeddings stay on disk.

    The file must have passed :func:`check`.
    """
    values: dict[str, Any] = {}
    parts: list[Any]
    for f in fields(cls):  # type: ignore[arg-type]
        m = f.metadata
        if m.get("when") and not sizes[m["when"]]:
            values[f.name] = None
        elif "letters" in m:
            stored = checkpoint[prefix + m["key"]]
            values[f.name] = Embedding(stored, dtype) if "embedding" in m else stored.widen(dtype)
        else:
            parts = [load(part, checkpoint, s, prefix + key, dtype) for part, key, s in _parts(f, sizes)]
            values[f.name] = tuple(parts) if "blocks" in m else parts[0]
    return cls(**values)


def _parts(f: Field[Any], sizes: Sizes) -> Iterator[tuple[type, str, Sizes]]:
    """(class, key prefix, sizes) of each block that a field nests."""
    m = f.metadata
    if "block" in m:
        yield m["block"], m["key"].format_map(sizes) + ".", m["sizes"](sizes)
    elif "blocks" in m:
        for i in range(sizes[m["count"]]):
            # SEANet numbers its stages and their parts in one sequence: such blocks have no key of their own.
            key = m["key"].format(m["first"] + i) + "." if m["key"] else ""
            yield m["blocks"], key, m["sizes"](sizes, i)


def _shape(letters: str, sizes: Sizes) -> tuple[int, ...]:
    """``"ND H"`` -> (sizes["ND"], sizes["H"]); a number is a size itself."""
    return tuple(int(word) if word.isdigit() else sizes[word] for word in letters.split())
