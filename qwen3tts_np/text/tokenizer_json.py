"""The tables of a ``tokenizer.json``, which transformers 5 writes in place of ``vocab.json`` and ``merges.txt``.

Only the tables are taken. How a text is cut into words is the model's, not the file's: see ``PATTERNS`` of
``tokenizer.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..checkpoint.json_file import read_json
from ..errors import CheckpointError, ConfigError

NAME = "tokenizer.json"
_PROPERTIES = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")


def read_model(path: Path) -> tuple[dict[str, Any], list[str]]:
    """(vocabulary, lines of merges). CheckpointError where the file is not that of a byte-level BPE."""
    model = read_tables(path).get("model")
    if not isinstance(model, dict) or model.get("type") != "BPE":
        raise CheckpointError(f"{path}: the tokenizer is not a BPE, which Qwen3-TTS has")
    vocab, merges = model.get("vocab"), model.get("merges")
    if not isinstance(vocab, dict) or not isinstance(merges, list):
        raise CheckpointError(f"{path}: the BPE needs a vocab and a list of merges")
    return vocab, [" ".join(map(str, merge)) if isinstance(merge, list) else str(merge) for merge in merges]


def read_added(path: Path) -> dict[str, Any]:
    """The added tokens as ``added_tokens_decoder`` of ``tokenizer_config.json`` has them: id -> properties."""
    added = read_tables(path).get("added_tokens")
    if not isinstance(added, list) or not all(isinstance(token, dict) for token in added):
        raise CheckpointError(f"{path}: added_tokens must be a list of tokens with their properties")
    return {str(token.get("id")): {name: token[name] for name in _PROPERTIES if name in token} for token in added}


def read_tables(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``; CheckpointError where there is none."""
    try:
        return read_json(path)
    except CheckpointError:
        raise
    except ConfigError as e:
        raise CheckpointError(str(e)) from None
