"""Quantising with error feedback: what rounding one weight does to a product, the weights after it make good.

Frantar et al. (2022), "GPTQ". For a row w of a matrix and inputs with second moments H, levels q in steps s that keep
(w - s q) H (w - s q)ᵀ small, instead of (w - s q)². With H = R Rᵀ and R upper triangular that is the square of
(w - s q) R, whose k-th value has the errors of weights 0 to k only. So weight k is rounded where its value is nearest
to zero, given the errors before it: no inverse of H is needed.

H is taken in blocks along its diagonal, and no error leaves its block: memory and time grow with the width of a matrix,
not with its square. Everything is float64 and elementwise, in one order, so the same moments give the same levels on
every CPU.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .arrays import F16, F64, I8
from .pack import GROUP, quantise

BLOCK = 512  # inputs whose second moments are known together
DAMPING = 0.01  # of the mean of the diagonal, added to it: few inputs leave directions that say nothing
_ROWS = 128  # of a matrix at a time: their errors stay in the cache


def factors(moments: F64) -> F64:
    """N [b, b]: R with every column divided by its place on the diagonal. moments [b, b].

    An error e of weight i asks weight k > i to be greater by e N[i, k].
    """
    size = len(moments)
    mean = np.trace(moments) / size
    if not mean > 0:  # the inputs were zero, so no error matters
        return np.eye(size)
    rest = (moments + np.diag(np.full(size, DAMPING * mean)))[::-1, ::-1].copy()
    lower = np.zeros_like(rest)
    for k in range(size):  # Cholesky's factor of the reversed matrix: reversed again it is upper triangular
        column = rest[k:, k] / np.sqrt(rest[k, k])
        lower[k:, k] = column
        rest[k + 1 :, k + 1 :] -= np.multiply.outer(column[1:], column[1:])
    upper = lower[::-1, ::-1]
    return upper / np.diag(upper)


def quantise_with_feedback(weights: NDArray[np.float32], found: list[F64], bits: int) -> tuple[I8, F16]:
    """Levels [rows, inputs] and scales [rows, inputs / 32] of weights [rows, inputs].

    ``found``: :func:`factors` of consecutive blocks of inputs, each of a multiple of 32. A group has the scale that
    ``pack.quantise`` finds for its weights, once they have made good the errors of the groups before.
    """
    rows, inputs = weights.shape
    levels = np.empty((rows, inputs), np.int8)
    scales = np.empty((rows, inputs // GROUP), np.float16)
    for top in range(0, rows, _ROWS):
        part, start = slice(top, min(top + _ROWS, rows)), 0
        for of_block in found:
            stop = start + len(of_block)
            inside, groups = (part, slice(start, stop)), (part, slice(start // GROUP, stop // GROUP))
            _block(weights[inside], of_block, bits, levels[inside], scales[groups])
            start = stop
    return levels, scales


def _block(weights: NDArray[np.float32], factor: F64, bits: int, levels: I8, scales: F16) -> None:
    """One block of some rows, written to ``levels`` and ``scales``."""
    half = 2 ** (bits - 1)
    wanted = weights.astype(np.float64)
    for start in range(0, wanted.shape[1], GROUP):
        group = slice(start, start + GROUP)
        scales[:, start // GROUP] = quantise(wanted[:, group].astype(np.float32), bits)[1][:, 0]
        step = scales[:, start // GROUP].astype(np.float64)
        inverse = np.divide(1, step, out=np.zeros_like(step), where=step != 0)
        for k in range(start, start + GROUP):
            levels[:, k] = np.clip(np.rint(wanted[:, k] * inverse), -half, half - 1)
            error = weights[:, k] - levels[:, k] * step
            wanted[:, k + 1 :] += np.multiply.outer(error, factor[k, k + 1 :])
