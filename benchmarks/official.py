"""The official package in a separate process and environment, which takes one measurement at a time."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any


class Official:
    """The official package in a separate process and environment."""

    def __init__(self, python: str, model: Path, threads: int) -> None:
        script = Path(__file__).with_name("official_worker.py")
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        environment.pop("PYTHONPATH", None)
        self._process = subprocess.Popen(
            [python, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.ask("load", model=str(model), threads=threads)

    def ask(self, name: str, **arguments: Any) -> float:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([name, arguments]), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"the official package's process ended: {name}")
        return float(json.loads(answer))

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
