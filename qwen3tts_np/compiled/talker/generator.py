"""PyTorch's random numbers, compiled: the draws of ``talker/generator.py``, from a copy of its state.

MT19937: Matsumoto and Nishimura, 1998.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from qwen3tts_np_kernels.cpu import inner

U32 = NDArray[np.uint32]

STATE = 624  # words of the twister; a stream [STATE + 1] is these followed by the number of words used


@inner
def skip(stream: U32, words: int) -> None:
    """Advance the stream by so many words."""
    used = np.int64(stream[STATE]) + words
    while used > STATE:
        _twist(stream)
        used -= STATE
    stream[STATE] = used


@inner
def exponential(stream: U32) -> np.float32:
    """An Exp(1) time. torch joins two words and takes the low 53 bits as a double in [0, 1)."""
    high = np.float64(_word(stream) & 0x1FFFFF)
    low = np.float64(_word(stream))
    uniform = (high * 2.0**32 + low) * 2.0**-53
    return np.float32(-math.log1p(-uniform))


@inner
def _word(stream: U32) -> int:
    skip(stream, 1)
    y = np.int64(stream[np.int64(stream[STATE]) - 1])
    y ^= y >> 11
    y ^= (y << 7) & 0x9D2C5680
    y ^= (y << 15) & 0xEFC60000
    return y ^ (y >> 18)


@inner
def _twist(stream: U32) -> None:
    """The next 624 words. In three loops, because the last word needs the first of the new ones."""
    for i in range(227):
        stream[i] = _twisted(stream[i], stream[i + 1], stream[i + 397])
    for i in range(227, 623):
        stream[i] = _twisted(stream[i], stream[i + 1], stream[i - 227])
    stream[623] = _twisted(stream[623], stream[0], stream[396])


@inner
def _twisted(upper: int, lower: int, far: int) -> int:
    y = (np.int64(upper) & 0x80000000) | (np.int64(lower) & 0x7FFFFFFF)
    return np.int64(far) ^ (y >> 1) ^ (y & 1) * 0x9908B0DF
