"""What a model is about to read, taken from the model itself: a backend that listens instead of generating."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..checkpoint.keys import check, load
from ..checkpoint.pretrained import directory
from ..checkpoint.safetensors import Checkpoint
from ..checkpoint.tables import SpeakerEncoderWeights, model_specs, speaker_encoder_sizes
from ..compiled.engine import Backend
from ..config import ModelConfig, read_generation_config, read_model_config
from ..generate import Limits, Request
from ..model import Qwen3TTSModel
from ..speech_tokenizer import Qwen3TTSTokenizer
from ..talker.frame import Frame
from ..talker.generator import Generator
from ..text.tokenizer import Tokenizer
from .request import SpeechRequest, perform


class _Heard(Exception):
    """Carries what a model was about to read."""

    def __init__(self, request: Request, limits: Limits) -> None:
        super().__init__()
        self.request, self.limits = request, limits


@dataclass(frozen=True)
class Listener(Backend):
    """A backend that keeps what it is asked for, and stops there."""

    config: ModelConfig

    def frames(self, requests: Sequence[Request], limits: Limits, generator: Generator) -> Iterator[Frame]:
        raise _Heard(requests[0], limits)


def listening_model(path: str | Path) -> Qwen3TTSModel:
    """The model without the weights that write codes: enough to lay out any prompt."""
    folder, single = directory(path), np.dtype(np.float32)
    config = read_model_config(folder)
    checkpoint, encoder = Checkpoint.open(folder), None
    check(checkpoint, model_specs(config))
    if config.speaker_encoder_config is not None:
        sizes = speaker_encoder_sizes(config.speaker_encoder_config)
        encoder = load(SpeakerEncoderWeights, checkpoint, sizes, "speaker_encoder.", single)
    return Qwen3TTSModel(
        config=config,
        generation_config=read_generation_config(folder),
        text_tokenizer=Tokenizer.from_directory(folder),
        speech_tokenizer=Qwen3TTSTokenizer.from_pretrained(folder, backend="reference"),
        backend=Listener(config),
        speaker_encoder=encoder,
        threads=None,
    )


def heard(model: Qwen3TTSModel, request: SpeechRequest) -> Request:
    """What ``model`` hands to its backend for ``request``: the prompt itself, not another account of it."""
    return listen(model, lambda listening: perform(listening, request))[0]


def listen(model: Qwen3TTSModel, call: Callable[[Qwen3TTSModel], object]) -> tuple[Request, Limits]:
    """What ``model`` hands to its backend in ``call``, which generates something with it."""
    try:
        call(replace(model, backend=Listener(model.config)))
    except _Heard as e:
        return e.request, e.limits
    raise AssertionError("a request always reaches the backend")
