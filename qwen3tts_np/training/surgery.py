"""Layer surgery: talker layers initialised anew, added, and frozen.

    layers of the checkpoint   0 1 2 ... L-3 L-2 L-1
    replace 2, add 4           0 1 2 ... L-3  n   n   n n n n

Added layers stand between the last original layer and the final norm. A layer adds two terms to the residual stream,
through ``o_proj`` and ``down_proj``; where these are zero it is the identity, so a model to which such layers are added
is exactly the model that it was, and learns from there (the zero initialisation of residual branches: Goyal et al.,
2017, for batch norms; Zhang et al., "Fixup", 2019). Everything else is drawn from Glorot and Bengio's uniform
distribution (2010, "Xavier"), and norms begin at 1.
"""

from __future__ import annotations

import copy
import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..arguments import whole_number
from ..checkpoint.config_file import read_model_config
from ..checkpoint.json_file import read_json
from ..checkpoint.keys import TensorSpec, check, specs
from ..checkpoint.safetensors import Checkpoint
from ..errors import RequestError
from ..layout.specs import model_specs
from ..ops import Array
from ..shown import shortened
from ..talker.layer import Qwen3Layer, attention_sizes
from .checkpoints import NewCheckpoint, write_checkpoint

LAYERS = "talker.model.layers."
INITS = ("identity", "xavier")  # of layers that are added
INTO_RESIDUAL = ("self_attn.o_proj.weight", "mlp.down_proj.weight")


@dataclass(frozen=True)
class Surgery:
    """What is done to the talker's layers. RequestError for what cannot be."""

    replace_last: int = 0  # so many of the last layers are initialised anew, always with Xavier
    add: int = 0  # so many are added behind them
    init: str = "identity"  # of those that are added; or "xavier"
    seed: int = 0

    def __post_init__(self) -> None:
        whole_number(self.replace_last, "replace_last", 0)
        whole_number(self.add, "add", 0)
        if self.init not in INITS:
            raise RequestError(f"init={shortened(self.init)} is none of {', '.join(INITS)}")

    def config(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """``config.json`` with the new number of layers. RequestError if the model has fewer than are replaced."""
        config = copy.deepcopy(dict(raw))
        talker = config["talker_config"]
        have = talker["num_hidden_layers"]
        if self.replace_last > have:
            raise RequestError(f"replace_last={self.replace_last}, and the talker has {have} layers")
        talker["num_hidden_layers"] = have + self.add
        if isinstance(kinds := talker.get("layer_types"), list) and len(kinds) == have:  # as transformers 5 saves it
            talker["layer_types"] = kinds + kinds[-1:] * self.add
        return config

    def weights(self, model: Path) -> dict[str, Array]:
        """The new layers of the checkpoint ``model``: float32 arrays by official name."""
        c = read_model_config(model).talker_config
        self.config(read_json(model / "config.json"))
        sizes, original = attention_sizes(c), c.num_hidden_layers
        found: dict[str, Array] = {}
        for i in range(original - self.replace_last, original + self.add):
            identity = i >= original and self.init == "identity"
            for spec in specs(Qwen3Layer, sizes, f"{LAYERS}{i}.", "BF16"):
                zero = identity and spec.key.endswith(INTO_RESIDUAL)
                found[spec.key] = np.zeros(spec.shape, np.float32) if zero else self._drawn(spec)
        return found

    def _drawn(self, spec: TensorSpec) -> Array:
        """A matrix [out, in] uniform within sqrt(6 / (in + out)), or a norm of ones."""
        if len(spec.shape) == 1:
            return np.ones(spec.shape, np.float32)
        draw = np.random.default_rng([self.seed, zlib.crc32(spec.key.encode())])  # whatever else is drawn
        most = math.sqrt(6 / sum(spec.shape))
        return draw.uniform(-most, most, spec.shape).astype(np.float32)


def layer_of(name: str) -> int | None:
    """The number of the talker layer that a tensor belongs to; None for any other."""
    return int(name.removeprefix(LAYERS).partition(".")[0]) if name.startswith(LAYERS) else None


def of_last_layers(names: Iterable[str], count: int) -> list[str]:
    """Of ``names`` those in the last ``count`` talker layers. RequestError if there are fewer layers."""
    names = list(names)
    layers = 1 + max((i for name in names if (i := layer_of(name)) is not None), default=-1)
    if count > layers:
        raise RequestError(f"the last {count} layers are to be trained, and the talker has {layers}")
    return [name for name in names if (i := layer_of(name)) is not None and i >= layers - count]


def operate(model: Path, target: Path, surgery: Surgery) -> None:
    """Write the checkpoint ``model`` with other layers as ``target``, a complete checkpoint.

    OutputError if ``target`` exists and is not empty; CheckpointError if ``model`` is not a complete checkpoint.
    """
    checkpoint = Checkpoint.open(model)
    check(checkpoint, model_specs(read_model_config(model)))
    config = surgery.config(read_json(model / "config.json"))
    write_checkpoint(target, NewCheckpoint(model, config, surgery.weights(model)))
