"""PyTorch's random numbers on a CPU, so that a seed gives the same speech here and in the official package.

``torch.multinomial(p, 1)`` is a race: each token draws a time q ~ Exp(1), and the largest p / q wins. q is computed
from two words of the Mersenne Twister by exact operations and one log1p, so NumPy reproduces the draw bit for bit
(torch 2.13).
"""

from __future__ import annotations

import operator
import secrets
from collections.abc import Sequence
from typing import Protocol, TypeGuard

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..errors import RequestError
from ..ops import I64, Array
from ..shown import shortened


class Generator(Protocol):
    """Draws the codes of a batch."""

    def multinomial(self, p: Array) -> I64:
        """Draw one id per row. p [B, V], not negative, of any scale -> [B]."""
        ...


class TorchGenerator:
    """The stream of ``torch.manual_seed(seed)`` on a CPU, one for all items of a batch.

    ``seed`` is an integer from -2**63 to 2**64 - 1, otherwise ``RequestError``; as in torch only its low 32 bits count,
    so -1 and 2**32 - 1 are the same stream. None takes a fresh seed from the operating system. The attribute ``seed``
    holds it, so that a run can be repeated.
    """

    def __init__(self, seed: int | None = None) -> None:
        self.seed: int = fresh_seed() if seed is None else check_seed(seed)
        self._twister = np.random.RandomState(self.seed & 0xFFFFFFFF)

    @property
    def state(self) -> NDArray[np.uint32]:
        """A copy of the state of the Mersenne Twister [625]: its 624 words, then the number of words used."""
        _, words, used, *_ = self._twister.get_state(legacy=True)
        return np.append(words, np.uint32(used)).astype(np.uint32)

    def exponential(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """Exp(1) times as ``torch.empty(shape, dtype=dtype).exponential_()``, in row order."""
        words = self._twister.randint(0, 2**32, size=(*shape, 2), dtype=np.uint32)  # [..., 2] high word first
        # torch combines two words and takes the low 53 bits as a double in [0, 1).
        uniform = ((words[..., 0] & 0x1FFFFF) * 2.0**32 + words[..., 1]) * 2.0**-53
        return np.asarray(-np.log1p(-uniform), dtype=dtype)

    def multinomial(self, p: Array) -> I64:
        """``torch.multinomial(p, 1)[..., 0]``: one id per row. p [..., V], not negative, of any scale -> [...].

        The rows consume the stream in order, so the draw of a row depends on the rows before it.
        """
        with np.errstate(divide="ignore", invalid="ignore"):  # q = 0 occurs once in 2**53 draws, in torch too
            race = p / self.exponential(p.shape, p.dtype)  # [..., V]
        return np.asarray(race.argmax(axis=-1), dtype=np.int64)  # a tie goes to the lower id, as in torch


class ItemGenerators:
    """One stream per item of a batch: item i draws as it would alone from ``TorchGenerator(seeds[i])``."""

    def __init__(self, seeds: Sequence[int | None]) -> None:
        self.items: tuple[TorchGenerator, ...] = tuple(TorchGenerator(seed) for seed in seeds)

    def multinomial(self, p: Array) -> I64:
        """One id per row, each from the row's own stream. p [B, V] -> [B]."""
        return np.stack([item.multinomial(row) for item, row in zip(self.items, p, strict=True)])


def make_generator(seed: int | Sequence[int | None] | None, batch: int) -> Generator:
    """The generator of a call with ``batch`` items.

    One seed (or None) is the official behaviour, one stream for all items; a list gives each item its own stream.
    Raises RequestError if the list does not have one seed per item.
    """
    seeds = item_seeds(seed, batch)
    return ItemGenerators(seeds) if _is_list(seed) else TorchGenerator(seeds[0])


def shared_seed(seed: int | Sequence[int | None] | None, batch: int) -> int | None:
    """The seed shared by several items (the official behaviour); None where each item has its own."""
    return None if _is_list(seed) or batch == 1 else seed  # type: ignore[return-value]  # checked when used


def item_seeds(seed: int | Sequence[int | None] | None, batch: int) -> list[int | None]:
    """The seed of each item. Raises RequestError for a list that does not have one per item."""
    if not _is_list(seed):
        return [seed] * batch  # type: ignore[list-item]  # whatever it is, it is checked when used
    if len(seed) != batch:
        raise RequestError(f"seed has {len(seed)} values for {batch} items; give one seed, or one for each item")
    return np.asarray(seed, dtype=object).tolist()


def _is_list(seed: object) -> TypeGuard[Sequence[int | None]]:
    """Whether it is one seed for each item."""
    return isinstance(seed, list | tuple) or (isinstance(seed, np.ndarray) and seed.ndim > 0)


def fresh_seed() -> int:
    """A seed of 32 bits from the operating system."""
    return secrets.randbits(32)


def check_seed(seed: int) -> int:
    """``seed`` as a Python integer. Raises RequestError unless it is an integer from -2**63 to 2**64 - 1."""
    try:
        value = operator.index(seed)
    except (TypeError, OverflowError):  # of an object of somebody else's
        value = None
    if value is None or not -(2**63) <= value < 2**64:
        raise RequestError(f"seed={shortened(seed)} must be a whole number from -2**63 to 2**64 - 1, or None")
    return value
