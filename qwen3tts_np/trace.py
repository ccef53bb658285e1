"""Named activations: ``with trace() as t:`` collects what the model computes, under the official module paths.

    with trace("talker.model.layers.0.*") as t:
        model.generate_custom_voice(...)
    t["talker.model.layers.0.self_attn.q_norm@0"]

The n-th time a tensor is computed, counted from 0, it is stored as ``name@n``; the order of the keys is the order
of execution. Model code calls :func:`record`, which returns at once while nobody traces.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from fnmatch import fnmatchcase
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray


class Collector(Protocol):
    """Whatever activations may be handed to."""

    def add(self, name: str, array: NDArray[Any]) -> None:
        """Take an activation; the array may be overwritten afterwards."""
        ...


_C = TypeVar("_C", bound=Collector)


class Trace(dict[str, NDArray[Any]]):
    """What was recorded: ``name@n`` -> array, in execution order."""

    def __init__(self, patterns: tuple[str, ...]) -> None:
        super().__init__()
        self._patterns = patterns
        self._calls: Counter[str] = Counter()

    def add(self, name: str, array: NDArray[Any]) -> None:
        call = self._calls[name]
        self._calls[name] += 1
        if not self._patterns or any(fnmatchcase(name, pattern) for pattern in self._patterns):
            self[f"{name}@{call}"] = np.array(array)  # a copy: caches are overwritten later


_current: ContextVar[Collector | None] = ContextVar("trace", default=None)


@contextmanager
def trace(*patterns: str) -> Iterator[Trace]:
    """Collect activations whose name matches one of ``patterns`` (shell style); all of them where none is given."""
    with collect_into(Trace(patterns)) as collected:
        yield collected


@contextmanager
def collect_into(collector: _C) -> Iterator[_C]:
    """Hand every activation to ``collector``, which keeps of them what it wants."""
    token = _current.set(collector)
    try:
        yield collector
    finally:
        _current.reset(token)


def tracing() -> bool:
    """Whether somebody collects."""
    return _current.get() is not None


def record(name: str, array: NDArray[Any]) -> None:
    """Hand ``array`` to whoever traces."""
    collected = _current.get()
    if collected is not None:
        collected.add(name, array)
