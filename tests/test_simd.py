"""The vector operations against NumPy, on this CPU and on older ones, and without the compiler."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from again import Again
from llvmlite import binding
from numba import njit
from numba.core.errors import TypingError
from numpy.typing import NDArray
from qwen3tts_np_kernels import cpu, simd
from qwen3tts_np_kernels.bfloat16 import round_ref, widen_ref

F32 = np.float32
needs_compiler = pytest.mark.skipif(not cpu.compiled(), reason="vectors exist in compiled code only")

OLDER = {
    "AVX2": ("haswell", "+avx,+avx2,+bmi,+bmi2,+f16c,+fma,+lzcnt,+popcnt,+sse4.1,+sse4.2,+ssse3"),
    "AVX-VNNI": ("alderlake", "+avx,+avx2,+avxvnni,+bmi,+bmi2,+f16c,+fma,+lzcnt,+popcnt,+sse4.1,+sse4.2,+ssse3"),
    "SSE2": ("x86-64", ""),
}


def lanes(operation: Any, *operands: NDArray[Any], dtype: Any = F32) -> NDArray[Any]:
    """operation on vectors of the operands, flat arrays of 4-byte numbers; the operation may depend on the CPU."""
    loads = [simd.load if operand.dtype == F32 else simd.load_int for operand in operands]
    store = simd.store if dtype is F32 else simd.store_int
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
        (simd.add, np.add),
        (simd.sub, np.subtract),
        (simd.mul, np.multiply),
        (simd.div, np.divide),
        (simd.maximum, np.maximum),
        (simd.minimum, np.minimum),
    ],
)
def test_float_arithmetic(operation: Any, expected: Callable[..., Any]) -> None:
    x, y = random(64, 0), random(64, 1)
    np.testing.assert_array_equal(lanes(operation, x, y), expected(x, y))


@needs_compiler
def test_float_functions() -> None:
    x = np.concatenate([random(60), [0.5, 1.5, -2.5, 1e6]]).astype(F32)
    np.testing.assert_array_equal(lanes(simd.absolute, x), np.abs(x))
    np.testing.assert_array_equal(lanes(simd.sqrt, np.abs(x)), np.sqrt(np.abs(x)))
    np.testing.assert_array_equal(lanes(simd.rint, x), np.rint(x))
    np.testing.assert_array_equal(lanes(simd.to_int, x, dtype=np.int32), np.rint(x).astype(np.int32))


@needs_compiler
def test_the_second_operand_wins_over_nan() -> None:
    nan, one = np.full(16, np.nan, F32), np.ones(16, F32)
    for operation in (simd.maximum, simd.minimum):
        assert (lanes(operation, nan, one) == 1).all()
        assert np.isnan(lanes(operation, one, nan)).all()


@needs_compiler
def test_fma_rounds_once_where_the_cpu_can() -> None:
    x = np.full(16, 1 + 2.0**-12, F32)
    exact = x.astype(np.float64) ** 2 - 1  # 2**-11 + 2**-24: the square alone would lose the second term
    rounded_twice = x * x - F32(1)
    assert (exact.astype(F32) != rounded_twice).all()
    result = lanes(simd.fma, x, x, np.full(16, -1, F32))
    np.testing.assert_array_equal(result, exact.astype(F32) if cpu.FUSED else rounded_twice)


@needs_compiler
def test_integer_arithmetic() -> None:
    x, y = random_int(64, 0), random_int(64, 1)
    for operation, expected in (
        (simd.add_int, x + y),
        (simd.sub_int, x - y),
        (simd.mul_int, x * y),
        (simd.greater_int, -(x > y).astype(np.int32)),
    ):
        np.testing.assert_array_equal(lanes(operation, x, y, dtype=np.int32), expected)
    assert lanes(simd.to_float, x).tolist() == x.astype(F32).tolist()

    @njit
    def shifts(x, y):
        vector = simd.load_int(x, 0)
        simd.store_int(y, 0, simd.shift_left(vector, 5))
        simd.store_int(y, 16, simd.shift_right(vector, 5))
        simd.store_int(y, 32, simd.shift_right_signed(vector, 5))
        simd.store_int(y, 48, simd.and_int(vector, 0x0F0F0F0F))

    y = np.zeros(64, np.int32)
    shifts(x, y)
    x = x[:16]
    np.testing.assert_array_equal(
        y, [*(x << 5), *(x.view(np.uint32) >> 5).view(np.int32), *(x >> 5), *(x & 0x0F0F0F0F)]
    )


@needs_compiler
def test_bits_and_choice() -> None:
    x, y = random(64, 0), random(64, 1)
    np.testing.assert_array_equal(lanes(simd.as_int, x, dtype=np.int32), x.view(np.int32))
    np.testing.assert_array_equal(lanes(simd.as_float, x.view(np.int32)), x)
    mask = lanes(simd.greater, x, y, dtype=np.int32)
    np.testing.assert_array_equal(mask, -(x > y).astype(np.int32))
    np.testing.assert_array_equal(lanes(simd.select, mask, x, y), np.maximum(x, y))


@needs_compiler
def test_every_value_of_small_types_is_widened_exactly() -> None:
    every = np.arange(1 << 16).astype(np.uint16)
    half = every.view(np.float16).astype(F32)
    finite = np.isfinite(half)

    @njit
    def run(every, bytes_, bfloat, half, small):
        for i in range(0, every.size, 16):
            simd.store(bfloat, i, simd.load_bf16(every, i))
            simd.store(half, i, simd.load_f16(every, i))
        for i in range(0, bytes_.size, 16):
            simd.store(small, i, simd.load_i8(bytes_, i))

    bytes_ = np.arange(-128, 128).astype(np.int8)
    out = [np.zeros(size, F32) for size in (1 << 16, 1 << 16, 256)]
    run(every, bytes_, *out)
    np.testing.assert_array_equal(out[0].view(np.uint32), widen_ref(every).view(np.uint32))
    np.testing.assert_array_equal(out[1][finite].view(np.uint32), half[finite].view(np.uint32))  # the sign of 0 as well
    np.testing.assert_array_equal(out[2], bytes_)


@needs_compiler
def test_stores() -> None:
    ties = widen_ref(np.arange(0x3F80, 0x3FA0).astype(np.uint16)).view(np.uint32) + 0x8000
    x = np.concatenate([ties.view(F32), random(32)])
    ints = random_int(64)

    @njit
    def run(x, ints, bfloat, shorts, bytes_):
        for i in range(0, x.size, 16):
            simd.store_bf16(bfloat, i, simd.load(x, i))
            simd.store_i16(shorts, i, simd.load_int(ints, i))
            simd.store_i8(bytes_, i, simd.load_int(ints, i))

    bfloat, shorts, bytes_ = np.zeros(64, np.uint16), np.zeros(64, np.int16), np.zeros(64, np.int8)
    run(x, ints, bfloat, shorts, bytes_)
    np.testing.assert_array_equal(bfloat, round_ref(x))
    np.testing.assert_array_equal(shorts, ints.astype(np.int16))
    np.testing.assert_array_equal(bytes_, ints.astype(np.int8))


@needs_compiler
def test_constants_and_broadcasts() -> None:
    x = random(16)

    @njit
    def run(x, bytes_, y, ints):
        simd.store(y, 0, simd.zeros())
        simd.store(y, 16, simd.splat(1.5))
        simd.store(y, 32, simd.broadcast(x, 3))
        simd.store_int(ints, 0, simd.zeros_int())
        simd.store_int(ints, 16, simd.splat_int(-7))
        simd.store_int(ints, 32, simd.lane_numbers())
        simd.store_int(ints, 48, simd.broadcast_int(bytes_, 3))

    bytes_ = np.arange(16).astype(np.int8)
    y, ints = np.ones(48, F32), np.ones(64, np.int32)
    run(x, bytes_, y, ints)
    np.testing.assert_array_equal(y.reshape(3, 16), np.repeat([[0], [1.5], [x[3]]], 16, axis=1))
    np.testing.assert_array_equal(ints[:48], [*[0] * 16, *[-7] * 16, *range(16)])
    np.testing.assert_array_equal(ints[48:], np.repeat(bytes_[3:7].view(np.int32), 16))


@needs_compiler
def test_part_of_a_vector_touches_nothing_else() -> None:
    @njit
    def run(x, y, count):
        simd.store_first(y, 4, simd.load_first(x, 4, count), count)
        return simd.total(simd.load_first(x, 4, count))

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
        vector = simd.load(x, 0)
        return simd.total(vector), simd.largest(vector), simd.lane(vector, 7), simd.total_int(simd.load_int(ints, 0))

    tree = x
    while tree.size > 1:
        tree = tree[: tree.size // 2] + tree[tree.size // 2 :]
    assert run(x, ints) == (tree[0], x.max(), x[7], ints.sum(dtype=np.int32))


@needs_compiler
def test_integer_products_are_exact() -> None:
    u, s = random_int(256, 0, np.uint8), random_int(256, 1, np.int8)
    u[:64], s[:64] = 255, -128  # where 16 bits would not be enough
    start = random_int(64, 2) // 2
    words = [part.view(np.int32) for part in (u, s)]
    expected = start + (u.astype(np.int32) * s).reshape(-1, 4).sum(axis=1)
    np.testing.assert_array_equal(lanes(simd.dot4_u8s8, start, *words, dtype=np.int32), expected)
    x, y = random_int(128, 0, np.int16), random_int(128, 1, np.int16)
    x[:32], y[:32] = 32767, -32768
    expected = start // 4 + (x.astype(np.int32) * y).reshape(-1, 2).sum(axis=1, dtype=np.int32)
    words = [part.view(np.int32) for part in (x, y)]
    np.testing.assert_array_equal(lanes(simd.dot2_s16, start // 4, *words, dtype=np.int32), expected)


@needs_compiler
def test_exp() -> None:
    x = np.linspace(-87.3, 88.7, 1 << 18).astype(F32)
    exact = np.exp(x.astype(np.float64))
    assert (np.abs(lanes(simd.exp, x) - exact) / np.spacing(exact.astype(F32))).max() < 2
    beyond = np.array([-np.inf, -1e30, -87.4, 88.8, 1e30, np.inf, np.nan, *[0] * 9], F32)
    np.testing.assert_array_equal(lanes(simd.exp, beyond), [0, 0, 0, np.inf, np.inf, np.inf, np.nan, *[1] * 9])


@needs_compiler
def test_silu() -> None:
    x = np.linspace(-80, 80, 1 << 14).astype(F32)
    exact = x / (1 + np.exp(-x.astype(np.float64)))
    # exp, the sum and the quotient round: 2 + 1/2 + 1/2 units, each at most 2**-23 of the value.
    np.testing.assert_allclose(lanes(simd.silu, x), exact, rtol=4 * 2.0**-23)
    assert lanes(simd.silu, np.full(16, -200, F32)).tolist() == [0] * 16


@needs_compiler
@pytest.mark.parametrize("limit", [4, 1000, 2**16])
def test_sin_squared(limit: float) -> None:
    x = np.random.default_rng(0).uniform(-limit, limit, 1 << 18).astype(F32)
    error = np.abs(lanes(simd.sin_squared, x) - np.sin(x.astype(np.float64)) ** 2)
    # Without fused multiply-add the middle part of pi is rounded when multiplied: 2**16 / pi * 1e-3 * 2**-24.
    coarse = 0 if cpu.FUSED else limit / np.pi * 1e-3 * 2.0**-24
    assert error.max() < 3e-7 + coarse
    assert np.sqrt((error**2).mean()) < 5e-8 + coarse


@needs_compiler
def test_tiles() -> None:
    x, w = random(64, 0), random(64, 1)
    u, s = random_int(128, 2, np.uint8), random_int(64, 3, np.int8)

    @njit
    def run(x, w, u, s, y, ints):
        tile = simd.zeros_tile(6)
        for k in range(4):
            tile = simd.fma_tile(tile, simd.load_tile(w, 3 * k, 20, 2), x, k, 16)
        simd.store_tile(y, 0, 16, tile)
        sums = simd.zeros_int_tile(4)
        for k in range(2):
            sums = simd.dot4_tile(sums, simd.load_int_tile(u, 4 * k, 50, 2), s, 4 * k, 30)
        for i in range(4):
            simd.store_int(ints, 16 * i, sums[i])

    y, ints = np.zeros(96, F32), np.zeros(64, np.int32)
    run(x, w, u, s, y, ints)
    rows = np.array([[w[3 * k + 20 * r : 3 * k + 20 * r + 16] for r in range(2)] for k in range(4)], np.float64)
    columns = np.array([[x[k + 16 * c] for c in range(3)] for k in range(4)], np.float64)
    # 4 terms of size up to about 30, each rounded once: 4 * 30 * 2**-24 = 7e-6.
    np.testing.assert_allclose(y.reshape(3, 2, 16), np.einsum("krl,kc->crl", rows, columns), atol=1e-5)
    cells = np.array([[u[4 * k + 50 * r :][:64].reshape(16, 4) for r in range(2)] for k in range(2)], np.int64)
    fours = np.array([[s[4 * k + 30 * c :][:4] for c in range(2)] for k in range(2)], np.int64)
    np.testing.assert_array_equal(ints.reshape(2, 2, 16), np.einsum("krlb,kcb->crl", cells, fours))


@needs_compiler
def test_an_array_of_another_type_is_refused() -> None:
    @njit
    def run(x):
        return simd.total(simd.load(x, 0))

    with pytest.raises(TypingError, match="load"):
        run(np.zeros(16))


@needs_compiler
def test_threads_see_every_addition() -> None:
    @njit(nogil=True)
    def add(counters, times):
        for _ in range(times):
            simd.atomic_add(counters, 1, 3)
        simd.pause()
        simd.prefetch(counters, 1 << 40)  # a hint about memory that is not there does nothing
        simd.atomic_store(counters, 0, times)
        return simd.atomic_load(counters, 0)

    counters = np.zeros(3, np.int64)
    threads = [threading.Thread(target=add, args=(counters, 100_000)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counters.tolist() == [100_000, 600_000, 0]


def test_an_llvm_without_the_products_gets_the_generic_path_and_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cpu._knows("<16 x i32> @llvm.x86.avx512.vpdpbusd.512(<16 x i32>, <16 x i32>, <16 x i32>)")
    assert not cpu._knows("<16 x i32> @llvm.x86.avx512.no.such.thing(<16 x i32>)")
    monkeypatch.setattr(cpu, "FEATURES", frozenset({"avx512f", "avx512vnni"}))
    assert cpu._dot_lanes() == 16
    monkeypatch.setattr(cpu, "_knows", lambda declaration: False)
    with pytest.warns(UserWarning, match="integer products") as caught:
        assert cpu._dot_lanes() == 0
    assert len(caught) == 1
    monkeypatch.setattr(cpu, "FEATURES", frozenset({"avx2"}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cpu._dot_lanes() == 0


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


def playable(name: str) -> bool:
    host = binding.get_host_cpu_features()
    return cpu.X86 and all(host.get(feature[1:]) for feature in OLDER[name][1].split(",") if feature)


@pytest.fixture(scope="module", autouse=True)
def again() -> Iterator[Again]:
    """The tests of the kernels that are written here and in test_kernels_linear.py."""
    older = {
        name: {"NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": features}
        for name, (processor, features) in OLDER.items()
        if playable(name)
    }
    files = ["tests/test_simd.py", "tests/test_kernels_linear.py"]
    runs = Again(files, {**older, "without the compiler": {"NUMBA_DISABLE_JIT": "1"}})
    yield runs
    runs.close()


@pytest.mark.parametrize("name", OLDER)
def test_again_on_an_older_cpu(name: str, again: Again) -> None:
    if not playable(name):
        pytest.skip(f"this CPU cannot play {OLDER[name][0]}")
    again.check(name)


def test_again_without_the_compiler(again: Again) -> None:
    again.check("without the compiler")
