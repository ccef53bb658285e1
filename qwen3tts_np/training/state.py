"""The folder of a run, and what a run needs to go on where it was interrupted.

    OUT/run.json               what the run is: its settings, its data, its base; another run does not go on here
    OUT/checkpoint-N/          complete checkpoints, at most ``save_total_limit``
    OUT/best/  OUT/last/       the same files: the best so far by the validation loss, and the newest
    OUT/state-N/               step N: training_state.json, and optimiser.safetensors with float32 weights and moments
    OUT/training_log.jsonl     OUT/validation_log.jsonl     OUT/loss.svg
    OUT/frozen/                with ``last:N``, what the frozen layers say of each clip

Every folder is complete or not there. A state is the last thing that is written of its step, and the one before it goes
after that; so whenever a run is killed, it goes on from a step whose checkpoints are all there, makes again what was
written since, and writes the same bytes.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint.json_file import read_json
from ..checkpoint.safetensors import Checkpoint
from ..errors import CheckpointError, OutputError
from ..files.name import shown_name
from ..files.output import held, output_folder, remove_folder, remove_leftovers, write_text
from ..ops import Array
from .adapters import write_arrays, write_json

RUN, STATE, WEIGHTS = "run.json", "training_state.json", "optimiser.safetensors"
BEST, LAST = "best", "last"
_NUMBERED = re.compile(r"(state|checkpoint)-([0-9]+)")
_OURS = re.compile(r"(state|checkpoint)-[0-9]+|best|last|run\.json|loss\.svg|(training|validation)_log\.jsonl")


@dataclass
class State:
    """After ``step`` steps."""

    step: int = 0
    epoch: int = 0
    best_step: int | None = None
    best_loss: float | None = None
    checkpoints: list[int] = field(default_factory=list)  # those that are kept
    losses: dict[str, float] = field(default_factory=dict)  # of the last validation


class RunFolder:
    """OUT."""

    def __init__(self, path: Path) -> None:
        self.path: Path = path

    @contextmanager
    def opened(self, identity: Mapping[str, Any]) -> Iterator[State | None]:
        """The folder, for this process alone: the state to go on from, None at the beginning.

        What a killed process has left is removed. OutputError if there is another run, or something else, or another
        process trains here.
        """
        if os.path.isdir(self.path):  # trap: Path.is_dir raises where the name is too long
            remove_leftovers(self.path, lambda name: _OURS.fullmatch(name) is not None)
        self._check(identity)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise OutputError(f"{shown_name(self.path)} cannot be made: {e.strerror or e}") from None
        with held(self.path / RUN):
            write_text(self.path / RUN, json.dumps(identity, indent=2, sort_keys=True) + "\n", sole=True)
            yield self._latest()

    def _latest(self) -> State | None:
        steps = self.steps("state")
        if not steps:
            return None
        found = read_json(self.state(steps[-1]) / STATE)
        try:
            return State(**found)
        except TypeError:
            raise CheckpointError(f"{self.state(steps[-1]) / STATE} is no state of a run") from None

    def _check(self, identity: Mapping[str, Any]) -> None:
        where = shown_name(self.path)
        if os.path.exists(self.path) and not os.path.isdir(self.path):
            raise OutputError(f"{where} is not a directory")
        if not os.path.isdir(self.path) or not any(self.path.iterdir()):
            return
        if not (self.path / RUN).is_file():
            raise OutputError(f"{where} exists already and holds no run; name a new folder")
        stated = read_json(self.path / RUN)
        changed = sorted(name for name in {*stated, *identity} if stated.get(name) != identity.get(name))
        if changed:
            raise OutputError(f"{where} holds another run, which differs in {', '.join(changed)}; name a new folder")

    def state(self, step: int) -> Path:
        return self.path / f"state-{step}"

    def checkpoint(self, step: int) -> Path:
        return self.path / f"checkpoint-{step}"

    def steps(self, kind: str) -> list[int]:
        """The steps of which there is a ``state`` or a ``checkpoint``."""
        found = [_NUMBERED.fullmatch(path.name) for path in self.path.iterdir()]
        return sorted(int(match[2]) for match in found if match and match[1] == kind)

    def keep(self, state: State, arrays: Mapping[str, Array]) -> None:
        """Write the state of a step, then remove the others, and the checkpoints that are not kept."""
        target = self.state(state.step)
        remove_folder(target)
        with output_folder(target) as folder:
            write_arrays(folder / WEIGHTS, arrays)
            write_json(folder / STATE, asdict(state))
        self.prune(state)

    def prune(self, state: State) -> None:
        """Remove states and checkpoints of other steps, as far as ``state`` does not keep them."""
        for step in self.steps("state"):
            if step != state.step:
                remove_folder(self.state(step))
        for step in self.steps("checkpoint"):
            if step not in state.checkpoints:
                remove_folder(self.checkpoint(step))

    def arrays(self, step: int) -> dict[str, Array]:
        """The arrays of a state."""
        stored = Checkpoint.open(self.state(step) / WEIGHTS)
        return {name: np.array(tensor.widen(np.dtype(np.float32))) for name, tensor in stored.items()}
