"""Record goldens from the official package.

    golden/setup_official.sh                        once: the environment, in .venv-official
    .venv-official/bin/python golden/record.py      all cases -> cases/, manifest.json

Other ways to call it:

    --python P         the Python that runs ``qwen3tts-np synth`` (default: the one that runs this)
    --checkpoints DIR  where the synthetic checkpoints are made, or found from an earlier run (default: a temporary
                       place)
    --only PATTERN     only these cases (shell style)
    --check            record again elsewhere, training_* too, and say what moved, and by how much; exit 1 if it matters
    --full             the full-size fingerprints instead -> full/ (see full.py; 0.6B, 14 GiB of memory)
    --manifest         only write manifest.json again (needs no torch)
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import store
import training_drift
from cases import Checkpoint, cases
from store import CASES, GOLDEN, Json

REPOSITORY = GOLDEN.parent
DEMO_VOICE = REPOSITORY / "qwen3tts_np" / "demo_voice"
WEIGHTS = ("model.safetensors", "speech_tokenizer/model.safetensors")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--checkpoints", type=Path)
    parser.add_argument("--only", default="*")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true")
    mode.add_argument("--full", action="store_true")
    mode.add_argument("--manifest", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        smith = Smith(args.python, (args.checkpoints or Path(scratch)).resolve())
        if args.full:
            from full import record_full

            record_full(smith, GOLDEN / "full")
        elif args.check:
            return check(smith, args.only, Path(scratch) / "cases")
        elif not args.manifest:
            if args.only == "*":
                remove_forgotten_cases()
            record(smith, args.only, CASES)
    store.write_manifest()
    return 0


class Smith:
    """Creates the synthetic checkpoints, each once, with the package's command; the demo voice already exists."""

    def __init__(self, python: str, folder: Path) -> None:
        self._python, self._folder = python, folder

    def make(self, checkpoint: Checkpoint) -> Path:
        if checkpoint.like == "demo":
            return DEMO_VOICE
        directory = self._folder / str(checkpoint)
        if not directory.exists():
            program = "import sys; from qwen3tts_np.cli import main; sys.exit(main())"
            arguments = ["synth", "--like", checkpoint.like, "--type", checkpoint.type, "--seed", str(checkpoint.seed)]
            path = os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "kernels")))
            command = [self._python, "-c", program, *arguments, str(directory)]
            subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": path})
        return directory

    def describe(self, checkpoint: Checkpoint) -> Json:
        directory = self.make(checkpoint)
        files = {name: store.sha256(directory / name) for name in WEIGHTS}
        return {"like": checkpoint.like, "type": checkpoint.type, "seed": checkpoint.seed, "sha256": files}


def record(smith: Smith, pattern: str, out: Path) -> None:
    """Record each case in float32 and in float64, checkpoint by checkpoint."""
    from run import FragileCase, Models

    wanted = [case for case in cases() if fnmatch.fnmatchcase(case.name, pattern)]
    refused = []
    for checkpoint in dict.fromkeys(case.checkpoint for case in wanted):
        models = Models(smith.make(checkpoint))
        description = smith.describe(checkpoint)
        for case in (case for case in wanted if case.checkpoint == checkpoint):
            try:
                content, result = models.record(case, description)
            except FragileCase as reason:
                refused.append(str(reason))
                continue
            store.write_case(out / case.name, content, result.inputs, result.tensors)
            print(f"{case.name}: {len(result.tensors)} tensors, {result.seconds:.1f} s", flush=True)
    if refused:
        sys.exit("\n".join(["these are too near a tie to be goldens:", *refused]))


def check(smith: Smith, pattern: str, out: Path) -> int:
    from record_training import record_training

    record(smith, pattern, out)
    record_training(smith, pattern, out)
    lines: list[str] = []
    fine = True
    for folder in sorted(out.iterdir()):
        compare = training_drift.compare if folder.name.startswith("training_") else store.compare
        moved, same = compare(CASES / folder.name, folder)
        lines += moved
        fine &= same
    print("\n".join(lines) or "every recorded byte is the same")
    return 0 if fine else 1


def remove_forgotten_cases() -> None:
    """Remove folders of cases that are no longer in the table."""
    names = {case.name for case in cases()}
    for path in CASES.glob("*/case.json"):
        if path.parent.name not in names and store.made_here(path):
            shutil.rmtree(path.parent)


if __name__ == "__main__":
    sys.exit(main())
