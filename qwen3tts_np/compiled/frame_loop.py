"""The frame loop of one checkpoint: its weights, run by its engine, write the codes of requests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from ..checkpoint.keys import load
from ..checkpoint.safetensors import Checkpoint
from ..config import ModelConfig
from ..generate import Weights, write_frames
from ..request import Request
from ..talker.code_predictor import CodePredictorWeights, code_predictor_sizes
from ..talker.frame import Frame
from ..talker.generator import Generator
from ..talker.talker import TalkerWeights, talker_sizes
from .engine import Engine

if TYPE_CHECKING:
    from .talker.weights import CompiledWeights

_STORED = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


@dataclass(frozen=True)
class FrameLoop:
    """Talker and code predictor of a checked checkpoint. Weights are loaded at their first use."""

    engine: Engine
    config: ModelConfig
    checkpoint: Checkpoint

    def frames(self, requests: Sequence[Request], generator: Generator) -> Iterator[Frame]:
        """The codes of requests that share one set of sampling rules, frame by frame; idle between two frames."""
        if not self.engine.runs_kernels:
            return self.reference_frames(requests, generator)
        from .generate import write_frames as write_compiled_frames

        weights, team = self.compiled_weights, self.engine.team
        return self.engine.steps(write_compiled_frames(requests, weights, self.config, generator, team))

    def reference_frames(self, requests: Sequence[Request], generator: Generator) -> Iterator[Frame]:
        """The same on NumPy, whatever the engine, for any generator. Kernels have PyTorch's draws built in."""
        numpy = replace(self.engine, compiled=False)
        return numpy.steps(write_frames(requests, self.weights, self.config, generator))

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

        asked = self.engine.weights_format
        return pack_weights(
            self.checkpoint, self.config.talker_config, self._stored_format if asked == "auto" else asked
        )

    @property
    def _stored_format(self) -> str:
        """The format that keeps the matrices as they are stored."""
        dtype = self.checkpoint["talker.model.layers.0.mlp.up_proj.weight"].dtype
        return _STORED.get(dtype, dtype.lower())
