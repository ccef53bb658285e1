"""``qwen3tts-np bench``: speed of a model on this machine."""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from qwen3tts_np_kernels.system import peak_memory, usable_cores

from ..compiled.frame_loop import FrameLoop
from ..errors import RequestError
from ..model import Qwen3TTSModel
from ..report.tables import Table, as_text
from ..request import ClonedVoice, CustomVoice, DesignedVoice, Voice
from ..speech.delivery import frame_seconds
from ..voice.prompt_item import VoiceClonePromptItem
from .options import add_checkpoint, add_format, add_json, load_model, new_parser
from .output import report

EXAMPLES = (
    "qwen3tts-np bench Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice",
    "qwen3tts-np bench Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice --format int4 --threads 2 --json",
    "qwen3tts-np bench Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice --threads each",
)
TEXT = "The quick brown fox jumps over the lazy dog, and then it does so once more."
CODEC_FRAMES = 50  # 4 s
MOST_FRAMES = 200  # of one speech
LONGEST = 3600  # s, of all measurements
FEWEST = 3  # of each kind, whatever the duration


@dataclass
class Talking:
    """Measurements of talker and code predictor, in seconds."""

    frames: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)  # from the call to the first frame, in a voice that has spoken


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = new_parser(
        commands,
        "bench",
        EXAMPLES,
        help="speed of a model on this machine",
        description="Measure a model here: milliseconds per frame of talker and code predictor, of the codec, "
        "real-time factor (seconds of work per second of speech), load time, memory. The first run of an installation "
        "compiles the kernels, which is not counted.",
    )
    add_checkpoint(parser)
    parser.add_argument(
        "--threads",
        type=numbers_of_threads,
        default=[None],
        metavar="N",
        help="cores to use (default: all); several, as in 1,2,4, or each (1, 2, 4, ... all) are compared",
    )
    add_format(parser)
    parser.add_argument("--seconds", type=float, default=20, metavar="S", help="how long to measure each (%(default)s)")
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    if not 0 < args.seconds <= LONGEST:
        raise RequestError(f"--seconds {args.seconds:g} must be above 0 and at most {LONGEST}")
    results, numbers = [], args.threads
    for args.threads in numbers:  # the model is loaded anew: its threads belong to it
        start = time.perf_counter()
        model = load_model(args)
        load = time.perf_counter() - start
        results.append(summary(model, load, talk(model, 0.75 * args.seconds), decode(model, 0.25 * args.seconds)))
    if len(results) == 1:
        (found,) = results
        report(args, {"model": str(args.model), **found}, _lines(args, found))
    else:
        fastest = min(results, key=lambda found: found["rtf"])["threads"]
        report(args, {"model": str(args.model), "fastest": fastest, "results": results}, _compared(results, fastest))


def numbers_of_threads(word: str) -> list[int | None]:
    """Numbers of threads, as they are given."""
    cores = usable_cores()
    if word == "each":
        return [*(1 << i for i in range(cores.bit_length()) if 1 << i < cores), cores]
    try:
        return [int(number) for number in word.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{word!r} is no number, nor several as in 1,2,4, nor each") from None


def _lines(args: argparse.Namespace, found: dict[str, Any]) -> str:
    lines = [
        f"{args.model}, {found['format']}, {found['threads']} threads",
        _line("load", f"{found['load_seconds']:.1f} s"),
        _line("first frame", f"{found['first_frame_ms']:.0f} ms after the call, in a voice that has spoken"),
        _line("talker + predictor", f"{found['talker_ms']:.1f} ms per frame of {found['frame_ms']:.0f} ms"),
        _line("codec", f"{found['codec_ms']:.1f} ms per frame"),
        _line("real-time factor", f"{found['rtf']:.2f}"),
    ]
    if found["peak_memory_mb"] is not None:
        lines.append(_line("peak memory", f"{found['peak_memory_mb']:.0f} MB"))
    return "\n".join(lines)


def _compared(results: list[dict[str, Any]], fastest: int) -> str:
    """A row for each number of threads."""
    columns = {
        "threads": "threads",
        "first frame, ms": "first_frame_ms",
        "talker + predictor, ms": "talker_ms",
        "codec, ms": "codec_ms",
        "real-time factor": "rtf",
    }
    rows = [[f"{found[name]:.4g}" for name in columns.values()] for found in results]
    note = f"The fastest here: --threads {fastest}"
    return as_text(Table("", list(columns), "r" * len(columns), rows, note))


def talk(model: Qwen3TTSModel, seconds: float) -> Talking:
    """Time frames for a duration; speech that ends is followed by another. The first run compiles and is excluded."""
    found, voice, end = Talking(), _any_voice(model), None
    for seed in itertools.count():
        times = [time.perf_counter()]
        request = model.prepare(TEXT, voice, seed=seed, max_new_tokens=MOST_FRAMES + 1)
        for _ in model.frames([request]):
            times.append(time.perf_counter())
            enough = len(found.frames) + len(times) - 2 >= FEWEST
            if enough and (end is None or times[-1] > end):
                break
        if end is None:
            end = time.perf_counter() + seconds
            continue
        found.first += list(np.diff(times[:2]))
        found.frames += list(np.diff(times[1:]))
        if times[-1] > end and len(found.frames) >= FEWEST:
            break
    return found


def decode(model: Qwen3TTSModel, seconds: float) -> float:
    """Seconds per frame of the codec, which decodes random codes."""
    codec = model.speech_tokenizer.config.decoder_config
    codes = np.random.RandomState(0).randint(0, codec.codebook_size, (CODEC_FRAMES, codec.num_quantizers))
    model.speech_tokenizer.decode(codes)  # compiles
    times: list[float] = []
    while sum(times) < seconds or len(times) < FEWEST:
        start = time.perf_counter()
        model.speech_tokenizer.decode(codes)
        times.append(time.perf_counter() - start)
    return statistics.median(times) / CODEC_FRAMES


def summary(model: Qwen3TTSModel, load: float, talking: Talking, codec: float) -> dict[str, Any]:
    frame, peak = statistics.median(talking.frames), peak_memory()
    assert isinstance(model.frame_loop, FrameLoop)
    return {
        "model_type": model.config.tts_model_type,
        "backend": "compiled" if model.engine.compiled else "reference",
        "format": model.frame_loop.weights_format,
        "threads": model.engine.cores,
        "load_seconds": round(load, 3),
        "first_frame_ms": round(1e3 * statistics.median(talking.first), 2),
        "talker_ms": round(1e3 * frame, 3),
        "codec_ms": round(1e3 * codec, 3),
        "frame_ms": round(1e3 * frame_seconds(model), 1),
        "frames": len(talking.frames),
        "rtf": round((frame + codec) / frame_seconds(model), 4),
        "peak_memory_mb": None if peak is None else round(peak / 1e6, 1),
    }


def _any_voice(model: Qwen3TTSModel) -> Voice:
    kind = model.config.tts_model_type
    if kind == "custom_voice":
        return CustomVoice(model.get_supported_speakers()[0])
    if kind == "voice_design":
        return DesignedVoice("A calm voice.")
    silence = np.zeros(model.config.talker_config.hidden_size, np.float32)  # the voice does not matter for timing
    return ClonedVoice(VoiceClonePromptItem(None, silence, True, False))


def _line(name: str, value: str) -> str:
    return f"  {name:<20} {value}"
