"""The tree of blocks of a checkpoint under the official names, with the size and cost of each.

The tree follows the dots in the keys of the key tables. Blocks that differ only in their number become one entry:
``layers.0-27``. FLOPs are those of matrix products and convolutions, two per multiply-add; norms, activations and the
products inside attention are not included (``caches.py`` has those).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from ..checkpoint.keys import TensorSpec, parts, specs
from ..checkpoint.safetensors import Checkpoint
from ..checkpoint.tensor import DTYPES
from .components import Component, Use

WHENS = ("frame", "text", "reference")
SECOND = ("code predictor", "codec encoder")  # where a table serves two networks, these use the second official class


@dataclass(frozen=True)
class Cost:
    """Cost of one frame (of speech, or of a reference clip) or of one text token."""

    bytes_read: float = 0.0
    flops: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.bytes_read + other.bytes_read, self.flops + other.flops)


@dataclass(frozen=True)
class Block:
    """One block, or ``count`` identical blocks; sums are over all of them."""

    name: str  # below its parent: "self_attn", "layers.0-27", "q_proj.weight"
    path: str  # the full official name, with the prefix of its file
    official: str  # class of the official package; "" where the tables name none
    count: int
    shape: tuple[int, ...] | None  # of one tensor; None for a block of several
    letters: str
    dtype: str  # as stored; "" for a block
    parameters: int
    bytes: int
    cost: Mapping[str, Cost]  # by WHENS
    place: int  # index of the first tensor in the key table
    children: tuple[Block, ...] = ()

    @property
    def tensor(self) -> Block | None:
        """The largest tensor of a module that has only its own tensors; it gives the module its shape."""
        if self.shape is not None:
            return self
        own = all(child.shape is not None for child in self.children)
        return max(self.children, key=lambda child: child.parameters) if own else None


def tree(component: Component, checkpoint: Checkpoint | None = None) -> Block:
    """The blocks of one network. Bytes and types are those of ``checkpoint``, or the released ones if it is None."""
    c = component
    table = specs(c.cls, c.sizes, c.prefix, c.dtype)
    leaves = {spec.key: _leaf(spec, c.use(spec.key), checkpoint, place) for place, spec in enumerate(table)}
    which = 1 if c.name in SECOND else 0
    classes: dict[str, str] = {}
    for path, cls in parts(c.cls, c.sizes, c.prefix):
        official = getattr(cls, "official", ("",))
        classes.setdefault(path, official[min(which, len(official) - 1)])
    return _node(c.prefix.rstrip("."), c.prefix.rstrip("."), leaves, classes)


def _leaf(spec: TensorSpec, use: Use, checkpoint: Checkpoint | None, place: int) -> Block:
    dtype, stored = spec.dtype, spec.size * DTYPES[spec.dtype].itemsize
    if checkpoint is not None and spec.key in checkpoint:
        dtype, stored = checkpoint[spec.key].dtype, checkpoint[spec.key].nbytes
    cost: dict[str, Cost] = {}
    if use.when != "never":
        read = stored / spec.shape[0] * use.positions if use.lookup else stored * use.reads
        multiplies = len(spec.shape) > 1 and not use.lookup
        cost[use.when] = Cost(read, 2 * spec.size * use.positions if multiplies else 0)
    name = spec.key.rpartition(".")[2]
    return Block(name, spec.key, "", 1, spec.shape, spec.letters, dtype, spec.size, stored, cost, place)


def _node(name: str, path: str, leaves: Mapping[str, Block], classes: Mapping[str, str]) -> Block:
    """The block at ``path``, from the tensors whose keys start with it."""
    if path in leaves:
        return leaves[path]
    inside = [key for key in leaves if key.startswith(f"{path}.")]
    steps = list(dict.fromkeys(key[len(path) + 1 :].split(".")[0] for key in inside))
    children: list[Block] = []
    official = classes.get(path, "")
    for step in steps:
        child = _node(step, f"{path}.{step}", leaves, classes)
        # "layers" alone has no meaning: it is replaced by its numbered entries.
        listed = bool(child.children) and _is_list(child)
        children += child.children if listed else [child]
        official = official or (child.official if listed else "")
    children = [_named_below(child, path) for child in children]
    return _sum(name, path, official, _merged(children))


def _is_list(block: Block) -> bool:
    return all(re.fullmatch(r"[\d-]+", child.name) for child in block.children)


def _named_below(block: Block, path: str) -> Block:
    return _replace(block, name=block.path[len(path) + 1 :])


def _merged(children: list[Block]) -> list[Block]:
    """Merge runs of numbered blocks that differ only in their number."""
    merged: list[Block] = []
    for _, run in groupby(children, key=_likeness):
        alike = list(run)
        first, last = alike[0], alike[-1]
        if len(alike) == 1:
            merged.append(first)
            continue
        span = f"{_number(first)}-{_number(last)}"
        name = re.sub(r"\d+$", span, first.name)
        merged.append(_replace(_times(first, len(alike)), name=name, path=re.sub(r"\d+$", span, first.path)))
    return merged


def _likeness(block: Block) -> tuple[object, ...]:
    if not re.search(r"(^|\.)\d+$", block.name):
        return (block.path,)
    return (re.sub(r"\d+$", "", block.path), _content(block))


def _content(block: Block) -> tuple[object, ...]:
    if block.shape is not None:
        return (block.name, block.shape, block.dtype, tuple(block.cost.items()))
    return (block.official, *((child.name, child.count, _content(child)) for child in block.children))


def _number(block: Block) -> str:
    return block.name.rpartition(".")[2]


def _times(block: Block, count: int) -> Block:
    """``count`` blocks like this one; the numbers of the children become sums over all of them too."""
    return _replace(
        block,
        count=block.count * count,
        parameters=block.parameters * count,
        bytes=block.bytes * count,
        cost={when: Cost(c.bytes_read * count, c.flops * count) for when, c in block.cost.items()},
        children=tuple(_times(child, count) for child in block.children),
    )


def _sum(name: str, path: str, official: str, children: list[Block]) -> Block:
    cost: dict[str, Cost] = {}
    for child in children:
        for when, part in child.cost.items():
            cost[when] = cost.get(when, Cost()) + part
    parameters, stored = sum(c.parameters for c in children), sum(c.bytes for c in children)
    place = min(child.place for child in children)
    return Block(name, path, official, 1, None, "", "", parameters, stored, cost, place, tuple(children))


def _replace(block: Block, **changes: Any) -> Block:
    return Block(**{**vars(block), **changes})
