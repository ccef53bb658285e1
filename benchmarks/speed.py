"""Speed of a full-size model, as ratios measured in one run.

    python benchmarks/speed.py                                     synthetic 0.6B, every format, 1 and 2 threads
    python benchmarks/speed.py --official .venv-official/bin/python   the official package too, in turn with ours
    python benchmarks/speed.py --like 1.7b --formats bfloat16 int4

All measurements are interleaved in rounds, so that a busy machine slows all of them equally; medians over the rounds
are reported. Prompts are read whole; text to samples is that of a voice that has spoken before. Writes speed.json,
speed.md and, with the plot extra, speed.png to --out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bandwidth import Stream
from codec import codec_runs, decode_error
from decode import Speaker
from machine import FRAME, TEXT, any_voice, describe_machine, synthetic_model
from official import Official
from qwen3tts_np_kernels.team import Team
from report import markdown, plot
from startup import cold_and_warm

from qwen3tts_np import Qwen3TTSModel

FRAMES = 6  # timed in a round
BATCHES = (2, 4, 8)
Key = tuple[str, int]  # format, or "codec" or "official", and threads
Samples = dict[Key, dict[str, list[float]]]
Sample = tuple[Key, str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a checkpoint (default: a synthetic one)")
    parser.add_argument("--like", default="0.6b", choices=("tiny", "0.6b", "1.7b"), help="size of the synthetic one")
    parser.add_argument("--formats", nargs="+", default=["float32", "bfloat16", "int8", "int4"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of audio for the codec")
    parser.add_argument("--official", metavar="PYTHON", help="of golden/setup_official.sh")
    parser.add_argument("--skip-startup", action="store_true", help="measure no fresh processes")
    parser.add_argument("--out", type=Path, default=Path("speed"))
    args = parser.parse_args()
    with ExitStack() as stack:
        model = args.model or synthetic_model(args.like, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        startup = {} if args.skip_startup else {name: cold_and_warm(model, name) for name in args.formats}
        report = measure(model, args) | {"startup": startup}
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "speed.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    table = markdown(report)
    (args.out / "speed.md").write_text(table, encoding="utf-8")
    plot(report, args.out / "speed.png")
    print(table)


def measure(path: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Run all rounds; returns the report."""
    most = max(args.threads)
    models: dict[str, Qwen3TTSModel] = {}
    load_seconds: dict[str, float] = {}
    for name in args.formats:
        start = time.perf_counter()
        models[name] = Qwen3TTSModel.from_pretrained(path, weights_format=name, threads=most)
        load_seconds[name] = time.perf_counter() - start
    streams = {threads: Stream(Team(threads)) for threads in args.threads}
    speakers = {(name, n): Speaker(model, Team(n)) for name, model in models.items() for n in args.threads}
    anyone = models[args.formats[0]]
    codecs = {threads: codec_runs(anyone, threads, args.seconds) for threads in args.threads}
    for run in (*(speaker.frames for speaker in speakers.values()), *(model_run(m) for m in models.values())):
        run(2)  # compile
    for runs in codecs.values():
        for codec_run in runs.values():
            codec_run()
    official = Official(args.official, path, most) if args.official else None

    samples: Samples = defaultdict(lambda: defaultdict(list))
    for round_ in range(args.rounds):
        print(f"round {round_ + 1} of {args.rounds}", file=sys.stderr, flush=True)
        for key, what, seconds in (
            *_decode_round(speakers, streams, most),
            *_whole_round(models, most),
            *_codec_round(codecs),
            *_official_round(official, most, args.seconds, "speaker embedding" in codecs[most]),
        ):
            samples[key][what].append(seconds)
    if official is not None:
        official.close()
    codec = {str(threads): _medians(samples["codec", threads]) for threads in args.threads}
    return {
        "machine": describe_machine(),
        "model": path.name if args.model else f"synthetic {args.like}",
        "rounds": args.rounds,
        "stream_gb_s": {str(n): stream.best / 1e9 for n, stream in streams.items()},
        "load_s": load_seconds,
        "rows": [_row(speakers[key], streams[key[1]].best, samples[key], key) for key in speakers],
        "codec_seconds": args.seconds,
        "codec": codec,
        "codec_error": decode_error(anyone, most),
        "official": _medians(samples["official", most]),
    }


def model_run(model: Qwen3TTSModel) -> Callable[[int], Any]:
    """Text to samples, for a number of frames."""
    voice = any_voice(model)

    def run(frames: int) -> Any:
        return model.generate([model.prepare(TEXT, voice, streaming=False, seed=0, max_new_tokens=frames + 1)])

    return run


def _decode_round(speakers: dict[Key, Speaker], streams: dict[int, Stream], most: int) -> Iterator[Sample]:
    for (name, threads), speaker in speakers.items():
        for _ in range(2):
            streams[threads].run()
        yield (name, threads), "talker", speaker.talker_steps(12)
        seconds, cpu_seconds = speaker.frames(FRAMES)
        yield (name, threads), "frame", seconds
        yield (name, threads), "frame CPU", cpu_seconds
        if threads == most:
            yield (name, threads), "prefill", speaker.session(text=16 * TEXT)[1]
            for items in BATCHES:
                yield (name, threads), f"batch {items}", speaker.frames(3, items)[0]


def _whole_round(models: dict[str, Qwen3TTSModel], most: int) -> Iterator[Sample]:
    """Real-time factors, text to samples."""
    for name, model in models.items():
        run = model_run(model)
        start = time.perf_counter()
        ((_, codes),) = run(40)
        yield (name, most), "pipeline", (time.perf_counter() - start) / (len(codes) * FRAME)


def _codec_round(codecs: dict[int, dict[str, Callable[[], Any]]]) -> Iterator[Sample]:
    for threads, runs in codecs.items():
        for name, run in runs.items():
            start = time.perf_counter(), time.process_time()
            run()
            yield ("codec", threads), name, time.perf_counter() - start[0]
            yield ("codec", threads), f"{name} CPU", time.process_time() - start[1]


def _official_round(official: Official | None, most: int, seconds: float, has_speaker: bool) -> Iterator[Sample]:
    if official is None:
        return
    samples = round(seconds * 24000)
    yield ("official", most), "frame", official.ask("decode_frames", frames=FRAMES, text=TEXT) / FRAMES
    yield ("official", most), "decode", official.ask("codec_decode", frames=round(seconds / FRAME))
    yield ("official", most), "encode", official.ask("codec_encode", samples=samples)
    if has_speaker:
        yield ("official", most), "speaker embedding", official.ask("speaker_embedding", samples=samples)


def _row(speaker: Speaker, bandwidth: float, samples: dict[str, list[float]], key: Key) -> dict[str, Any]:
    found = _medians(samples)
    row = {
        "format": key[0],
        "threads": key[1],
        "talker_ms": 1e3 * found["talker"],
        "code_predictor_ms": 1e3 * (found["frame"] - found["talker"]),
        "frame_ms": 1e3 * found["frame"],
        "frame_cpu_ms": 1e3 * found["frame CPU"],
        "real_time_factor": found["frame"] / FRAME,
        "talker_bytes": speaker.talker_bytes,
        "frame_bytes": speaker.talker_bytes + speaker.predictor_bytes,
        "share_of_stream": (speaker.talker_bytes + speaker.cache_bytes) / min(samples["talker"]) / bandwidth,
    }
    for items in BATCHES:
        if f"batch {items}" in found:
            row[f"batch_{items}"] = items / found[f"batch {items}"] * found["frame"]
    if "prefill" in found:
        row["prefill_positions_s"] = 1 / found["prefill"]
        row["pipeline_real_time_factor"] = found["pipeline"]
    return row


def _medians(samples: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in samples.items()}


if __name__ == "__main__":
    main()
