"""Convolutions, activations and nearest codewords: every kernel against its oracle in float64, within its buffers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from qwen3tts_np_kernels.activation_jit import (
    ELU,
    GELU,
    NOTHING,
    RELU,
    Activation,
    activate,
    activation_ref,
    silu_gate,
    snake_beta,
)
from qwen3tts_np_kernels.conv import conv1d_ref, conv_transpose1d_ref, depthwise_conv1d_ref
from qwen3tts_np_kernels.conv_jit import (
    conv,
    depthwise_conv,
    mono_conv,
    pack_conv,
    pack_depthwise,
    pack_mono,
    transposed_as_conv,
    unpack_conv,
    width,
)
from qwen3tts_np_kernels.cpu import compiled
from qwen3tts_np_kernels.program_jit import Memory, Recorder
from qwen3tts_np_kernels.rvq import nearest_ref
from qwen3tts_np_kernels.rvq_jit import nearest, pack_codebook
from qwen3tts_np_kernels.team import Team
from qwen3tts_np_kernels.together_jit import ALONE
from qwen3tts_np_kernels.toom_cook_jit import SCHEMES, minimal_conv, pack_minimal, tiles, unpack_minimal

F32 = np.float32
UNIT = 2.0**-24  # a float32 operation rounds by at most this part of its result
MINIMAL = {7: 2e-5, 2: 2e-6}  # rms error of minimal filtering over the rms result: -103 dB and -121 dB, with some room
GUARD = 64
needs_compiler = pytest.mark.skipif(not compiled(), reason="kernels are what a team runs together")
seeds = st.integers(0, 2**32 - 1)
channels = st.integers(1, 70)
kinds = st.sampled_from(list(SCHEMES))  # of minimal filters, by their taps


class Guarded:
    """Arrays between guards of NaN: what is read out of bounds spoils a result, what is written there is noticed."""

    def __init__(self) -> None:
        self._buffers: list[NDArray[Any]] = []

    def __call__(self, x: NDArray[Any]) -> NDArray[np.float32]:
        buffer = np.full(x.size + 2 * GUARD, np.nan, F32)
        self._buffers.append(buffer)
        view = buffer[GUARD : GUARD + x.size].reshape(x.shape)
        view[:] = x
        return view

    def check(self) -> None:
        for buffer in self._buffers:
            assert np.isnan(buffer[:GUARD]).all() and np.isnan(buffer[-GUARD:]).all()


def normal(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    return rng.standard_normal(shape).astype(F32)


def rows(x: NDArray[Any], room: int | None = None) -> NDArray[np.float32]:
    """[T, C] with zeros up to whole vectors."""
    return np.pad(x, ((0, 0), (0, width(x.shape[1]) - x.shape[1] if room is None else room)))


def exact_conv(x: Any, weight: Any, bias: Any, stride: int = 1, dilation: int = 1) -> tuple[Any, Any]:
    """In float64, from x [T, in]: results [T', out], and the sums of the magnitudes of their products."""
    operands = [a.astype(np.float64) for a in (x.T, weight, bias)]
    result, magnitude = (conv1d_ref(*each, stride, dilation).T for each in (operands, map(abs, operands)))
    return result, magnitude


# ---- convolution ----


@given(seeds, st.integers(1, 40), channels, channels, st.integers(1, 8), st.integers(1, 5), st.integers(1, 9))
def test_a_convolution_is_the_sum_of_its_products(seed, count, inputs, outputs, taps, stride, dilation):
    rng, guarded = np.random.default_rng(seed), Guarded()
    weight, bias = normal(rng, outputs, inputs, taps), normal(rng, outputs)
    data = normal(rng, (count - 1) * stride + (taps - 1) * dilation + 1, inputs)
    y, columns = guarded(np.zeros((count, width(outputs)))), rng.integers(0, 3)
    conv(guarded(rows(data, columns)), pack_conv(weight, bias), y, stride=stride, dilation=dilation)
    guarded.check()
    expected, magnitude = exact_conv(data, weight, bias, stride, dilation)
    terms = inputs * taps + 1  # each of which is rounded once, and then the sum at each step
    assert (abs(y[:, :outputs] - expected) <= 2 * terms * UNIT * magnitude).all()
    assert (y[:, outputs:] == 0).all()


@given(seeds, st.integers(1, 30), channels, channels, st.sampled_from([ELU, GELU, RELU, None]), st.booleans())
def test_what_follows_a_convolution(seed, count, inputs, outputs, activation, in_place):
    rng, guarded = np.random.default_rng(seed), Guarded()
    weight, bias, before = normal(rng, outputs, inputs), normal(rng, outputs), rows(normal(rng, count, outputs))
    if activation is None:
        activation = snake_beta(normal(rng, outputs), normal(rng, outputs), width(outputs))
    x, y = guarded(rows(normal(rng, count, inputs))), guarded(before)
    plain, shown = np.empty_like(y), y if in_place else guarded(np.zeros_like(y))
    conv(x, pack_conv(weight, bias), plain)
    arguments = {} if in_place else {"activated": shown}
    conv(x, pack_conv(weight, bias), y, residual=True, activation=activation, **arguments)
    guarded.check()
    expected = np.empty_like(plain)
    activate(plain + before, activation, expected)
    # The compiled sum and NumPy's are the same; with the compiler off both are NumPy's.
    np.testing.assert_array_equal(shown, expected)
    if not in_place:
        np.testing.assert_array_equal(y, plain + before)


@given(seeds, st.integers(2, 60), channels, channels, st.integers(1, 59))
@pytest.mark.skipif(not compiled(), reason="NumPy's sums depend on the shape")
def test_rows_do_not_depend_on_what_else_is_computed(seed, count, inputs, outputs, cut):
    rng, cut = np.random.default_rng(seed), cut % (count - 1) + 1
    w, x = pack_conv(normal(rng, outputs, inputs, 3), normal(rng, outputs)), rows(normal(rng, count + 2, inputs))
    whole, parts = np.empty((2, count, width(outputs)), F32)
    conv(x, w, whole)
    conv(x[: cut + 2], w, parts[:cut])
    conv(x[cut:], w, parts[cut:])
    np.testing.assert_array_equal(parts, whole)


@given(seeds, channels, channels, st.integers(1, 7))
def test_packing_keeps_every_weight(seed, inputs, outputs, taps):
    rng = np.random.default_rng(seed)
    weight, bias = normal(rng, outputs, inputs, taps), normal(rng, outputs)
    for packed, expected in zip(unpack_conv(pack_conv(weight, bias)), (weight, bias), strict=True):
        np.testing.assert_array_equal(packed, expected)


@given(seeds, st.integers(1, 40), channels, channels, st.integers(1, 3), st.booleans())
def test_weights_of_16_bits_are_multiplied_as_they_are(seed, count, inputs, outputs, taps, residual):
    """Within half a level of the weights; and what is computed is the product with these, rounded as a float32 sum."""
    rng = np.random.default_rng(seed)
    weight = normal(rng, outputs, inputs, taps) * np.exp(4 * normal(rng, outputs))[:, None, None]
    weight[rng.integers(outputs)] = 0
    bias, x = normal(rng, outputs), rows(normal(rng, count + taps - 1, inputs))
    w = pack_conv(weight, bias, "int16")
    assert w.weight.dtype == np.int16
    kept, _ = unpack_conv(w)
    half_levels = abs(weight).max(axis=(1, 2), keepdims=True) / 65534
    assert (abs(kept - weight) <= 1.01 * half_levels).all()
    y = rows(normal(rng, count, outputs)) if residual else np.full((count, width(outputs)), np.nan, F32)
    before = y[:, :outputs].astype(np.float64) if residual else 0
    conv(x, w, y, residual=residual)
    expected, magnitude = exact_conv(x[:, :inputs], kept, bias)
    assert (abs(y[:, :outputs] - expected - before) <= 2 * (inputs * taps + 3) * UNIT * (magnitude + abs(before))).all()
    assert (y[:, outputs:] == 0).all()


teams = Team(2), Team(3)


@given(seeds, st.sampled_from([1, 2, 7]), st.integers(1, 160), st.integers(1, 4), st.integers(1, 70), st.booleans())
@needs_compiler
@settings(max_examples=40)
def test_a_team_computes_the_same_together(seed, taps, count, dilation, outputs, narrow):
    rng, past = np.random.default_rng(seed), (taps - 1) * dilation
    weight, bias, snake = normal(rng, outputs, 30, taps), normal(rng, outputs), snake_beta(*normal(rng, 2, 70), 96)
    snake = snake._replace(frequency=snake.frequency[: width(outputs)], gain=snake.gain[: width(outputs)])
    x = rows(normal(rng, count + past, 30))
    functions = [(conv, pack_conv(weight, bias, "int16" if narrow else "float32"), {"residual": True})]
    if taps in SCHEMES:
        functions.append((minimal_conv, pack_minimal(weight, bias), {"frame": count}))

    def results(run):
        found = []
        for function, w, options in functions:
            y, shown = np.ones((2, count, width(outputs)), F32)
            function(x, w, y, dilation=dilation, activation=snake, activated=shown, **options, run=run)
            found += [y, shown]
        return found

    alone = results(ALONE)
    for team in teams:
        recorder = Recorder(team.size, Memory())
        together = results(recorder)
        recorder.program().run(team, "test")
        for one, other in zip(together, alone, strict=True):
            np.testing.assert_array_equal(one, other)


@needs_compiler
@pytest.mark.parametrize("team", teams)
def test_a_leader_that_fails_lets_the_others_go(team):
    w, x, y = pack_conv(np.ones((5, 3), F32)), np.ones((4, width(3)), F32), np.zeros((4, width(5)), F32)

    def work(run):
        conv(x, w, y, run=run)
        raise KeyError("after a kernel")

    for _ in range(2):
        with pytest.raises(KeyError, match="after a kernel"):
            team.lead(work, "failing")
    assert (y[:, :5] == 3).all()
    team.lead(lambda run: conv(x, w, y, residual=True, run=run), "working")
    assert (y[:, :5] == 6).all()


@given(seeds, st.integers(1, 20), channels, channels, st.integers(1, 5), st.integers(1, 3))
def test_a_transposed_convolution_is_a_convolution_to_more_channels(seed, count, inputs, outputs, stride, times):
    rng = np.random.default_rng(seed)
    weight, bias, data = normal(rng, inputs, outputs, stride * times), normal(rng, outputs), normal(rng, count, inputs)
    w = pack_conv(*transposed_as_conv(weight, bias, stride))
    y = np.empty((count, stride * width(outputs)), F32)
    conv(np.pad(rows(data), ((times - 1, 0), (0, 0))), w, y)
    arguments = (a.astype(np.float64) for a in (data.T, weight, bias))
    expected = conv_transpose1d_ref(*arguments, stride)[:, : count * stride].T
    # Of n terms of magnitude about 1, the sum is about sqrt(n) and so is its error in units; 8 is far out in the tail.
    tolerance = 8 * (inputs * times + 1) * UNIT
    np.testing.assert_allclose(y.reshape(-1, width(outputs))[:, :outputs], expected, atol=tolerance, rtol=0)


@given(seeds, st.integers(1, 20), channels, st.integers(1, 7))
def test_depthwise(seed, count, size, taps):
    rng, guarded = np.random.default_rng(seed), Guarded()
    weight, bias, data = normal(rng, size, 1, taps), normal(rng, size), normal(rng, count + taps - 1, size)
    y = guarded(np.zeros((count, width(size))))
    depthwise_conv(guarded(rows(data)), pack_depthwise(weight, bias), y)
    guarded.check()
    expected = depthwise_conv1d_ref(*(a.astype(np.float64) for a in (data.T, weight, bias))).T
    np.testing.assert_allclose(y[:, :size], expected, atol=100 * (taps + 1) * UNIT, rtol=0)  # of terms up to 5 * 5


@given(seeds, st.integers(1, 20), channels, st.integers(1, 7))
def test_a_convolution_to_one_channel(seed, count, size, taps):
    rng, guarded = np.random.default_rng(seed), Guarded()
    weight, bias, data = normal(rng, 1, size, taps), normal(rng, 1), normal(rng, count + taps - 1, size)
    y = guarded(np.zeros(count))
    mono_conv(guarded(rows(data)), pack_mono(weight, bias), y)
    guarded.check()
    expected, magnitude = exact_conv(data, weight, bias)
    assert (abs(y - np.clip(expected[:, 0], -1, 1)) <= 2 * (size * taps + 1) * UNIT * magnitude[:, 0]).all()


@pytest.mark.parametrize(
    ("x", "y", "told"),
    [
        (np.zeros((9, 32)), np.zeros((3, 32), F32), "x is float64"),
        (np.zeros((9, 64), F32)[:, ::2], np.zeros((3, 32), F32), "expected a contiguous"),
        (np.zeros((8, 32), F32), np.zeros((3, 32), F32), r"x\[8, 32\] should be at least \[9, 5\]"),
        (np.zeros((9, 4), F32), np.zeros((3, 32), F32), r"x\[9, 4\] should be at least \[9, 5\]"),
        (np.zeros((9, 32), F32), np.zeros((3, 64), F32), r"y\[3, 64\] should be \[3, 32\]"),
    ],
)
def test_arguments_that_do_not_fit(x, y, told):
    w = pack_conv(np.zeros((width(1), 5, 4), F32))
    if width(1) != 32:
        pytest.skip("the sentences name the widths that the largest register tile asks for")
    with pytest.raises((TypeError, ValueError), match=told):
        conv(x, w, y, dilation=2)


# ---- minimal filtering ----


@pytest.mark.parametrize("taps", SCHEMES)
def test_the_matrices_are_a_filter(taps):
    scheme, rng = SCHEMES[taps], np.random.default_rng(0)
    a, g, b = scheme.matrices
    x, w = rng.standard_normal(scheme.products), rng.standard_normal(taps)
    np.testing.assert_allclose(a @ ((g @ w) * (b @ x)), np.correlate(x, w), atol=1e-12)  # float64 loses 3 digits


@given(kinds, st.integers(1, 80), st.integers(1, 12))
def test_tiles_cover_every_row_of_a_frame_once(taps, frame, dilation):
    results = SCHEMES[taps].results
    starts, counts = tiles(results, frame, dilation)
    covered = [row for start, count in zip(starts, counts, strict=True) for row in start + dilation * np.arange(count)]
    assert sorted(covered) == list(range(frame))
    assert counts.max() <= results


def minimal_bound(x: Any, weight: Any, bias: Any) -> float:
    """No sum of the four that follow one another errs by more than its length in units of its magnitude."""
    a, g, b = map(abs, SCHEMES[weight.shape[2]].matrices)
    values = abs(x).max() * b.sum(axis=1)  # [products], of the inputs
    factors = np.einsum("pt,oit->op", g, abs(weight))  # [out, products], summed over the inputs
    largest = (factors * values) @ a.T + abs(bias)[:, None]  # [out, results]
    return (len(g) * 3 + weight.shape[1]) * UNIT * largest.max()


@given(seeds, kinds, st.integers(1, 3), st.integers(1, 40), channels, channels, st.integers(1, 9))
@settings(max_examples=60)
def test_minimal_filtering_is_the_same_convolution(seed, taps, frames, frame, inputs, outputs, dilation):
    rng, guarded = np.random.default_rng(seed), Guarded()
    weight, bias, count = normal(rng, outputs, inputs, taps), normal(rng, outputs), frames * frame
    data = normal(rng, count + (taps - 1) * dilation, inputs)
    w, x, y = pack_minimal(weight, bias), guarded(rows(data)), guarded(np.zeros((count, width(outputs))))
    minimal_conv(x, w, y, frame=frame, dilation=dilation)
    guarded.check()
    expected, _ = exact_conv(data, weight, bias, dilation=dilation)
    np.testing.assert_allclose(y[:, :outputs], expected, atol=minimal_bound(data, weight, bias), rtol=0)

    snake = snake_beta(normal(rng, outputs), normal(rng, outputs), width(outputs))
    shown, plain = guarded(np.zeros_like(y)), y.copy()
    minimal_conv(x, w, y, frame=frame, dilation=dilation, activation=snake, activated=shown)
    guarded.check()
    activate(plain, snake, expected := np.empty_like(plain))
    np.testing.assert_array_equal(y, plain)
    np.testing.assert_array_equal(shown, expected)


@pytest.mark.parametrize("taps", SCHEMES)
def test_the_error_of_minimal_filtering(taps):
    rng = np.random.default_rng(taps)
    weight, bias, data = normal(rng, 96, 96, taps), normal(rng, 96), normal(rng, 960 + taps - 1, 96)
    y = np.empty((960, 96), F32)
    minimal_conv(data, pack_minimal(weight, bias), y, frame=96)
    expected, _ = exact_conv(data, weight, bias)
    assert np.linalg.norm(y - expected) <= MINIMAL[taps] * np.linalg.norm(expected)


@given(seeds, kinds, st.integers(2, 4), st.integers(1, 40), st.integers(1, 9), st.integers(1, 3))
@pytest.mark.skipif(not compiled(), reason="NumPy's sums depend on the shape")
def test_frames_do_not_depend_on_what_else_is_computed(seed, taps, frames, frame, dilation, cut):
    rng, cut, past = np.random.default_rng(seed), cut % (frames - 1) + 1, (taps - 1) * dilation
    w, x = pack_minimal(normal(rng, 20, 30, taps), normal(rng, 20)), rows(normal(rng, frames * frame + past, 30))
    whole, parts = np.empty((2, frames * frame, width(20)), F32)
    minimal_conv(x, w, whole, frame=frame, dilation=dilation)
    minimal_conv(x[: cut * frame + past], w, parts[: cut * frame], frame=frame, dilation=dilation)
    minimal_conv(x[cut * frame :], w, parts[cut * frame :], frame=frame, dilation=dilation)
    np.testing.assert_array_equal(parts, whole)


@given(seeds, st.sampled_from([1, 2, 3, 7]), st.lists(st.integers(0, 60), min_size=1, max_size=4), st.integers(1, 9))
@settings(max_examples=40)
def test_signals_in_one_pass_are_those_alone(seed, taps, lengths, dilation):
    rng, guarded, past = np.random.default_rng(seed), Guarded(), (taps - 1) * dilation
    weight, bias = normal(rng, 20, 30, taps), normal(rng, 20)
    snake = snake_beta(normal(rng, 20), normal(rng, 20), width(20))
    frame = int(rng.integers(1, 9))
    inputs = [rows(normal(rng, n * frame + past, 30)) for n in lengths]
    functions = [(conv, pack_conv(weight, bias), {"residual": True})]
    if taps in SCHEMES:
        functions.append((minimal_conv, pack_minimal(weight, bias), {"frame": frame}))
    for function, w, options in functions:
        alone, shown_alone = ([np.ones((n * frame, width(20)), F32) for n in lengths] for _ in range(2))
        for x, y, shown in zip(inputs, alone, shown_alone, strict=True):
            function(x, w, y, dilation=dilation, activation=snake, activated=shown, **options)
        y, shown = (
            guarded(np.ones((sum(lengths) * frame, width(20)))),
            guarded(np.ones((sum(lengths) * frame, width(20)))),
        )
        signals = np.array(lengths, np.int64) * frame
        x = guarded(np.concatenate(inputs))
        function(x, w, y, dilation=dilation, activation=snake, activated=shown, signals=signals, **options)
        guarded.check()
        np.testing.assert_array_equal(y, np.concatenate(alone))
        np.testing.assert_array_equal(shown, np.concatenate(shown_alone))


def test_signals_that_do_not_fit():
    w = pack_conv(np.zeros((3, 5, 2), F32), np.zeros(3, F32))
    x, y = np.zeros((9, width(5)), F32), np.zeros((6, width(3)), F32)
    with pytest.raises(ValueError, match=r"signals=\[2, 3\] \(int64\) do not add up to 6 rows"):
        conv(x, w, y, signals=np.array([2, 3], np.int64))
    with pytest.raises(ValueError, match="2 signals with stride=2; several have a stride of 1"):
        conv(x, w, y, signals=np.array([2, 4], np.int64), stride=2)


@pytest.mark.parametrize("taps", SCHEMES)
def test_transformed_weights_can_be_read_back(taps):
    rng = np.random.default_rng(taps)
    weight, bias = normal(rng, 33, 5, taps), normal(rng, 33)
    again, same = unpack_minimal(pack_minimal(weight, bias))
    np.testing.assert_allclose(again, weight, atol=1e-5)  # both transforms round, and the second adds up large terms
    np.testing.assert_array_equal(same, bias)


@pytest.mark.parametrize(
    ("x_rows", "y_rows", "frame", "told"),
    [(11, 6, 3, "x is float32"), (12, 6, 4, "6 rows are not a multiple of frame=4")],
)
def test_minimal_arguments_that_do_not_fit(x_rows, y_rows, frame, told):
    w = pack_minimal(np.zeros((3, 5, 7), F32), np.zeros(3, F32))
    with pytest.raises(ValueError, match=told):
        minimal_conv(np.zeros((x_rows, width(5)), F32), w, np.zeros((y_rows, width(3)), F32), frame=frame)


# ---- activations ----

POINTS = np.concatenate(
    [np.linspace(-20, 20, 40_000), np.geomspace(1e-30, 1e4, 2_000), -np.geomspace(1e-30, 1e4, 2_000), [0, -0.0]]
).astype(F32)


def apply(activation: Activation, x: NDArray[np.float32]) -> NDArray[np.float32]:
    padded = np.pad(x, (0, -x.size % 32)).reshape(-1, 32)
    activate(padded, activation, padded)
    return padded.reshape(-1)[: x.size]


def test_elu():
    expected = activation_ref(POINTS.astype(np.float64), ELU)
    # Two units of the last place; the bound on 0 is the smallest normal number, below which vectors may round to 0.
    np.testing.assert_allclose(apply(ELU, POINTS), expected, rtol=4 * UNIT, atol=1.2e-38)


def test_gelu():
    expected = activation_ref(POINTS.astype(np.float64), GELU)
    actual = apply(GELU, POINTS)
    near = POINTS > -2
    np.testing.assert_allclose(actual[near], expected[near], rtol=1e-6, atol=1.2e-38)  # ours 5e-7, NumPy's 8e-7
    np.testing.assert_allclose(actual[~near], expected[~near], rtol=0, atol=3e-7)  # x (1 + erf) as float32 rounds it


def test_relu_and_nothing():
    np.testing.assert_array_equal(apply(RELU, POINTS), np.maximum(POINTS, 0))
    np.testing.assert_array_equal(apply(NOTHING, POINTS), POINTS)


@given(seeds, channels, st.integers(1, 9))
def test_snake_beta(seed, size, count):
    rng, guarded = np.random.default_rng(seed), Guarded()
    alpha, beta, data = normal(rng, size), normal(rng, size), 5 * normal(rng, count, size)
    snake, y = snake_beta(alpha, beta, width(size)), guarded(np.zeros((count, width(size))))
    activate(guarded(rows(data)), snake, y)
    guarded.check()
    a, b = np.exp(alpha.astype(np.float64)), np.exp(beta.astype(np.float64))
    expected = data + np.sin(data * a) ** 2 / (b + 1e-9)
    # sin² is off by 4e-7, and by 2 units of its argument, which is rounded twice
    tolerance = (4e-7 + 4 * UNIT * abs(data * a)) / b + 2 * UNIT * abs(expected)
    assert (abs(y[:, :size] - expected) <= tolerance).all()
    assert (y[:, size:] == 0).all()


def test_snake_beta_side_by_side():
    rng = np.random.default_rng(0)
    snake, x = snake_beta(normal(rng, 32), normal(rng, 32), 32), normal(rng, 12, 32)
    once, thrice = np.empty_like(x), np.empty((4, 96), F32)
    activate(x, snake, once)
    activate(x.reshape(4, 96), snake.repeated(3), thrice)
    np.testing.assert_array_equal(thrice.reshape(12, 32), once)


@given(seeds, st.integers(1, 9), st.integers(1, 5))
def test_silu_gate(seed, count, vectors):
    rng, guarded = np.random.default_rng(seed), Guarded()
    x, y = guarded(3 * normal(rng, count, 32 * vectors)), guarded(np.zeros((count, 16 * vectors)))
    silu_gate(x, y)
    guarded.check()
    gate, up = np.split(x.astype(np.float64), 2, axis=1)
    np.testing.assert_allclose(y, gate / (1 + np.exp(-gate)) * up, rtol=1e-6, atol=1e-30)  # exp within 2 units


@pytest.mark.parametrize("function", [lambda x, y: activate(x, ELU, y), silu_gate])
def test_rows_that_are_not_whole_vectors(function):
    with pytest.raises(ValueError, match=r"x is float32 \[3, 17\]"):
        function(np.zeros((3, 17), F32), np.zeros((3, 17), F32))


# ---- nearest codeword ----


@given(seeds, st.integers(1, 60), st.integers(1, 90), st.integers(1, 40))
def test_the_nearest_entry(seed, count, size, columns):
    rng = np.random.default_rng(seed)
    x, entries = normal(rng, count, columns), normal(rng, size, columns)
    guarded = Guarded()
    chosen = nearest(guarded(x), pack_codebook(entries))
    distances = np.linalg.norm(x[:, None].astype(np.float64) - entries, axis=2)
    of_chosen = np.take_along_axis(distances, chosen[:, None], axis=1)[:, 0]
    # |x|² - 2 x·e + |e|² errs by some units times its terms, and its root by the root of that where it is near 0
    slack = np.sqrt(8 * columns * UNIT * ((x**2).sum(1) + (entries**2).sum(1).max()))
    assert (of_chosen <= distances.min(axis=1) + slack).all()
    assert chosen.dtype == np.int64


def test_of_entries_that_tie_the_first_is_chosen():
    """Small whole numbers: no sum rounds, so this holds to the bit."""
    rng = np.random.default_rng(0)
    x, entries = rng.integers(-2, 3, (200, 3)).astype(F32), rng.integers(-2, 3, (75, 3)).astype(F32)
    np.testing.assert_array_equal(nearest(x, pack_codebook(entries)), nearest_ref(x, entries))


def test_nearest_needs_rows_of_the_codebook():
    with pytest.raises(ValueError, match=r"x is float32 \[2, 4\], expected contiguous float32 \[T, 3\]"):
        nearest(np.zeros((2, 4), F32), pack_codebook(np.zeros((5, 3), F32)))
