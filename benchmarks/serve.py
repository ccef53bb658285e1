"""Speed of a server with several clients at once, over loopback.

    python benchmarks/serve.py                                  synthetic 0.6B, int4: 1, 2, 4 and 8 clients
    python benchmarks/serve.py --model DIR --format int8 --threads 4
    python benchmarks/serve.py --like tiny --frames 20          some seconds

Every client asks for the same amount of speech, all at the same time. Reported are the seconds of audio in a second, of
all clients together and as a multiple of what `qwen3tts-np bench` gets (frames and codec, without prompts and packets),
and the time to the first audio (median, 95 %), in a voice that has spoken before. "alone" is the same request streamed
in Python without a server. All are measured in turn. Writes serve.json, serve.md and, with the plot extra, serve.png to
--out.
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from machine import FRAME, TEXT, describe_machine
from qwen3tts_np_kernels.system import usable_cores

from qwen3tts_np import Qwen3TTSModel
from qwen3tts_np.checkpoint.config_file import read_model_config
from qwen3tts_np.cli.bench import decode, talk
from qwen3tts_np.compiled.engine import WEIGHT_FORMATS
from qwen3tts_np.report.plots import figure, why_no_plots
from qwen3tts_np.report.tables import Table, as_markdown
from qwen3tts_np.speech import live
from qwen3tts_np.synthetic.weights import write_checkpoint

BENCH, ALONE = -1, 0  # clients: what `bench` measures; the request without a server
BENCH_SECONDS = 4.0  # of each round
SECOND = 24_000 * 2  # bytes of 16-bit samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a custom-voice checkpoint (default: a synthetic one)")
    parser.add_argument("--like", default="0.6b", choices=("tiny", "0.6b", "1.7b"), help="size of the synthetic one")
    parser.add_argument("--format", default="int4", choices=WEIGHT_FORMATS)
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--clients", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--frames", type=int, default=60, help="of each answer (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--text", default=TEXT)
    parser.add_argument("--out", type=Path, default=Path("speed"))
    args = parser.parse_args()
    with ExitStack() as stack:
        path = args.model or synthetic(args.like, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        model = Qwen3TTSModel.from_pretrained(path, weights_format=args.format, threads=args.threads)
        port = stack.enter_context(serving(path, args))
        rounds = [measure(model, port, args) for _ in range(args.rounds + 1)][1:]  # the first one warms up
    report = {
        "machine": describe_machine(),
        "model": args.model.name if args.model else f"synthetic {args.like}",
        **{name: getattr(args, name) for name in ("format", "threads", "frames", "rounds", "text")},
        "rows": rows_of(rounds),
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "serve.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (args.out / "serve.md").write_text(markdown(report), encoding="utf-8")
    if why_no_plots() is None:
        plot(report, args.out / "serve.png")
    print(markdown(report))


def synthetic(like: Any, folder: Path) -> Path:
    """A custom-voice checkpoint of this size with random weights, whose speech does not end by itself."""
    path = folder / "model"
    write_checkpoint(path, like, "custom_voice")
    end = read_model_config(path).talker_config.codec_eos_token_id
    with (path / "model.safetensors").open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        head = json.loads(file.read(size))["talker.codec_head.weight"]
        first, last = head["data_offsets"]
        row = (last - first) // head["shape"][0]
        file.seek(8 + size + first + end * row)
        file.write(bytes(row))  # a logit of 0 is never among the best of 3072
    return path


@contextmanager
def serving(path: Path, args: argparse.Namespace) -> Iterator[int]:
    """A server in a process of its own, with a place for each client; its port."""
    places = str(max(args.clients))
    options = ["--port", "0", "--places", places, "--format", args.format, "--threads", str(args.threads)]
    command = [sys.executable, "-m", "qwen3tts_np", "serve", str(path), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if found := re.fullmatch(r"ready: .*:(\d+)/\n", line):
                    yield int(found[1])
                    break
            else:
                raise SystemExit("the server did not start")
        finally:
            process.terminate()


def measure(model: Qwen3TTSModel, port: int, args: argparse.Namespace) -> dict[int, tuple[float, list[float]]]:
    """One round: clients -> (seconds for all, seconds to the first audio of each)."""
    frame, codec = statistics.median(talk(model, 0.7 * BENCH_SECONDS).frames), decode(model, 0.3 * BENCH_SECONDS)
    found: dict[int, tuple[float, list[float]]] = {BENCH: (args.frames * (frame + codec), [])}
    found[ALONE] = alone(model, args)
    for clients in args.clients:
        began = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            firsts = list(pool.map(lambda seed: ask(port, args, seed), range(clients)))
        found[clients] = time.perf_counter() - began, firsts
    return found


def alone(model: Qwen3TTSModel, args: argparse.Namespace) -> tuple[float, list[float]]:
    """The request of one client, streamed in this process."""
    began = time.perf_counter()
    speech = live.stream(model, args.text, seed=0, max_new_tokens=args.frames + 1, runaway_guard=True)
    next(speech)
    first = time.perf_counter() - began
    for _ in speech:
        continue
    return time.perf_counter() - began, [first]


def ask(port: int, args: argparse.Namespace, seed: int) -> float:
    """Ask for one answer and read it; seconds to its first audio."""
    body = {"input": args.text, "seed": seed, "response_format": "pcm", "max_new_tokens": args.frames + 1}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    began = time.perf_counter()
    connection.request("POST", "/v1/audio/speech", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    content = response.read(1)
    first = time.perf_counter() - began
    content += response.read()
    connection.close()
    if response.status != 200 or abs(len(content) / SECOND - args.frames * FRAME) > 1e-9:
        raise SystemExit(f"the server answers {response.status} with {len(content)} bytes; take fewer --frames")
    return first


def rows_of(rounds: list[dict[int, tuple[float, list[float]]]]) -> list[dict[str, Any]]:
    """Medians over the rounds."""
    frames_of = {clients: max(clients, 1) for clients in rounds[0]}
    seconds = {clients: statistics.median(found[clients][0] for found in rounds) for clients in rounds[0]}
    rows = []
    for clients, wall in seconds.items():
        firsts = sorted(first for found in rounds for first in found[clients][1])
        rows.append(
            {
                "clients": clients,
                "seconds": wall,
                "times_bench": frames_of[clients] * seconds[BENCH] / wall,
                "first_audio_p50": statistics.median(firsts) if firsts else None,
                "first_audio_p95": firsts[min(len(firsts) - 1, round(0.95 * len(firsts)))] if firsts else None,
            }
        )
    return rows


def audio_rate(report: dict[str, Any], row: dict[str, Any]) -> float:
    """Seconds of audio in a second, of all clients together."""
    return max(row["clients"], 1) * report["frames"] * FRAME / row["seconds"]


def markdown(report: dict[str, Any]) -> str:
    """The report as a table."""
    title = (
        f"{report['model']}, {report['format']}, on {report['machine']['cpu']}, {report['threads']} threads; answers "
        f"of {report['frames'] * FRAME:.1f} s, medians of {report['rounds']} rounds."
    )
    headers = "clients", "audio per second", "times bench", "first audio, median", "95 %"
    names = {BENCH: "bench", ALONE: "alone, without a server"}
    rows = [
        [
            names.get(row["clients"], str(row["clients"])),
            f"{audio_rate(report, row):.2f} s",
            f"{row['times_bench']:.2f}",
            *("" if row[name] is None else f"{row[name]:.2f} s" for name in ("first_audio_p50", "first_audio_p95")),
        ]
        for row in report["rows"]
    ]
    return f"{title}\n\n{as_markdown(Table('', headers, 'lrrrr', rows))}\n"


def plot(report: dict[str, Any], path: Path) -> None:
    """Audio per second and first audio, over the number of clients."""
    rows = [row for row in report["rows"] if row["clients"] > 0]
    clients = [row["clients"] for row in rows]
    with figure(path, f"Server: {report['model']}, {report['format']}", rows=2, size=(7, 6)) as (rate, first):
        rate.plot(clients, [audio_rate(report, row) for row in rows], "o-", color="black")
        rate.axhline(audio_rate(report, report["rows"][0]), color="0.5", linestyle="--", label="bench")
        rate.set(xlabel="clients", ylabel="audio per second (s)", ylim=(0, None))
        rate.legend()
        first.plot(clients, [row["first_audio_p50"] for row in rows], "o-", color="black", label="median")
        first.plot(clients, [row["first_audio_p95"] for row in rows], "o:", color="black", label="95 %")
        first.set(xlabel="clients", ylabel="first audio (s)", ylim=(0, None))
        first.legend()


if __name__ == "__main__":
    main()
