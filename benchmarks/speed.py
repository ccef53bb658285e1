"""Speed of a full-size model, in ratios taken in one run.

    python benchmarks/speed.py                                     synthetic 0.6B, every format, 1 and 2 threads
    python benchmarks/speed.py --official .venv-official/bin/python   the official package too, in turn with ours
    python benchmarks/speed.py --like 1.7b --formats bfloat16 int4

Everything is measured round by round, one after the other, so that a busy machine slows all of it alike; what is
reported is the median over the rounds. Writes speed.json, speed.md and, with the plot extra, speed.png to --out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from bandwidth import Stream
from qwen3tts_np_kernels import decode_jit
from qwen3tts_np_kernels.threads_jit import Team

from qwen3tts_np import Qwen3TTSModel
from qwen3tts_np.backend import Compiled
from qwen3tts_np.checkpoint.synthetic import write_checkpoint
from qwen3tts_np.generate import Request
from qwen3tts_np.generate_fast import _embed, _streams
from qwen3tts_np.model import Utterance
from qwen3tts_np.talker.generator import make_generator
from qwen3tts_np.talker.session import DecodeSession
from qwen3tts_np.text.prompt import Voice

FRAME = 0.08  # seconds of audio
TEXT = "The quick brown fox jumps over the lazy dog, and then it does so once more."
FRAMES = 6  # timed in a round
BATCHES = (1, 2, 4, 8)
Samples = dict[tuple[str, int], dict[str, list[float]]]


class Speaker:
    """Our model in one format with one number of threads."""

    def __init__(self, model: Qwen3TTSModel, team: Team) -> None:
        backend = model.backend
        assert isinstance(backend, Compiled)
        self.model, self.team, self.packed = model, team, backend.packed
        self._seed = 0

    def session(self, items: int = 1, text: str = TEXT) -> tuple[DecodeSession, float]:
        """A session behind its prompt, and the seconds a position of the prompt took."""
        voice = Voice(speaker=self.model.get_supported_speakers()[0])
        request = Request(self.model._prompt(Utterance(text, voice), "english", False))
        limits, generator = self.model._limits({"max_new_tokens": 200}), make_generator(self._seed, items)
        self._seed += 1
        c = self.model.config
        streams = _streams(generator, items)
        chosen = (limits.talker, limits.subtalker, limits.max_new_tokens)
        session = DecodeSession(self.packed, self.team, c.talker_config, *chosen, streams)
        inputs, texts = _embed([request] * items, session, self.packed, c)
        start = time.perf_counter()
        session.prefill(inputs, texts)
        return session, (time.perf_counter() - start) / sum(map(len, inputs))

    def frames(self, count: int, items: int = 1) -> float:
        """Seconds a frame of ``items`` items; a run that ends is followed by another with the next seed."""
        times: list[float] = []
        session, _ = self.session(items)
        while len(times) < count:
            start = time.perf_counter()
            frame = session.frame()
            seconds = time.perf_counter() - start
            if frame is None or len(frame.items) < items:
                session, _ = self.session(items)
                continue
            times.append(seconds)
        return statistics.median(times)

    def talker_steps(self, count: int) -> float:
        """Seconds a step of the talker alone, 200 positions in."""
        session, _ = self.session()
        position = 200
        session._make_room(int(session._batch.length.max()), position + 1)
        session._columns.item[0], session._columns.position[0] = 0, position
        ends = np.ones(1, np.int64)
        times = []
        for _ in range(count):
            start = time.perf_counter()
            talker = self.packed.model.talker
            work = (session._batch, 1, ends, session._cache, session._columns, session._work)
            self.team.run(decode_jit.read_prompt, talker, *work)
            times.append(time.perf_counter() - start)
        return min(times)

    @property
    def talker_bytes(self) -> int:
        """What one talker step reads."""
        talker = self.packed.model.talker
        stacks = (talker.layers.qkv, talker.layers.o_proj, talker.layers.gate_up, talker.layers.down_proj, talker.head)
        return sum(array.nbytes for stack in stacks for array in stack if isinstance(array, np.ndarray))

    @property
    def predictor_bytes(self) -> int:
        """What the code predictor reads in a frame: its layers once for each of its codes, each head once."""
        predictor = self.packed.model.predictor
        layers = predictor.layers
        stacks = (layers.qkv, layers.o_proj, layers.gate_up, layers.down_proj)
        once = sum(array.nbytes for stack in stacks for array in stack if isinstance(array, np.ndarray))
        heads = sum(array.nbytes for array in predictor.heads if isinstance(array, np.ndarray))
        return once * (self.model.config.talker_config.num_code_groups - 1) + heads


class Official:
    """The official package in its own process and environment."""

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a custom-voice checkpoint (default: a synthetic one)")
    parser.add_argument("--like", default="0.6b", choices=("0.6b", "1.7b"), help="size of the synthetic one")
    parser.add_argument("--formats", nargs="+", default=["float32", "bfloat16", "int8", "int4"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of audio for the codec")
    parser.add_argument("--official", metavar="PYTHON", help="of golden/setup_official.sh")
    parser.add_argument("--out", type=Path, default=Path("speed"))
    args = parser.parse_args()
    with ExitStack() as stack:
        model = args.model or _synthetic(args.like, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        report = measure(model, args)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "speed.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    table = markdown(report)
    (args.out / "speed.md").write_text(table, encoding="utf-8")
    plot(report, args.out / "speed.png")
    print(table)


def _synthetic(like: Any, folder: Path) -> Path:
    write_checkpoint(folder / "model", like, "custom_voice")
    return folder / "model"


def measure(path: Path, args: argparse.Namespace) -> dict[str, Any]:
    """All rounds; the report."""
    most = max(args.threads)
    models: dict[str, Qwen3TTSModel] = {}
    load_seconds: dict[str, float] = {}
    for weights_format in args.formats:
        start = time.perf_counter()
        models[weights_format] = Qwen3TTSModel.from_pretrained(path, weights_format=weights_format, threads=most)
        load_seconds[weights_format] = time.perf_counter() - start
    streams = {threads: Stream(Team(threads)) for threads in args.threads}
    speakers = {
        (weights_format, threads): Speaker(models[weights_format], Team(threads))
        for weights_format in args.formats
        for threads in args.threads
    }
    for speaker in speakers.values():
        speaker.frames(2)  # compile
    official = Official(args.official, path, most) if args.official else None

    samples: Samples = defaultdict(lambda: defaultdict(list))
    for round_ in range(args.rounds):
        print(f"round {round_ + 1} of {args.rounds}", file=sys.stderr, flush=True)
        for key, seconds in _round(speakers, streams, models, official, most, args.seconds):
            samples[key[:2]][key[2]].append(seconds)
    if official is not None:
        official.close()
    rows = [_row(speakers[key], streams[key[1]].best, samples[key], key, args.seconds) for key in speakers]
    report: dict[str, Any] = {
        "machine": {"cpu": _cpu(), "cores": os.cpu_count(), "python": platform.python_version()},
        "model": path.name if args.model else f"synthetic {args.like}",
        "rounds": args.rounds,
        "stream_gb_s": {str(t): s.best / 1e9 for t, s in streams.items()},
        "load_s": load_seconds,
        "rows": rows,
        "codec": _medians(samples["codec", most]),
    }
    if official is not None:
        report["official"] = _medians(samples["official", most])
    return report


def _round(
    speakers: dict[tuple[str, int], Speaker],
    streams: dict[int, Stream],
    models: dict[str, Qwen3TTSModel],
    official: Official | None,
    most: int,
    seconds: float,
) -> Iterator[tuple[tuple[str, int, str], float]]:
    """One turn of everything: ((format, threads, what), seconds)."""
    frames, samples = round(seconds / FRAME), round(seconds * 24000)
    for (weights_format, threads), speaker in speakers.items():
        for _ in range(2):
            streams[threads].run()
        yield (weights_format, threads, "talker"), speaker.talker_steps(12)
        yield (weights_format, threads, "frame"), speaker.frames(FRAMES)
        if threads == most:
            yield (weights_format, threads, "prefill"), speaker.session(text=16 * TEXT)[1]
            for items in BATCHES[1:]:
                yield (weights_format, threads, f"batch {items}"), speaker.frames(3, items)
    if official is not None:
        arguments = {"text": TEXT, "speaker": speaker.model.get_supported_speakers()[0]}
        yield ("official", most, "frame"), official.ask("decode_frames", frames=FRAMES, **arguments) / FRAMES
        yield ("official", most, "decode"), official.ask("codec_decode", frames=frames)
        yield ("official", most, "encode"), official.ask("codec_encode", samples=samples)
    for name, run in _codec_runs(models, frames, samples).items():
        start = time.perf_counter()
        run()
        yield ("codec", most, name), time.perf_counter() - start


def _codec_runs(models: dict[str, Qwen3TTSModel], frames: int, samples: int) -> dict[str, Callable[[], Any]]:
    """The codec of each format that has another one."""
    rng = np.random.default_rng(0)
    runs: dict[str, Callable[[], Any]] = {}
    for weights_format, model in models.items():
        tokenizer = model.speech_tokenizer
        c = tokenizer.config.decoder_config
        codes = rng.integers(0, c.codebook_size, (frames, c.num_quantizers))
        runs[f"decode {weights_format}"] = lambda t=tokenizer, x=codes: t.decode({"audio_codes": x})
    wave = rng.uniform(-0.3, 0.3, samples).astype(np.float32)
    runs["encode"] = lambda: tokenizer.encode(wave, sr=24000)
    return runs


def _row(
    speaker: Speaker, bandwidth: float, samples: dict[str, list[float]], key: tuple[str, int], _seconds: float
) -> dict[str, Any]:
    found = _medians(samples)
    talker = min(samples["talker"])
    row = {
        "format": key[0],
        "threads": key[1],
        "talker_ms": 1e3 * found["talker"],
        "code_predictor_ms": 1e3 * (found["frame"] - found["talker"]),
        "frame_ms": 1e3 * found["frame"],
        "real_time_factor": found["frame"] / FRAME,
        "talker_bytes": speaker.talker_bytes,
        "frame_bytes": speaker.talker_bytes + speaker.predictor_bytes,
        "share_of_stream": speaker.talker_bytes / talker / bandwidth,
    }
    for name, seconds in found.items():
        if name.startswith("batch"):
            items = int(name.split()[1])
            row[f"{name} frames a second"] = items / seconds
    if "prefill" in found:
        row["prefill_positions_s"] = 1 / found["prefill"]
    return row


def _medians(samples: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in samples.items()}


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def markdown(report: dict[str, Any]) -> str:
    """The report as tables."""
    machine, official = report["machine"], report.get("official", {})
    stream = ", ".join(f"{rate:.1f} GB/s with {t} threads" for t, rate in report["stream_gb_s"].items())
    lines = [
        f"{report['model']} on {machine['cpu']}, {machine['cores']} cores, streaming {stream}; median of "
        f"{report['rounds']} rounds.",
        "",
        "| format | threads | talker | code predictor | frame | real-time factor | of the stream | official / ours |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in report["rows"]:
        ratio = ""
        if "frame" in official and "prefill_positions_s" in row:
            ratio = f"{1e3 * official['frame'] / row['frame_ms']:.1f}x"
        lines.append(
            f"| {row['format']} | {row['threads']} | {row['talker_ms']:.1f} ms | {row['code_predictor_ms']:.1f} ms "
            f"| {row['frame_ms']:.1f} ms | {row['real_time_factor']:.2f} | {row['share_of_stream']:.0%} | {ratio} |"
        )
    if official:
        seconds = official["frame"]
        lines.append(f"| official float32 | | | | {1e3 * seconds:.1f} ms | {seconds / FRAME:.2f} | | |")
    lines += ["", "| codec | seconds | official / ours |", "|---|--:|--:|"]
    for name, seconds in report["codec"].items():
        theirs = official.get(name.split()[0])
        lines.append(f"| {name} | {seconds:.2f} | {f'{theirs / seconds:.1f}x' if theirs else ''} |")
    lines += ["", "| format | batch 2 | 4 | 8 | prefill | load |", "|---|--:|--:|--:|--:|--:|"]
    for row in report["rows"]:
        if "prefill_positions_s" not in row:
            continue
        alone = 1e3 / row["frame_ms"]
        batches = " | ".join(f"{row[f'batch {n} frames a second'] / alone:.1f}x" for n in BATCHES[1:])
        load = report["load_s"][row["format"]]
        lines.append(f"| {row['format']} | {batches} | {row['prefill_positions_s']:.0f} positions/s | {load:.1f} s |")
    return "\n".join(lines) + "\n"


def plot(report: dict[str, Any], path: Path) -> None:
    """Milliseconds a frame, bar by bar, against real time; nothing without matplotlib."""
    try:
        import matplotlib as mpl
    except ImportError:
        return
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    rows = [(f"{r['format']}, {r['threads']} thread{'s' * (r['threads'] > 1)}", r) for r in report["rows"]]
    figure, axes = plt.subplots(figsize=(7, 0.5 * len(rows) + 2), layout="constrained")
    names, talker = [name for name, _ in rows], [r["talker_ms"] for _, r in rows]
    axes.barh(names, talker, color="0.25", label="talker")
    axes.barh(names, [r["code_predictor_ms"] for _, r in rows], left=talker, color="0.65", label="code predictor")
    if "official" in report:
        official = 1e3 * report["official"]["frame"]
        axes.barh(["official float32"], [official], color="0.85", edgecolor="0.25", hatch="//", label="official")
    axes.axvline(1e3 * FRAME, color="black", linestyle="--", label="real time (80 ms)")
    axes.set_xlabel("milliseconds a frame, codec not counted")
    axes.set_title(f"{report['model']}, {report['machine']['cpu']}")
    axes.invert_yaxis()
    axes.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
