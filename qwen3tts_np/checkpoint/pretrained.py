"""The arguments of ``from_pretrained``: ours, and those of PyTorch that a ported script still passes."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..arguments import path_of
from ..errors import MissingFileError, RequestError, RequestTypeError
from ..files.name import shown_name
from ..notices import notify
from ..shown import shortened
from .foreign import CURE
from .hub import OWNER, other_snapshot, published_names, repository, snapshot
from .modelscope import is_chosen, modelscope_snapshot

# Official arguments that choose where and how PyTorch and transformers run. They have no effect here.
_WITHOUT_EFFECT = frozenset(
    "adapter_kwargs attn_implementation code_revision config device_mesh force_download from_flax from_tf "
    "generation_config ignore_mismatched_sizes key_mapping load_in_4bit load_in_8bit low_cpu_mem_usage max_memory "
    "mirror offload_buffers offload_folder offload_state_dict output_loading_info proxies quantization_config "
    "resume_download state_dict subfolder tp_plan tp_size trust_remote_code use_auth_token use_flash_attention_2 "
    "use_kernels use_safetensors variant weights_only".split()
)
_ANY_DEVICE = ("cpu", "auto", "balanced", "balanced_low_0", "sequential")
_LONGEST_NAME = 96  # characters, on the hub
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")  # owner/name, as the hub has it


def directory(
    path: str | os.PathLike[str],
    cache_dir: str | Path | None = None,
    *,
    local_files_only: bool = False,
    revision: str | None = None,
    token: Any = None,
) -> Path:
    """``path`` as a checkpoint directory on disk; a name of the hub, ``owner/name``, is downloaded if need be.

    The network is never used for a directory, whatever its name. ``cache_dir``: where downloads are kept, if not where
    huggingface_hub keeps them. With ``local_files_only`` they are taken from there, without network access.
    ``revision`` and ``token`` are for models other than the published ones, whose revision is fixed. Models come from
    the hub of Hugging Face, or from ModelScope (``checkpoint/modelscope.py``).
    """
    folder = path_of(path, "the model")
    cache_dir = None if asks_for_nothing(cache_dir) else path_of(cache_dir, "cache_dir")
    if os.path.isdir(folder):
        return folder
    if wanted := repository(folder.as_posix()):
        if revision and revision not in ("main", wanted.revision):
            notify(
                f"revision={shortened(revision)} has no effect: of {wanted.name} one revision is known, and verified"
            )
        if is_chosen():
            return modelscope_snapshot(wanted.name, None, cache_dir, local_files_only=local_files_only)
        return snapshot(wanted, cache_dir, local_files_only=local_files_only)
    if folder.name.startswith("Qwen3-TTS") and (len(folder.parts) == 1 or folder.parts[0] == OWNER):
        known = ", ".join(published_names())
        raise MissingFileError(f"{shown_name(folder)} is neither a directory nor a published model; those are {known}")
    name = folder.as_posix()
    is_name = _NAME.fullmatch(name) and len(name) <= _LONGEST_NAME
    if is_name and not os.path.exists(folder) and not os.path.exists(folder.parts[0]):
        if is_chosen():
            return modelscope_snapshot(name, revision, cache_dir, local_files_only=local_files_only)
        return other_snapshot(name, revision, cache_dir, local_files_only=local_files_only, token=token)
    if os.path.isfile(folder):
        raise MissingFileError(f"{shown_name(folder)} is a file{_advice(folder)}")
    raise MissingFileError(
        f"{shown_name(folder)} is not a directory; give the folder that holds a checkpoint's config.json, or a name "
        f"such as {published_names()[0]}"
    )


def _advice(file: Path) -> str:
    """What to give in place of a file, as the end of a sentence."""
    if file.suffix.lower() == ".gguf":
        return f", and GGUF is not read here: {CURE}"
    if (file.parent / "config.json").exists():
        return f"; give its folder, {shown_name(file.parent)}"
    return "; a checkpoint is a folder with a config.json"


def compute_dtype(dtype: Any) -> np.dtype[Any]:
    """The type activations are computed in: float32 unless asked for float64.

    ``dtype`` may be None, a name, a NumPy type or a torch dtype. Half types name the weights' storage in the official
    package; the weights are widened exactly here, so float32 is used, with a warning.
    """
    name = "float32" if asks_for_nothing(dtype) else str(getattr(dtype, "__name__", dtype)).removeprefix("torch.")
    if name in ("bfloat16", "float16", "half", "auto"):
        notify(f"dtype={name}: computing in float32, which loses nothing of such weights")
        name = "float32"
    if name not in ("float32", "float64"):
        raise RequestError(f"dtype={shortened(dtype)} is not supported; use float32 or float64")
    return np.dtype(name)


def check_leftovers(arguments: Mapping[str, Any]) -> None:
    """Warn about PyTorch's arguments that ask for something else than the CPU, and refuse unknown arguments by name."""
    for name, value in arguments.items():
        if asks_for_nothing(value):
            continue
        if name in ("device_map", "device"):
            if not _is_cpu(value):
                notify(f"{name}={shortened(value)}: this package runs on the CPU only, and computes there")
        elif name not in _WITHOUT_EFFECT:
            raise RequestTypeError(f"from_pretrained has no argument {shortened(name)}")
        else:
            notify(f"{name} has no effect here and was ignored")


def asks_for_nothing(value: Any) -> bool:
    """Whether an argument at this value is as good as none: scripts pass on what their own options have."""
    return value is None or value is False or (isinstance(value, str) and not value)


def _is_cpu(device: Any) -> bool:
    """Whether a ``device_map`` of any kind asks for nothing but the CPU, or leaves the choice."""
    if isinstance(device, Mapping):
        return all(_is_cpu(part) for part in device.values())
    return asks_for_nothing(device) or str(device).partition(":")[0] in _ANY_DEVICE
