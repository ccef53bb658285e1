"""Voices that the official demo has saved (``torch.save``).

Official: ``qwen_tts/cli/demo.py``, whose file is ``{"items": [VoiceClonePromptItem as a dict, ...]}``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..checkpoint.torch_file import read_torch
from ..errors import CheckpointError


def read_torch_items(path: Path) -> list[dict[str, Any]]:
    """The items of the file, tensors as arrays. CheckpointError for a file that is damaged, or holds anything else."""
    found = read_torch(path, "saved voice")
    items = found.get("items") if isinstance(found, dict) else None
    if not isinstance(items, list) or not items or not all(isinstance(item, dict) for item in items):
        raise CheckpointError(f"{path} is a PyTorch file, but no voice of the official demo: there is no list 'items'")
    return items
