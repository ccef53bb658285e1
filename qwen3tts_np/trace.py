"""Named activations: ``with trace() as t:`` collects what the model computes, under the official module paths.

    with trace("talker.model.layers.0.*") as t:
        model.generate_custom_voice(...)
    t["talker.model.layers.0.self_attn.q_norm@0"]

The n-th time a tensor is computed, counted from 0, it is stored as ``name@n``; the order of the keys is the order
of execution. Model code passes what it computes through a :class:`Scope` or :func:`record`, which return it as it is:

    t = Scope("talker.model.layers.0")
    h = t("input_layernorm", rms_norm(x, ...))  # recorded as talker.model.layers.0.input_layernorm
    return t.output(x + h)  # recorded as talker.model.layers.0

Outside a trace nothing is kept and no name is put together.
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

from .arguments import require_text


class Collector(Protocol):
    """Receives activations."""

    def add(self, name: str, array: NDArray[Any]) -> None:
        """Receive an activation; the array may be overwritten afterwards."""
        ...


_A = TypeVar("_A", bound=NDArray[Any])
_C = TypeVar("_C", bound=Collector)


class Trace(dict[str, NDArray[Any]]):
    """Recorded activations: ``name@n`` -> array, in execution order."""

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
    for pattern in patterns:
        require_text(pattern, "a pattern")
    with collect_into(Trace(patterns)) as collected:
        yield collected


@contextmanager
def collect_into(collector: _C) -> Iterator[_C]:
    """Pass every activation to ``collector``, which decides what it keeps."""
    token = _current.set(collector)
    try:
        yield collector
    finally:
        _current.reset(token)


def tracing() -> bool:
    """Whether activations are collected."""
    return _current.get() is not None


def record(name: str, array: _A) -> _A:
    """Pass ``array`` to the collector, if there is one, and return it."""
    collected = _current.get()
    if collected is not None:
        collected.add(name, array)
    return array


class Scope:
    """Records the activations of one call of the block ``name``."""

    __slots__ = ("_collected", "_name")

    def __init__(self, name: str) -> None:
        self._name, self._collected = name, _current.get()

    def __call__(self, part: str, array: _A) -> _A:
        """Record ``array`` as ``name.part``, and return it."""
        if self._collected is not None:
            self._collected.add(f"{self._name}.{part}", array)
        return array

    def output(self, array: _A) -> _A:
        """Record the output of the block, which has the bare ``name``, and return it."""
        if self._collected is not None:
            self._collected.add(self._name, array)
        return array
