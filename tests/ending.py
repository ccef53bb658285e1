"""Checkpoints whose speech ends soon, or never: random weights leave that to chance."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from qwen3tts_np_kernels.bfloat16 import round_ref

from qwen3tts_np.checkpoint.config_file import read_model_config
from qwen3tts_np.checkpoint.keys import TensorSpec
from qwen3tts_np.checkpoint.safetensors import Checkpoint
from qwen3tts_np.checkpoint.tensor import StoredTensor
from qwen3tts_np.checkpoint.writer import write_safetensors


def with_end(checkpoint: Path, end: float) -> Path:
    """A copy beside ``checkpoint`` in which the logit of the end of speech is scaled: 2 ends a piece after a few
    frames, 0 is never among the few best."""
    changed = checkpoint.with_name(f"{checkpoint.name}-end-{end:g}")
    if not changed.exists():
        shutil.copytree(checkpoint, changed)
        eos = read_model_config(checkpoint).talker_config.codec_eos_token_id
        stored = dict(Checkpoint.open(checkpoint))
        head = stored["talker.codec_head.weight"].widen(np.dtype(np.float32)).copy()
        head[eos] *= end
        stored["talker.codec_head.weight"] = StoredTensor("talker.codec_head.weight", "BF16", round_ref(head))
        table = [TensorSpec(name, t.shape, "", t.dtype) for name, t in stored.items()]
        write_safetensors(changed / "model.safetensors", table, lambda spec: [stored[spec.key].data])
    return changed
