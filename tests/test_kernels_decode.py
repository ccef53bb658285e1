"""The kernels of the decode loop against their definitions: attention, RMSNorm, stacks, sampling, threads."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qwen3tts_np_kernels.attention import attention_ref
from qwen3tts_np_kernels.attention_jit import HEAD_STEP, POSITIONS, attend, attention, norm_rotate, window_attention
from qwen3tts_np_kernels.cpu import compiled, kernel
from qwen3tts_np_kernels.norm import rms_norm_ref
from qwen3tts_np_kernels.norm_jit import rms_norm, rms_norm_row
from qwen3tts_np_kernels.pack import FORMATS, GROUP, linear_ref, pack
from qwen3tts_np_kernels.rope import rope_angles_ref, rotate_ref
from qwen3tts_np_kernels.stack_jit import Levels, Stack, multiply, new_stack
from qwen3tts_np_kernels.team import Team
from qwen3tts_np_kernels.threads_jit import Member, barrier, share, team_kernel

from qwen3tts_np.compiled.talker.generator import STATE
from qwen3tts_np.compiled.talker.sampling import (
    NOT_A_NUMBER,
    Rule,
    Scratch,
    choose,
    new_scratch,
    predictor_scores,
    rule_of,
    skip_choice,
    talker_scores,
)
from qwen3tts_np.errors import RequestError
from qwen3tts_np.talker import sampling
from qwen3tts_np.talker.generator import TorchGenerator
from qwen3tts_np.talker.sampling import CONTROL_TOKENS, MIN_NEW_TOKENS, SamplingParameters

needs_compiler = pytest.mark.skipif(not compiled(), reason="needs compiled kernels (NUMBA_DISABLE_JIT is set)")
EPS = float(np.finfo(np.float32).eps)
GUARD = np.float32(7e30)  # around buffers: nobody may write it, and who reads it shows it
SEEDS = st.integers(0, 2**32 - 1)
F32 = np.ndarray[Any, np.dtype[np.float32]]


def normal(random: np.random.Generator, *shape: int) -> F32:
    return random.standard_normal(shape, dtype=np.float32)


# ---- RMSNorm ----


@given(st.lists(st.integers(1, 3), max_size=2), st.integers(1, 70), st.sampled_from([1e-6, 1e-3]), SEEDS)
def test_rms_norm(leading: list[int], size: int, eps: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    x, weight = normal(random, *leading, size) * 10, normal(random, size)
    exact = rms_norm_ref(x.astype(np.float64), weight, eps)
    # A sum of positive terms is exact to size * eps at most, its root to half of that; 4 more roundings.
    np.testing.assert_allclose(rms_norm(x, weight, eps), exact, rtol=EPS * (size / 2 + 4), atol=0)


@needs_compiler
@given(st.integers(1, 70), SEEDS)
def test_rms_norm_row_stays_inside(size: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    x, weight, y = (np.full(size + 40, GUARD) for _ in range(3))
    x[20 : 20 + size], weight[20 : 20 + size] = normal(random, size), normal(random, size)
    _row(x, weight, y, size)
    assert (y[:20] == GUARD).all()
    assert (y[20 + size :] == GUARD).all()
    assert (np.abs(y[20 : 20 + size]) < 100).all()  # a guard that was read would show: |x / rms| is at most √size


@kernel
def _row(x: F32, weight: F32, y: F32, size: int) -> None:
    rms_norm_row(x, 20, weight, 20, size, size, 1e-6, y, 20)


def test_rms_norm_says_what_is_wrong() -> None:
    x = np.ones((2, 3), np.float32)
    with pytest.raises(TypeError, match=r"rms_norm: x\.dtype=float64, expected float32"):
        rms_norm(x.astype(np.float64), x[0], 1e-6)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"rms_norm: x\[2, 3\] and weight\[2\] do not fit \[\.\.\., H\] and \[H\]"):
        rms_norm(x, x[0, :2], 1e-6)


# ---- attention ----


@st.composite
def attention_cases(draw: st.DrawFn) -> tuple[F32, F32, F32, int | None]:
    kv_heads, group, d = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 70))
    s = draw(st.integers(1, 70))
    t = draw(st.integers(1, min(s, 5)))
    random = np.random.default_rng(draw(SEEDS))
    q, k, v = (normal(random, *shape) for shape in ((t, kv_heads * group, d), (s, kv_heads, d), (s, kv_heads, d)))
    return q * 3, k, v, draw(st.none() | st.integers(1, 80))


@given(attention_cases())
def test_attention(case: tuple[F32, F32, F32, int | None]) -> None:
    q, k, v, window = case
    exact = attention_ref(*(array.astype(np.float64) for array in (q, k, v)), window)
    # A score errs by at most d eps |q||k| / √d, a weight by as much relatively, and twice that much with its sum.
    scale = np.linalg.norm(q, axis=-1).max() * np.linalg.norm(k, axis=-1).max()
    atol = EPS * (2 * np.sqrt(q.shape[2]) * scale + 2 * len(k) + 10) * np.abs(v).max()
    np.testing.assert_allclose(attention(q, k, v, window), exact, rtol=0, atol=atol)


@given(attention_cases(), st.integers(1, 9), st.integers(0, 5))
def test_attention_where_the_cache_is(case: tuple[F32, F32, F32, int | None], window: int, unknown: int) -> None:
    """The same bits as from separate keys and values, wherever those that are known begin."""
    q, k, v, _ = case
    d, end = q.shape[2], unknown + len(k)
    wide = -(-d // HEAD_STEP) * HEAD_STEP
    kv, queries = np.zeros((end + POSITIONS, 2, k.shape[1], wide), np.float32), np.zeros((*q.shape[:2], wide), "f4")
    kv[end:] = kv[:unknown] = np.nan  # perhaps read, and without meaning
    kv[unknown:end, 0, :, :d], kv[unknown:end, 1, :, :d], queries[..., :d] = k, v, q
    y = np.full_like(queries, np.nan)
    window_attention(queries, kv[:end], y, d, window, np.array([len(k) - len(q)]))
    np.testing.assert_array_equal(y[..., :d], attention(q, k, v, window))
    assert (y[..., d:] == 0).all()


def test_attention_where_the_cache_is_says_what_is_wrong() -> None:
    q, kv = np.zeros((3, 4, HEAD_STEP), np.float32), np.zeros((2, 2, 2, HEAD_STEP), np.float32)
    with pytest.raises(ValueError, match=r"window_attention: q\[3, 4, .* do not fit"):
        window_attention(q, kv, np.empty_like(q), 8, 4, np.zeros(1, np.int64))


def test_attention_sees_one_position_of_a_large_score() -> None:
    q, v = np.full((1, 1, 2), 1e4, np.float32), np.array([[[1, 2]], [[3, 4]]], np.float32)
    k = np.array([[[1e4, 1e4]], [[-1e4, -1e4]]], np.float32)
    np.testing.assert_array_equal(attention(q, k, v), [[[1, 2]]])


@pytest.mark.parametrize(
    ("shapes", "window", "message"),
    [
        (((3, 2, 4), (2, 1, 4), (2, 1, 4)), None, r"attention: q\[3, 2, 4\], k\[2, 1, 4\], v\[2, 1, 4\] do not fit"),
        (((1, 3, 4), (2, 2, 4), (2, 2, 4)), None, "do not fit"),
        (((1, 2, 4), (2, 2, 4), (2, 2, 5)), None, "do not fit"),
        (((2, 4), (2, 2, 4), (2, 2, 4)), None, r"attention: q\[2, 4\] has 2 axes, expected 3"),
        (((1, 2, 4), (2, 2, 4), (2, 2, 4)), 0, "window=0 must be at least 1"),
    ],
)
def test_attention_says_what_is_wrong(shapes: Any, window: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attention(*(np.ones(shape, np.float32) for shape in shapes), window)
    with pytest.raises(TypeError, match=r"attention: q\.dtype=float64, expected float32"):
        attention(np.ones((1, 1, 1)), np.ones((1, 1, 1), np.float32), np.ones((1, 1, 1), np.float32))  # type: ignore[arg-type]


@needs_compiler
@given(st.integers(1, 40), st.integers(1, 3), st.integers(1, 3), SEEDS)
def test_attend_writes_its_result_only_and_reads_no_key_to_come(seen: int, group: int, steps: int, seed: int) -> None:
    """What lies behind the last position may be anything finite."""
    size, room = steps * HEAD_STEP, seen + POSITIONS
    random = np.random.default_rng(seed)
    q, k, v = normal(random, group, size), normal(random, room, size), normal(random, room, size)
    exact = attention_ref(q[None].astype(np.float64), k[:seen, None].astype(np.float64), v[:seen, None])[0]
    k[seen:], v[seen:] = 1e30, np.nan
    y, scores = np.full(group * size + 40, GUARD), np.full(2 * -(-seen // 16) * 16 + 40, GUARD)
    _attend(q.reshape(-1), group, size, k.reshape(-1), v.reshape(-1), seen, scores, y)
    np.testing.assert_allclose(y[20:-20].reshape(group, size), exact, atol=1e-4)  # a seen key to come gives NaN
    assert (np.concatenate([y[:20], y[-20:], scores[-40:]]) == GUARD).all()


@kernel
def _attend(q: F32, group: int, size: int, k: F32, v: F32, seen: int, scores: F32, y: F32) -> None:
    attend(q, 0, group, size, k, v, 0, size, seen, 1 / np.sqrt(size), scores, y, 20)


@needs_compiler
@given(st.integers(1, 40), st.integers(0, 500), SEEDS)
def test_norm_and_rotation_of_a_head(half: int, position: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    x, weight = normal(random, 2 * half), normal(random, 2 * half)
    cos, sin = rope_angles_ref(np.array([position]), 2 * half, 1e6)
    normed = rms_norm_ref(x.astype(np.float64), weight, 1e-6)
    exact = rotate_ref(normed[None, None], cos, sin).reshape(2, half)

    padded = -(-half // 16) * 16
    head, weights = np.zeros((2, padded), np.float32), np.zeros((2, padded), np.float32)
    head[:, :half], weights[:, :half] = x.reshape(2, half), weight.reshape(2, half)
    angles = [np.pad(angle[0], (0, padded - half)) for angle in (cos, sin)]
    _norm_rotate(head.reshape(-1), padded, 2 * half, weights.reshape(-1), *angles)
    np.testing.assert_allclose(head[:, :half], exact, rtol=0, atol=EPS * (half + 8) * np.abs(normed).max() * 2)
    assert (head[:, half:] == 0).all()


@kernel
def _norm_rotate(x: F32, half: int, count: int, weight: F32, cos: F32, sin: F32) -> None:
    norm_rotate(x, 0, half, count, weight, 1e-6, cos, sin, 0)


# ---- stacks ----


@kernel
def _multiply(
    stack: Stack, index: int, x: F32, count: int, y: F32, y_to: int, first: int, end: int, own: Levels, fresh: bool
) -> None:
    multiply(stack, index, x, count, y, y_to, first, end, own, fresh)


@needs_compiler
@given(st.sampled_from(list(FORMATS)), st.integers(1, 5), st.integers(1, 3), st.integers(1, 19), SEEDS)
def test_a_stack_multiplies_each_column_as_if_alone(name: str, blocks: int, groups: int, count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    rows, inputs = 16 * blocks, GROUP * groups
    matrices, x = normal(random, 2, rows, inputs), normal(random, count, inputs)
    packed = [pack(matrix, name) for matrix in matrices]  # type: ignore[arg-type]
    both = packed[0]._replace(
        values=np.concatenate([p.values for p in packed]), scales=np.concatenate([p.scales for p in packed])
    )
    stack = new_stack(both, rows * inputs, inputs)
    groups_of_all = count * groups
    own = Levels(np.zeros(x.size, np.int8), np.zeros(groups_of_all, np.float32), np.zeros(groups_of_all, np.int32))
    together = np.full((count, rows + 16), GUARD)
    first, end = sorted(random.integers(0, blocks + 1, 2))
    _multiply(stack, 1, x.reshape(-1), count, together.reshape(-1), rows + 16, first, end, own, True)
    written = slice(16 * first, 16 * end)
    exact = linear_ref(x, packed[1], rows)
    np.testing.assert_allclose(together[:, written], exact[:, written], atol=EPS * inputs * 16 * np.abs(exact).max())
    together[:, written] = GUARD
    assert (together == GUARD).all()

    alone = np.zeros(rows, np.float32)
    for part in ((0, first), (first, end), (end, blocks)):
        _multiply(stack, 1, x.reshape(-1), count, together.reshape(-1), rows + 16, *part, own, False)
    for column, result in zip(x, together, strict=True):
        _multiply(stack, 1, column.copy(), 1, alone, rows, 0, blocks, own, True)
        np.testing.assert_array_equal(alone, result[:rows])


# ---- sampling ----


@kernel
def _talker(logits: F32, at: int, seen: Any, eos: int, may_end: bool, rule: Rule, stream: Any, scratch: Scratch) -> int:
    count = seen.size
    audio = max(count - CONTROL_TOKENS, 0)
    talker_scores(logits, at, count, seen, audio, eos, may_end, rule, scratch.scores)
    return choose(count, rule, stream, scratch)


@kernel
def _predictor(logits: F32, at: int, count: int, rule: Rule, stream: Any, scratch: Scratch) -> int:
    predictor_scores(logits, at, count, rule, scratch.scores)
    return choose(count, rule, stream, scratch)


@kernel
def _skip(count: int, rule: Rule, stream: Any) -> None:
    skip_choice(count, rule, stream)


SAMPLING = st.builds(
    SamplingParameters,
    do_sample=st.sampled_from([True, True, True, False]),
    temperature=st.floats(0.05, 10),
    top_k=st.none() | st.integers(0, 1300),
    top_p=st.none() | st.floats(0, 1),
    repetition_penalty=st.floats(0.2, 5),
)


@needs_compiler
@settings(max_examples=60)
@given(SAMPLING, SEEDS, st.integers(0, 3), st.sampled_from([0, 2, 16]), st.integers(1, 1200))
def test_choices_and_random_numbers_are_those_of_the_definition(
    s: SamplingParameters, seed: int, step: int, levels: int, vocabulary: int
) -> None:
    """``levels`` makes many scores equal: what ties with the last of the best stays, and the lower id wins."""
    random = np.random.default_rng(seed)
    logits = normal(random, vocabulary + 3) * 4
    if levels:
        logits = np.round(logits * levels) / np.float32(levels)
    seen, eos = random.random(vocabulary) < 0.2, int(random.integers(vocabulary))
    generator, scratch, rule = TorchGenerator(seed), new_scratch(vocabulary), rule_of(s)
    stream = generator.state
    row = logits[3:]
    for _ in range(3):
        try:
            scores = sampling.talker_scores(row[None], seen[None], step, eos, s)
            expected = int(sampling.choose(scores, s, generator)[0])
        except RequestError:  # nothing may be said at all
            assert _talker(logits, 3, seen, eos, step >= MIN_NEW_TOKENS, rule, stream, scratch) == NOT_A_NUMBER
            return
        assert _talker(logits, 3, seen, eos, step >= MIN_NEW_TOKENS, rule, stream, scratch) == expected
        expected = int(sampling.choose(sampling.warp(row[None], s), s, generator)[0])
        assert _predictor(logits, 3, vocabulary, rule, stream, scratch) == expected
    np.testing.assert_array_equal(stream, generator.state)


@needs_compiler
@pytest.mark.parametrize("size", [2, 8, 16])
def test_top_p_exactly_at_its_boundary(size: int) -> None:
    """As in test_sampling.py: of equal scores, what adds up to 1 - top_p exactly is out."""
    logits, scratch, step = np.zeros(size, np.float32), new_scratch(size), 2.0**-20
    stream = TorchGenerator(0).state
    for k in range(1, size):
        for top_p, kept in ((k / size - step, k), (k / size, k), (k / size + step, k + 1)):
            _predictor(logits, 0, size, Rule(True, 1.0, 0, top_p, 1.0), stream, scratch)
            np.testing.assert_array_equal(np.isfinite(scratch.scores), np.arange(size) >= size - kept)


@needs_compiler
def test_all_that_tie_with_the_last_of_the_best_may_win() -> None:
    logits, s = np.array([1, 0, 1, 1, -1], np.float32), SamplingParameters(True, 1.0, 1, 1.0, 1.0)
    generator, scratch = TorchGenerator(0), new_scratch(5)
    stream = generator.state
    chosen = [_predictor(logits, 0, 5, rule_of(s), stream, scratch) for _ in range(40)]
    assert chosen == [int(sampling.choose(sampling.warp(logits[None], s), s, generator)[0]) for _ in range(40)]
    assert set(chosen) == {0, 2, 3}


@needs_compiler
def test_in_a_dead_heat_the_lower_id_wins() -> None:
    """A pair of equal times, which a search over seeds found."""
    generator, pair = TorchGenerator(26), 33785
    generator.multinomial(np.ones(2 * pair, np.float32))
    stream, scores = generator.state, np.zeros(2, np.float32)
    first, second = TorchGenerator(26).exponential((2 * pair + 2,), np.float32)[-2:]
    assert first == second
    assert int(generator.multinomial(np.full((1, 2), 0.5, np.float32))[0]) == 0
    assert _predictor(scores, 0, 2, Rule(True, 1.0, 0, 1.0, 1.0), stream, new_scratch(2)) == 0


@needs_compiler
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_without_probabilities_give_no_code(bad: float) -> None:
    logits = np.zeros(40, np.float32)
    logits[17] = bad
    rule = Rule(True, 1.0, 0, 1.0, 1.0)
    assert _predictor(logits, 0, 40, rule, TorchGenerator(0).state, new_scratch(40)) == NOT_A_NUMBER


@needs_compiler
@given(st.lists(st.integers(1, 3000), max_size=5), SEEDS)
def test_a_skipped_choice_moves_the_stream_as_far(counts: list[int], seed: int) -> None:
    generator = TorchGenerator(seed)
    stream = generator.state
    assert len(stream) == STATE + 1
    for count in counts:
        generator.multinomial(np.ones(count, np.float32))
        _skip(count, Rule(True, 1.0, 0, 1.0, 1.0), stream)
        _skip(count, Rule(False, 1.0, 0, 1.0, 1.0), stream)
    np.testing.assert_array_equal(stream, generator.state)


# ---- threads ----


@team_kernel
def _rounds(me: Member, count: int, sums: Any, shares: Any) -> None:
    """Each thread adds up what all threads wrote in the round before."""
    shares[me.index, 0], shares[me.index, 1] = share(me, 10)
    for i in range(count):
        now, before = (i + 1) % 2, i % 2
        total = 1
        for other in range(me.count):
            total += sums[before, other]
        sums[now, me.index] = total % 1000003
        barrier(me)


@needs_compiler
@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_team_meets_at_its_barriers(size: int) -> None:
    sums, shares = np.zeros((2, size), np.int64), np.zeros((size, 2), np.int64)
    Team(size).run(_rounds, 1000, sums, shares)
    expected = 0
    for _ in range(1000):
        expected = (size * expected + 1) % 1000003
    assert (sums[0] == expected).all()
    assert shares[0, 0] == 0
    assert shares[-1, 1] == 10
    assert (shares[1:, 0] == shares[:-1, 1]).all()


def test_a_team_stops_and_starts_again() -> None:
    team, before = Team(3), threading.active_count()
    seen: list[int] = []
    team.run(lambda me: seen.append(me.index))
    assert threading.active_count() == before + 3
    team.close()
    assert threading.active_count() == before
    team.run(lambda me: seen.append(me.index))
    assert sorted(seen) == [0, 0, 1, 1, 2, 2]
    del team  # its threads end with it
    assert threading.active_count() == before


def test_a_failure_in_a_thread_reaches_the_caller() -> None:
    def fail(me: Member) -> None:
        if me.index == 1:
            raise ValueError("from thread 1")

    team = Team(2)
    with pytest.raises(ValueError, match="from thread 1"):
        team.run(fail)
    team.run(lambda me: None)
    with pytest.raises(ValueError, match="a team of 0 threads must have at least 1"):
        Team(0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own() -> None:
    team = Team(2)
    team.run(lambda me: None)
    child = os.fork()
    if child == 0:
        seen: list[int] = []
        team.run(lambda me: seen.append(me.index))
        os._exit(len(seen))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2


def test_ctrl_c_interrupts_the_wait_and_the_team_stays_usable() -> None:
    team, ended = Team(2), []

    def slow(me: Member) -> None:
        if me.index == 0:
            signal.raise_signal(signal.SIGINT)
        time.sleep(0.1)
        ended.append(me.index)

    with pytest.raises(KeyboardInterrupt):
        team.run(slow)
    team.run(lambda me: None)  # waits for the interrupted call
    assert sorted(ended) == [0, 1]
