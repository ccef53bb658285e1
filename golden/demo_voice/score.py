"""Intelligibility of the demo voice: word error rates of an independent recogniser on held-out sentences.

    .venv-official/bin/python golden/demo_voice/score.py [CHECKPOINT]     default: the one in the package

    --state DIR     output of make.py: held-out sentences, the base-type twin (default: demo_voice_state)
    --count N       sentences (200)
    --only NAME     one of the rows

Speaks with the official package and prints the table of README.md.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from codebooks import to_float  # noqa: E402
from corpus import FRAME, SAMPLE_RATE  # noqa: E402
from grammar import VOCABULARY, training_text  # noqa: E402
from layout import SPEAKERS  # noqa: E402
from official import load  # noqa: E402
from prepare import SEED, WITH_CODES, Corpus  # noqa: E402
from recogniser import Recogniser, word_error_rate  # noqa: E402

SHIPPED = HERE.parents[1] / "qwen3tts_np" / "demo_voice"
BATCH = 20
GREEDY = {"do_sample": False, "subtalker_dosample": False}

Waves = list[NDArray[np.float32]]


@dataclass(frozen=True)
class Row:
    name: str
    waves: Callable[[Any, Corpus, int], Waves]
    spoken: bool = False  # whether the talker decides when it ends
    twin: bool = False  # whether the base-type twin speaks


def originals(model: Any, held_out: Corpus, count: int) -> Waves:
    return [to_float(held_out.wave_of(i)).numpy() for i in range(count)]


def resynthesis(model: Any, held_out: Corpus, count: int) -> Waves:
    """The true codes, decoded."""
    return [decode(model, torch.from_numpy(held_out.codes_of(i).astype(np.int64))) for i in range(count)]


def encoded(model: Any, held_out: Corpus, count: int) -> Waves:
    """The true waveforms, encoded and decoded."""
    codec = model.model.speech_tokenizer
    waves = originals(model, held_out, count)
    return [decode(model, codec.encode(wave, sr=SAMPLE_RATE).audio_codes[0]) for wave in waves]


def decode(model: Any, codes: torch.Tensor) -> NDArray[np.float32]:
    return model.model.speech_tokenizer.decode([{"audio_codes": codes}])[0][0]


def spoken(**arguments: Any) -> Callable[[Any, Corpus, int], Waves]:
    def speak(model: Any, held_out: Corpus, count: int) -> Waves:
        torch.manual_seed(0)
        names = list(SPEAKERS)
        waves: Waves = []
        for start in range(0, count, BATCH):
            items = range(start, min(start + BATCH, count))
            made, _ = model.generate_custom_voice(
                text=[held_out.texts[i] for i in items],
                speaker=[names[held_out.voices[i]] for i in items],
                language=["English"] * len(items),
                max_new_tokens=2 * int(held_out.frames[items].max()) + 2,
                **arguments,
            )
            waves += made
        return waves

    return speak


def cloned(model: Any, held_out: Corpus, count: int) -> Waves:
    """Each sentence cloned from the next clip of the same voice (two further on); greedy, speaker embedding only."""
    waves: Waves = []
    for start in range(0, count, BATCH):
        items = range(start, min(start + BATCH, count))
        clips = [(i + 2) % len(held_out.texts) for i in items]
        made, _ = model.generate_voice_clone(
            text=[held_out.texts[i] for i in items],
            language=["English"] * len(items),
            ref_audio=[(to_float(held_out.wave_of(i)).numpy(), SAMPLE_RATE) for i in clips],
            x_vector_only_mode=True,
            max_new_tokens=2 * int(held_out.frames[items].max()) + 2,
            **GREEDY,
        )
        waves += made
    return waves


ROWS = (
    Row("originals", originals),
    Row("codec resynthesis", resynthesis),
    Row("encoder and decoder", encoded),
    Row("greedy", spoken(**GREEDY), spoken=True),
    Row("sampled", spoken(), spoken=True),
    Row("streaming layout, greedy", spoken(**GREEDY, non_streaming_mode=False), spoken=True),
    Row("cloned by the twin, greedy", cloned, spoken=True, twin=True),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, nargs="?", default=SHIPPED)
    parser.add_argument("--state", type=Path, default=Path("demo_voice_state"))
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--only", choices=[row.name for row in ROWS])
    args = parser.parse_args()
    held_out = Corpus.load(args.state / "held_out.npz")
    forbidden = set(held_out.texts)
    sentences = [training_text(i, forbidden, SEED) for i in range(0, WITH_CODES, 2)]  # every other one is word salad
    recogniser = Recogniser(args.state, VOCABULARY, sentences)
    models = {twin: load(args.state / "checkpoint-base" if twin else args.checkpoint) for twin in (False, True)}
    print(f"| {args.count} sentences | word error rate | of each voice | sentences right | no end | frames |")
    print("|---|---|---|---|---|---|")
    for row in ROWS:
        if args.only in (None, row.name):
            started = time.monotonic()
            with torch.inference_mode():
                waves = row.waves(models[row.twin], held_out, args.count)
            line = table_row(row, waves, held_out, recogniser)
            print(line, flush=True)
            print(f"{row.name}: {time.monotonic() - started:.0f} s", file=sys.stderr)


def table_row(row: Row, waves: Waves, held_out: Corpus, recogniser: Recogniser) -> str:
    pairs = [(held_out.texts[i], recogniser.hear(wave, SAMPLE_RATE)) for i, wave in enumerate(waves)]
    rates = [word_error_rate([p for p, v in zip(pairs, held_out.voices, strict=False) if v == i]) for i in (0, 1)]
    frames = np.array([len(wave) / FRAME for wave in waves])
    expected = held_out.frames[: len(waves)]
    cells = [
        row.name,
        f"{word_error_rate(pairs):.1%}",
        ", ".join(f"{name} {rate:.1%}" for name, rate in zip(SPEAKERS, rates, strict=True)),
        f"{np.mean([said == heard for said, heard in pairs]):.0%}",
        f"{np.mean(frames > 2 * expected):.1%}" if row.spoken else "",
        f"{frames.mean():.1f} of {expected.mean():.1f}" if row.spoken else "",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
