"""Typical mistakes in non-linearities."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ...ops import AnyArray, elu, gelu, sigmoid, silu, snake_beta
from ..diagnosis import Context, Finding, best, finding
from ..measure import outside


def _gelu_tanh(x: AnyArray) -> AnyArray:
    return x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2


FUNCTIONS: dict[str, Callable[[AnyArray], AnyArray]] = {
    "SiLU": silu,
    "GELU (erf)": gelu,
    "GELU (tanh)": _gelu_tanh,
    "quick GELU": lambda x: x * sigmoid(1.702 * x),
    "ReLU": lambda x: np.maximum(x, 0),
    "ELU": elu,
    "leaky ReLU 0.1": lambda x: np.where(x > 0, x, 0.1 * x),
    "sigmoid": sigmoid,
    "tanh": np.tanh,
    "softplus": lambda x: np.logaddexp(0, x),
    "nothing": lambda x: x,
}


def activations(ours: AnyArray, theirs: AnyArray, context: Context) -> Finding | None:
    """Another function of the same input."""
    found = _made_by(ours, context) if ours.dtype.kind == "f" and ours.shape == theirs.shape else None
    if found is None:
        return None
    right, x = found
    return best(
        finding("activation", f"the function is {name} in place of {right}", ours, theirs, f(x), context)
        for name, f in FUNCTIONS.items()
        if name != right
    )


def _made_by(ours: AnyArray, context: Context) -> tuple[str, AnyArray] | None:
    """(function, input) that reproduce our tensor from a tensor just before it."""
    for _, x in context.before(4):
        if x.shape == ours.shape and x.dtype.kind == "f":
            for name, f in FUNCTIONS.items():
                if name != "nothing" and not outside(f(x), ours, 4 * context.atol):
                    return name, x
    return None


def snakes(ours: AnyArray, theirs: AnyArray, context: Context) -> Finding | None:
    """SnakeBeta with its parameters read otherwise; needs the checkpoint."""
    alpha, beta = context.weight("alpha"), context.weight("beta")
    if alpha is None or beta is None or ours.shape != theirs.shape:
        return None
    inputs = (x for _, x in context.before() if x.shape == ours.shape)
    x = next((x for x in inputs if not outside(snake_beta(x, alpha, beta), ours, 8 * context.atol)), None)
    if x is None:
        return None

    def attempts() -> Iterator[Finding | None]:
        def of(message: str, candidate: AnyArray) -> Finding | None:
            return finding("SnakeBeta", message, ours, theirs, candidate, context)

        log_a, log_b = np.log(np.abs(alpha)), np.log(np.abs(beta))
        yield of("alpha and beta are taken as they are stored: they are logarithms", snake_beta(x, log_a, log_b))
        yield of("alpha is taken as it is stored: it is a logarithm", snake_beta(x, log_a, beta))
        yield of("beta is taken as it is stored: it is a logarithm", snake_beta(x, alpha, log_b))
        yield of("beta is not used: Snake with alpha in both places", snake_beta(x, alpha, alpha))
        yield of("alpha and beta are exchanged", snake_beta(x, beta, alpha))
        wave = np.sin(x * np.exp(alpha)[:, None])
        yield of("the sine is not squared", x + wave / (np.exp(beta)[:, None] + 1e-9))

    return best(attempts())
