"""A tensor of any size as some numbers, from which its distance from another tensor can be told. Needs no torch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

PROJECTIONS = 16
SAMPLES = 32
RULE = {
    "projections": f"entry j of {PROJECTIONS} is the sum over i of sign(j, i) * value(i), i in C order, in float64. "
    "sign(j, i) is 1 where bit i mod 64 of word i div 64 is set, else -1, of the stream of SplitMix64 whose key is "
    "FNV-1a of '{j} {name}' (golden/README.md, the value rule). If two tensors differ by e, the root mean square of "
    "the differences of their projections is the norm of e, but for a factor of some 20 %.",
    "samples": f"values 0, s, 2 s, ... in C order, s = max(1, size div {SAMPLES}), of which the first {SAMPLES}",
}


def projections(name: str, values: NDArray[Any]) -> NDArray[np.float64]:
    """[PROJECTIONS] of a tensor of any shape."""
    flat = values.astype(np.float64).reshape(-1)
    return np.array([signs(f"{j} {name}", flat.size) @ flat for j in range(PROJECTIONS)])


def samples(values: NDArray[Any]) -> NDArray[np.float64]:
    """At most SAMPLES values, evenly spaced."""
    flat = values.astype(np.float64).reshape(-1)
    return flat[:: max(1, flat.size // SAMPLES)][:SAMPLES].copy()


def distance(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
    """The distance of two tensors, from their projections."""
    return float(np.sqrt(np.mean((ours - theirs) ** 2)))


def signs(key: str, count: int) -> NDArray[np.float64]:
    """+1 and -1: the bits of a SplitMix64 stream, the lowest first."""
    words = _words(key, -(-count // 64))
    bits = np.unpackbits(words.astype("<u8").view(np.uint8), bitorder="little")[:count]
    return 2.0 * bits - 1


def _words(key: str, count: int) -> NDArray[np.uint64]:
    z = np.uint64(_fnv1a(key)) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _fnv1a(text: str) -> int:
    found = 0xCBF29CE484222325
    for byte in text.encode():
        found = (found ^ byte) * 0x100000001B3 % 2**64
    return found
