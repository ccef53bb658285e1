"""Mistakes that use another of our tensors: instead of this one, or in the sum or product that gives it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...ops import AnyArray, linear
from ..diagnosis import Context, Finding, best, finding
from ..measure import difference, outside

INPUTS = 60  # tensors before this one that are searched for an input or a term of a sum
LOOKED_UP = ("embedding", "text_projection")  # and those that are summed long after they were made


def another_tensor(ours: AnyArray, theirs: AnyArray, context: Context) -> Finding | None:
    """Theirs is another tensor of ours: a step left out, or two exchanged."""

    def attempts() -> Iterator[Finding | None]:
        place = context.order.index(context.name)
        for name in context.order[max(0, place - 40) : place + 20]:
            other = context.tensors[name]
            if name != context.name and other.size == theirs.size and other.dtype.kind == ours.dtype.kind:
                for candidate in (other, other.T) if other.ndim == 2 else (other,):
                    message = f"this is our {name}: a step between the two is left out, or they are exchanged"
                    yield finding("another tensor", message, ours, theirs, candidate, context)

    return best(attempts())


def concatenation(ours: AnyArray, theirs: AnyArray, context: Context) -> Finding | None:
    """Some rows are those of another of our tensors: what is put together is not what should be."""
    if ours.shape != theirs.shape or ours.ndim != 2 or ours.dtype.kind != "f":
        return None
    off = np.flatnonzero((np.abs(difference(ours, theirs)) > context.atol).any(axis=1))
    if not 0 < len(off) < len(ours):
        return None
    wanted = theirs[off]
    for name, rows in _rows(context, ours.shape[-1]):
        for start in range(len(rows) - len(off) + 1):
            message = f"rows {off[:8].tolist()} are those of our {name} from {start - len(rows)}"
            found = finding(
                "rows of another tensor", message, ours[off], wanted, rows[start : start + len(off)], context
            )
            if found:
                return found
    return None


def addend(ours: AnyArray, theirs: AnyArray, context: Context) -> Finding | None:
    """One term of a sum is missing, or there twice."""
    if ours.shape != theirs.shape or ours.dtype.kind != "f":
        return None
    missing = (ours.astype(np.float64) - theirs).reshape(-1, ours.shape[-1])

    def attempts() -> Iterator[Finding | None]:
        for name, rows in _rows(context, ours.shape[-1]):
            for term in _terms(rows, missing, context):
                added = (ours.reshape(missing.shape) - term).reshape(ours.shape)
                yield finding("addend missing", f"{name} is not added", ours, theirs, added, context)
                twice = (ours.reshape(missing.shape) + term).reshape(ours.shape)
                yield finding("addend twice", f"{name} is added once too often", ours, theirs, twice, context)

    return best(attempts())


def _terms(rows: AnyArray, missing: AnyArray, context: Context) -> Iterator[AnyArray]:
    """What of ``rows`` may be the difference, up to its sign: all of them, or for a single position one of them."""
    if rows.shape == missing.shape:
        yield rows
    elif len(missing) == 1:
        near = np.minimum(np.abs(rows - missing).max(axis=1), np.abs(rows + missing).max(axis=1))
        yield rows[int(near.argmin())][None]


def _rows(context: Context, width: int) -> Iterator[tuple[str, AnyArray]]:
    """Our tensors before this one as rows [n, width], channels-first ones turned."""
    for i, (name, near) in enumerate(context.before(len(context.order))):
        if i >= INPUTS and not name.partition("@")[0].rstrip(".0123456789").endswith(LOOKED_UP):
            continue
        if near.dtype.kind == "f" and near.ndim and near.shape[-1] == width:
            yield name, near.reshape(-1, width)
        elif near.dtype.kind == "f" and near.ndim == 2 and near.shape[0] == width:
            yield name, near.T


def bias(ours: AnyArray, theirs: AnyArray, context: Context) -> Finding | None:
    """The bias of this module is missing or doubled; needs the checkpoint."""
    b = context.weight("bias")
    if b is None or ours.shape != theirs.shape or len(b) not in (ours.shape[0], ours.shape[-1]):
        return None
    b = b if len(b) == ours.shape[-1] else b.reshape(-1, *[1] * (ours.ndim - 1))
    return best(
        finding("bias", message, ours, theirs, ours + sign * b, context)
        for sign, message in ((-1, "the bias is left out"), (1, "the bias is added twice"))
    )


def another_input(ours: AnyArray, theirs: AnyArray, context: Context) -> Finding | None:
    """The right matrix times another input; needs the checkpoint."""
    weight = _matrix(context)
    if weight is None or ours.shape[-1] != weight.shape[0]:
        return None
    b = context.weight("bias")

    def attempts() -> Iterator[Finding | None]:
        for name, near in context.before(INPUTS):
            for x in (near, near.T) if near.ndim == 2 else (near,):
                if x.dtype.kind != "f" or x.shape[-1] != weight.shape[1]:
                    continue
                x = x.reshape(-1, weight.shape[1])
                y = linear(x, weight, b)
                if len(y) * len(weight) == theirs.size:
                    yield finding("another input", f"computed from our {name}", ours, theirs, y, context)
                elif theirs.size == len(weight):
                    for t, row in enumerate(y[:-1]):
                        message = f"computed from position {t - len(y)} of our {name}"
                        yield finding("another input", message, ours, theirs, row, context)

    return best(attempts())


def another_weight(ours: AnyArray, theirs: AnyArray, context: Context) -> Finding | None:
    """The right input times another matrix, or the right one transposed; needs the checkpoint."""
    weight = _matrix(context)
    if weight is None or context.weights is None or ours.shape[-1] != weight.shape[0]:
        return None
    x = _input_of(ours, weight, context)
    if x is None:
        return None
    b = context.weight("bias")

    def attempts() -> Iterator[Finding | None]:
        if weight.shape[0] == weight.shape[1]:
            yield finding(
                "weight transposed", "the matrix is transposed", ours, theirs, linear(x, weight.T, b), context
            )
        for key, other in context.weights.like(context.module, weight.shape) if context.weights else ():
            yield finding("another weight", f"multiplied by {key}", ours, theirs, linear(x, other, b), context)

    return best(attempts())


def _matrix(context: Context) -> AnyArray | None:
    """The matrix of this module, a convolution of one tap among them."""
    weight = context.weight()
    if weight is not None and weight.ndim == 3 and weight.shape[2] == 1:
        weight = weight[:, :, 0]
    return weight if weight is not None and weight.ndim == 2 else None


def _input_of(ours: AnyArray, weight: AnyArray, context: Context) -> AnyArray | None:
    """The input of our tensor: rows [n, in] of a tensor before it."""
    b = context.weight("bias")
    for _, near in context.before(INPUTS):
        for x in (near, near.T) if near.ndim == 2 else (near,):
            if x.dtype.kind != "f" or x.shape[-1] != weight.shape[1]:
                continue
            x = x.reshape(-1, weight.shape[1])
            for rows in (x, x[-1:]):
                y = linear(rows, weight, b)
                if y.size == ours.size and not outside(y.reshape(ours.shape), ours, 8 * context.atol):
                    return rows
    return None


def codebook_order(ours: AnyArray, theirs: AnyArray, context: Context) -> Finding | None:
    """An entry of the right codebook for another code of the frame, or of another codebook; needs the checkpoint."""
    codes, books = context.tensors.get("codes.0"), context.codebooks()
    if context.leaf != "quantized" or codes is None or ours.shape != theirs.shape or len(codes) != ours.shape[1]:
        return None
    own = next((g for g in range(len(books)) if not outside(books[g][codes[:, g]].T, ours, context.atol)), None)
    if own is None:
        return None

    def attempts() -> Iterator[Finding | None]:
        for g in (g for g in range(len(books)) if g != own):
            message = f"codebook {own} is given code {g} of every frame: the codes are in another order"
            yield finding("codebook order", message, ours, theirs, books[own][codes[:, g]].T, context)
            message = f"code {own} of every frame is looked up in codebook {g}: the codebooks are in another order"
            yield finding("codebook order", message, ours, theirs, books[g][codes[:, own]].T, context)

    return best(attempts())
