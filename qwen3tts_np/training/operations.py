"""The arithmetic of training: compiled kernels for float32, their oracles for float64.

float64 is for proofs (gradients against finite differences, and against autograd), float32 for work.
"""

from __future__ import annotations

import numpy as np
from qwen3tts_np_kernels import activation, activation_jit, norm, norm_jit, rope, rope_jit

from ..ops import Array


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    """x / rms(x) * weight. x [..., H], weight [H]."""
    function = norm_jit.rms_norm if x.dtype == np.float32 else norm.rms_norm_ref
    return function(x, weight, eps)


def rms_norm_backward(dy: Array, x: Array, weight: Array, eps: float) -> tuple[Array, Array]:
    """dx [..., H] and dweight [H], given dy [..., H]."""
    function = norm_jit.rms_norm_backward if x.dtype == np.float32 else norm.rms_norm_backward_ref
    return function(dy, x, weight, eps)


def swiglu(gate: Array, up: Array) -> Array:
    """silu(gate) * up."""
    function = activation_jit.swiglu if gate.dtype == np.float32 else activation.swiglu_ref
    return function(gate, up)


def swiglu_backward(dy: Array, gate: Array, up: Array) -> tuple[Array, Array]:
    """dgate and dup, given dy."""
    function = activation_jit.swiglu_backward if gate.dtype == np.float32 else activation.swiglu_backward_ref
    return function(dy, gate, up)


def rotate(x: Array, cos: Array, sin: Array) -> Array:
    """The pair (j, j + D/2) of every head turned by its angle. x [P, heads, D], cos and sin [P, D/2]."""
    function = rope_jit.rotate if x.dtype == np.float32 else rope.rotate_ref
    return function(x, cos, sin)


def rotate_backward(dy: Array, cos: Array, sin: Array) -> Array:
    """dx, given dy: the opposite angle (``rotate_backward_ref``)."""
    return rotate(dy, cos, -sin)
