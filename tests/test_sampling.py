"""Sampling: the draws of torch, the logits processors of transformers, and the rules for their arguments."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qwen3tts_np_kernels.softmax import softmax_ref
from safetensors.numpy import load_file

from qwen3tts_np.errors import RequestError
from qwen3tts_np.talker.generator import ItemGenerators, TorchGenerator, make_generator
from qwen3tts_np.talker.sampling import (
    SamplingParameters,
    choose,
    drop_control_tokens,
    keep_top_k,
    keep_top_p,
    penalise_repetition,
    talker_scores,
    warp,
)

FOLDER = Path(__file__).parents[1] / "golden" / "cases" / "sampling"
CASE: dict[str, Any] = json.loads((FOLDER / "case.json").read_text())
RUNS: dict[str, Any] = CASE["runs"]
EXPECTED = load_file(FOLDER / "expected.safetensors")
DRAWS = [name for name in EXPECTED if name.startswith("draws.")]
PLAIN = SamplingParameters(do_sample=True, temperature=0.9, top_k=50, top_p=1.0, repetition_penalty=1.05)


def recorded_logits(name: str) -> np.ndarray:
    """[S, B, V], as case.json describes them."""
    run, levels = RUNS[name], RUNS[name].get("levels", 2**24)
    random = np.random.RandomState(list(RUNS).index(name))
    raw = random.randint(0, levels, size=(run["steps"], run["batch"], run["vocab"]))
    logits = (raw * (16 / levels) - 8).astype(np.float32)
    if "eos_boost" in run:
        logits[..., run["eos"]] += np.float32(run["eos_boost"])
    return logits


def replay(name: str, s: SamplingParameters, seed: int) -> dict[str, np.ndarray]:
    """What the recorder stored, from our functions."""
    run, logits = RUNS[name], recorded_logits(name)
    generator = make_generator(seed, run["batch"])
    seen = np.zeros(logits.shape[1:], bool)
    finished = np.zeros(run["batch"], bool)
    found: dict[str, np.ndarray] = {}
    codes: list[np.ndarray] = []
    for step in range(run["ran"]):
        if run["role"] == "talker":
            scores = talker_scores(logits[step], seen, step, run["eos"], s)
        else:
            scores = warp(logits[step], s)
        found[f"{name}.kept@{step}"] = np.argwhere(np.isfinite(scores)).astype(np.int32)
        found[f"{name}.scores@{step}"] = scores[np.isfinite(scores)]
        code = choose(scores, s, generator)
        codes.append(np.where(finished, run["eos"] or 0, code))
        seen[np.arange(len(code)), codes[-1]] = True
        finished |= codes[-1] == run["eos"]
    found[f"{name}.codes"] = np.stack(codes, axis=-1).astype(np.int32)
    return found


def parameters_of(name: str) -> SamplingParameters:
    run = RUNS[name]
    values = [run[key] for key in ("do_sample", "temperature", "top_k", "top_p")]
    return SamplingParameters(*values, repetition_penalty=run.get("repetition_penalty", 1.0))


@pytest.mark.parametrize("name", RUNS)
def test_official_generate(name: str) -> None:
    found = replay(name, parameters_of(name), RUNS[name]["seed"])
    expected = {key: value for key, value in EXPECTED.items() if key.startswith(f"{name}.")}
    assert expected
    for key, value in expected.items():
        assert found[key].dtype == value.dtype, key
        np.testing.assert_array_equal(found[key], value, err_msg=key)  # exact: see "why" in case.json


def test_official_generate_can_fail() -> None:
    """A temperature or a penalty off by 0.1 %, or another seed, does not pass for the recorded one."""
    for name, key, changed in (
        ("talker_top_p", "scores@0", {"temperature": 0.9 * 1.001}),
        ("talker_greedy", "scores@6", {"repetition_penalty": 2.0 * 1.001}),
    ):
        found = replay(name, replace(parameters_of(name), **changed), RUNS[name]["seed"])
        assert not np.array_equal(found[f"{name}.{key}"], EXPECTED[f"{name}.{key}"])
    reseeded = replay("talker_top_p", parameters_of("talker_top_p"), RUNS["talker_top_p"]["seed"] + 1)
    assert not np.array_equal(reseeded["talker_top_p.codes"], EXPECTED["talker_top_p.codes"])


@pytest.mark.parametrize("name", DRAWS)
def test_torch_multinomial(name: str) -> None:
    _, seed, shape = name.split(".")
    batch, vocab = map(int, shape.split("x"))
    raw = np.random.RandomState(vocab).randint(0, 2**12, size=(batch, vocab))
    raw[:, ::3] = 0
    p = (raw**2 / 2**24).astype(np.float32)
    generator = TorchGenerator(int(seed))
    np.testing.assert_array_equal([generator.multinomial(p) for _ in range(20)], EXPECTED[name])


def test_peer_vectors(reference: Path) -> None:
    """24 talker steps another port recorded from the official chain: [step, temperature, top-k, top-p, codes so far,
    3072 logits, (id, probability) of every token kept, likeliest first], each a 32-bit word; the penalty is 1.05.
    """
    words = np.frombuffer((reference / "peer-cases" / "sampler_test.bin").read_bytes(), "<u4")
    floats, at = words.view("<f4"), 1
    for _ in range(words[0]):
        (step, _, top_k), (temperature, _, top_p), history = words[at : at + 3], floats[at + 1 : at + 4], words[at + 4]
        seen = np.zeros(3072, bool)
        seen[words[at + 5 : at + 5 + history]] = True
        at += 5 + history
        logits, count = floats[at : at + 3072], words[at + 3072]
        ids = words[at + 3073 : at + 3073 + 2 * count : 2]
        p = floats[at + 3074 : at + 3074 + 2 * count : 2]
        at += 3073 + 2 * count
        s = SamplingParameters(True, float(temperature), int(top_k), float(top_p), 1.05)
        found = softmax_ref(talker_scores(logits, seen, int(step), 2150, s))
        assert set(np.flatnonzero(found)) == set(ids)
        np.testing.assert_allclose(found[ids], p, rtol=2e-6)  # what two builds of float32 softmax differ by
    assert at == len(words)


FLOATS = st.sampled_from([np.float32, np.float64])
SAMPLING = st.builds(
    SamplingParameters,
    do_sample=st.booleans(),
    temperature=st.floats(0.05, 10),
    top_k=st.none() | st.integers(0, 200),
    top_p=st.none() | st.floats(0, 1),
    repetition_penalty=st.floats(0.2, 5),
)


@given(SAMPLING, FLOATS, st.integers(0, 2**32 - 1), st.integers(0, 3))
def test_chain(s: SamplingParameters, dtype: type, seed: int, step: int) -> None:
    """The type stays, the argument too, a row does not hear of the others, and only what may be said is said."""
    random = np.random.default_rng(seed)
    logits = (random.standard_normal((3, 1100)) * 4).astype(dtype)
    seen, eos, given_logits = random.random((3, 1100)) < 0.2, int(random.integers(1100)), logits.copy()
    scores = talker_scores(logits, seen, step, eos, s)
    assert scores.dtype == dtype
    np.testing.assert_array_equal(logits, given_logits)
    for row in range(3):
        np.testing.assert_array_equal(talker_scores(logits[row], seen[row], step, eos, s), scores[row])
    kept = np.isfinite(scores)
    assert kept.any(axis=-1).all()
    assert not kept[:, (np.arange(1100) >= 76) & (np.arange(1100) != eos)].any()  # the 1024 control tokens
    assert step >= 2 or not kept[:, eos].any()
    codes = choose(scores, s, TorchGenerator(seed))
    assert codes.dtype == np.int64
    assert kept[np.arange(3), codes].all()


@given(st.integers(1, 60), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_top_k_keeps_ties(k: int, levels: int, seed: int) -> None:
    scores = np.random.default_rng(seed).integers(0, levels, 50).astype(np.float32)
    kept = np.isfinite(keep_top_k(scores, k))
    kth = np.sort(scores)[::-1][min(k, 50) - 1]
    np.testing.assert_array_equal(kept, scores >= kth)


@given(st.floats(0, 0.999), st.integers(0, 2**32 - 1))
def test_top_p_keeps_the_smallest_sufficient_set(top_p: float, seed: int) -> None:
    scores = np.random.default_rng(seed).standard_normal(40) * 3
    p = softmax_ref(scores)
    kept = np.isfinite(keep_top_p(scores, top_p))
    assert p[kept].min() >= p[~kept].max(initial=0)
    assert p[kept].sum() >= top_p - 1e-12
    assert kept.sum() == 1 or p[kept].sum() - p[kept].min() <= top_p + 1e-12


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [2, 8, 16])
def test_top_p_exactly_at_its_boundary(size: int, dtype: type) -> None:
    """Of equal scores each sum of probabilities is exact: what adds up to 1 - top_p exactly is out, as in torch."""
    scores, step = np.zeros(size, dtype), 2.0**-20
    for k in range(1, size):
        for top_p, kept in ((k / size - step, k), (k / size, k), (k / size + step, k + 1)):
            np.testing.assert_array_equal(np.isfinite(keep_top_p(scores, top_p)), np.arange(size) >= size - kept)
    np.testing.assert_array_equal(np.isfinite(keep_top_p(scores, 0.0)), np.arange(size) >= size - 1)


def test_top_p_adds_in_double_and_rounds_each_sum() -> None:
    """As torch does. In float32 the sum of so many probabilities drifts, and tokens at the border change sides."""
    scores = np.random.default_rng(0).standard_normal(3072).astype(np.float32)
    worst_first = softmax_ref(np.sort(scores))  # [V] float32
    sums = [np.float32(math.fsum(worst_first[: k + 1].tolist())) for k in range(3072)]
    drifted = worst_first.cumsum()  # float32
    between = [k for k in range(3000) if sums[k] < drifted[k]]
    for k in between[:: len(between) // 20]:
        dropped = int((~np.isfinite(keep_top_p(scores, float(1 - np.float64(sums[k]))))).sum())
        assert dropped == sum(total <= sums[k] for total in sums)
    assert len(between) > 100


def test_penalty_pushes_down_whatever_the_sign() -> None:
    scores = penalise_repetition(np.array([2.0, -2.0, 2.0, -2.0]), np.array([True, True, False, False]), 1.25)
    np.testing.assert_array_equal(scores, [1.6, -2.5, 2.0, -2.0])


def test_control_tokens_of_a_small_vocabulary() -> None:
    """Where fewer than 1024 ids exist, only the end of speech is left: an odd configuration, but no wrap-around."""
    np.testing.assert_array_equal(drop_control_tokens(np.array([1.0, 2.0, 3.0]), 1), [-np.inf, 2.0, -np.inf])


def test_greedy_takes_the_first_of_the_best() -> None:
    greedy = replace(PLAIN, do_sample=False)
    scores = np.array([[1.0, 3.0, 3.0], [5.0, -np.inf, 5.0]])
    np.testing.assert_array_equal(choose(scores, greedy, TorchGenerator(0)), [1, 0])


def test_draws_follow_the_probabilities() -> None:
    p = np.array([0.5, 0.3, 0.2, 0.0])
    counts = np.bincount(TorchGenerator(3).multinomial(np.tile(p, (20000, 1))), minlength=4)
    deviation = np.sqrt(20000 * p * (1 - p))
    assert (np.abs(counts - 20000 * p) <= 4 * deviation).all()  # four standard deviations, and the seed is fixed


def test_items_do_not_hear_of_their_companions() -> None:
    p = softmax_ref(np.random.default_rng(0).standard_normal((3, 500)))
    seeds = [5, -7, 2**40]
    together, alone = ItemGenerators(seeds), [TorchGenerator(seed) for seed in seeds]
    for _ in range(10):
        np.testing.assert_array_equal(
            together.multinomial(p), [g.multinomial(row[None])[0] for g, row in zip(alone, p, strict=True)]
        )
    shared = TorchGenerator(5)
    assert not np.array_equal([shared.multinomial(p) for _ in range(10)], [together.multinomial(p) for _ in range(10)])


@pytest.mark.parametrize(("seed", "same"), [(-1, 2**32 - 1), (2**32 + 5, 5), (-(2**63), 0), (2**64 - 1, 2**32 - 1)])
def test_low_32_bits_of_the_seed_count(seed: int, same: int) -> None:
    one, two = (TorchGenerator(s).exponential((9,), np.float32) for s in (seed, same))
    np.testing.assert_array_equal(one, two)


def test_a_fresh_seed_can_be_repeated() -> None:
    fresh, other = TorchGenerator(), TorchGenerator()
    numbers = fresh.exponential((9,), np.float32)
    np.testing.assert_array_equal(numbers, TorchGenerator(fresh.seed).exponential((9,), np.float32))
    assert not np.array_equal(numbers, other.exponential((9,), np.float32))


@pytest.mark.parametrize(
    ("seed", "sentence"),
    [
        (2**64, "seed=18446744073709551616 must be a whole number from -2**63 to 2**64 - 1, or None"),
        (-(2**63) - 1, "seed=-9223372036854775809 must be"),
        (1.5, "seed=1.5 must be a whole number"),
        ("7", "seed='7' must be a whole number"),
        ([1, 2.5], "seed=2.5 must be a whole number"),
        ([1, 2, 3], "seed has 3 values for 2 items; give one seed, or one for each item"),
        ([], "seed has 0 values for 2 items"),
    ],
)
def test_bad_seeds(seed: Any, sentence: str) -> None:
    with pytest.raises(RequestError, match=re.escape(sentence)):
        make_generator(seed, 2)


@pytest.mark.parametrize("seed", [7, np.int64(7), [7, None], (7, 8), np.array([7, 8])])
def test_good_seeds(seed: Any) -> None:
    assert make_generator(seed, 2).multinomial(np.ones((2, 3))).shape == (2,)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"temperature": 0.0}, "temperature=0.0 must be a finite number above 0 (do_sample=False asks for the best"),
        ({"temperature": float("nan")}, "temperature=nan must be a finite number above 0"),
        ({"temperature": 10**400}, "must be a finite number above 0"),
        ({"temperature": "hot"}, "temperature='hot' must be a finite number above 0"),
        ({"top_k": -1}, "top_k=-1 must be a whole number from 0 up (0 keeps all)"),
        ({"top_k": 2.0}, "top_k=2.0 must be a whole number"),
        ({"top_k": True}, "top_k=True must be a whole number"),
        ({"top_p": 1.5}, "top_p=1.5 must be a number from 0 to 1"),
        ({"top_p": -0.1}, "top_p=-0.1 must be a number from 0 to 1"),
        ({"repetition_penalty": 0}, "repetition_penalty=0 must be a finite number above 0"),
        ({"repetition_penalty": -1.0, "do_sample": False}, "repetition_penalty=-1.0 must be"),
        ({"do_sample": 2}, "do_sample=2 must be True or False"),
        ({"top_p": 2, "prefix": "subtalker_"}, "subtalker_top_p=2 must be"),
        ({"do_sample": "yes", "prefix": "subtalker_"}, "subtalker_dosample='yes' must be"),
    ],
)
def test_bad_parameters(values: dict[str, Any], sentence: str) -> None:
    good: dict[str, Any] = {"do_sample": True, "temperature": 0.9, "top_k": 50, "top_p": 1.0}
    with pytest.raises(RequestError, match=re.escape(sentence)):
        SamplingParameters(**{**good, **values})


def test_greedy_ignores_what_only_sampling_uses() -> None:
    s = SamplingParameters(do_sample=False, temperature=0.0, top_k=-1, top_p=7.0)
    scores = np.array([[1.0, 2.0]])
    assert warp(scores, s) is scores


def test_numbers_of_numpy_do_not_widen_float32() -> None:
    s = SamplingParameters(True, np.float64(0.7), np.int64(2), np.float64(0.9), np.float64(1.1))  # type: ignore[arg-type]
    logits = np.linspace(-1, 1, 8, dtype=np.float32)
    scores = warp(penalise_repetition(logits, logits > 0, s.repetition_penalty), s)
    assert scores.dtype == np.float32


@pytest.mark.parametrize("extreme", [{"temperature": 1e-60}, {"temperature": 1e60}, {"repetition_penalty": 1e-60}])
def test_extreme_values_end_in_a_sentence(extreme: dict[str, float]) -> None:
    """The official package stops at the same places, with 'probability tensor contains either inf, nan ...'."""
    s = replace(PLAIN, **extreme)
    logits = np.linspace(5, -5, 2000, dtype=np.float32)[None]
    scores = talker_scores(logits, np.ones((1, 2000), bool), 5, 3, s)
    with pytest.raises(RequestError, match="take these logits out of the range of float32"):
        choose(scores, s, TorchGenerator(0))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softmax(dtype: type) -> None:
    x = np.array([[1000.0, 1000.0, -np.inf], [0.0, np.log(3.0), -1e4]], dtype)
    y = softmax_ref(x)
    assert y.dtype == dtype
    np.testing.assert_allclose(y, [[0.5, 0.5, 0.0], [0.25, 0.75, 0.0]], rtol=4 * np.finfo(dtype).eps)
