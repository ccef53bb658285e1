"""RMSNorm and LayerNorm: compiled twin of norm.py."""

from __future__ import annotations

from typing import Any

import numpy as np

from .arrays import F32
from .cpu import compiled, inner, kernel
from .norm import layer_norm_ref, rms_norm_backward_ref, rms_norm_ref
from .simd.llvm import LANES
from .simd.ops import fma, load, load_first, mul, splat, store, store_first, total, zeros
from .threads_jit import Member, share
from .together_jit import ALONE, Runner

_LONGEST = 8192  # values that are summed as NumPy does it


def rms_norm(x: F32, weight: F32, eps: float) -> F32:
    """x / rms(x) * weight. x float32 [..., H], weight float32 [H]. Raises TypeError or ValueError for anything else."""
    for name, array in (("x", x), ("weight", weight)):
        if array.dtype != np.float32:
            raise TypeError(f"rms_norm: {name}.dtype={array.dtype}, expected float32")
    if weight.ndim != 1 or x.shape[-1:] != weight.shape:
        raise ValueError(f"rms_norm: x{list(x.shape)} and weight{list(weight.shape)} do not fit [..., H] and [H]")
    if not compiled():
        return np.asarray(rms_norm_ref(x, weight, eps), dtype=np.float32)
    rows = np.ascontiguousarray(x).reshape(-1, max(len(weight), 1))
    return rms_norm_rows(rows, np.ascontiguousarray(weight), eps).reshape(x.shape)


def rms_norm_rows(x: F32, weight: F32, eps: float, run: Runner = ALONE) -> F32:
    """RMSNorm of the first H values of each row. x [T, at least H] -> [T, H], contiguous float32."""
    if not compiled():
        return np.asarray(rms_norm_ref(x[:, : len(weight)], weight, eps), np.float32)
    y = run.empty(len(x), len(weight))
    run(_rms_norm, x.reshape(-1), x.shape[1], weight, eps, y.reshape(-1))
    return y


def layer_norm_rows(x: F32, weight: F32, bias: F32, eps: float, run: Runner = ALONE) -> F32:
    """LayerNorm of the first H values of each row, to the bit as ``layer_norm_ref`` has it.

    x [T, at least H] -> [T, H], contiguous float32; H up to 8192.
    """
    if len(weight) > _LONGEST:
        raise ValueError(f"layer_norm_rows: rows of {len(weight)} values, expected up to {_LONGEST}")
    if not compiled():
        return np.asarray(layer_norm_ref(x[:, : len(weight)], weight, bias, eps), np.float32)
    y = run.empty(len(x), len(weight))
    run(_layer_norm, x.reshape(-1), x.shape[1], weight, bias, np.float64(np.float32(eps)), y.reshape(-1))
    return y


def rms_norm_backward(dy: F32, x: F32, weight: F32, eps: float) -> tuple[F32, F32]:
    """The gradients dx [..., H] and dweight [H] of ``rms_norm``, given dy [..., H]. All float32."""
    if not dy.dtype == x.dtype == weight.dtype == np.float32:
        raise TypeError(f"rms_norm_backward: dy, x and weight are {dy.dtype}, {x.dtype}, {weight.dtype}, not float32")
    if weight.ndim != 1 or x.shape[-1:] != weight.shape or dy.shape != x.shape:
        shapes = f"dy{list(dy.shape)}, x{list(x.shape)} and weight{list(weight.shape)}"
        raise ValueError(f"rms_norm_backward: {shapes} do not fit [..., H], [..., H] and [H]")
    if not compiled():
        return rms_norm_backward_ref(dy, x, weight, eps)
    dx, dweight = np.empty(x.shape, np.float32), np.zeros(weight.shape, np.float32)
    rows = (np.ascontiguousarray(array).reshape(-1) for array in (dy, x))
    _rms_norm_backward(*rows, np.ascontiguousarray(weight), eps, dx.reshape(-1), dweight)
    return dx, dweight


@kernel
def _rms_norm_backward(dy: F32, x: F32, weight: F32, eps: float, dx: F32, dweight: F32) -> None:
    size = weight.size
    whole = size // LANES * LANES
    rest = size - whole
    for at in range(0, x.size, size):
        inverse = inverse_rms(x, at, size, size, eps)
        products = zeros()  # the sum of dn * x; dn = dy * weight
        for i in range(0, whole, LANES):
            products = fma(mul(load(dy, at + i), load(weight, i)), load(x, at + i), products)
        if rest:
            dn = mul(load_first(dy, at + whole, rest), load_first(weight, whole, rest))
            products = fma(dn, load_first(x, at + whole, rest), products)
        # dx = (dn - n mean(dn n)) inverse, with n = x inverse
        along = splat(-(total(products) / np.float32(size)) * inverse * inverse)
        scale = splat(inverse)
        for i in range(0, whole, LANES):
            dn = mul(load(dy, at + i), load(weight, i))
            store(dx, at + i, mul(fma(load(x, at + i), along, dn), scale))
            store(dweight, i, fma(load(dy, at + i), mul(load(x, at + i), scale), load(dweight, i)))
        if rest:
            given, inputs = load_first(dy, at + whole, rest), load_first(x, at + whole, rest)
            dn = mul(given, load_first(weight, whole, rest))
            store_first(dx, at + whole, mul(fma(inputs, along, dn), scale), rest)
            store_first(dweight, whole, fma(given, mul(inputs, scale), load_first(dweight, whole, rest)), rest)


@kernel
def _rms_norm(me: Member, x: F32, x_width: int, weight: F32, eps: float, y: F32) -> None:
    size = weight.size
    first, end = share(me, y.size // max(size, 1))
    for row in range(first, end):
        rms_norm_row(x, row * x_width, weight, 0, size, size, eps, y, row * size)


@kernel
def _layer_norm(me: Member, x: F32, x_width: int, weight: F32, bias: F32, eps: float, y: F32) -> None:
    """Step by step as in NumPy, whose result this has been since before there was a kernel."""
    size, count = weight.size, np.float32(weight.size)
    first, end = share(me, y.size // max(size, 1))
    for row in range(first, end):
        at = row * size
        mean = (np.float32(0) + _sum(x, row * x_width, size)) / count
        for i in range(size):
            centred = x[row * x_width + i] - mean
            y[at + i] = centred * centred
        deviation = np.sqrt((np.float32(0) + _sum(y, at, size)) / count + np.float32(eps))
        for i in range(size):
            scaled = (x[row * x_width + i] - mean) / deviation * weight[i]
            y[at + i] = scaled + bias[i]


@inner
def _sum_of_few(x: F32, at: int, count: int) -> float:
    """The sum of up to 128 values, in NumPy's order."""
    total = np.float32(0)
    whole = 0
    if count >= 8:
        whole = count // 8 * 8
        a, b, c, d = x[at], x[at + 1], x[at + 2], x[at + 3]
        e, f, g, h = x[at + 4], x[at + 5], x[at + 6], x[at + 7]
        for i in range(at + 8, at + whole, 8):
            a, b, c, d = a + x[i], b + x[i + 1], c + x[i + 2], d + x[i + 3]
            e, f, g, h = e + x[i + 4], f + x[i + 5], g + x[i + 6], h + x[i + 7]
        total = ((a + b) + (c + d)) + ((e + f) + (g + h))
    for i in range(at + whole, at + count):
        total += x[i]
    return total


def _halved(sum_of_half: Any) -> Any:
    """The sum of up to twice as many values."""

    @inner
    def halves(x: F32, at: int, count: int) -> float:
        if count <= _FEW:
            return _sum_of_few(x, at, count)
        half = count // 2
        half -= half % 8
        return sum_of_half(x, at, half) + sum_of_half(x, at + half, count - half)

    return halves


_FEW = 128
_sum = _sum_of_few
for _ in range(7):  # _LONGEST values, and halves that are not quite equal
    _sum = _halved(_sum)


@inner
def rms_norm_row(
    x: F32, x_at: int, weight: F32, weight_at: int, size: int, count: int, eps: float, y: F32, y_at: int
) -> None:
    """RMSNorm of one row: ``size`` values at x[x_at], ``count`` of them not padding, written at y[y_at]. y may be x."""
    scale = splat(inverse_rms(x, x_at, size, count, eps))
    whole = size // LANES * LANES
    for i in range(0, whole, LANES):
        store(y, y_at + i, mul(mul(load(x, x_at + i), scale), load(weight, weight_at + i)))
    rest = size - whole
    if rest:
        scaled = mul(load_first(x, x_at + whole, rest), scale)
        store_first(y, y_at + whole, mul(scaled, load_first(weight, weight_at + whole, rest)), rest)


@inner
def inverse_rms(x: F32, at: int, size: int, count: int, eps: float) -> float:
    """1 / sqrt(mean square + eps) of the ``size`` values at x[at], of which ``count`` are not padding."""
    squares = zeros()
    whole = size // LANES * LANES
    for i in range(at, at + whole, LANES):
        values = load(x, i)
        squares = fma(values, values, squares)
    if size - whole:
        values = load_first(x, at + whole, size - whole)
        squares = fma(values, values, squares)
    return np.float32(1.0) / np.sqrt(total(squares) / np.float32(count) + np.float32(eps))
