"""Packed weights: nothing is lost in packing, and every product is the product of the unpacked matrix."""

from __future__ import annotations

import itertools
import tracemalloc
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from qwen3tts_np_kernels import linear_jit as kernels
from qwen3tts_np_kernels.bfloat16 import round_ref, widen_ref
from qwen3tts_np_kernels.cpu import compiled, kernel
from qwen3tts_np_kernels.pack import (
    BLOCK,
    FORMATS,
    GROUP,
    FormatName,
    Packed,
    empty,
    linear_ref,
    pack,
    pack_levels,
    quantise,
    quantise_groups_ref,
    unpack,
    unpack_levels,
)

F32 = np.float32
UNIT = 2.0**-24  # a float32 operation rounds by at most this part of its result
needs_compiler = pytest.mark.skipif(not compiled(), reason="called from compiled code only")
names = st.sampled_from(get_args(FormatName))
sizes = st.integers(1, 100)
FLOATS = [name for name, form in FORMATS.items() if not form.bits]


def normal(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(F32)


# ---- packing ----


@given(names, sizes, sizes)
def test_packing_keeps_every_weight(name: FormatName, rows: int, inputs: int) -> None:
    weights = normal(rows, inputs)
    packed = pack(weights, name)
    if FORMATS[name].bits:
        levels, scales = quantise(weights, FORMATS[name].bits)
        expected = levels * np.repeat(scales, GROUP, axis=1)[:, :inputs].astype(F32)
        again = pack_levels(levels, scales, name)
        for one, other in zip(unpack_levels(packed, rows, inputs), (levels, scales), strict=True):
            np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(packed.values, again.values)
        np.testing.assert_array_equal(packed.scales, again.scales)
    else:
        rounded = {"float32": weights, "bfloat16": widen_ref(round_ref(weights)), "float16": weights.astype(np.float16)}
        expected = rounded[name].astype(F32)
    np.testing.assert_array_equal(unpack(packed, rows, inputs), expected)
    assert packed.weights == FORMATS[name].count(rows, inputs)


def test_the_layout_is_the_one_described() -> None:
    """Places of single weights: a file format would be built on them."""
    levels = (np.arange(32 * 64).reshape(32, 64) % 15 - 8).astype(np.int8)
    scales = np.arange(64, dtype=np.float16).reshape(32, 2)
    eight, four = pack_levels(levels, scales, "int8"), pack_levels(levels, scales, "int4")
    floats = levels.astype(F32)
    whole, half = pack(floats, "float32"), pack(floats, "bfloat16")
    for row, k in ((0, 0), (5, 7), (17, 33), (31, 63)):
        block, lane = divmod(row, BLOCK)
        assert whole.values.reshape(2, 64, 16)[block, k, lane] == levels[row, k]
        assert widen_ref(half.values).reshape(2, 32, 16, 2)[block, k // 2, lane, k % 2] == levels[row, k]
        assert eight.values.reshape(2, 16, 16, 4)[block, k // 4, lane, k % 4] == int(levels[row, k]) + 128
        cell = four.values.reshape(2, 8, 16, 4)[block, k // 8, lane, k % 4]
        assert (cell >> 4 if k % 8 >= 4 else cell & 15) == int(levels[row, k]) + 8
        for packed in (eight, four):
            assert packed.scales.view(np.float16).reshape(2, 2, 16)[block, k // 32, lane] == scales[row, k // 32]


@pytest.mark.parametrize("name", FORMATS)
def test_bfloat16_weights_pack_as_they_would_in_float32(name: FormatName) -> None:
    bits = round_ref(normal(33, 70))
    one, other = pack(bits, name), pack(widen_ref(bits), name)
    np.testing.assert_array_equal(one.values, other.values)
    np.testing.assert_array_equal(one.scales, other.scales)


@pytest.mark.parametrize("name", FORMATS)
def test_an_arena_holds_matrices_one_behind_another(name: FormatName) -> None:
    form = FORMATS[name]
    matrices = [normal(20, 40, seed=1), normal(7, 64, seed=2), normal(48, 2, seed=3)]
    counts = [form.count(*matrix.shape) for matrix in matrices]
    arena = empty(name, sum(counts))
    starts = np.cumsum([0, *counts])
    for matrix, start, count in zip(matrices, starts, counts, strict=False):
        pack(matrix, name, arena.part(start, count))
    for matrix, start, count in zip(matrices, starts, counts, strict=False):
        np.testing.assert_array_equal(
            unpack(arena.part(start, count), *matrix.shape), unpack(pack(matrix, name), *matrix.shape)
        )
    for array in (arena.values, arena.scales):
        assert array.size == 0 or array.ctypes.data % 64 == 0


def test_packing_needs_little_memory_beside_the_result() -> None:
    weights = round_ref(normal(1024, 2048))
    result = empty("int4", weights.size)
    tracemalloc.start()
    pack(weights, "int4", result)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 << 20  # about ten arrays of 2**18 float32; all weights in float32 would be 8 MB each


# ---- the quantiser ----


def squared_error(weights: NDArray[np.float32], scale: NDArray[Any], half: int) -> Any:
    """Of groups [n, 32] when rounded for the given scale of each."""
    scale = scale.astype(np.float16).astype(np.float64)[:, None]
    return ((weights - scale * np.clip(np.rint(weights / scale), -half, half - 1)) ** 2).sum()


@pytest.mark.parametrize(
    ("bits", "excess", "gain"), [(4, 1.005, 0.72), (5, 1.015, 0.82), (6, 1.03, 0.84), (8, 1.15, 0.87)]
)
def test_the_scale_is_near_the_best_there_is(bits: int, excess: float, gain: float) -> None:
    """Against an exhaustive search: 0.3 % worse with 4 bits, more where errors are too small to matter."""
    weights, half = normal(256, 32), 2 ** (bits - 1)
    levels, scales = quantise(weights, bits)
    error = ((weights - levels * scales.astype(np.float64)) ** 2).sum()
    extreme = np.take_along_axis(weights, np.abs(weights).argmax(axis=1)[:, None], axis=1)[:, 0]
    tried = [-extreme / (half * ratio) for ratio in np.linspace(0.6, 1.6, 400)]
    best = np.min(
        [[squared_error(w[None], s[None], half) for w, s in zip(weights, scale, strict=True)] for scale in tried[::4]],
        axis=0,
    ).sum()
    assert error < excess * best
    assert error < gain * squared_error(weights, np.abs(weights).max(axis=1) / (half - 1), half)


@given(names.filter(lambda name: FORMATS[name].bits), st.sampled_from([0.0, 1e-12, 1e-7, 1e-4, 1.0, 1e4, 1e9]))
def test_any_size_of_weight_quantises(name: FormatName, size: float) -> None:
    bits = FORMATS[name].bits or 0
    weights = normal(16, 64) * F32(size)
    weights[3, :32] = 0
    levels, scales = quantise(weights, bits)
    assert levels.min() >= -(2 ** (bits - 1))
    assert levels.max() <= 2 ** (bits - 1) - 1
    assert np.isfinite(scales).all()
    assert not levels[3, :32].any()
    if 1e-4 <= size <= 1e4:  # within float16: no weight is off by more than it is where the extreme was cut off
        error = np.abs(weights - levels * np.repeat(scales.astype(F32), GROUP, axis=1))
        assert error.max() <= 1.6 * np.abs(np.repeat(scales.astype(F32), GROUP, axis=1)).max()


# ---- products ----


def exact_product(x: NDArray[np.float32], packed: Packed, rows: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """x wᵀ in float64, of what the kernels multiply, and the bound of a float32 sum of it.

    k terms, each added by one rounding operation (or two, without fused multiply-add): the error is at most
    (k + 1) UNIT of the sum of magnitudes. In integer formats the terms are groups, scaled twice before they are added.
    """
    w = unpack(packed, rows, x.shape[1]).astype(np.float64)
    terms = x.shape[1]
    wide = x.astype(np.float64)
    if packed.format.bits:
        levels, scales = quantise_groups_ref(x)
        wide = levels * np.repeat(scales, GROUP, axis=1)[:, : x.shape[1]].astype(np.float64)
        # NumPy, which stands in without a compiler, sums all inputs and rounds the weights and the inputs first.
        terms = -(-terms // GROUP) + 3 if compiled() else terms + 3
    return wide @ w.T, (terms + 1) * UNIT * (np.abs(wide) @ np.abs(w).T)


@given(names, sizes, sizes, st.integers(1, 20))
@example("int4", 1, 1, 1)
@example("bfloat16", 16, 1, 3)
@example("int8", 300, 700, 17)
@example("float32", 300, 700, 9)
def test_linear_is_the_product_of_the_unpacked_matrix(name: FormatName, rows: int, inputs: int, items: int) -> None:
    packed, x = pack(normal(rows, inputs, seed=1), name), normal(items, inputs, seed=2)
    y = kernels.linear(x, packed, rows)
    expected, bound = exact_product(x, packed, rows)
    assert y.dtype == F32
    assert y.shape == (items, rows)
    assert (np.abs(y - expected) <= bound).all()


@pytest.mark.parametrize("name", FORMATS)
def test_one_weight_off_by_a_thousandth_shows(name: FormatName) -> None:
    """The bound above is tight enough to mean something."""
    x = np.abs(normal(1, 64, seed=2)) + 1
    packed = pack(np.abs(normal(20, 64, seed=1)) + 1, name)
    worse = packed._replace(values=packed.values.copy(), scales=packed.scales.copy())
    if packed.format.bits:
        worse.scales[0] += 1  # a unit of 11 bits
    elif name == "float32":
        worse.values[0] *= F32(1.001)
    else:
        worse.values[0] += 1 if name == "bfloat16" else 2  # units of 8 and of 11 bits
    expected, bound = exact_product(x, packed, 20)
    wrong = np.abs(kernels.linear(x, worse, 20) - expected) > bound
    assert wrong[0, 0]
    assert not wrong[0, 1:].any()


@given(sizes, sizes, st.integers(1, 9))
def test_float_formats_give_the_same_bits_for_the_same_weights(rows: int, inputs: int, items: int) -> None:
    x = normal(items, inputs, seed=2)
    weights = widen_ref(round_ref(normal(rows, inputs, seed=1)))  # exact in float16 too, if not too small
    weights = np.where(np.abs(weights) < 2.0**-7, F32(0), weights)
    whole, bfloat, half = (kernels.linear(x, pack(weights, name), rows) for name in FLOATS)
    np.testing.assert_array_equal(bfloat, whole)
    np.testing.assert_array_equal(half, whole)


def test_linear_ref_keeps_float64() -> None:
    x = normal(3, 64).astype(np.float64)
    for name in FORMATS:
        assert linear_ref(x, pack(normal(20, 64), name), 20).dtype == np.float64


def test_what_does_not_fit_is_refused_in_one_sentence() -> None:
    packed = pack(normal(20, 64), "int4")
    with pytest.raises(TypeError, match=r"^linear: x.dtype=float64, expected float32$"):
        kernels.linear(np.zeros((1, 64)), packed, 20)
    with pytest.raises(ValueError, match=r"^linear: x\[1, 65\] does not fit 2048 weights in 20 rows$"):
        kernels.linear(np.zeros((1, 65), F32), packed, 20)
    with pytest.raises(ValueError, match="does not fit"):
        kernels.linear(np.zeros(64, F32), packed, 20)


# ---- the kernels as other compiled code calls them ----


def as_kernel(function: Any) -> Any:
    """A function for compiled code that can be called from Python."""
    return kernel(function.py_func) if compiled() else function


matvec_float, matmul_float = as_kernel(kernels.matvec_float), as_kernel(kernels.matmul_float)
matvec_int8, matmul_int8 = as_kernel(kernels.matvec_int8), as_kernel(kernels.matmul_int8)
matvec_int4, matmul_int4 = as_kernel(kernels.matvec_int4), as_kernel(kernels.matmul_int4)


@needs_compiler
@given(sizes, st.integers(0, 70))
def test_quantised_inputs_equal_the_oracle(inputs: int, offset: int) -> None:
    x = normal(1, inputs) * F32(10) ** (offset % 9 - 4)
    if offset % 7 == 0:
        x[:, : inputs // 2] = 0
    if offset % 7 == 1:
        x[:, : inputs // 2] *= F32(1e-38)
    groups = -(-inputs // GROUP)
    levels, scales, zeros = (
        np.full(GROUP * (groups + 2), 99, np.int8),
        np.full(groups + 2, -1, F32),
        np.full(groups + 2, 99, np.int32),
    )
    around = np.full(offset + inputs + 40, np.nan, F32)
    around[offset : offset + inputs] = x
    kernels.quantise_groups(around, offset, inputs, levels, scales, zeros, GROUP)
    expected_levels, expected_scales = quantise_groups_ref(x)
    np.testing.assert_array_equal(levels[GROUP : GROUP + inputs], expected_levels[0])
    assert not levels[GROUP + inputs : GROUP * (groups + 1)].any()
    np.testing.assert_array_equal(scales, [-1, *expected_scales[0], -1])
    np.testing.assert_array_equal(
        zeros[1:-1], -8 * levels[GROUP:-GROUP].astype(np.int32).reshape(groups, GROUP).sum(axis=1)
    )
    assert (levels[:GROUP] == 99).all()
    assert (levels[-GROUP:] == 99).all()
    assert zeros[0] == zeros[-1] == 99


class Place:
    """A matrix and inputs in the middle of larger arrays, whose rest is filled with what would spoil a result."""

    def __init__(self, name: FormatName, rows: int, inputs: int, items: int, poison: int) -> None:
        form = FORMATS[name]
        matrix = pack(normal(rows, inputs, seed=1), name)
        self.start, self.inputs, self.items, self.blocks = 1024, inputs, items, -(-rows // BLOCK)
        arena = empty(name, matrix.weights + 2048)
        arena.values.view(np.uint8)[:] = poison
        arena.scales[:] = 0x7E00 + poison  # not a number
        middle = arena.part(self.start, matrix.weights)
        middle.values[:], middle.scales[:] = matrix.values, matrix.scales
        self.bits, self.weights = form.bits, (arena.values, arena.scales)
        self.x_to, self.x_start = form.padded(inputs) + 64, 96
        self.x = np.full(2 * self.x_start + items * self.x_to, np.nan, F32)
        for item, values in enumerate(normal(items, inputs, seed=2)):
            self.x[self.x_start + item * self.x_to :][:inputs] = values
        if form.bits:
            levels, scales = np.full(self.x.size, poison // 2, np.int8), np.full(self.x.size // GROUP, np.nan, F32)
            zeros = np.full(scales.size, 1 << 30, np.int32)
            for item in range(items):
                at = self.x_start + item * self.x_to
                kernels.quantise_groups(self.x, at, inputs, levels, scales, zeros, at)
            self.quantised = (levels, scales, zeros)
        self.y_to, self.y_start = BLOCK * self.blocks + 5, 7

    def empty(self) -> NDArray[np.float32]:
        return np.full(self.y_start + self.items * self.y_to + 9, -77, F32)

    def matvec(self, item: int, y: NDArray[np.float32], first: int, last: int) -> None:
        x_start, y_start = self.x_start + item * self.x_to, self.y_start + item * self.y_to
        if self.bits is None:
            matvec_float(self.weights[0], self.start, self.inputs, self.x, x_start, y, y_start, first, last)
        else:
            product = matvec_int4 if self.bits == 4 else matvec_int8
            product(*self.weights, self.start, self.inputs, *self.quantised, x_start, y, y_start, first, last)

    def matmul(self, y: NDArray[np.float32], first: int, last: int) -> None:
        where = (self.x_start, self.x_to, y, self.y_start, self.y_to, first, last)
        if self.bits is None:
            matmul_float(self.weights[0], self.start, self.inputs, self.items, self.x, *where)
        else:
            product = matmul_int4 if self.bits == 4 else matmul_int8
            product(*self.weights, self.start, self.inputs, self.items, *self.quantised, *where)


evens = st.integers(1, 50).map(lambda half: 2 * half)


@needs_compiler
@given(names, st.integers(1, 200), evens, st.integers(1, 19), st.lists(st.integers(0, 13), max_size=4))
@example("bfloat16", 700, 1024, 3, [])  # more than one panel
@example("int8", 700, 1024, 13, [7])  # the same of a prompt
@example("int4", 700, 1024, 17, [])
def test_same_bits_alone_in_a_batch_and_shared_among_threads(
    name: FormatName, rows: int, inputs: int, items: int, cuts: list[int]
) -> None:
    place = Place(name, rows, inputs, items, 7)
    whole, shared, alone = place.empty(), place.empty(), place.empty()
    place.matmul(whole, 0, place.blocks)
    edges = [0, *sorted(min(cut, place.blocks) for cut in cuts), place.blocks]
    for first, last in itertools.pairwise(edges):
        place.matmul(shared, first, last)
        for item in range(items):
            place.matvec(item, alone, first, last)
    np.testing.assert_array_equal(shared, whole)
    np.testing.assert_array_equal(alone, whole)


@needs_compiler
@given(names, sizes, evens, st.integers(1, 19))
def test_nothing_outside_is_read_or_written(name: FormatName, rows: int, inputs: int, items: int) -> None:
    results = []
    for poison in (1, 250):
        place = Place(name, rows, inputs, items, poison)
        y = place.empty()
        place.matmul(y, 0, place.blocks)
        alone = place.empty()
        for item in range(items):
            place.matvec(item, alone, 0, place.blocks)
        np.testing.assert_array_equal(alone, y)
        results.append(y)
    np.testing.assert_array_equal(*results)
    inside = np.zeros(results[0].size, bool)
    for item in range(items):
        row0 = place.y_start + item * place.y_to
        inside[row0 : row0 + BLOCK * place.blocks] = True
        assert not results[0][row0 + rows : row0 + BLOCK * place.blocks].any()  # rows that are not there
    assert (results[0][~inside] == -77).all()
    assert np.isfinite(results[0]).all()
