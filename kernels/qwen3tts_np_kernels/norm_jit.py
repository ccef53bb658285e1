"""RMSNorm: compiled twin of norm.py."""

from __future__ import annotations

import numpy as np

from .arrays import F32
from .cpu import compiled, inner, kernel
from .norm import rms_norm_backward_ref, rms_norm_ref
from .simd.llvm import LANES
from .simd.ops import fma, load, load_first, mul, splat, store, store_first, total, zeros


def rms_norm(x: F32, weight: F32, eps: float) -> F32:
    """x / rms(x) * weight. x float32 [..., H], weight float32 [H]. Raises TypeError or ValueError for anything else."""
    for name, array in (("x", x), ("weight", weight)):
        if array.dtype != np.float32:
            raise TypeError(f"rms_norm: {name}.dtype={array.dtype}, expected float32")
    if weight.ndim != 1 or x.shape[-1:] != weight.shape:
        raise ValueError(f"rms_norm: x{list(x.shape)} and weight{list(weight.shape)} do not fit [..., H] and [H]")
    if not compiled():
        return np.asarray(rms_norm_ref(x, weight, eps), dtype=np.float32)
    y = np.empty(x.shape, np.float32)
    _rms_norm(np.ascontiguousarray(x).reshape(-1), np.ascontiguousarray(weight), eps, y.reshape(-1))
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
def _rms_norm(x: F32, weight: F32, eps: float, y: F32) -> None:
    for at in range(0, x.size, weight.size):
        rms_norm_row(x, at, weight, 0, weight.size, weight.size, eps, y, at)


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
