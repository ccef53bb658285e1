"""A frame of exported graphs in ONNX Runtime, of this package, and of the official package, in turn.

    python benchmarks/runners.py                                          synthetic 0.6B, 2 threads
    python benchmarks/runners.py --official .venv-official/bin/python     the official package too

Each round takes a run of frames from everybody, so that a busy machine slows all equally; medians of the rounds are
reported. A frame is talker and code predictor, with the choices of its codes; the codec is not in it. Needs the extra
``onnx`` and onnxruntime.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import tokenizers
from decode import Speaker
from machine import FRAME, TEXT, describe_machine, synthetic_model
from official import Official
from qwen3tts_np_kernels.team import Team

from qwen3tts_np import Qwen3TTSModel
from qwen3tts_np.export.onnx_export import export_onnx
from qwen3tts_np.report.tables import Table, as_markdown

sys.path.insert(0, str(Path(__file__).parents[1] / "golden" / "runners"))

import speak_onnx

PIECES = ("text", "frame_embedding", "talker", "code_predictor")
NO_END = 10**9  # an id that no code has


class OnnxSpeaker:
    """``speak_onnx.py`` with the graphs of a folder."""

    def __init__(self, folder: Path, threads: int) -> None:
        self._graphs = {name: speak_onnx.Graph(folder / name, threads) for name in PIECES}
        self._encode = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")).encode
        self._config = json.loads((folder / "config.json").read_bytes())
        speaker = next(iter(self._config["talker_config"]["spk_id"]))
        self._config["talker_config"]["codec_eos_token_id"] = NO_END
        voice = {"speaker": speaker, "language": "english", "instruct": "", "ref_audio": "", "ref_text": ""}
        defaults = json.loads((folder / "generation_config.json").read_bytes())
        self._request = {**defaults, **voice, "text": TEXT, "streaming": False, "seed": 0}

    def seconds(self, frames: int) -> float:
        """Of a frame: a long run minus a short one, so that the prompt does not count."""
        return (self._run(frames + 3) - self._run(3)) / frames

    def _run(self, tokens: int) -> float:
        for graph in self._graphs.values():
            graph.begin()
        request = {**self._request, "max_new_tokens": tokens}
        start = time.perf_counter()
        speak_onnx.speak(self._graphs.__getitem__, self._config, request, lambda text: self._encode(text).ids)
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a custom-voice checkpoint (default: a synthetic one)")
    parser.add_argument(
        "--graphs", type=Path, metavar="DIR", help="graphs of it, a folder a format; made where missing"
    )
    parser.add_argument("--like", default="0.6b", choices=("tiny", "0.6b", "1.7b"), help="size of the synthetic one")
    parser.add_argument("--formats", nargs="+", default=["float32", "int8", "int4"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--frames", type=int, default=6, help="of a round (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="no round begins later than this after the start"
    )
    parser.add_argument("--official", metavar="PYTHON", help="of golden/setup_official.sh")
    args = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if args.model is None:
            args.model = synthetic_model(args.like, folder, "custom_voice")
        print(measure(args.model, args.graphs or folder / "graphs", args))


def measure(model: Path, graphs: Path, args: argparse.Namespace) -> str:
    """Run all rounds that there is time for; returns the report."""
    end = time.monotonic() + args.seconds
    runs: dict[str, Callable[[], float]] = {}
    for name in args.formats:
        if not (graphs / name).exists():
            list(export_onnx(model, graphs / name, name, PIECES))
        speaker = OnnxSpeaker(graphs / name, args.threads)
        ours = Speaker(
            Qwen3TTSModel.from_pretrained(model, weights_format=name, threads=args.threads), Team(args.threads)
        )
        runs[f"ONNX Runtime, {name}"] = lambda speaker=speaker: speaker.seconds(args.frames)  # type: ignore[misc]
        runs[f"this package, {name}"] = lambda ours=ours: ours.frames(args.frames)[0]  # type: ignore[misc]
    if args.official:
        official = Official(args.official, model, args.threads)
        runs["official package, float32"] = lambda: (
            official.ask("decode_frames", frames=args.frames, text=TEXT) / args.frames
        )
    samples: dict[str, list[float]] = defaultdict(list)
    for number in range(args.rounds + 1):
        if time.monotonic() > end:
            break
        for name, run in runs.items():
            seconds = run()
            if number:  # the first round warms up
                samples[name].append(seconds)
    return report(samples, args)


def report(samples: dict[str, list[float]], args: argparse.Namespace) -> str:
    machine: dict[str, Any] = describe_machine()
    times = {name: statistics.median(values) for name, values in samples.items()}
    first = f"this package, {args.formats[0]}"
    rows = [
        [name, f"{1e3 * seconds:.0f} ms", f"{seconds / FRAME:.2f}", f"{seconds / times[first]:.2f}"]
        for name, seconds in times.items()
    ]
    headers = ("", "a frame", "real-time factor", f"of {first}")
    rounds = f"medians of {len(samples[first])} rounds of {args.frames} frames."
    return f"{machine['cpu']}, {args.threads} threads, {rounds}\n\n{as_markdown(Table('', headers, 'lrrr', rows))}"


if __name__ == "__main__":
    main()
