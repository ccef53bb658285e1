"""The engine that runs the network, on compiled kernels or as the NumPy reference, and the threads of either.

One engine serves all parts of a model, and models with as many threads share them. Both paths give the same codes
where the weights are exact (float32, bfloat16).
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np
from qwen3tts_np_kernels.pack import FORMATS
from qwen3tts_np_kernels.system import usable_cores

from ..arguments import whole_number
from ..errors import RequestError
from ..notices import notify
from ..shown import shortened
from ..trace import tracing
from .blas import limited_blas

if TYPE_CHECKING:
    from qwen3tts_np_kernels.team import Team

_PER_CORE = 4


def most_threads() -> int:
    """The size limit of a team: threads beyond the cores gain nothing, and hundreds wait for each other."""
    return _PER_CORE * usable_cores()


def started(threads: int | None) -> int:
    """The requested threads, or the cores this process may run on; at most :func:`most_threads`."""
    return min(threads or usable_cores(), most_threads())


def _too_many(threads: int) -> str:
    cut = f"; {most_threads()} are started" if threads > most_threads() else ""
    cores = f"the {usable_cores()} cores this process may use"
    return f"threads={shortened(threads)} is more than {cores}, which is slower{cut}"


_teams: WeakValueDictionary[int, Team] = WeakValueDictionary()  # threads -> the team of the models that are loaded

WEIGHT_FORMATS = tuple(FORMATS)
"""Weight formats of the compiled kernels."""


@dataclass(frozen=True)
class Engine:
    """The execution settings of a model. Create one with :meth:`choose`."""

    compiled: bool  # otherwise NumPy always runs
    dtype: np.dtype[Any]  # of activations; float32 in kernels
    weights_format: str  # of the talker and the code predictor: one of WEIGHT_FORMATS, or "auto": as stored
    threads: int | None  # None: all cores for kernels, and what is left to NumPy's own setting for NumPy

    @classmethod
    def choose(
        cls, backend: str, dtype: np.dtype[Any], weights_format: str = "auto", threads: int | None = None
    ) -> Engine:
        """The engine for these arguments of ``from_pretrained``.

        "auto" means the compiled kernels where they can run: they need float32 and Numba's compiler. Raises
        RequestError if an argument is invalid, or requests kernels where they cannot run.
        """
        threads = None if threads is None else whole_number(threads, "threads")
        if backend not in ("auto", "compiled", "reference"):
            raise RequestError(f"backend={shortened(backend)} must be 'auto', 'compiled' or 'reference'")
        if weights_format not in ("auto", *WEIGHT_FORMATS):
            raise RequestError(
                f"weights_format={shortened(weights_format)} must be 'auto' or one of {', '.join(WEIGHT_FORMATS)}"
            )
        possible = dtype == np.float32 and os.environ.get("NUMBA_DISABLE_JIT", "0") == "0"
        if backend == "compiled" and not possible:
            raise RequestError(
                f"backend='compiled' with dtype={dtype.name}: the kernels need float32, and NUMBA_DISABLE_JIT unset"
            )
        if threads is not None and threads > usable_cores():
            notify(_too_many(threads))
        compiled = backend != "reference" and possible
        if not compiled and weights_format != "auto":
            raise RequestError(
                f"weights_format={weights_format!r} with backend={backend!r} and dtype={dtype.name}: weight formats "
                "are for the compiled kernels, which need float32 and Numba's compiler"
            )
        return cls(compiled, dtype, weights_format, threads)

    def __str__(self) -> str:
        how = f"compiled, weights {self.weights_format}" if self.compiled else "NumPy"
        return f"{how}, {self.dtype.name}, threads {self.threads or 'auto'}"

    @property
    def runs_kernels(self) -> bool:
        """Whether compiled kernels run now. They cannot be traced: inside ``with trace()`` the reference runs."""
        return self.compiled and not tracing()

    @property
    def cores(self) -> int:
        """The threads of a team: those that are :func:`started`."""
        return started(self.threads)

    @cached_property
    def team(self) -> Team:
        """The threads of all kernels, and of all models with as many threads. They start with the first call."""
        from qwen3tts_np_kernels.team import Team  # here, since the reference needs none

        return _teams.setdefault(self.cores, Team(self.cores))

    @property
    def reference_threads(self) -> int | None:
        """Threads of NumPy's products where no kernels run; None for NumPy's own setting."""
        return None if self.threads is None else self.cores

    @property
    def blas_threads(self) -> int | None:
        """Threads of NumPy's products: one beside kernels, since idle BLAS threads spin on the kernels' cores."""
        return 1 if self.runs_kernels else self.reference_threads

    def limited(self) -> AbstractContextManager[None]:
        """A context in which NumPy uses :attr:`blas_threads` threads."""
        return limited_blas(self.blas_threads)
