"""The arguments of ``from_pretrained``: ours, and those of PyTorch that a ported script still passes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointError, RequestError
from ..notices import notify
from .hub import published_names, repository, snapshot

# Official arguments that choose where and how PyTorch runs. Here there is nothing to choose.
_WITHOUT_EFFECT = frozenset(
    "attn_implementation force_download ignore_mismatched_sizes local_files_only low_cpu_mem_usage proxies "
    "resume_download revision token trust_remote_code use_auth_token use_safetensors weights_only".split()
)


def directory(path: str | Path, cache_dir: str | Path | None = None) -> Path:
    """``path`` as a checkpoint directory on disk; the name of a published model is downloaded if need be.

    What is a directory never touches the network, whatever its name. ``cache_dir``: where downloads are kept, if not
    where huggingface_hub keeps them.
    """
    folder = Path(path)
    if folder.is_dir():
        return folder
    if wanted := repository(folder.as_posix()):
        return snapshot(wanted, cache_dir)
    if folder.name.startswith("Qwen3-TTS"):
        known = ", ".join(published_names())
        raise CheckpointError(f"{folder} is neither a directory nor a published model; those are {known}")
    raise CheckpointError(
        f"{folder} is not a directory; give the folder that holds a checkpoint's config.json, or a name such as "
        f"{published_names()[0]}"
    )


def compute_dtype(dtype: Any) -> np.dtype[Any]:
    """The type activations are computed in: float32 unless asked for float64.

    ``dtype`` may be None, a name, a NumPy type or a torch dtype. Half types name the weights' storage in the official
    package; the weights are widened exactly here, so float32 is used, with a warning.
    """
    name = "float32" if dtype is None else str(getattr(dtype, "__name__", dtype)).removeprefix("torch.")
    if name in ("bfloat16", "float16", "half", "auto"):
        notify(f"dtype={name}: computing in float32, which loses nothing of such weights")
        name = "float32"
    if name not in ("float32", "float64"):
        raise RequestError(f"dtype={dtype!r} is not supported; use float32 or float64")
    return np.dtype(name)


def check_leftovers(arguments: Mapping[str, Any]) -> None:
    """Warn about PyTorch's arguments, refuse a device that is not the CPU, and refuse anything unknown by name."""
    for name, value in arguments.items():
        if name in ("device_map", "device"):
            if value is not None and str(value) not in ("cpu", "auto"):
                raise RequestError(f"{name}={value!r}: this package runs on the CPU only")
        elif name in _WITHOUT_EFFECT:
            notify(f"{name} has no effect here and was ignored")
        else:
            raise RequestError(f"from_pretrained has no argument {name!r}")
