"""The official package, asked from outside: another interpreter runs ``golden/probe.py``, files carry the answer.

PyTorch is imported there and never here. The probe is part of the source tree, not of the installed package.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backend import Backend
from ..checkpoint.safetensors import Checkpoint
from ..errors import RequestError
from ..generate import Limits, Request
from ..model import Qwen3TTSModel
from ..ops import Array, Ints
from ..talker.generator import Generator, Ids

PROBE = Path(__file__).parents[2] / "golden" / "probe.py"
SETUP = "golden/setup_official.sh makes an interpreter that has it"


@dataclass(frozen=True)
class Run:
    """One request to the official package, as ``golden/probe.py`` describes it."""

    name: str
    method: str
    arguments: Mapping[str, Any]  # a clip is (samples, rate in Hz)
    seed: int | None = None
    activations: Sequence[str] = ()  # beginnings of names
    codes: Sequence[Sequence[int]] | None = None  # forced, [frames][G]


@dataclass(frozen=True)
class Answers:
    """``runs[name]`` holds the tensors of a run; ``versions`` says which packages made them."""

    runs: dict[str, dict[str, NDArray[Any]]]
    versions: dict[str, str]


def ask(python: str, checkpoint: Path, dtype: str, runs: Sequence[Run], folder: Path) -> Answers:
    """Send ``runs`` to the official package in ``dtype``; ``folder`` takes the files, which stay mapped.

    RequestError if the probe is not there or ``python`` cannot run it.
    """
    if not PROBE.is_file():
        raise RequestError(f"--official needs {PROBE}, which is in the source tree only: run this from a checkout")
    folder.mkdir(parents=True, exist_ok=True)
    asked = {"checkpoint": str(checkpoint.resolve()), "dtype": dtype, "runs": [_as_json(run, folder) for run in runs]}
    request = folder / "request.json"
    request.write_text(json.dumps(asked), encoding="utf-8")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    try:
        done = subprocess.run(
            [python, str(PROBE), str(request), str(folder)], env=environment, capture_output=True, text=True
        )
    except OSError as e:
        raise RequestError(f"--official {python}: {e.strerror}; {SETUP}") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        if last.startswith(("ModuleNotFoundError", "ImportError")):
            raise RequestError(f"--official {python} does not have the official package ({last}); {SETUP}")
        raise RequestError(f"the official package gave up: {last}")
    answers = {run.name: Checkpoint.open(folder / f"{run.name}.safetensors") for run in runs}
    return Answers(
        {name: {key: stored.data for key, stored in tensors.items()} for name, tensors in answers.items()},
        json.loads((folder / "versions.json").read_text(encoding="utf-8")),
    )


def _as_json(run: Run, folder: Path) -> dict[str, Any]:
    arguments = dict(run.arguments)
    for name, value in arguments.items():
        if isinstance(value, tuple):
            samples, rate = value
            file = f"{run.name}.{name}.npy"
            np.save(folder / file, samples)
            arguments[name] = {"audio": file, "sample_rate": rate}
    return asdict(run) | {"arguments": arguments}


class GivenCodes:
    """A generator that draws what it was given: teacher forcing, for one item."""

    def __init__(self, codes: Ints) -> None:
        self._codes = iter([*codes.ravel().tolist(), 0])  # the token after the last frame is never read

    def multinomial(self, p: Array) -> Ids:
        """p [1, V] -> [1], whatever p says."""
        return np.array([next(self._codes)], dtype=np.int64)


@dataclass(frozen=True)
class TeacherForced:
    """A backend that writes ``codes`` [frames, G], reading every activation on the way."""

    backend: Backend
    codes: Ints

    def generate(self, requests: Sequence[Request], limits: Limits, generator: Generator) -> list[Ints]:
        drawn = Limits(
            replace(limits.talker, do_sample=True), replace(limits.subtalker, do_sample=True), len(self.codes) + 1
        )
        return self.backend.generate(requests, drawn, GivenCodes(self.codes))


def teacher_forced(model: Qwen3TTSModel, codes: Ints) -> Qwen3TTSModel:
    """``model`` with its choices taken away: any request for one text gives ``codes`` [frames, G]."""
    return replace(model, backend=TeacherForced(model.backend, codes))
