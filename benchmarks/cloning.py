"""Cloning both ways: by the speaker embedding alone (x-vector), and in context, where the model also reads the clip.

    python benchmarks/cloning.py                                   synthetic 0.6B: times; its speech is noise
    python benchmarks/cloning.py --model DIR --clip ada.wav --words "What Ada says."     and how like the clip it sounds

Measured in turn, in one run: the time to make a voice of the clip, from there to the first packet (4 frames) of a voice
that has not spoken yet, and per frame after it, and, of a real model, the similarity of the speech to the clip by
Resemblyzer (pip install --no-deps resemblyzer). Medians over the rounds, similarities over the texts. Writes
cloning.json and cloning.md to --out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from machine import TEXT, describe_machine, forget_openings, noise, synthetic_model
from qwen3tts_np_kernels.system import usable_cores

from qwen3tts_np import Qwen3TTSModel
from qwen3tts_np.audio.files import read_audio
from qwen3tts_np.compiled.engine import WEIGHT_FORMATS
from qwen3tts_np.evaluate import resemblyzer
from qwen3tts_np.evaluate.clip import Clip
from qwen3tts_np.files.output import write_text
from qwen3tts_np.ops import Wave
from qwen3tts_np.report.tables import Table, as_markdown
from qwen3tts_np.request import ClonedVoice
from qwen3tts_np.voice.reference_clip import ReferenceClipWarning

WORDS = "A short clip, with its words, of somebody who agrees."
TEXTS = (TEXT, "Good morning. It is a fine day for a walk along the river.", "Nobody has seen the keys since Tuesday.")
WAYS = {"x-vector": True, "in context": False}
PACKET = 4  # frames
RATE = 24000  # Hz


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a base checkpoint; default: a synthetic one")
    parser.add_argument("--like", default="0.6b", choices=["tiny", "0.6b", "1.7b"], help="size of the synthetic one")
    parser.add_argument("--clip", help="of the voice; default: ten seconds of noise")
    parser.add_argument("--words", default=WORDS, help="what is said in the clip")
    parser.add_argument("--format", default="auto", choices=("auto", *WEIGHT_FORMATS))
    parser.add_argument("--frames", type=int, default=24, help="at most, of each text")
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("speed"))
    args = parser.parse_args()
    if (args.model is None) != (args.clip is None):
        parser.error("--model and --clip go together: a synthetic model makes noise of any clip")
    with ExitStack() as stack:
        path = args.model or synthetic_model(args.like, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        model = Qwen3TTSModel.from_pretrained(path, weights_format=args.format, threads=args.threads)
    warnings.simplefilter("ignore", ReferenceClipWarning)  # noise is no voice
    clip = (noise(10), RATE) if args.clip is None else read_audio(args.clip)
    report = {
        "machine": describe_machine(),
        "model": path.name if args.model else f"synthetic {args.like}",
        "format": args.format,
        "threads": args.threads,
        "rounds": args.rounds,
        "clip_seconds": len(clip[0]) / clip[1],
        "ways": measure(model, clip, args, real=args.model is not None),
    }
    args.out.mkdir(parents=True, exist_ok=True)
    write_text(args.out / "cloning.json", json.dumps(report, indent=1) + "\n")
    write_text(args.out / "cloning.md", markdown(report))
    print(markdown(report))


def measure(model: Qwen3TTSModel, clip: tuple[Wave, int], args: argparse.Namespace, real: bool) -> dict[str, Any]:
    """way -> medians in seconds, and the similarities. The first round compiles and warms up, and does not count."""
    times: dict[str, dict[str, list[float]]] = {way: {"voice": [], "first": [], "frame": []} for way in WAYS}
    alike: dict[str, list[float]] = {way: [] for way in WAYS}
    embedding = resemblyzer.embedding(Clip(*clip)) if real else None
    for counts in (False, *([True] * args.rounds)):
        for way, alone in WAYS.items():
            voice, seconds = made(model, clip, args.words, alone)
            found = {"voice": seconds, "first": [], "frame": []}
            for text in TEXTS:
                wave, first, frame = spoken(model, voice, text, args.frames)
                found["first"].append(first)
                found["frame"].append(frame)
                if embedding is not None:
                    alike[way].append(float(embedding @ resemblyzer.embedding(Clip(wave, RATE))))
            if counts:
                times[way]["voice"].append(seconds)
                times[way]["first"].append(statistics.median(found["first"]))
                times[way]["frame"].append(statistics.median(found["frame"]))
    return {
        way: {
            **{name: statistics.median(values) for name, values in times[way].items()},
            "similarity": statistics.mean(alike[way]) if alike[way] else None,
        }
        for way in WAYS
    }


def made(model: Qwen3TTSModel, clip: tuple[Wave, int], words: str, alone: bool) -> tuple[ClonedVoice, float]:
    start = time.perf_counter()
    (item,) = model.create_voice_clone_prompt(clip, None if alone else words, x_vector_only_mode=alone)
    return ClonedVoice(item), time.perf_counter() - start


def spoken(model: Qwen3TTSModel, voice: ClonedVoice, text: str, frames: int) -> tuple[Wave, float, float]:
    """The speech, seconds to its first packet, and seconds per frame after that."""
    request = model.prepare(text, voice, language="english", seed=1, max_new_tokens=frames + 1)
    forget_openings(model)
    start = time.perf_counter()
    packets, at = [], []
    for packet in model.stream(request, packet_frames=PACKET):
        packets.append(packet)
        at.append(time.perf_counter() - start)
    wave = np.concatenate(packets)
    later = len(wave[len(packets[0]) :]) / RATE / 0.08  # frames
    return wave, at[0], (at[-1] - at[0]) / max(later, 1)


def markdown(report: dict[str, Any]) -> str:
    about = (
        f"{report['model']} ({report['format']}) on {report['machine']['cpu']}, {report['threads']} threads, a clip of "
        f"{report['clip_seconds']:.1f} s. Medians of {report['rounds']} rounds."
    )
    rows = []
    for way, found in report["ways"].items():
        times = [f"{1e3 * found[name]:.0f} ms" for name in ("voice", "first", "frame")]
        rows.append([way, *times, "" if found["similarity"] is None else f"{found['similarity']:.3f}"])
    headers = ["", "voice of the clip", "first packet", "per frame", "similarity to the clip"]
    return f"{about}\n\n{as_markdown(Table('', headers, 'lrrrr', rows))}\n"


if __name__ == "__main__":
    main()
