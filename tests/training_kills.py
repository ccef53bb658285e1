"""A run of training, killed with SIGKILL at every place that matters, and resumed: the same bytes as one undisturbed.

    python tests/training_kills.py [MODE...]

Every rename of a run is a place: that of each log, checkpoint, ``best``, ``last`` and state, before it and after it,
the removal of what is not kept, and the middle of a step. One run is killed at each of them in turn, a number of times,
until it is done. Without a mode: lora, last:1 and full. It takes some minutes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PATH = [str(ROOT), str(ROOT / "kernels"), str(ROOT / "tests")]
EVERY = 7  # renames between two kills of one run


def run(base: Path, data: Path, out: Path, *words: str) -> int:
    """One process of training; its exit status, negative where it was killed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(PATH)}
    program = [sys.executable, str(Path(__file__).with_name("training_world.py")), str(base), str(data), str(out)]
    return subprocess.run([*program, *words], env=environment, check=False).returncode


def killed(base: Path, data: Path, out: Path, mode: str, first: int) -> int:
    """Kill a run at its ``first`` rename, then again at every ``EVERY``-th of what is left. -> how often."""
    kills = 0
    for i in range(60):
        place = ["step", "2"] if i % 4 == 3 else ["rename", str(first if i == 0 else EVERY + i)]
        status = run(base, data, out, mode, *place, *(["after"] if i % 2 and place[0] == "rename" else []))
        if status == 0:
            return kills
        assert status == -9, status
        kills += 1
    raise AssertionError(f"not done after {kills} kills")


def main(modes: list[str]) -> int:
    sys.path[:0] = PATH
    from training_world import content, train, write_data

    from qwen3tts_np.synthetic.weights import write_checkpoint

    total = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = folder / "base"
        write_checkpoint(base, "tiny", "base")
        data = write_data(folder)
        for mode in modes:
            train(base, data, folder / f"whole-{mode}", train=mode)
            whole = content(folder / f"whole-{mode}")
            for first in range(1, EVERY + 1):
                out = folder / "out"
                kills = killed(base, data, out, mode, first)
                found = content(out)
                wrong = sorted(file for file in {*whole, *found} if whole.get(file) != found.get(file))
                print(
                    f"{mode}, first at rename {first}: {kills} kills, {len(found)} files, {len(wrong)} differ",
                    flush=True,
                )
                if wrong:
                    print(*wrong, sep="\n")
                    return 1
                total += kills
                shutil.rmtree(out)
    print(f"{total} kills, and not a byte differs")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["lora", "last:1", "full"]))
