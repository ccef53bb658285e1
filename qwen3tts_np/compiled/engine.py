"""The two ways a request becomes codes: the readable NumPy path, and the compiled kernels.

Both give the same codes where the weights are exact (float32, bfloat16). The compiled one cannot be traced, so a
traced request takes the NumPy path whatever was asked for; its weights are then read as well, at the first such
request.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import ThreadpoolController

from ..checkpoint.keys import load
from ..checkpoint.safetensors import Checkpoint
from ..checkpoint.tables import CodePredictorWeights, TalkerWeights, code_predictor_sizes, talker_sizes
from ..config import ModelConfig
from ..generate import Limits, Request, Weights, collect, write_frames
from ..ops import Ints
from ..talker.frame import Frame
from ..talker.generator import Generator
from ..trace import tracing

if TYPE_CHECKING:
    from qwen3tts_np_kernels.threads_jit import Team

    from .talker.weights import PackedWeights

# Called with the number of frames written so far, those of the longest item; what it raises ends the generation.
Progress = Callable[[int], None] | None

FORMATS = ("float32", "bfloat16", "float16", "int8", "int6", "int5", "int4")
_STORED = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


class Backend(ABC):
    """What turns prompts into codes."""

    config: ModelConfig

    @abstractmethod
    def frames(self, requests: Sequence[Request], limits: Limits, generator: Generator) -> Iterator[Frame]:
        """The codes of every request, frame by frame; nothing runs between two of them."""

    def generate(
        self, requests: Sequence[Request], limits: Limits, generator: Generator, progress: Progress = None
    ) -> list[Ints]:
        """The codes of every request, [frames, G] each."""
        frames = _told(self.frames(requests, limits, generator), progress)
        return collect(frames, len(requests), self.config.talker_config.num_code_groups)


@dataclass(frozen=True)
class Reference(Backend):
    """``generate.py`` on NumPy, in the type of its weights."""

    weights: Weights
    config: ModelConfig
    threads: int | None  # of the matrix products; None leaves it to NumPy

    @classmethod
    def load(cls, checkpoint: Checkpoint, config: ModelConfig, dtype: np.dtype[Any], threads: int | None) -> Reference:
        c = config.talker_config
        predictor = code_predictor_sizes(c)
        weights = Weights(
            talker=load(TalkerWeights, checkpoint, talker_sizes(c), "talker.", dtype),
            code_predictor=load(CodePredictorWeights, checkpoint, predictor, "talker.code_predictor.", dtype),
        )
        return cls(weights, config, threads)

    def frames(self, requests: Sequence[Request], limits: Limits, generator: Generator) -> Iterator[Frame]:
        return _limited(write_frames(requests, self.weights, self.config, limits, generator), self.threads)


@dataclass(frozen=True)
class Compiled(Backend):
    """``generate_fast.py`` on Numba, with packed weights."""

    packed: PackedWeights
    team: Team
    config: ModelConfig
    checkpoint: Checkpoint

    @classmethod
    def load(cls, checkpoint: Checkpoint, config: ModelConfig, weights_format: str, threads: int) -> Compiled:
        # Numba takes half a second to import: only who needs it pays.
        from qwen3tts_np_kernels.threads_jit import Team

        from .talker.weights import pack_weights

        packed = pack_weights(checkpoint, config.talker_config, weights_format)
        return cls(packed, Team(threads), config, checkpoint)

    def frames(self, requests: Sequence[Request], limits: Limits, generator: Generator) -> Iterator[Frame]:
        if tracing():
            return self.reference.frames(requests, limits, generator)
        from .generate import write_frames as write_frames_fast

        frames = write_frames_fast(requests, self.packed, self.config, limits, generator, self.team)
        return _limited(frames, 1)  # a BLAS that waits for work would take a core from the team

    @cached_property
    def reference(self) -> Reference:
        """The NumPy path on the same checkpoint, for traces."""
        return Reference.load(self.checkpoint, self.config, np.dtype(np.float32), None)


def _limited(frames: Iterator[Frame], threads: int | None) -> Iterator[Frame]:
    """``frames``, each written with so many threads of NumPy; between two of them the caller has its own number."""
    blas = ThreadpoolController()
    while True:
        with blas.limit(limits=threads):
            frame = next(frames, None)
        if frame is None:
            return
        yield frame


def _told(frames: Iterator[Frame], progress: Progress) -> Iterator[Frame]:
    """``frames``, their number told one by one."""
    for count, frame in enumerate(frames, start=1):
        if progress is not None:
            progress(count)
        yield frame


def stored_format(checkpoint: Checkpoint) -> str:
    """The format that runs a checkpoint's matrices as they are stored."""
    dtype = checkpoint["talker.model.layers.0.mlp.up_proj.weight"].dtype
    return _STORED.get(dtype, dtype.lower())
