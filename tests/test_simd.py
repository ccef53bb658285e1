"""The vector operations against NumPy, on this CPU and on older ones, and without the compiler."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numba import njit
from numba.core.errors import TypingError
from numpy.typing import NDArray
from qwen3tts_np_kernels import compiler, cpu  # noqa: F401  # the compiler tells Numba what an operation is
from qwen3tts_np_kernels.bfloat16 import widen_ref
from qwen3tts_np_kernels.pack import pack_levels
from qwen3tts_np_kernels.simd import functions, instruction_sets, ops, tiles

F32 = np.float32
needs_compiler = pytest.mark.skipif(not cpu.compiled(), reason="vectors exist in compiled code only")


def lanes(operation: Any, *operands: NDArray[Any], dtype: Any = F32) -> NDArray[Any]:
    """operation on vectors of the operands, flat arrays of 4-byte numbers; the operation may depend on the CPU."""
    loads = [ops.load if operand.dtype == F32 else ops.load_int for operand in operands]
    store = ops.store if dtype is F32 else ops.store_int
    out = np.zeros(operands[0].size, dtype)
    if len(operands) == 1:
        (load,) = loads

        @njit
        def run(x, y):
            for i in range(0, y.size, 16):
                store(y, i, operation(load(x, i)))

    elif len(operands) == 2:
        load, load2 = loads

        @njit
        def run(a, b, y):
            for i in range(0, y.size, 16):
                store(y, i, operation(load(a, i), load2(b, i)))

    else:
        load, load2, load3 = loads

        @njit
        def run(a, b, c, y):
            for i in range(0, y.size, 16):
                store(y, i, operation(load(a, i), load2(b, i), load3(c, i)))

    run(*operands, out)
    return out


def random(count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(count).astype(F32) * 3


def random_int(count: int, seed: int = 0, dtype: Any = np.int32) -> NDArray[Any]:
    info = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(info.min, info.max, count, dtype, endpoint=True)


@needs_compiler
@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        (ops.add, np.add),
        (ops.sub, np.subtract),
        (ops.mul, np.multiply),
        (ops.maximum, np.maximum),
    ],
)
def test_float_arithmetic(operation: Any, expected: Callable[..., Any]) -> None:
    x, y = random(64, 0), random(64, 1)
    np.testing.assert_array_equal(lanes(operation, x, y), expected(x, y))


@needs_compiler
def test_float_functions() -> None:
    x = np.concatenate([random(60), [0.5, 1.5, -2.5, 1e6]]).astype(F32)
    np.testing.assert_array_equal(lanes(ops.absolute, x), np.abs(x))
    np.testing.assert_array_equal(lanes(ops.sqrt, np.abs(x)), np.sqrt(np.abs(x)))
    np.testing.assert_array_equal(lanes(ops.to_int, x, dtype=np.int32), np.rint(x).astype(np.int32))


@needs_compiler
def test_the_second_operand_wins_over_nan() -> None:
    nan, one = np.full(16, np.nan, F32), np.ones(16, F32)
    assert (lanes(ops.maximum, nan, one) == 1).all()
    assert np.isnan(lanes(ops.maximum, one, nan)).all()


@needs_compiler
def test_fma_rounds_once_where_the_cpu_can() -> None:
    x = np.full(16, 1 + 2.0**-12, F32)
    exact = x.astype(np.float64) ** 2 - 1  # 2**-11 + 2**-24: the square alone would lose the second term
    rounded_twice = x * x - F32(1)
    assert (exact.astype(F32) != rounded_twice).all()
    result = lanes(ops.fma, x, x, np.full(16, -1, F32))
    np.testing.assert_array_equal(result, exact.astype(F32) if cpu.CPU.rounds_once else rounded_twice)


@needs_compiler
def test_integer_addition_is_modulo_32_bits() -> None:
    x, y = random_int(64, 0), random_int(64, 1)
    np.testing.assert_array_equal(lanes(ops.add_int, x, y, dtype=np.int32), x + y)


@needs_compiler
def test_bits_and_choice() -> None:
    x, y = random(64, 0), random(64, 1)
    np.testing.assert_array_equal(lanes(ops.as_int, x, dtype=np.int32), x.view(np.int32))
    np.testing.assert_array_equal(lanes(ops.as_float, x.view(np.int32)), x)
    mask = lanes(ops.greater, x, y, dtype=np.int32)
    np.testing.assert_array_equal(mask, -(x > y).astype(np.int32))
    np.testing.assert_array_equal(lanes(ops.select, mask, x, y), np.maximum(x, y))


@needs_compiler
def test_every_bfloat16_is_widened_exactly() -> None:
    every = np.arange(1 << 16).astype(np.uint16)

    @njit
    def run(every, y):
        for i in range(0, every.size, 16):
            ops.store(y, i, ops.load_bf16(every, i))

    y = np.zeros(every.size, F32)
    run(every, y)
    np.testing.assert_array_equal(y.view(np.uint32), widen_ref(every).view(np.uint32))


@needs_compiler
@pytest.mark.parametrize("dtype", [np.float32, np.uint16, np.int16])
def test_every_weight_is_widened_exactly(dtype: Any) -> None:
    """bfloat16 bits are uint16, float16 bits int16. A sum of 1 weight is the weight."""
    bits = np.arange(1 << 16).astype(np.uint16)
    value = {np.float32: widen_ref(bits), np.uint16: widen_ref(bits), np.int16: bits.view(np.float16).astype(F32)}[
        dtype
    ]
    bits[~np.isfinite(value)], value[~np.isfinite(value)] = 0, 0
    stored = value if dtype is np.float32 else bits.astype(dtype) if dtype is np.uint16 else bits.view(dtype)

    @njit
    def run(weights, x, y):
        for i in range(0, y.size, 32):
            for k in range(2):
                tiles.store_tile(
                    y, i + 16 * k, 16, tiles.fma_weights(tiles.zeros_tile(1), weights, i, 0, x, k, 0, 1, 64)
                )

    y = np.zeros(bits.size, F32)
    run(stored, np.array([1, 0, 1], F32), y)
    if dtype is np.uint16:  # a cell holds the weights of two neighbouring inputs
        value = value.reshape(-1, 16, 2).swapaxes(1, 2).ravel()
    np.testing.assert_array_equal(y, value)


@needs_compiler
def test_store_of_the_low_bytes() -> None:
    ints = random_int(64)

    @njit
    def run(ints, bytes_):
        for i in range(0, ints.size, 16):
            ops.store_i8(bytes_, i, ops.load_int(ints, i))

    bytes_ = np.zeros(64, np.int8)
    run(ints, bytes_)
    np.testing.assert_array_equal(bytes_, ints.astype(np.int8))


@needs_compiler
def test_constants() -> None:
    @njit
    def run(y, ints):
        ops.store(y, 0, ops.zeros())
        ops.store(y, 16, ops.splat(1.5))
        ops.store_int(ints, 0, ops.zeros_int())
        ops.store_int(ints, 16, ops.splat_int(-7))
        ops.store_int(ints, 32, ops.lane_numbers())

    y, ints = np.ones(32, F32), np.ones(48, np.int32)
    run(y, ints)
    np.testing.assert_array_equal(y, np.repeat(F32([0, 1.5]), 16))
    np.testing.assert_array_equal(ints, [*[0] * 16, *[-7] * 16, *range(16)])


@needs_compiler
def test_part_of_a_vector_touches_nothing_else() -> None:
    @njit
    def run(x, y, count):
        ops.store_first(y, 4, ops.load_first(x, 4, count), count)
        return ops.total(ops.load_first(x, 4, count))

    for count in range(17):
        x, y = np.full(24, np.nan, F32), np.full(24, -1, F32)
        x[4 : 4 + count] = np.arange(count)
        assert run(x, y, count) == count * (count - 1) / 2
        np.testing.assert_array_equal(y, [*[-1] * 4, *range(count), *[-1] * (20 - count)])


@needs_compiler
def test_across_lanes() -> None:
    x, ints = random(16), random_int(16)

    @njit
    def run(x, ints):
        vector = ops.load(x, 0)
        return ops.total(vector), ops.largest(vector), ops.total_int(ops.load_int(ints, 0))

    tree = x
    while tree.size > 1:
        tree = tree[: tree.size // 2] + tree[tree.size // 2 :]
    assert run(x, ints) == (tree[0], x.max(), ints.sum(dtype=np.int32))


@needs_compiler
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("extreme", [False, True])
def test_sums_of_a_group_are_exact(bits: int, extreme: bool) -> None:
    """Two blocks of 16 rows times two columns; with all at their extremes, where 16 bits would not be enough."""
    half, random = 2 ** (bits - 1), np.random.default_rng(bits)
    weights = random.integers(-half, half, (2, 16, 32))
    inputs = random.integers(-127, 128, (3, 32)).astype(np.int8)
    if extreme:
        weights[0], weights[1, :, ::2], inputs[0], inputs[2] = -half, half - 1, -127, 127
    stored = [pack_levels(w.astype(np.int8), np.zeros((16, 1), np.float16), f"int{bits}").values for w in weights]
    apart = stored[0].size + 7
    values = np.full(2 * apart, 255, np.uint8)
    values[: stored[0].size], values[apart : apart + stored[1].size] = stored
    zeros = (-8 * inputs.astype(np.int32)).sum(axis=1, dtype=np.int32)

    @njit
    def run(values, apart, levels, zeros, ints):
        # It asks for memory that is not there: a hint, so nothing happens.
        tile = tiles.group_tile(values, 0, apart, 1 << 40, levels, zeros, 0, 2, bits, 2, 4)
        for i in range(4):
            ops.store_int(ints, 16 * i, tile[i])

    ints = np.zeros(64, np.int32)
    run(values, apart, inputs.reshape(-1), zeros, ints)
    np.testing.assert_array_equal(ints.reshape(2, 2, 16), np.einsum("rlk,ck->crl", weights, inputs[[0, 2]]))


@needs_compiler
def test_exp() -> None:
    x = np.linspace(-87.3, 88.7, 1 << 18).astype(F32)
    exact = np.exp(x.astype(np.float64))
    assert (np.abs(lanes(functions.exp, x) - exact) / np.spacing(exact.astype(F32))).max() < 2
    beyond = np.array([-np.inf, -1e30, -87.4, 88.8, 1e30, np.inf, np.nan, *[0] * 9], F32)
    np.testing.assert_array_equal(lanes(functions.exp, beyond), [0, 0, 0, np.inf, np.inf, np.inf, np.nan, *[1] * 9])


@needs_compiler
def test_silu() -> None:
    x = np.linspace(-80, 80, 1 << 14).astype(F32)
    exact = x / (1 + np.exp(-x.astype(np.float64)))
    # exp, the sum and the quotient round: 2 + 1/2 + 1/2 units, each at most 2**-23 of the value.
    np.testing.assert_allclose(lanes(functions.silu, x), exact, rtol=4 * 2.0**-23)
    assert lanes(functions.silu, np.full(16, -200, F32)).tolist() == [0] * 16


@needs_compiler
@pytest.mark.parametrize("limit", [4, 1000, 2**16])
def test_sin_squared(limit: float) -> None:
    x = np.random.default_rng(0).uniform(-limit, limit, 1 << 18).astype(F32)
    error = np.abs(lanes(functions.sin_squared, x) - np.sin(x.astype(np.float64)) ** 2)
    # Without fused multiply-add the middle part of pi is rounded when multiplied: 2**16 / pi * 1e-3 * 2**-24.
    coarse = 0 if cpu.CPU.rounds_once else limit / np.pi * 1e-3 * 2.0**-24
    assert error.max() < 3e-7 + coarse
    assert np.sqrt((error**2).mean()) < 5e-8 + coarse


@needs_compiler
def test_outer_products_of_tiles() -> None:
    x, w = random(64, 0), random(64, 1)

    @njit
    def run(x, w, y):
        tile = tiles.zeros_tile(6)
        for k in range(4):
            tile = tiles.fma_tile(tile, tiles.load_tile(w, 3 * k, 20, 2), x, k, 16)
        tiles.store_tile(y, 0, 16, tile)

    y = np.zeros(96, F32)
    run(x, w, y)
    rows = np.array([[w[3 * k + 20 * r : 3 * k + 20 * r + 16] for r in range(2)] for k in range(4)], np.float64)
    columns = np.array([[x[k + 16 * c] for c in range(3)] for k in range(4)], np.float64)
    # 4 terms of size up to about 30, each rounded once: 4 * 30 * 2**-24 = 7e-6.
    np.testing.assert_allclose(y.reshape(3, 2, 16), np.einsum("krl,kc->crl", rows, columns), atol=1e-5)


@needs_compiler
@pytest.mark.parametrize("count", [2, 4, 8, 16])
def test_totals_of_a_tile_are_sums_of_neighbours(count: int) -> None:
    x, w = random(16 * count, 0), random(16, 1)

    @njit
    def run(x, w, y):
        tiles.store_totals(y, 1, tiles.fma_rows(tiles.zeros_tile(count), ops.load(w, 0), x, 0, 16))

    y = np.zeros(count + 2, F32)
    run(x, w, y)
    tree = x.reshape(count, 16) * w
    while tree.shape[1] > 1:
        tree = tree[:, 0::2] + tree[:, 1::2]
    np.testing.assert_array_equal(y, [0, *tree[:, 0], 0])


@needs_compiler
@pytest.mark.parametrize("vectors", [1, 2])
def test_grids(vectors: int) -> None:
    x = random(200)

    @njit
    def run(x, y):
        grid = tiles.load_grid(x, 5, 50, 3, vectors)
        tiles.store_grid(y, 1, 40, tiles.add_tiles(grid, grid), vectors)

    y, width = np.zeros(130, F32), 16 * vectors
    run(x, y)
    expected = np.zeros_like(y)
    for row in range(3):
        expected[1 + 40 * row :][:width] = 2 * x[5 + 50 * row :][:width]
    np.testing.assert_array_equal(y, expected)


@needs_compiler
def test_an_array_of_another_type_is_refused() -> None:
    @njit
    def run(x):
        return ops.total(ops.load(x, 0))

    with pytest.raises(TypingError, match="load"):
        run(np.zeros(16))


@needs_compiler
def test_threads_see_every_addition() -> None:
    @njit(nogil=True)
    def add(counters, times):
        for _ in range(times):
            ops.atomic_add(counters, 1, 3)
        ops.pause()
        return ops.atomic_load(counters, 1)

    counters = np.zeros(3, np.int64)
    threads = [threading.Thread(target=add, args=(counters, 100_000)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counters.tolist() == [0, 600_000, 0]
    assert add(counters, 0) == 600_000


V3 = frozenset({"avx", "avx2", "fma", "f16c"})


@pytest.mark.parametrize(
    ("machine", "features", "name"),
    [
        ("x86_64", V3 | {"avx512f", "avx512bw", "avx512vnni"}, "AVX-512 with VNNI"),
        ("AMD64", V3 | {"avx512f", "avx512bw"}, "AVX-512"),
        ("x86_64", V3 | {"avx512f"}, "AVX2"),
        ("x86_64", V3 | {"avxvnni"}, "AVX2 with VNNI"),
        ("x86_64", V3, "AVX2"),
        ("x86_64", frozenset({"avx", "f16c"}), "SSE2"),
        ("aarch64", frozenset({"neon"}), "NEON"),
        ("arm64", frozenset(), "NEON"),
        ("riscv64", frozenset({"fma"}), "generic"),
    ],
)
def test_the_most_capable_entry_that_fits_is_chosen(machine: str, features: frozenset[str], name: str) -> None:
    assert cpu.instruction_set(machine, features).name == name


def test_entries_of_the_table_have_names_of_their_own() -> None:
    table = instruction_sets.INSTRUCTION_SETS
    assert len({entry.name for entry in table}) == len(table)
    assert not table[-1].machines and not table[-1].features, "the last must fit every machine"


def test_an_llvm_without_the_products_gets_the_next_entry_and_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cpu.knows("<16 x i32> @llvm.x86.avx512.vpdpbusd.512(<16 x i32>, <16 x i32>, <16 x i32>)")
    assert not cpu.knows("<16 x i32> @llvm.x86.avx512.no.such.thing(<16 x i32>)")
    monkeypatch.setattr(cpu, "knows", lambda declaration: False)
    with pytest.warns(UserWarning, match="integer products") as caught:
        assert cpu.instruction_set("x86_64", V3 | {"avx512f", "avx512bw", "avx512vnni"}).name == "AVX-512"
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cpu.instruction_set("x86_64", V3).name == "AVX2"


@needs_compiler
def test_compiled_closures_have_names_of_their_own() -> None:
    """Or the linker, which knows functions by name and types, would take one for another that a cache brings along."""

    def add(number: int, function: Any = abs) -> Any:
        @cpu.inner
        def closure(x: float) -> float:
            return x + number + function(x)

        return closure

    names = [add(1), add(2), add(1, cpu.kernel(abs_of)), add(1, add(1))]
    assert len({closure.py_func.__qualname__ for closure in names}) == 4


def abs_of(x: float) -> float:
    return abs(x)
