"""Arrays of NumPy's own format (.npy) that users hand over, without pickles and without trust in the header."""

from __future__ import annotations

import io
import math
import os
import tokenize
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError
from ..ops import Ints
from .input import read_bytes
from .output import npy_of
from .rvq import SUFFIX, read_rvq, rvq_of

OF_LITERALS = (ValueError, TypeError, SyntaxError, MemoryError, RecursionError)  # what ``ast.literal_eval`` raises


def read_codes(path: str | os.PathLike[str]) -> Ints:
    """Codes [frames, G] as ``qwen3tts-np encode`` writes them: .npy or .rvq. RequestError for what is none."""
    if _is_rvq(path):
        return read_rvq(path)
    array = read_array(path)
    if array.ndim != 2 or array.dtype.kind not in "iu" or not array.size:
        raise RequestError(
            f"{os.fspath(path)} holds {array.dtype} {list(array.shape)}, expected codes: integers [frames, codes]"
        )
    return array


def codes_file(path: str | os.PathLike[str], codes: Ints) -> bytes:
    """Codes [frames, G] as the content of the file ``path``: .rvq, or .npy under any other name."""
    return rvq_of(codes) if _is_rvq(path) else npy_of(codes)


def _is_rvq(path: str | os.PathLike[str]) -> bool:
    return os.fspath(path).lower().endswith(SUFFIX)


def read_array(path: str | os.PathLike[str]) -> NDArray[Any]:
    """The array in a .npy file. RequestError where it is none, holds objects, or has another length."""
    data, name = read_bytes(path), os.fspath(path)
    content = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(content)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran_order, dtype = read_header(content)
    except (*OF_LITERALS, tokenize.TokenError):  # the header is a Python literal
        raise RequestError(f"{name} is not a .npy array") from None
    if dtype.hasobject or not dtype.itemsize:
        raise RequestError(f"{name} is a .npy array of {dtype}; expected numbers")
    needed, found = math.prod(shape) * dtype.itemsize, len(data) - content.tell()
    if min(shape, default=0) < 0 or needed != found or max(shape, default=0) >= 2**31:
        raise RequestError(f"{name}: its header says {dtype} {list(shape)}, {needed} bytes, and {found} follow")
    flat = np.frombuffer(content.read(), dtype)
    return np.array(flat.reshape(shape, order="F" if fortran_order else "C"))  # a copy, which may be written to
