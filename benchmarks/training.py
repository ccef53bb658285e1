"""Training steps on one clip: seconds, as a share of the clip's length, and peak memory.

    python benchmarks/training.py                                            synthetic 0.6B, all ways of training
    python benchmarks/training.py --official .venv-official/bin/python       and the official classes under PyTorch
    python benchmarks/training.py --only "lora*"                             some of them; others keep their numbers
    python benchmarks/training.py --threads 1                                on a machine that others use too

A clip of 200 frames (16 s) at 286 positions. A step is forward and backward pass, the norm of all gradients, and AdamW;
the one after a first step counts, which compiles kernels and makes the optimiser's state. Each way is a process of its
own, whose peak of resident memory is reported. The text embedding is not trained. Writes training.json, training.md,
and with the extra ``plot`` training.png to --out.

Seconds of CPU are those of all threads. Where other programs use the cores they say more than seconds do, and with one
thread they are seconds: one that waits for another looks busy.

The official classes run in float32, as training here does, and in bfloat16, as the official script runs them: there
most weights do not move at all (qwen3tts_np/training/README.md).

Trap: OPENBLAS_CORETYPE, where it is set, chooses the code of NumPy's matrix products. ``Haswell`` is AVX2, half of
what a CPU with AVX-512 can do. The table says which code ran.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from machine import FRAME, describe_machine, synthetic_model
from qwen3tts_np_kernels.system import keep_free_memory
from threadpoolctl import ThreadpoolController

from qwen3tts_np.checkpoint.config_file import read_model_config
from qwen3tts_np.checkpoint.safetensors import Checkpoint
from qwen3tts_np.files.output import write_text
from qwen3tts_np.report.tables import Table, as_markdown
from qwen3tts_np.text.tokenizer import Tokenizer
from qwen3tts_np.training.adapters import adapted_modules
from qwen3tts_np.training.batch import Batch, utterance
from qwen3tts_np.training.network import Network
from qwen3tts_np.training.optimiser import AdamW, clipping, gradient_norm
from qwen3tts_np.training.parameters import TEXT_EMBEDDING, Parameters
from qwen3tts_np.training.threads import training_threads

FRAMES = 200
TEXT = "It rained, and the ferry came late. " * 4
WAYS: dict[str, dict[str, Any]] = {
    "lora": {"about": "LoRA r = 16 and a speaker"},
    "lora-recomputed": {"about": "LoRA, layers recomputed", "recompute": True},
    "lora-bfloat16": {"about": "LoRA, recomputed, weights in bfloat16", "recompute": True, "as_stored": True},
    "lora-quarter": {"about": "LoRA, a quarter of the frames", "share": 0.25},
    "last-4": {"about": "the last 4 layers of the talker", "layers": 4},
    "full": {"about": "everything", "full": True},
}
OFFICIAL = {"official": "float32", "official-bfloat16": "bfloat16"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a base checkpoint; default: a synthetic one")
    parser.add_argument("--like", default="0.6b", choices=["tiny", "0.6b", "1.7b"], help="size of the synthetic one")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--official", help="Python of the official package")
    parser.add_argument("--only", default="*", help="ways, shell style")
    parser.add_argument("--out", type=Path, default=Path("speed"))
    parser.add_argument("--name", default="training", help="of the files there")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)  # in a process of its own
    args = parser.parse_args()
    if args.way:
        print(json.dumps(step(args.model, args.threads, **WAYS[args.way])))
        return
    kept = args.out / f"{args.name}.json"
    report = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {"ways": {}}
    with ExitStack() as stack:
        path = args.model or synthetic_model(args.like, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        for way in (w for w in (*WAYS, *OFFICIAL) if fnmatch.fnmatchcase(w, args.only)):
            if way not in OFFICIAL or args.official:
                report["ways"][way] = in_a_process(way, path, args)
                print(way, report["ways"][way], flush=True)
    report |= {"machine": describe_machine(), "model": args.model.name if args.model else f"synthetic {args.like}"}
    report |= {"threads": args.threads, "seconds_of_audio": FRAMES * FRAME, "blas": blas()}
    args.out.mkdir(parents=True, exist_ok=True)
    write_text(kept, json.dumps(report, indent=1) + "\n")
    write_text(args.out / f"{args.name}.md", markdown(report))
    plot(report, args.out / f"{args.name}.png")
    print(markdown(report))


def in_a_process(way: str, model: Path, args: argparse.Namespace) -> dict[str, Any]:
    here = Path(__file__)
    command = [sys.executable, str(here), "--way", way, "--model", str(model), "--threads", str(args.threads)]
    if way in OFFICIAL:
        worker = here.with_name("official_training.py")
        command = [args.official, str(worker), str(model), str(args.threads), str(FRAMES), TEXT, OFFICIAL[way]]
    threads = str(args.threads)
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def blas() -> str:
    """The code of NumPy's matrix products."""
    libraries = ThreadpoolController().select(user_api="blas").info()
    return ", ".join(f"{one['internal_api']} {one['version']} for {one['architecture']}" for one in libraries[:1])


def step(
    folder: Path,
    threads: int,
    about: str,
    recompute: bool = False,
    as_stored: bool = False,
    share: float = 1.0,
    layers: int = 0,
    full: bool = False,
) -> dict[str, Any]:
    """Seconds of the second of two steps, and what the process took at most."""
    config = read_model_config(folder)
    talker = config.talker_config
    parameters = Parameters.load(Checkpoint.open(folder), as_stored=as_stored)
    if full:
        parameters.train([name for name in parameters.arrays if name != TEXT_EMBEDDING])
    elif layers:
        first = talker.num_hidden_layers - layers
        prefixes = tuple(f"talker.model.layers.{i}." for i in range(first, talker.num_hidden_layers))
        parameters.train([name for name in parameters.arrays if name.startswith(prefixes)])
    else:
        parameters.add_low_rank(adapted_modules(parameters.arrays), rank=16, alpha=32)
        parameters.add_speaker("ada", np.zeros(talker.hidden_size))
    speaker: dict[str, Any] = {"x_vector": np.zeros(talker.hidden_size)} if full or layers else {"speaker": "ada"}
    size = (FRAMES, talker.num_code_groups)
    codes = np.random.default_rng(0).integers(0, talker.code_predictor_config.vocab_size, size)
    batch = Batch([utterance(config, Tokenizer.from_directory(folder), TEXT, codes, **speaker)], talker)
    network, optimiser = (
        Network(parameters, config, recompute=recompute, share=share),
        AdamW(parameters),
    )
    seconds, cpu = [], []
    keep_free_memory()  # as the command does
    with training_threads(threads):
        for i in range(2):
            start, busy = time.perf_counter(), time.process_time()
            losses = network.loss(batch, draw=np.random.default_rng(i) if share < 1 else None)
            optimiser.step(1e-5, clipping(gradient_norm(parameters.gradients), 1.0))
            seconds.append(time.perf_counter() - start)
            cpu.append(time.process_time() - busy)
    return {
        "about": about,
        "trained": sum(gradient.size for gradient in parameters.gradients.values()),
        "seconds": seconds[-1],
        "cpu_seconds": cpu[-1],
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "positions": len(batch),
        "loss": losses.total,
    }


def markdown(report: dict[str, Any]) -> str:
    """The table."""
    ways, audio = report["ways"], report["seconds_of_audio"]
    ours = ways.get("full")
    rows = []
    for way in (w for w in (*WAYS, *OFFICIAL) if w in ways):
        found = ways[way]
        kind = "cpu_seconds" if "cpu_seconds" in found else "seconds"  # an older measurement has no other
        ratio = f"{found[kind] / ours[kind]:.2f}x" if ours and way in OFFICIAL else ""
        busy = f"{found['cpu_seconds']:.1f}" if "cpu_seconds" in found else ""
        numbers = [f"{found['trained'] / 1e6:.1f} M", f"{found['seconds']:.1f}", busy]
        rows.append((found["about"], *numbers, f"{found['seconds'] / audio:.2f}", f"{found['peak_gb']:.1f} GB", ratio))
    heading = ("trained", "weights", "seconds", "CPU seconds", "of the audio", "peak memory", "to ours")
    table = Table("", heading, "lrrrrrr", rows)
    machine = report["machine"]
    products = f", {report['blas']}" if "blas" in report else ""
    threads = "thread" if report["threads"] == 1 else "threads"
    where = f"{report['model']}, {machine['cpu']}, {report['threads']} {threads}{products}"
    return (
        f"# One step of training\n\n{where}: a clip of {audio:.0f} s, forward, backward and AdamW, without "
        f"the text embedding. Made by `training.py`.\n\n"
        f"{as_markdown(table)}\n"
    )


def plot(report: dict[str, Any], path: Path) -> None:
    """Bars of seconds, if matplotlib is installed."""
    try:
        from matplotlib import pyplot
    except ImportError:
        return
    ways = [report["ways"][way] for way in (*WAYS, *OFFICIAL) if way in report["ways"]]
    figure, axes = pyplot.subplots(figsize=(8, 3.2))
    bars = axes.barh([way["about"] for way in ways], [way["seconds"] for way in ways])
    axes.bar_label(bars, [f" {way['seconds']:.1f} s, {way['peak_gb']:.1f} GB" for way in ways])
    axes.axvline(report["seconds_of_audio"], color="grey", linestyle="--", label="length of the clip")
    axes.set_xlim(right=1.45 * max(way["seconds"] for way in ways))
    axes.invert_yaxis()
    axes.set_xlabel("seconds of a step")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
