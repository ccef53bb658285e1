"""Typical mistakes in RMSNorm and LayerNorm. The input is searched among our tensors, the weight is solved for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...ops import AnyArray, layer_norm, rms_norm
from ..diagnosis import Context, Finding, best, finding
from ..measure import outside

EPSILONS = (1e-5, 1e-6, 1e-8, 1e-12, 1e-3, 0.0)


def norm_variants(ours: AnyArray, theirs: AnyArray, context: Context) -> Finding | None:
    """Without its weight, with weight + 1, another epsilon, another kind of norm, over another axis."""
    if "norm" not in context.leaf or ours.shape != theirs.shape:
        return None
    found = _input(ours, context)
    return best(_attempts(ours, theirs, context, *found)) if found else None


def _attempts(
    ours: AnyArray, theirs: AnyArray, context: Context, x: AnyArray, weight: AnyArray, bias: AnyArray | None, eps: float
) -> Iterator[Finding | None]:
    def of(cause: str, message: str, candidate: AnyArray) -> Finding | None:
        return finding(cause, message, ours, theirs, candidate, context)

    def norm(w: AnyArray, e: float) -> AnyArray:
        return rms_norm(x, w, e) if bias is None else layer_norm(x, w, bias, e)

    one = np.ones_like(weight)
    yield of("norm left out", "the input of the norm as it is: the norm is left out", x)
    yield of("norm without weight", "normalised, but not multiplied by the weight", norm(one, eps))
    yield of(
        "norm weight + 1", "multiplied by weight + 1, as in Gemma: here the weight is the factor", norm(weight + 1, eps)
    )
    yield of("norm weight alone", "multiplied by the weight, but not normalised", x * weight)
    for e in EPSILONS:
        if e != eps:
            yield of("norm epsilon", f"epsilon is {e:g} in place of {eps:g}", norm(weight, e))
    if bias is None:
        zero = np.zeros_like(weight)
        yield of(
            "LayerNorm for RMSNorm",
            "the mean is subtracted: LayerNorm in place of RMSNorm",
            layer_norm(x, weight, zero, eps),
        )
        mean_square = np.mean(x * x)
        yield of("norm over too much", "normalised over the whole tensor", x / np.sqrt(mean_square + eps) * weight)
        norms = np.sqrt(np.sum(x * x, axis=-1, keepdims=True) + eps)
        yield of(
            "norm of the sum", "divided by the norm: the sum of squares in place of their mean", x / norms * weight
        )
        if x.ndim == 3:
            flat = np.sqrt(np.mean(x * x, axis=(1, 2), keepdims=True) + eps)
            yield of("norm over all heads", "normalised over all heads together, not each alone", x / flat * weight)
            turned = _rotated(x, context)
            if turned is not None:
                yield of("RoPE before the norm", "rotated first and normalised then", rms_norm(turned, weight, eps))
    else:
        yield of("bias", "the bias of the norm is left out", layer_norm(x, weight, np.zeros_like(bias), eps))
        yield of(
            "RMSNorm for LayerNorm",
            "the mean is not subtracted: RMSNorm in place of LayerNorm",
            rms_norm(x, weight, eps) + bias,
        )


def _rotated(x: AnyArray, context: Context) -> AnyArray | None:
    """The input turned as our output is turned next."""
    from .rope import angles_of

    leaf = context.leaf[0]  # q or k
    normed, turned = context.sibling(f"{leaf}_norm"), context.sibling(f"{leaf}_rot")
    if normed is None or turned is None:
        return None
    found = angles_of(normed, turned, context)
    return None if found is None else found.turn(x)


def _input(ours: AnyArray, context: Context) -> tuple[AnyArray, AnyArray, AnyArray | None, float] | None:
    """(input, weight, bias, epsilon) that reproduce our tensor, if a neighbour is the input."""
    for _, near in context.before():
        if near.size != ours.size or near.dtype.kind != "f":
            continue
        for x in (near.reshape(ours.shape), near.T.reshape(ours.shape) if near.ndim == 2 else near.reshape(ours.shape)):
            weight, bias = context.weight(), context.weight("bias")
            for eps in EPSILONS[:2]:
                factor = _weight_of(ours, x, eps) if weight is None else weight
                if bias is not None and not outside(layer_norm(x, factor, bias, eps), ours, 4 * context.atol):
                    return x, factor, bias, eps
                if bias is None and not outside(rms_norm(x, factor, eps), ours, 4 * context.atol):
                    return x, factor, None, eps
    return None


def _weight_of(ours: AnyArray, x: AnyArray, eps: float) -> AnyArray:
    """The weight of an RMSNorm that makes ours of x, by least squares; if there is none, the check after this fails."""
    plain = rms_norm(x, np.ones(x.shape[-1], x.dtype), eps).reshape(-1, x.shape[-1])
    flat = ours.reshape(plain.shape)
    return (plain * flat).sum(0) / np.maximum((plain * plain).sum(0), 1e-30)
