"""Runs the official package in another interpreter (``golden/probe.py``) and exchanges files with it.

PyTorch is imported only there. The probe is part of the source tree, not of the installed package.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoint.safetensors import Checkpoint
from ..errors import RequestError

PROBE = Path(__file__).parents[2] / "golden" / "probe.py"
SETUP = "golden/setup_official.sh makes an interpreter that has it"


@dataclass(frozen=True)
class Run:
    """One request to the official package, as ``golden/probe.py`` describes it."""

    name: str
    method: str
    arguments: Mapping[str, Any]  # a clip is (samples, rate in Hz)
    seed: int | None = None
    activations: Sequence[str] = ()  # name prefixes
    codes: Sequence[Sequence[int]] | None = None  # forced, [frames][G]


@dataclass(frozen=True)
class Answers:
    """``runs[name]`` holds the tensors of a run; ``versions`` are those of the packages that computed them."""

    runs: dict[str, dict[str, NDArray[Any]]]
    versions: dict[str, str]


def ask(python: str, checkpoint: Path, dtype: str, runs: Sequence[Run], folder: Path) -> Answers:
    """Run ``runs`` with the official package in ``dtype``; the files are in ``folder`` and stay mapped.

    Raises RequestError if the probe is missing or ``python`` cannot run it.
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
