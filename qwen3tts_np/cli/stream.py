"""``--stream``: speech leaves as it is made, into a pipe or a file."""

from __future__ import annotations

import argparse
import math
import secrets
import time
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import RequestError
from ..model import Qwen3TTSModel
from ..ops import Wave
from ..speech.plan import PAUSES
from ..text.pace import milliseconds, most_milliseconds
from ..text.sentences import Piece, split
from .output import PIPE, open_sink
from .progress import bar, frame_seconds

PACKET = 4  # frames


def add_stream(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("streaming", "the first sound comes after a moment, whatever the length")
    group.add_argument("--stream", action="store_true", help="write speech as it is made: --stream -o - | aplay")
    group.add_argument(
        "--packet-frames", type=int, default=PACKET, metavar="N", help="frames of 80 ms written at once (%(default)s)"
    )
    group.add_argument("--raw", action="store_true", help="to a pipe: bare 16-bit mono samples, without a WAV header")


def check_stream(args: argparse.Namespace, others: list[str]) -> None:
    """RequestError for options that do not go together; ``others`` are the given ones that only pieces have."""
    if args.stream and others:
        raise RequestError(f"--stream and --{others[0]} do not go together: a stream keeps no pieces and no times")
    if args.raw and not (args.stream and args.output == PIPE):
        raise RequestError("--raw is for --stream -o -: a file has a header")
    if args.packet_frames < 1:
        raise RequestError(f"packet_frames={args.packet_frames} must be at least 1")


def stream(model: Qwen3TTSModel, text: str, args: argparse.Namespace, arguments: dict[str, Any]) -> dict[str, Any]:
    """Speak ``text`` into ``args.output`` packet by packet; what there is to report of it.

    A long text goes piece by piece, with the pauses of ``longform``; piece i has the seed ``seed + i``.
    """
    seed = secrets.randbits(32) if args.seed is None else args.seed
    rate = model.speech_tokenizer.get_output_sample_rate()
    pieces = split(text, args.language)
    if not any(piece.has_words for piece in pieces):
        raise RequestError("there is nothing to say: the text has neither letters nor digits")
    start, samples, frames, first = time.monotonic(), 0, 0, None
    with bar(text, model) as shown, open_sink(args, rate) as sink:
        for packet, spoken, share in _packets(model, pieces, args.packet_frames, seed, arguments):
            sink.write(packet)
            first = time.monotonic() - start if first is None else first
            samples, frames = samples + len(packet), frames + spoken
            shown.packet(samples / rate, share)
    codes = frames * model.config.talker_config.num_code_groups
    found = {"seconds": samples / rate, "sample_rate": rate, "frames": frames, "codes": codes, "seed": seed}
    return {**found, "first_packet_seconds": None if first is None else round(first, 3)}


def _packets(
    model: Qwen3TTSModel, pieces: list[Piece], packet_frames: int, seed: int, arguments: dict[str, Any]
) -> Iterator[tuple[Wave, int, float]]:
    """(waveform, frames in it, how much of the text is spoken by then) of all pieces and the pauses between them."""
    frame = model.speech_tokenizer.get_decode_upsample_rate()
    rate = model.speech_tokenizer.get_output_sample_rate()
    whole = sum(milliseconds(piece.text) for piece in pieces) / 1000
    done, pause = 0.0, 0
    for i, piece in enumerate(pieces):
        usual = milliseconds(piece.text) / 1000
        if piece.has_words:
            if pause:
                yield np.zeros(rate * pause // 1000, np.float32), 0, done / whole
            spoken = 0
            for packet in _piece(model, piece.spoken, packet_frames, seed + i, arguments):
                spoken += len(packet)
                yield packet, len(packet) // frame, (done + min(spoken / rate, usual)) / whole
            pause = 0
        done += usual
        pause = pause + PAUSES[piece.ends] if done > 0 else 0


def _piece(model: Qwen3TTSModel, text: str, packet_frames: int, seed: int, arguments: dict[str, Any]) -> Iterator[Wave]:
    """One piece. What has been heard cannot be taken back, so one that does not stop is cut at once."""
    tokens, most = limits(model, text, arguments)
    options = {**arguments, "max_new_tokens": tokens, "seed": seed, "packet_frames": packet_frames}
    samples = 0
    for packet in method(model, "stream")(text, **options):
        samples += len(packet)
        yield packet
    if samples >= most * model.speech_tokenizer.get_decode_upsample_rate():
        warn_of_cut(model, text, most, 1)


def limits(model: Qwen3TTSModel, text: str, arguments: dict[str, Any]) -> tuple[int, int]:
    """max_new_tokens for a text, and the number of frames that no speech of it reaches (``text/pace.py``)."""
    given = arguments.get("max_new_tokens", model.generation_config.max_new_tokens)
    most = math.ceil(most_milliseconds(text) / 1000 / frame_seconds(model))
    return min(given, most + 1), most


def warn_of_cut(model: Qwen3TTSModel, text: str, frames: int, attempts: int) -> None:
    shown, times = repr(text if len(text) <= 50 else f"{text[:50]}..."), "" if attempts == 1 else f" {attempts} times"
    warnings.warn(f"{shown} did not stop{times}; it was cut after {frames * frame_seconds(model):.1f} s", stacklevel=3)


def method(model: Qwen3TTSModel, verb: str) -> Any:
    """``generate_...`` or ``stream_...``, whichever this model has."""
    kind = model.config.tts_model_type
    return getattr(model, f"{verb}_{'voice_clone' if kind == 'base' else kind}")
