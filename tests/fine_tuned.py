"""A checkpoint as the official fine-tuning script leaves it: see ``fine_tuned``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from qwen3tts_np.checkpoint.keys import TensorSpec
from qwen3tts_np.checkpoint.safetensors import Checkpoint
from qwen3tts_np.checkpoint.writer import write_safetensors

SPEAKER = "my_voice"


def fine_tuned(base: Path, target: Path) -> Path:
    """Turn a tiny base checkpoint into a fine-tuned one: custom_voice, one speaker, the speaker encoder's configuration
    without its weights, and one talker layer less."""
    shutil.copytree(base, target)
    config = json.loads((target / "config.json").read_text(encoding="utf-8"))
    talker = config["talker_config"]
    talker["num_hidden_layers"] -= 1
    talker["spk_id"] = {SPEAKER: talker["vocab_size"] - 10}
    talker["spk_is_dialect"] = {SPEAKER: False}
    config["tts_model_type"] = "custom_voice"
    (target / "config.json").write_text(json.dumps(config), encoding="utf-8")
    dropped = ("speaker_encoder.", f"talker.model.layers.{talker['num_hidden_layers']}.")
    stored = {name: t for name, t in Checkpoint.open(base).items() if not name.startswith(dropped)}
    table = [TensorSpec(name, t.shape, "", t.dtype) for name, t in stored.items()]
    write_safetensors(target / "model.safetensors", table, lambda spec: [stored[spec.key].data])
    return target
