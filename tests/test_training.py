"""Losses and gradients of the network: finite differences, and the same thing computed in another way."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwen3tts_np.checkpoint.adapter import A, B
from qwen3tts_np.checkpoint.config_file import read_model_config
from qwen3tts_np.checkpoint.safetensors import Checkpoint
from qwen3tts_np.config import ModelConfig
from qwen3tts_np.errors import RequestError
from qwen3tts_np.text.tokenizer import Tokenizer
from qwen3tts_np.training import optimiser
from qwen3tts_np.training.adapters import adapted_modules
from qwen3tts_np.training.batch import ALIGNMENTS, Batch, Counts, Utterance, utterance
from qwen3tts_np.training.network import Network
from qwen3tts_np.training.optimiser import (
    AdamW,
    clipping,
    constant,
    cosine,
    decays,
    gradient_norm,
    not_finite,
)
from qwen3tts_np.training.parameters import Parameters
from qwen3tts_np.training.threads import parts, training_threads


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
        """Of these utterances; by default of three in different layouts and voices."""
        return Batch(utterances or self.utterances(), self.config.talker_config)

    def utterances(self) -> list[Utterance]:
        x_vector = np.random.default_rng(4).normal(0, 0.1, self.config.talker_config.hidden_size)
        english = {"language": "English", "streaming": True, "instruct": "Calm."}
        return [
            self.utterance("Hello.", 3, 1),
            self.utterance("It rains.", 5, 2, **english),
            self.utterance("No.", 2, 5, speaker=None, x_vector=x_vector),
        ]


@pytest.fixture(scope="module")
def world(synthetic: Callable[..., Path]) -> World:
    """Of the size that has every kind of tensor."""
    return World(synthetic("tiny-1.7b", "base"))


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


@pytest.mark.parametrize(
    "options", [{"chunk": 1}, {"chunk": 3}, {"recompute": True}, {"recompute": True, "chunk": 4}], ids=str
)
def test_chunks_and_recomputation_change_nothing(tiny: World, options: dict[str, Any]) -> None:
    batch = tiny.batch()
    for dtype, bound in ((np.float32, 1e-6), (np.float64, 1e-14)):
        w = tiny.parameters(dtype)
        found, wanted = (Network(w, tiny.config, **o).loss(batch, learn=False) for o in (options, {}))
        assert (found.talker, found.predictor) == pytest.approx((wanted.talker, wanted.predictor), rel=bound)
    assert (
        apart(gradients(Network(w, tiny.config, **options), batch), gradients(Network(w, tiny.config), batch)) < 1e-12
    )


def test_threads_change_nothing(tiny: World, all_cores: None) -> None:
    """Losses in float32, and gradients in float64: in float32 some OpenBLAS add up in another order."""
    for dtype, loss_bound, bound in ((np.float32, 1e-6, 1e-5), (np.float64, 1e-14, 1e-12)):
        w, batch = tiny.parameters(dtype), tiny.batch()
        losses, found = [], []
        for threads in (1, 2):
            with training_threads(threads):
                losses.append(Network(w, tiny.config).loss(batch, learn=False))
                found.append(gradients(Network(w, tiny.config), batch))
        one, two = losses
        assert (one.talker, one.predictor) == pytest.approx((two.talker, two.predictor), rel=loss_bound)
        assert apart(*found) < bound


def test_additions_learn_what_the_merged_matrix_learns(world: World) -> None:
    """With W + s B A in place of W: dA = s Bᵀ dW and dB = s dW Aᵀ, and the same losses."""
    w, batch = world.parameters(train=()), world.batch()
    modules, r, scale = adapted_modules(w.arrays), np.random.default_rng(5), 0.5
    w.add_low_rank(modules, rank=4, alpha=4 * scale)
    for module in modules:
        w.arrays[module + B] = r.normal(0, 0.1, w[module + B].shape)
    losses = Network(w, world.config).loss(batch, learn=False)
    found = gradients(Network(w, world.config), batch)
    merged = world.parameters(train=())
    for module in modules:
        merged.arrays[f"{module}.weight"] = w.merged(module)
    merged.train(f"{module}.weight" for module in modules)
    assert Network(merged, world.config).loss(batch, learn=False).total == pytest.approx(losses.total, rel=1e-13)
    whole = gradients(Network(merged, world.config), batch)
    wanted = {"speaker.ada": whole["speaker.ada"]}
    for module in modules:
        wanted[module + A] = scale * w[module + B].T @ whole[f"{module}.weight"]
        wanted[module + B] = scale * whole[f"{module}.weight"] @ w[module + A].T
    assert apart(found, wanted) < 1e-12


def test_new_additions_leave_the_model_as_it_is(tiny: World) -> None:
    w, batch = tiny.parameters(train=()), tiny.batch()
    before = Network(w, tiny.config).loss(batch, learn=False).total
    w.add_low_rank(adapted_modules(w.arrays), rank=2, alpha=4)
    assert Network(w, tiny.config).loss(batch, learn=False).total == before
    assert {w.scales[module] for module in w.scales} == {2.0}


def below(prefix: str, first: int) -> Callable[[str], bool]:
    return lambda name: name.startswith(prefix) and int(name.removeprefix(prefix).partition(".")[0]) >= first


PARTS: dict[str, Callable[[str], bool]] = {
    "the last layer": below("talker.model.layers.", 1),
    "the final norm": lambda name: name == "talker.model.norm.weight",
    "the code predictor": lambda name: name.startswith("talker.code_predictor."),
    "a layer of the code predictor": below("talker.code_predictor.model.layers.", 1),
    "heads": lambda name: "head" in name,
    "the projection to the code predictor": lambda name: "small_to_mtp" in name,
    "text": lambda name: "text_" in name,
    "nothing": lambda name: False,
}


@pytest.mark.parametrize("part", PARTS)
def test_what_is_frozen_does_not_change_what_is_learnt(part: str, world: World) -> None:
    batch, alone = world.batch(), world.parameters(train=())
    del alone.gradients["speaker.ada"]
    alone.train(filter(PARTS[part], alone.arrays))
    wanted = gradients(Network(world.parameters(), world.config), batch)
    found = gradients(Network(alone, world.config), batch)
    assert apart(found, {name: wanted[name] for name in found}) < 1e-13 if found else part == "nothing"


def test_the_frozen_part_can_be_kept(tiny: World) -> None:
    w, batch = tiny.parameters(train=()), tiny.batch()
    del w.gradients["speaker.ada"]
    w.train(name for name in w.arrays if name.startswith("talker.model.layers.1."))
    network = Network(w, tiny.config)
    assert network.lowest == 1
    kept = network.frozen_part(batch)
    assert kept.shape == (len(batch), tiny.config.talker_config.hidden_size)
    assert apart(gradients(network, batch, frozen=kept), gradients(network, batch)) == 0


def test_weights_as_stored_are_the_same_weights(tiny: World) -> None:
    batch, found = tiny.batch(), []
    for as_stored in (False, True):
        w = tiny.parameters(np.float32, train=(), as_stored=as_stored)
        w.add_low_rank(adapted_modules(w.arrays), rank=2, alpha=2)
        found.append(gradients(Network(w, tiny.config), batch))
    assert apart(*found) == 0


def test_a_share_of_the_frames_is_right_on_average(tiny: World) -> None:
    """Over all ways to draw one frame of three, the gradients have the mean of all frames' gradients."""
    w, batch = tiny.parameters(), tiny.batch(tiny.utterance("Hello.", 3))
    network = Network(w, tiny.config, share=1 / 3)

    class Draw:
        def __init__(self, frame: int) -> None:
            self.frame = frame

        def choice(self, frames: Any, count: int, replace: bool) -> Any:
            assert (len(frames), count, replace) == (3, 1, False)
            return frames[[self.frame]]

    parts = [gradients(network, batch, draw=Draw(frame)) for frame in range(3)]
    mean = {name: sum(part[name] for part in parts) / 3 for name in parts[0]}
    assert apart(mean, gradients(network, batch)) < 1e-13
    assert network.loss(batch, draw=np.random.default_rng(0), learn=False).counts == Counts(4, 15)


def test_it_learns_what_generation_says(tiny: World) -> None:
    """Thirty steps on one utterance, by heart: greedy speech is what was learnt."""
    w = tiny.parameters(np.float32, train=())
    w.train([name for name in w.arrays if name.startswith("talker.") and "text_embedding" not in name])
    batch, network, optimiser = tiny.batch(tiny.utterance("Hello.", 4)), Network(w, tiny.config), AdamW(w)
    first = network.loss(batch, learn=False)
    for step in range(30):
        network.loss(batch)
        optimiser.step(3e-3 * constant(step, 3), clipping(gradient_norm(w.gradients), 1.0))
    last = network.loss(batch, learn=False)
    assert first.total > 5 and last.talker < 0.1 and last.predictor < 0.5


def test_learning_rates_and_clipping() -> None:
    assert [cosine(step, 8, 4) for step in (0, 2, 4, 6, 8)] == pytest.approx([0, 0.5, 1, 0.5, 0])
    assert [constant(step, 2) for step in (0, 1, 2, 9)] == [0, 0.5, 1, 1]
    assert constant(0, 0) == cosine(0, 3, 0) == 1
    assert (clipping(0.5, 1.0), clipping(4, 1.0)) == (1.0, pytest.approx(0.25))
    arrays = {"a": np.array([3.0, np.nan]), "b": np.array([4.0])}
    assert not_finite(arrays) == ["a"] and np.isnan(gradient_norm(arrays)) and gradient_norm({"b": arrays["b"]}) == 4


def test_parts_are_everything_once() -> None:
    assert parts(5, 10**9) == [slice(0, 5)]
    with training_threads(3):
        assert parts(5, 10) == [slice(0, 5)]
        for count in (1, 2, 3, 100):
            found = [i for part in parts(count, 10**9) for i in range(part.start, part.stop)]
            assert found == [*range(count)] and len(parts(count, 10**9)) == min(3, count)


def test_the_optimiser_keeps_to_its_threads(tiny: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors larger than a part, on one thread and on three: the same weights, from no more threads than asked for."""
    monkeypatch.setattr(optimiser, "PART", 100)
    seen, kernel = set[int](), optimiser.adamw

    def noted(*arguments: Any) -> None:
        seen.add(threading.get_ident())
        kernel(*arguments)

    monkeypatch.setattr(optimiser, "adamw", noted)
    found = []
    for threads in (1, 3):
        w = tiny.parameters(np.float32)
        r = np.random.default_rng(0)
        for gradient in w.gradients.values():
            gradient[...] = r.standard_normal(gradient.shape)
        with training_threads(threads):
            norm = gradient_norm(w.gradients)
            seen.clear()
            AdamW(w).step(1e-3, clipping(norm, 1.0))
        assert len(seen) <= threads
        assert not any(gradient.any() for gradient in w.gradients.values())
        found.append((norm, {name: w[name] for name in w.gradients}))
    assert found[0][0] == found[1][0]
    for name, array in found[0][1].items():
        np.testing.assert_array_equal(array, found[1][1][name])


def test_decay_is_for_the_matrices_of_linear_layers(tiny: World) -> None:
    w = tiny.parameters(np.float32)
    decayed = {name for name in w.gradients if decays(name, w[name])}
    assert {name for name in w.arrays if w[name].ndim == 1} & decayed == set()
    assert not any("embedding" in name for name in decayed)
    assert {name for name in w.arrays if name.endswith(("_proj.weight", "head.weight"))} <= decayed
    before = {name: w[name].copy() for name in w.gradients}
    AdamW(w, decay=0.5).step(0.1)  # gradients of 0: decay only
    for name, was in before.items():
        np.testing.assert_array_equal(
            w[name], (was.astype(np.float64) * 0.95).astype(np.float32) if name in decayed else was
        )


def test_the_page_of_the_room_runs_as_printed(tiny: World) -> None:
    page = (Path(__file__).parents[1] / "qwen3tts_np" / "training" / "README.md").read_text(encoding="utf-8")
    (program,) = (p for p in re.findall(r"^```python\n(.*?)^```", page, re.M | re.S) if "network.loss" in p)
    u, x_vector = tiny.utterance("Good morning.", 6), np.ones(tiny.config.talker_config.hidden_size) / 10
    names = {"np": np, "codes": u.codes, "x_vector": x_vector, "step": 0}
    exec(program.replace('"DIR"', repr(str(tiny.folder))), names)
    assert names["losses"].total > 0 and names["optimiser"].steps == 1


def test_what_is_wrong_is_refused(tiny: World) -> None:
    u = tiny.utterance("Hello.", 3)
    with pytest.raises(RequestError, match="names neither one nor an x-vector"):
        tiny.batch(Utterance(u.prompt, u.beside, u.codes))
    with pytest.raises(RequestError, match=r"x_vector is \[3\], and this model's speakers have 64 values"):
        tiny.utterance("Hello.", 3, speaker=None, x_vector=np.zeros(3))
    with pytest.raises(RequestError, match="code 128"):
        utterance(tiny.config, tiny.tokenizer, "Hello.", np.full((2, 16), 128), speaker="ada")
