"""The two ways a request becomes codes: the readable NumPy path, and the compiled kernels.

Both give the same codes where the weights are exact (float32, bfloat16). The compiled one cannot be traced, so a
traced request takes the NumPy path whatever was asked for; its weights are then read as well, at the first such
request.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import ThreadpoolController

from ..checkpoint.keys import load
from ..checkpoint.safetensors import Checkpoint
from ..config import ModelConfig
from ..errors import RequestError
from ..generate import Weights, write_frames
from ..request import Request
from ..talker.code_predictor import CodePredictorWeights, code_predictor_sizes
from ..talker.frame import Frame
from ..talker.generator import Generator
from ..talker.talker import TalkerWeights, talker_sizes
from ..trace import tracing

if TYPE_CHECKING:
    from qwen3tts_np_kernels.threads_jit import Team

    from .talker.weights import PackedWeights

FORMATS = ("float32", "bfloat16", "float16", "int8", "int6", "int5", "int4")
_STORED = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


class Backend(ABC):
    """What turns prompts into codes."""

    config: ModelConfig

    @abstractmethod
    def frames(self, requests: Sequence[Request], generator: Generator) -> Iterator[Frame]:
        """The codes of requests with one set of sampling rules, frame by frame; nothing runs between two frames."""


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

    def frames(self, requests: Sequence[Request], generator: Generator) -> Iterator[Frame]:
        return _limited(write_frames(requests, self.weights, self.config, generator), self.threads)


@dataclass(frozen=True)
class PromptsOnly(Backend):
    """No weights: of a model that prepares requests and cannot speak them."""

    config: ModelConfig

    def frames(self, requests: Sequence[Request], generator: Generator) -> Iterator[Frame]:
        raise RequestError("this model was loaded without the weights that write codes: it prepares requests only")


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

    def frames(self, requests: Sequence[Request], generator: Generator) -> Iterator[Frame]:
        if tracing():
            return self.reference.frames(requests, generator)
        from .generate import write_frames as write_frames_fast

        frames = write_frames_fast(requests, self.packed, self.config, generator, self.team)
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


def stored_format(checkpoint: Checkpoint) -> str:
    """The format that runs a checkpoint's matrices as they are stored."""
    dtype = checkpoint["talker.model.layers.0.mlp.up_proj.weight"].dtype
    return _STORED.get(dtype, dtype.lower())
