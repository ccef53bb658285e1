"""Gradients and training steps against those of the official package (golden/record_training.py).

Distances of tensors are told from their projections on fixed vectors of signs (golden/sketch.py).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from programs import program
from safetensors.numpy import load_file, save_file

from qwen3tts_np.checkpoint.config_file import read_model_config
from qwen3tts_np.checkpoint.safetensors import Checkpoint
from qwen3tts_np.text.tokenizer import Tokenizer
from qwen3tts_np.training import layer, network, stack
from qwen3tts_np.training.batch import ALIGNMENTS, Batch, utterance
from qwen3tts_np.training.network import Network
from qwen3tts_np.training.optimiser import AdamW, clipping, gradient_norm
from qwen3tts_np.training.parameters import Parameters

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = sorted(path.parent for path in GOLDEN.glob("cases/training_*/case.json"))

sketch, drift = program(GOLDEN / "sketch.py"), program(GOLDEN / "training_drift.py")


class Case(NamedTuple):
    folder: Path  # of the checkpoint
    recorded: dict[str, Any]  # case.json
    inputs: dict[str, Any]
    expected: dict[str, Any]

    def network(self, dtype: Any) -> Network:
        parameters = Parameters.load(Checkpoint.open(self.folder), dtype=dtype)
        parameters.train(parameters.arrays)
        return Network(parameters, read_model_config(self.folder), ALIGNMENTS[self.recorded["alignment"]])

    def batch(self, *which: int) -> Batch:
        config, tokenizer = read_model_config(self.folder), Tokenizer.from_directory(self.folder)
        texts, speaker = self.recorded["texts"], self.inputs["speaker_embedding"]
        found = [utterance(config, tokenizer, texts[i], self.inputs[f"codes.{i}"], x_vector=speaker) for i in which]
        return Batch(found, config.talker_config)


def load(folder: Path, synthetic: Callable[..., Path]) -> Case:
    recorded = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    made = recorded["checkpoint"]
    files = (load_file(folder / f"{name}.safetensors") for name in ("inputs", "expected"))
    return Case(synthetic(made["like"], made["type"]), recorded, *files)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def case(request: Any, synthetic: Callable[..., Path]) -> Case:
    return load(request.param, synthetic)


@pytest.fixture(scope="module")
def one(synthetic: Callable[..., Path]) -> Case:
    return load(CASES[0], synthetic)


def rope_angles_in_float64(positions: Any, head_dim: int, theta: float) -> Any:
    """The tables of the recording in float64; ours are the float32 ones of the official package, whatever the dtype."""
    angles = positions[:, None] / theta ** (np.arange(0, head_dim, 2) / head_dim)
    return np.cos(angles), np.sin(angles)


def test_four_are_recorded() -> None:
    assert len(CASES) == 4


@pytest.mark.parametrize(("dtype", "bound"), [(np.float64, 1e-12), (np.float32, 1e-5)])
def test_gradients(case: Case, dtype: Any, bound: float, monkeypatch: pytest.MonkeyPatch) -> None:
    if dtype == np.float64:
        monkeypatch.setattr(stack, "rope_angles", rope_angles_in_float64)
    check_gradients(case, dtype, bound)


def check_gradients(case: Case, dtype: Any, bound: float) -> None:
    """Of every tensor, relative to its norm."""
    trained = case.network(dtype)
    found = trained.loss(case.batch(*range(len(case.recorded["texts"]))))
    wanted = case.recorded["losses"]
    assert found.talker == pytest.approx(wanted["talker"], rel=bound)
    assert found.predictor == pytest.approx(wanted["sub_talker"], rel=bound)
    gradients = trained.parameters.gradients
    assert gradients.keys() == case.recorded["tensors"].keys()
    for name, about in case.recorded["tensors"].items():
        ours = sketch.projections(name, gradients[name])
        assert sketch.distance(ours, case.expected[f"gradient.{name}"]) <= bound * about["norm"], name
        recorded = case.expected[f"gradient_samples.{name}"]
        peak = max(np.abs(recorded).max(), about["norm"] / gradients[name].size ** 0.5)
        assert np.abs(sketch.samples(gradients[name]) - recorded).max() <= 10 * bound * peak, name


def test_what_moved_is_told(tmp_path: Path) -> None:
    """As ``record.py --check`` tells it: of a gradient nothing, little, too much; of a loss too much; other texts."""
    old, new = CASES[0], tmp_path / "new"
    shutil.copytree(old, new)
    assert drift.compare(old, new) == ([], True)
    expected, case = load_file(new / "expected.safetensors"), json.loads((new / "case.json").read_text("utf-8"))
    name = next(name for name, about in case["tensors"].items() if about["norm"])
    for share, same, verdict in ((1e-13, True, "within"), (1e-11, False, "MORE THAN")):
        spoiled = {**expected, f"gradient.{name}": expected[f"gradient.{name}"] + share * case["tensors"][name]["norm"]}
        save_file(spoiled, new / "expected.safetensors")
        (line,), found = drift.compare(old, new)
        assert found is same and f"gradient.{name} moved by" in line and verdict in line
    save_file(expected, new / "expected.safetensors")
    case["steps"][3]["talker"] *= 1 + 2e-5
    (new / "case.json").write_text(json.dumps(case), encoding="utf-8")
    (line,), found = drift.compare(old, new)
    assert not found and "talker of step 3 moved by" in line and "MORE THAN 1e-05" in line
    case["texts"][0] = "Other words."
    (new / "case.json").write_text(json.dumps(case), encoding="utf-8")
    assert drift.compare(old, new) == (["new: another recording: texts"], False)


# Every function of the way back, where it is called, and the number of gradients that it returns.
BACKWARD: list[tuple[Any, str, int]] = [
    (layer, "rms_norm_backward", 2),
    (layer, "swiglu_backward", 2),
    (layer, "self_attention_backward", 3),
    (layer, "rotate_backward", 1),
    (layer, "backward", 1),
    (network, "silu_backward_ref", 1),
    (network, "cross_entropy_backward_ref", 1),
    (Parameters, "linear_backward", 1),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("place", "name", "output"), [(p, n, i) for p, n, count in BACKWARD for i in range(count)])
def test_a_thousandth_is_noticed(
    place: Any, name: str, output: int, dtype: Any, one: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = getattr(place, name)

    def wrong(*arguments: Any) -> Any:
        found = right(*arguments)
        if not isinstance(found, tuple):
            return found * found.dtype.type(1.001)
        return tuple(g * g.dtype.type(1.001 if i == output else 1) for i, g in enumerate(found))

    monkeypatch.setattr(place, name, wrong)
    with pytest.raises(AssertionError, match=r"talker\."):
        check_gradients(one, dtype, 1e-5)


@pytest.mark.parametrize("name", ["learn", "learn_rows"])
def test_a_thousandth_more_learnt_is_noticed(name: str, one: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    right = getattr(Parameters, name)

    def wrong(self: Parameters, *arguments: Any) -> None:
        right(self, *arguments[:-1], arguments[-1] * 1.001)

    monkeypatch.setattr(Parameters, name, wrong)
    with pytest.raises(AssertionError, match=r"talker\."):
        check_gradients(one, np.float64, 1e-5)


def test_forty_micro_batches(case: Case) -> None:
    """Losses and norms of every one, and the weights after the last, relative to the way they have gone."""
    trained, s, batches = case.network(np.float32), case.recorded["settings"], [case.batch(0, 1), case.batch(2, 3)]
    gradients, weights = trained.parameters.gradients, trained.parameters.arrays
    before = {name: np.array(weights[name]) for name in gradients}
    optimiser = AdamW(trained.parameters, decay=s["decay"], decay_all=True)
    for i, row in enumerate(case.recorded["steps"]):
        found = trained.loss(batches[i % 2], scale=1 / s["accumulation"])
        assert (found.talker, found.predictor) == pytest.approx((row["talker"], row["sub_talker"]), rel=1e-5)
        if "gradient_norm" in row:
            norm = gradient_norm(gradients)
            assert norm == pytest.approx(row["gradient_norm"], rel=1e-5)
            optimiser.step(s["rate"], clipping(norm, s["clip"]))
    assert i == 39 and optimiser.steps == 20
    apart = way = 0.0
    for name, about in case.recorded["tensors"].items():
        moved = sketch.projections(name, weights[name].astype(np.float64) - before[name])
        apart += sketch.distance(moved, case.expected[f"moved.{name}"]) ** 2
        way += about["moved"] ** 2
    assert apart <= (1e-3) ** 2 * way
