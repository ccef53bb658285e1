"""The linear layer."""

from .arrays import Array


def linear_ref(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """x wᵀ + b. x [..., in], weight [out, in] as in the checkpoint."""
    y = x @ weight.T
    return y if bias is None else y + bias


def linear_backward_ref(dy: Array, x: Array, weight: Array) -> tuple[Array, Array, Array]:
    """The gradients dx [..., in], dweight [out, in] and dbias [out] of ``linear_ref``, given dy [..., out].

    dx = dy w,  dweight = dyᵀ x,  dbias = sum of dy; the last two over all rows.
    """
    rows, inputs = dy.reshape(-1, dy.shape[-1]), x.reshape(-1, x.shape[-1])
    return dy @ weight, rows.T @ inputs, rows.sum(0)
