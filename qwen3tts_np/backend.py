"""The two ways a request becomes codes: the readable NumPy path, and the compiled kernels.

Both give the same codes where the weights are exact (float32, bfloat16). The compiled one cannot be traced, so a
traced request takes the NumPy path whatever was asked for; its weights are then read as well, at the first such
request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from threadpoolctl import threadpool_limits

from .checkpoint.keys import load
from .checkpoint.safetensors import Checkpoint
from .checkpoint.tables import CodePredictorWeights, TalkerWeights, code_predictor_sizes, talker_sizes
from .config import ModelConfig
from .generate import Limits, Progress, Request, Weights, generate_codes
from .ops import Ints
from .talker.generator import Generator
from .trace import tracing

if TYPE_CHECKING:
    from qwen3tts_np_kernels.threads_jit import Team

    from .talker.packed import PackedWeights

FORMATS = ("float32", "bfloat16", "float16", "int8", "int6", "int5", "int4")
_STORED = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


class Backend(Protocol):
    """What turns prompts into codes."""

    def generate(
        self, requests: Sequence[Request], limits: Limits, generator: Generator, progress: Progress = None
    ) -> list[Ints]:
        """The codes of every request, [frames, G] each."""
        ...


@dataclass(frozen=True)
class Reference:
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

    def generate(
        self, requests: Sequence[Request], limits: Limits, generator: Generator, progress: Progress = None
    ) -> list[Ints]:
        with threadpool_limits(self.threads):
            return generate_codes(requests, self.weights, self.config, limits, generator, progress)


@dataclass(frozen=True)
class Compiled:
    """``generate_fast.py`` on Numba, with packed weights."""

    packed: PackedWeights
    team: Team
    config: ModelConfig
    checkpoint: Checkpoint

    @classmethod
    def load(cls, checkpoint: Checkpoint, config: ModelConfig, weights_format: str, threads: int) -> Compiled:
        # Numba takes half a second to import: only who needs it pays.
        from qwen3tts_np_kernels.threads_jit import Team

        from .talker.packed import pack_weights

        packed = pack_weights(checkpoint, config.talker_config, weights_format)
        return cls(packed, Team(threads), config, checkpoint)

    def generate(
        self, requests: Sequence[Request], limits: Limits, generator: Generator, progress: Progress = None
    ) -> list[Ints]:
        if tracing():
            return self.reference.generate(requests, limits, generator, progress)
        from .generate_fast import generate_codes_fast

        return generate_codes_fast(requests, self.packed, self.config, limits, generator, self.team, progress)

    @cached_property
    def reference(self) -> Reference:
        """The NumPy path on the same checkpoint, for traces."""
        return Reference.load(self.checkpoint, self.config, np.dtype(np.float32), None)


def stored_format(checkpoint: Checkpoint) -> str:
    """The format that runs a checkpoint's matrices as they are stored."""
    dtype = checkpoint["talker.model.layers.0.mlp.up_proj.weight"].dtype
    return _STORED.get(dtype, dtype.lower())
