"""A checkpoint in training: which of its weights learn, and the checkpoint that they make.

    lora      low-rank additions to every projection of talker and code predictor, and the voices
    speaker   the voices alone: a row of the code embedding each
    last:N    all weights of the last N talker layers; the voices stay at their x-vectors
    full      all weights but the text embedding, and the voices

The text embedding is half of a 0.6B model, and a row of it learns only where a text has its token; the official script
trains it, and so does ``train_text_embedding``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint.adapter import A, Adapter, B, as_stored, with_speakers
from ..checkpoint.config_file import CODEC_DIR, read_codec_config, read_model_config
from ..checkpoint.json_file import read_json
from ..checkpoint.safetensors import Checkpoint
from ..checkpoint.tensor import StoredTensor
from ..config import ModelConfig
from ..errors import RequestError
from ..files.input import open_input
from ..files.output import replaced_folder, write_text
from ..ops import Array
from .adapters import adapted_modules, write_adapter
from .batch import ALIGNMENTS
from .checkpoints import CARD, NewCheckpoint, check_base, speaker_rows, write_checkpoint
from .network import Network
from .parameters import SPEAKER, TALKER, TEXT_EMBEDDING, Parameters
from .settings import TrainingSettings
from .surgery import Surgery, of_last_layers

ENDS = 1 << 16  # bytes of a file that identify it, first and last
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class Base:
    """The checkpoint that training begins from, after the surgery."""

    folder: Path
    name: str  # of its repository, or of its folder: what a model card says
    config: ModelConfig
    raw: Mapping[str, Any]  # config.json
    stored: Checkpoint
    new_layers: Mapping[str, Array]
    frame_rate: float  # frames of codes per second of speech

    @classmethod
    def open(cls, folder: Path, name: str, settings: TrainingSettings) -> Base:
        """CheckpointError or RequestError for what cannot be trained."""
        stored = check_base(folder)
        name = name if _REPOSITORY.fullmatch(name) else folder.name
        surgery = surgery_of(settings)
        config = read_model_config(folder, surgery.config)
        width = config.talker_config.hidden_size
        if settings.rank > width:
            raise RequestError(f"rank={settings.rank} must be at most {width}, the rank of a whole matrix")
        layers = surgery.weights(folder) if settings.new_layers else {}
        rate = read_codec_config(folder / CODEC_DIR).frame_rate
        return cls(folder, name, config, surgery.config(read_json(folder / "config.json")), stored, layers, rate)

    @property
    def fingerprint(self) -> str:
        """What identifies the weights: the size and both ends of their file."""
        found = hashlib.sha256()
        with open_input(self.stored.path) as file:
            size = file.seek(0, 2)
            for start in (0, max(0, size - ENDS)):
                file.seek(start)
                found.update(file.read(ENDS))
        return f"{size}-{found.hexdigest()[:16]}"


def surgery_of(settings: TrainingSettings) -> Surgery:
    return Surgery(settings.replace_last_n_layers, settings.add_new_layers, settings.init, settings.seed)


class Learner:
    """What is trained of a base, from ``vectors`` on: those of its new voices, by name."""

    def __init__(
        self, base: Base, settings: TrainingSettings, vectors: Mapping[str, Array], codec: Path | None = None
    ) -> None:
        self.base, self.settings, self.vectors, self.codec = base, settings, vectors, codec
        self.rows: dict[str, int] = speaker_rows(base.raw, vectors)
        self.parameters: Parameters = self._parameters()
        self._train()

    @property
    def learns_voices(self) -> bool:
        return not self.settings.last

    @property
    def fixed_vectors(self) -> Mapping[str, Array]:
        """Of the voices that are not trained."""
        return {} if self.learns_voices else self.vectors

    @cached_property
    def network(self) -> Network:
        s = self.settings
        return Network(
            self.parameters,
            self.base.config,
            ALIGNMENTS[s.alignment],
            s.sub_talker_loss_weight,
            s.recompute,
            share=s.sub_talker_share,
        )

    @property
    def trained(self) -> dict[str, Array]:
        """The arrays that are trained, by name."""
        return {name: self.parameters[name] for name in self.parameters.gradients}

    @property
    def trainable(self) -> int:
        return sum(array.size for array in self.parameters.gradients.values())

    @property
    def frozen(self) -> int:
        """Weights of talker and code predictor that are not trained."""
        sizes = {name: array.size for name, array in self.parameters.arrays.items()}
        return sum(size for name, size in sizes.items() if name not in self.parameters.gradients)

    def _parameters(self) -> Parameters:
        s, stored = self.settings, self.base.stored
        parameters = Parameters.load(stored, as_stored=s.frozen != "float32")
        if s.frozen == "bfloat16":
            for name, tensor in parameters.arrays.items():
                if isinstance(tensor, StoredTensor) and tensor.dtype != "BF16":
                    values = tensor.widen(np.dtype(np.float32))
                    parameters.arrays[name] = as_stored(name, values, "BF16")
        parameters.arrays.update(self.base.new_layers)
        return parameters

    def _train(self) -> None:
        s, w = self.settings, self.parameters
        if s.mode == "lora":
            w.add_low_rank(adapted_modules(w.arrays), s.rank, s.alpha, s.seed)
        elif s.last:
            w.train(of_last_layers(w.arrays, s.last))
        elif s.mode == "full":
            w.train(name for name in list(w.arrays) if name != TEXT_EMBEDDING or s.train_text_embedding)
        if self.learns_voices:
            for name, vector in self.vectors.items():
                w.add_speaker(name, vector)

    # --- as a checkpoint ----------------------------------------------------------------------------------------------

    @property
    def voices(self) -> dict[int, Array]:
        """The new rows of the code embedding, as they are now."""
        w = self.parameters
        return {row: w[SPEAKER + name] if self.learns_voices else self.vectors[name] for name, row in self.rows.items()}

    @property
    def adapter(self) -> Adapter | None:
        """The low-rank additions, as they are now."""
        w = self.parameters
        if not w.scales:
            return None
        additions = {layer: (w[layer + A], w[layer + B]) for layer in w.scales}
        return Adapter(additions, self.settings.rank, self.settings.alpha, self.voices, self.rows)

    def checkpoint(self, card: str) -> NewCheckpoint:
        """The complete checkpoint that the weights make now."""
        whole = {name: array for name, array in self.trained.items() if name.startswith(TALKER) and not _of_lora(name)}
        config = with_speakers(self.base.raw, self.rows) if self.rows else self.base.raw
        return NewCheckpoint(
            self.base.folder,
            config,
            {**self.base.new_layers, **whole},
            self.adapter,
            self.voices,
            self.rows,
            card,
            self.codec,
        )

    def write(self, target: Path, card: str) -> None:
        """Write the weights as they are now: a complete checkpoint, or with ``adapter="separate"`` the additions."""
        if self.adapter is None or self.settings.adapter == "merged":
            write_checkpoint(target, self.checkpoint(card), over=True)
            return
        with replaced_folder(target) as folder:
            write_adapter(folder, self.adapter, self.base.name, self.base.config.talker_config.hidden_size)
            write_text(folder / CARD, card)


def _of_lora(name: str) -> bool:
    return name.endswith((A, B))
