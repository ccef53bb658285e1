"""The frame loop of one checkpoint: its weights, run by its engine, write the codes of requests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING

from ..checkpoint.keys import load
from ..checkpoint.quantised import BITS
from ..checkpoint.safetensors import Checkpoint
from ..config import ModelConfig
from ..generate import ReferenceSession, Weights
from ..request import Request, check_sizes
from ..running_batch import RunningBatch, Session, spoken
from ..talker.code_predictor import CodePredictorWeights, code_predictor_sizes
from ..talker.frame import Frame
from ..talker.generator import Generator
from ..talker.talker import TalkerWeights, talker_sizes
from ..teacher import ReferenceTeacher, Teacher
from .blas import limited_blas
from .engine import Engine

if TYPE_CHECKING:
    from .talker.openings import Openings
    from .talker.weights import CompiledWeights

_STORED = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


@dataclass(frozen=True)
class FrameLoop:
    """Talker and code predictor of a checked checkpoint. Weights are loaded at their first use."""

    engine: Engine
    config: ModelConfig
    checkpoint: Checkpoint

    def frames(self, requests: Sequence[Request], generator: Generator) -> Iterator[Frame]:
        """The codes of requests frame by frame; idle between two frames.

        ``generator``: ``ItemGenerators``, or any other from which all of them draw jointly.
        """
        kernels = self.engine.runs_kernels
        return spoken(lambda: self._open(len(requests), None, None, kernels), requests, generator)

    def reference_frames(self, requests: Sequence[Request], generator: Generator) -> Iterator[Frame]:
        """The same on NumPy, whatever the engine, for any generator. Kernels have PyTorch's draws built in."""
        return spoken(lambda: self._open(len(requests), None, None, False), requests, generator)

    def open_batch(self, places: int, positions: int | None, prompt_slice: int | None) -> RunningBatch:
        """Places in which requests are spoken together. Opened in a trace, they are those of the reference."""
        return self._open(places, positions, prompt_slice, self.engine.runs_kernels)

    def _open(self, places: int, positions: int | None, prompt_slice: int | None, kernels: bool) -> RunningBatch:
        session: Session
        if kernels:
            from .generate import CompiledSession

            team, weights = self.engine.team, self.compiled_weights
            session = CompiledSession(weights, team, self.config, places, positions, self.openings)
        else:
            session = ReferenceSession(self.weights, self.config, places, positions)
        # kernels call no BLAS
        limited = nullcontext if kernels else partial(limited_blas, self.engine.reference_threads)
        return RunningBatch(session, places, positions, prompt_slice, limited, partial(check_sizes, self.config))

    def teacher(self) -> Teacher:
        """What reads given codes, all frames at once."""
        if self.engine.runs_kernels:
            from .teacher import CompiledTeacher

            return CompiledTeacher(self.compiled_weights, self.engine.team, self.config)
        return ReferenceTeacher(self.weights, self.config)

    @property
    def used_weights(self) -> Weights | CompiledWeights:
        """The weights read outside traces."""
        return self.compiled_weights if self.engine.compiled else self.weights

    @property
    def weights_format(self) -> str:
        """The format of :attr:`used_weights`."""
        return self.compiled_weights.format if self.engine.compiled else self.engine.dtype.name

    @cached_property
    def weights(self) -> Weights:
        """The weights of the reference. With compiled kernels they are read only in a trace."""
        c = self.config.talker_config
        predictor, dtype = code_predictor_sizes(c), self.engine.dtype
        return Weights(
            talker=load(TalkerWeights, self.checkpoint, talker_sizes(c), "talker.", dtype),
            code_predictor=load(CodePredictorWeights, self.checkpoint, predictor, "talker.code_predictor.", dtype),
        )

    @cached_property
    def compiled_weights(self) -> CompiledWeights:
        """The weights of the kernels."""
        from .talker.weights import pack_weights

        return pack_weights(self.checkpoint, self.config.talker_config, self._kernel_format)

    @cached_property
    def openings(self) -> Openings:
        """How the last prompts began, for those that begin likewise."""
        from .talker.openings import Openings

        return Openings()

    @property
    def is_quantised(self) -> bool:
        """Whether kernels multiply by levels of 8 bits or less."""
        return self._kernel_format in BITS

    @property
    def _kernel_format(self) -> str:
        asked = self.engine.weights_format
        return self._stored_format if asked == "auto" else asked

    @property
    def _stored_format(self) -> str:
        """The format that keeps the matrices as they are stored."""
        dtype = self.checkpoint["talker.model.layers.0.mlp.up_proj.weight"].dtype
        return _STORED.get(dtype, dtype.lower())
