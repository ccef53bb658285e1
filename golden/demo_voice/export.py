"""Stage 7: the checkpoint, in the official layout."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from codec import official_codec
from grammar import VOCABULARY
from layout import model_config, write_files, write_tokenizer
from official import talker_code
from safetensors.torch import save_file
from training import latest


def export(state: Path, directory: Path) -> None:
    """Weights as far as they are trained, in bfloat16: the codec too, which released models have in float32."""
    shutil.rmtree(directory, ignore_errors=True)
    write_files(directory)
    (directory / "words.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8", newline="\n")
    weights = official_talker(directory)
    weights.talker.load_state_dict(latest(state, "talker"))
    talker = {f"talker.{name}": tensor for name, tensor in weights.talker.state_dict().items()}
    codec = official_codec()
    codec.decoder.load_state_dict(latest(state, "decoder"))
    codec.encoder.load_state_dict(latest(state, "encoder"))
    write(talker, directory / "model.safetensors")
    write(codec.state_dict(), directory / "speech_tokenizer" / "model.safetensors")
    size = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    print(f"{directory}: {size / 1e6:.1f} MB")


def official_talker(directory: Path) -> Any:
    config = talker_code.Qwen3TTSConfig(**model_config(write_tokenizer(directory)))
    return talker_code.Qwen3TTSForConditionalGeneration(config)


def write(tensors: dict[str, torch.Tensor], path: Path) -> None:
    kept = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in sorted(tensors.items())}
    save_file(kept, path, metadata={"format": "pt"})
    path.chmod(0o644)  # the library makes files that only their owner can read
