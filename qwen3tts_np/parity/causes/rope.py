"""Typical mistakes in rotary embedding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ...ops import AnyArray, rope_angles, rotate
from ..diagnosis import Context, Finding, best, finding
from ..measure import outside

THETAS = (1e6, 1e4, 5e5)
OFFSETS = 64  # positions off, in either direction


@dataclass(frozen=True)
class Angles:
    """The rotation that maps one of our tensors to another."""

    positions: AnyArray  # [T]
    theta: float

    def turn(self, x: AnyArray, sign: int = 1) -> AnyArray:
        """Rotate the pairs (j, j + D/2) of every head [T, heads, D]."""
        cos, sin = rope_angles(self.positions, x.shape[-1], self.theta)
        return rotate(x, cos, sign * sin)

    def turn_neighbours(self, x: AnyArray) -> AnyArray:
        """Rotate the pairs (2j, 2j + 1): the interleaved convention."""
        d = x.shape[-1]
        apart = np.concatenate([x[..., 0::2], x[..., 1::2]], axis=-1)
        turned = self.turn(apart)
        together = np.empty_like(x)
        together[..., 0::2], together[..., 1::2] = turned[..., : d // 2], turned[..., d // 2 :]
        return together


def rope_variants(ours: AnyArray, theirs: AnyArray, context: Context) -> Finding | None:
    """The other convention, the other direction, other positions, another base."""
    if context.leaf not in ("q_rot", "k_rot") or ours.size != theirs.size:
        return None
    x = _input(ours, context)
    found = None if x is None else angles_of(x, ours, context)
    if x is None or found is None:
        return None

    def attempts() -> Iterator[Finding | None]:
        def of(cause: str, message: str, candidate: AnyArray) -> Finding | None:
            return finding(cause, message, ours, theirs, candidate, context)

        interleaved = "pairs (2j, 2j + 1) are turned: the interleaved convention; here the pairs are (j, j + D/2)"
        yield of("RoPE interleaved", interleaved, found.turn_neighbours(x))
        yield of("RoPE backwards", "turned by the negative angle", found.turn(x, -1))
        start = "turned as position 0, which is not at all: positions start from 0 in place of going on, or no RoPE"
        if len(x) > 1:
            yield of("RoPE left out", "not turned at all", x)
        elif found.positions[0]:
            yield of("RoPE position", start, x)
        for theta in (t for t in THETAS if t != found.theta):
            yield of(
                "RoPE theta", f"theta is {theta:g} in place of {found.theta:g}", replace(found, theta=theta).turn(x)
            )
        alike = replace(found, positions=np.zeros_like(found.positions) + found.positions[:1])
        yield of("RoPE position", "every position has the angle of the first", alike.turn(x))
        for k in sorted(range(-OFFSETS, OFFSETS + 1), key=abs)[1:]:
            moved = replace(found, positions=found.positions + k)
            yield of("RoPE position", f"positions are off by {k:+d}", moved.turn(x))

    return best(attempts())


def _input(ours: AnyArray, context: Context) -> AnyArray | None:
    """The input of the rotation: the normalised heads, or without a norm the projection."""
    leaf = context.leaf[0]
    x = context.sibling(f"{leaf}_norm")
    x = context.sibling(f"{leaf}_proj") if x is None else x
    return None if x is None or x.size != ours.size else x.reshape(ours.shape)


def angles_of(x: AnyArray, turned: AnyArray, context: Context) -> Angles | None:
    """The rotation from ``x`` to ``turned``, both [T, heads, D]."""
    before = [context.sibling(context.leaf, call) for call in range(context.call)]
    longest = sum(len(b) for b in before if b is not None)
    for theta in THETAS:
        for start in (longest, *range(longest)):
            found = Angles(np.arange(start, start + len(x)), theta)
            if not outside(found.turn(x), turned, 8 * context.atol):
                return found
    return None
