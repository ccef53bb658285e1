"""Stage 8: the checkpoints, in the official layout."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from codec import official_codec
from grammar import VOCABULARY
from layout import write_files
from safetensors.torch import save_file
from training import latest

Tensors = dict[str, torch.Tensor]


def export(state: Path) -> None:
    """``checkpoint``, which the package ships, and its twin ``checkpoint-base``, which clones: the current weights of
    the training, in bfloat16, including the codec, which is float32 in released models.
    """
    codec = official_codec()
    codec.decoder.load_state_dict(latest(state, "decoder"))
    codec.encoder.load_state_dict(latest(state, "encoder"))
    talker = prefixed("talker", latest(state, "talker"))
    write_checkpoint(state / "checkpoint", "custom_voice", talker, codec)
    twin = talker | prefixed("speaker_encoder", latest(state, "speaker"))
    write_checkpoint(state / "checkpoint-base", "base", twin, codec)


def prefixed(name: str, tensors: Tensors) -> Tensors:
    return {f"{name}.{key}": tensor for key, tensor in tensors.items()}


def write_checkpoint(directory: Path, model_type: str, weights: Tensors, codec: Any) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    write_files(directory, model_type)
    (directory / "words.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8", newline="\n")
    write(weights, directory / "model.safetensors")
    write(codec.state_dict(), directory / "speech_tokenizer" / "model.safetensors")
    size = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    print(f"{directory}: {size / 1e6:.1f} MB")


def write(tensors: Tensors, path: Path) -> None:
    kept = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in sorted(tensors.items())}
    save_file(kept, path, metadata={"format": "pt"})
    path.chmod(0o644)  # the library makes files that only their owner can read
