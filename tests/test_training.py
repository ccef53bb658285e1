"""Losses and gradients of the network: finite differences, and the same thing computed in another way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwen3tts_np.checkpoint.config_file import read_model_config
from qwen3tts_np.checkpoint.safetensors import Checkpoint
from qwen3tts_np.config import ModelConfig
from qwen3tts_np.errors import RequestError
from qwen3tts_np.text.tokenizer import Tokenizer
from qwen3tts_np.training.batch import ALIGNMENTS, Batch, Counts, Utterance, utterance
from qwen3tts_np.training.network import Network
from qwen3tts_np.training.parameters import Parameters

LIKES = ["tiny", "tiny-1.7b"]


class World:
    """A synthetic base model, and utterances for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config: ModelConfig = read_model_config(folder)
        self.tokenizer = Tokenizer.from_directory(folder)

    def parameters(self, dtype: Any = np.float64, train: Any = None, **options: Any) -> Parameters:
        """All weights; ``train``: which are trained, all by default. And a speaker in training, Ada."""
        found = Parameters.load(Checkpoint.open(self.folder), dtype=dtype, **options)
        found.train(found.arrays if train is None else train)
        found.add_speaker("ada", np.random.default_rng(3).normal(0, 0.1, self.config.talker_config.hidden_size))
        return found

    def utterance(self, text: str, frames: int, seed: int = 0, **options: Any) -> Utterance:
        c = self.config.talker_config
        codes = np.random.default_rng(seed).integers(0, c.code_predictor_config.vocab_size, (frames, c.num_code_groups))
        return utterance(self.config, self.tokenizer, text, codes, **{"speaker": "ada", **options})

    def batch(self, *utterances: Utterance) -> Batch:
        return Batch(utterances or self.utterances(), self.config.talker_config)

    def utterances(self) -> list[Utterance]:
        x_vector = np.random.default_rng(4).normal(0, 0.1, self.config.talker_config.hidden_size)
        english = {"language": "English", "streaming": True, "instruct": "Calm."}
        return [
            self.utterance("Hello.", 3, 1),
            self.utterance("It rains.", 5, 2, **english),
            self.utterance("No.", 2, 5, speaker=None, x_vector=x_vector),
        ]


@pytest.fixture(scope="module", params=LIKES)
def world(request: Any, synthetic: Callable[..., Path]) -> World:
    return World(synthetic(request.param, "base"))


@pytest.fixture(scope="module")
def tiny(synthetic: Callable[..., Path]) -> World:
    return World(synthetic("tiny", "base"))


def gradients(network: Network, *batches: Batch, **options: Any) -> dict[str, Any]:
    for batch in batches:
        network.loss(batch, **options)
    found = {name: gradient.copy() for name, gradient in network.parameters.gradients.items()}
    for gradient in network.parameters.gradients.values():
        gradient[...] = 0
    return found


def apart(found: dict[str, Any], wanted: dict[str, Any]) -> float:
    """The greatest relative error of a tensor."""
    assert found.keys() == wanted.keys()
    return max(
        float(np.linalg.norm(found[name] - wanted[name]) / max(np.linalg.norm(wanted[name]), 1e-30)) for name in wanted
    )


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_gradients_are_finite_differences(world: World, alignment: str) -> None:
    """Of every tensor along one direction, in float64."""
    network, batch = Network(world.parameters(), world.config, ALIGNMENTS[alignment]), world.batch()
    found, arrays, r = gradients(network, batch), network.parameters.arrays, np.random.default_rng(0)
    for name, gradient in found.items():
        weight: Any = arrays[name]
        direction, step = r.choice([-1.0, 1.0], weight.shape), 1e-6
        direction = np.where(gradient, np.sign(gradient), direction)  # so that nothing cancels
        losses = []
        for sign in (1, -1):
            arrays[name] = weight + sign * step * direction
            losses.append(network.loss(batch, learn=False).total)
        arrays[name] = weight
        assert (losses[0] - losses[1]) / (2 * step) == pytest.approx(
            np.sum(gradient * direction), rel=1e-5, abs=1e-7
        ), name


def test_a_batch_is_its_utterances(tiny: World) -> None:
    """Weighted by counts, one after the other, in any order and chunks, recomputed or not: the same gradients."""
    w = tiny.parameters()
    whole = gradients(Network(w, tiny.config), tiny.batch())
    batches = [tiny.batch(u) for u in reversed(tiny.utterances())]
    network = Network(w, tiny.config, chunk=2, recompute=True)
    counts = Counts.total(batch.counts(network.alignment) for batch in batches)
    assert apart(gradients(network, *batches, counts=counts), whole) < 1e-12


def test_what_is_wrong_is_refused(tiny: World) -> None:
    u = tiny.utterance("Hello.", 3)
    with pytest.raises(RequestError, match="names neither one nor an x-vector"):
        tiny.batch(Utterance(u.prompt, u.beside, u.codes))
    with pytest.raises(RequestError, match=r"x_vector is \[3\], and this model's speakers have 64 values"):
        tiny.utterance("Hello.", 3, speaker=None, x_vector=np.zeros(3))
    with pytest.raises(RequestError, match="code 128"):
        utterance(tiny.config, tiny.tokenizer, "Hello.", np.full((2, 16), 128), speaker="ada")
