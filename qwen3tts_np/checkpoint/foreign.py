"""Checkpoints in layouts that are not read here, recognised by their files and tensor names, for one clear sentence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

CURE = "take the original checkpoint, of which 'qwen3tts-np convert' makes int8 to int4"

# Part of a tensor's name -> the program that quantised it. The first that occurs counts: AWQ has no g_idx.
_QUANTISED = {
    ".g_idx": "GPTQ",
    ".qweight": "AWQ or GPTQ",
    ".weight_packed": "compressed-tensors",
    ".quant_state.bitsandbytes": "bitsandbytes",
    ".absmax": "bitsandbytes",
    ".SCB": "bitsandbytes",
    ".biases": "MLX",
    ".W_q": "HQQ",
    ".weight._data": "quanto",
    ".weight_scale_inv": "a program that writes FP8",
    ".weight_scale": "a program that writes scales beside its weights",
}
_INTEGERS = ("I8", "U8", "I32", "U32")

# Part of a tensor's name -> what has been saved there instead of a checkpoint of the official layout.
_LAYOUTS = {
    "text_projection.linear_1.weight": "has the layout of the port inside transformers, which has other names and no "
    "codec; take the original checkpoint, such as Qwen/Qwen3-TTS-12Hz-0.6B-Base",
    ".lora_A.": "has LoRA weights beside those that they belong to; merge them first (merge_and_unload of peft)",
}
_MLX = "is a conversion to MLX, whose convolutions have another layout; take the original checkpoint"
_FILES = {
    "adapter_model.safetensors": "a LoRA adapter; give its base model, and this folder as --adapter (say, clone; "
    "adapter= in Python), or merge them (merge_and_unload of peft)",
    "*.gguf": f"GGUF weights of llama.cpp or another program; {CURE}",
    "*.onnx": "an export to ONNX; take the original checkpoint",
    "openvino*.xml": "an export to OpenVINO; take the original checkpoint",
    "pytorch_model*.bin": "weights as PyTorch pickles them, which are not read here; save them as safetensors",
    "*.pt*": "weights as PyTorch pickles them, which are not read here; save them as safetensors",
    "*.ckpt": "weights as PyTorch pickles them, which are not read here; save them as safetensors",
}


def quantised_by(method: str) -> str:
    """The end of a sentence about weights that another program has quantised."""
    return f"the weights are quantised by {method}, which is not read here; {CURE}"


def layout_of(names: Iterable[str], metadata: Mapping[str, str]) -> str | None:
    """The end of a sentence about a file with tensors of these names, if its layout is another one."""
    names = list(names)
    for mark, what in _LAYOUTS.items():
        if any(mark in name for name in names):
            return what
    for mark, method in _QUANTISED.items():
        if any(name.endswith(mark) or f"{mark}." in name or f"{mark}_" in name for name in names):
            return f"has weights quantised by {method}, which are not read here; {CURE}"
    return _MLX if metadata.get("format") == "mlx" else None


def integers(types: Iterable[str]) -> str | None:
    """The same for weights of these types, where they are stored as integers, as quantisers do."""
    kind = next((dtype for dtype in types if dtype in _INTEGERS), None)
    return None if kind is None else f"has weights quantised to integers ({kind}), which are not read here; {CURE}"


def files_of(folder: Path) -> str | None:
    """What ``folder`` holds in place of a checkpoint's weights, with what to do; None if nothing is recognised."""
    for pattern, what in _FILES.items():
        for path in sorted(folder.glob(pattern)):
            return f"{path.name}, {what}"
    return None
