"""Time to first audio: from the call of ``stream_*`` to its first packet, per format.

    python benchmarks/first_audio.py                             synthetic 0.6B, four formats, packets of 1 and 4 frames
    python benchmarks/first_audio.py --model DIR --formats int4

Includes prompt, first frames and codec; the model is loaded and warmed up. Each call is made twice: with a voice that
has not spoken yet, and again, where the opening of the prompt (instruction, language, voice) has been read. ``packet``
is the time between two later packets: if it is below the packet's length in seconds, playback never underruns. Measured
in rounds, medians over the rounds. Writes first_audio.json and first_audio.md to --out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from machine import FRAME, TEXT, any_voice, describe_machine, forget_openings, synthetic_model
from qwen3tts_np_kernels.system import usable_cores

from qwen3tts_np import Qwen3TTSModel
from qwen3tts_np.compiled.engine import WEIGHT_FORMATS
from qwen3tts_np.report.tables import Table, as_markdown

LATER = 2  # packets timed after the first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a checkpoint; default: a synthetic one")
    parser.add_argument("--like", default="0.6b", choices=["tiny", "0.6b", "1.7b"], help="size of the synthetic one")
    parser.add_argument("--formats", nargs="+", default=["float32", "bfloat16", "int8", "int4"], choices=WEIGHT_FORMATS)
    parser.add_argument("--packets", nargs="+", type=int, default=[1, 4], help="frames per packet")
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--text", default=TEXT)
    parser.add_argument("--instruct", default="", metavar="TEXT", help="how it is to be spoken")
    parser.add_argument("--out", type=Path, default=Path("speed"))
    args = parser.parse_args()
    with ExitStack() as stack:
        path = args.model or synthetic_model(args.like, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        rows = [row for name in args.formats for row in measure(path, name, args)]
    report = {
        "machine": describe_machine(),
        "model": path.name if args.model else f"synthetic {args.like}",
        "threads": args.threads,
        "rounds": args.rounds,
        "text": args.text,
        "instruct": args.instruct,
        "rows": rows,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "first_audio.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (args.out / "first_audio.md").write_text(markdown(report), encoding="utf-8")
    print(markdown(report))


def measure(path: Path, weights_format: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """One format: a row per packet size and layout of the prompt."""
    model = Qwen3TTSModel.from_pretrained(path, weights_format=weights_format, threads=args.threads)
    cases = [(packet, streaming) for packet in args.packets for streaming in (False, True)]
    times: dict[tuple[int, bool], list[tuple[float, float, float]]] = {case: [] for case in cases}
    for round_ in range(args.rounds + 1):
        for case in cases:
            forget_openings(model)
            new, _ = first_audio(model, args, *case, seed=round_)
            again, later = first_audio(model, args, *case, seed=round_)
            if round_:  # the warm-up round compiles, and fills the caches
                times[case].append((new, again, later))
    rows = []
    for (packet, streaming), samples in times.items():
        new, again, later = (statistics.median(column) for column in zip(*samples, strict=True))
        rows.append(
            {
                "format": weights_format,
                "packet_frames": packet,
                "prompt": "streaming" if streaming else "whole text",
                "first_audio_ms": 1e3 * new,
                "first_audio_again_ms": 1e3 * again,
                "packet_ms": 1e3 * later,
                "packet_audio_ms": 1e3 * packet * FRAME,
            }
        )
    return rows


def first_audio(
    model: Qwen3TTSModel, args: argparse.Namespace, packet: int, streaming: bool, seed: int
) -> tuple[float, float]:
    """Seconds to the first packet, and from one packet to the next."""
    voice, limit = any_voice(model, args.instruct), (1 + LATER) * packet + 1
    start = time.perf_counter()
    request = model.prepare(args.text, voice, streaming=streaming, seed=seed, max_new_tokens=limit)
    stream = model.stream(request, packet_frames=packet)
    next(stream)
    first = time.perf_counter() - start
    later = sum(1 for _ in stream)  # fewer where the speech has ended
    return first, (time.perf_counter() - start - first) / max(later, 1)


def markdown(report: dict[str, Any]) -> str:
    """The report as a table."""
    title = (
        f"{report['model']} on {report['machine']['cpu']}, {report['threads']} threads; median of {report['rounds']} "
        "rounds."
    )
    headers = "format", "frames per packet", "prompt", "first audio, new voice", "again", "next packet", "holds"
    rows = []
    for row in report["rows"]:
        kinds = "first_audio_ms", "first_audio_again_ms", "packet_ms", "packet_audio_ms"
        times = [f"{row[name]:.0f} ms" for name in kinds]
        rows.append([row["format"], str(row["packet_frames"]), row["prompt"], *times])
    return f"{title}\n\n{as_markdown(Table('', headers, 'lrlrrrr', rows))}\n"


if __name__ == "__main__":
    main()
