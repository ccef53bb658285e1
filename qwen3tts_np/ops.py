"""The arithmetic of the reference path: NumPy functions that every block shares, under their plain names.

They are the oracles of ``qwen3tts_np_kernels``. The output has the dtype of the input, so the same model code runs in
float32 and, as its own oracle, in float64.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from qwen3tts_np_kernels.activation import elu_ref as elu
from qwen3tts_np_kernels.activation import gelu_ref as gelu
from qwen3tts_np_kernels.activation import sigmoid_ref as sigmoid
from qwen3tts_np_kernels.activation import silu_ref as silu
from qwen3tts_np_kernels.activation import snake_beta_ref as snake_beta
from qwen3tts_np_kernels.arrays import F32, F64, I64, AnyArray, Array, Ints
from qwen3tts_np_kernels.attention import attention_ref as attention
from qwen3tts_np_kernels.conv import conv1d_ref as conv1d
from qwen3tts_np_kernels.conv import conv_transpose1d_ref as conv_transpose1d
from qwen3tts_np_kernels.conv import depthwise_conv1d_ref as depthwise_conv1d
from qwen3tts_np_kernels.linear import linear_ref as linear
from qwen3tts_np_kernels.norm import layer_norm_ref as layer_norm
from qwen3tts_np_kernels.norm import rms_norm_ref as rms_norm
from qwen3tts_np_kernels.rope import rope_angles_ref as rope_angles
from qwen3tts_np_kernels.rope import rotate_ref as rotate
from qwen3tts_np_kernels.rvq import codebook_entries_ref as codebook_entries
from qwen3tts_np_kernels.rvq import lookup_ref as lookup
from qwen3tts_np_kernels.rvq import nearest_ref as nearest
from qwen3tts_np_kernels.softmax import cross_entropy_ref as cross_entropy
from qwen3tts_np_kernels.softmax import log_softmax_ref as log_softmax
from qwen3tts_np_kernels.softmax import softmax_ref as softmax

__all__ = [
    "F32",
    "F64",
    "I64",
    "AnyArray",
    "Array",
    "Ints",
    "Pcm",
    "Wave",
    "attention",
    "codebook_entries",
    "conv1d",
    "conv_transpose1d",
    "cross_entropy",
    "depthwise_conv1d",
    "elu",
    "gelu",
    "layer_norm",
    "linear",
    "log_softmax",
    "lookup",
    "nearest",
    "rms_norm",
    "rope_angles",
    "rotate",
    "sigmoid",
    "silu",
    "snake_beta",
    "softmax",
]

Wave = NDArray[np.float32]  # [samples] mono, from -1 to 1
Pcm = NDArray[np.int16]  # [samples] mono, 16-bit


def as_array(value: Any) -> Any:
    """``value``, and the array in it where it is a tensor of PyTorch, on whichever device, with gradient or without.

    Trap: NumPy has no bfloat16, so such a tensor is widened first, which loses nothing.
    """
    if not (hasattr(value, "detach") and hasattr(value, "cpu")):  # trap: open files can be detached too
        return value
    tensor = value.detach()
    if str(tensor.dtype) == "torch.bfloat16":
        tensor = tensor.float()
    return tensor.cpu().numpy()
