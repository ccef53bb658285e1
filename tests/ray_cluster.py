"""A manifest on a Ray cluster of this machine, with two workers: the bytes of one process.

    pytest tests/ray_cluster.py

Ray takes half a minute to start, so this is a command of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import batch_runs
import pytest


def test_two_workers_give_the_bytes_of_one_process(tmp_path: Path, synthetic: Callable[..., Path]) -> None:
    pytest.importorskip("ray.data")
    model = synthetic("tiny", "custom_voice")
    rows = [*batch_runs.rows_of(20), {"id": "bad", "text": "..."}, {"id": "worse", "text": 5}]
    manifest = batch_runs.write_manifest(tmp_path / "rows.jsonl", rows)
    batch_runs.speak(model, manifest, tmp_path / "one", status=1)
    batch_runs.speak_on_ray(model, manifest, tmp_path / "two", status=1)
    lines = [(tmp_path / name / "results.jsonl").read_bytes() for name in ("one", "two")]
    assert lines[0] == lines[1]
    good = {row["id"] for row in rows[:20]}
    for name in good:
        assert (tmp_path / "one" / f"{name}.wav").read_bytes() == (tmp_path / "two" / f"{name}.wav").read_bytes()
    done = json.loads((tmp_path / "two" / "shard-1-of-1.done").read_text())
    assert (done["spoken"], done["failed"]) == (20, 2)
    batch_runs.speak_on_ray(model, manifest, tmp_path / "two", status=1)
    assert json.loads((tmp_path / "two" / "shard-1-of-1.done").read_text())["kept"] == 20
