"""``--stream``: speech is written as it is generated, to a pipe or a file."""

from __future__ import annotations

import argparse
import time
from contextlib import nullcontext
from typing import Any

from ..arguments import whole_number
from ..audio.play import check_can_play, open_player
from ..errors import RequestError
from ..model import Qwen3TTSModel
from ..speech.live import PACKET, stream
from ..speech.script import Script
from ..speech.spoken import Spoken
from .output import PIPE, open_sink
from .progress import bar


def add_stream(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("streaming", "the first sound comes after a moment, whatever the length")
    group.add_argument("--stream", action="store_true", help="write speech as it is generated: --stream -o - | aplay")
    group.add_argument(
        "--packet-frames", type=int, default=PACKET, metavar="N", help="frames of 80 ms written at once (%(default)s)"
    )
    group.add_argument(
        "--play", action="store_true", help="the same, and play it on the sound card; the file is written as well"
    )
    group.add_argument("--raw", action="store_true", help="to a pipe: bare 16-bit mono samples, without a WAV header")


def check_stream(args: argparse.Namespace, others: list[str]) -> None:
    """RequestError for options that do not go together; ``others`` are the given ones that only pieces have.

    ``--play`` is a stream from here on.
    """
    stream = "--play" if args.play else "--stream"
    if (args.stream or args.play) and others:
        why = "keeps no pieces and no times" if others[0] != "loudness" else "is heard before all of it can be measured"
        raise RequestError(f"{stream} and --{others[0]} do not go together: a stream {why}")
    if args.play:
        check_can_play()
        args.stream = True
    if args.raw and not (args.stream and args.output == PIPE):
        raise RequestError("--raw is for --stream -o -: a file has a header")
    whole_number(args.packet_frames, "packet_frames")


def speak_live(
    model: Qwen3TTSModel, script: Script, args: argparse.Namespace, arguments: dict[str, Any]
) -> dict[str, Any]:
    """Speak ``script`` into ``args.output`` packet by packet; returns its report."""
    start, first = time.monotonic(), None
    speech = stream(
        model,
        script,
        seed=args.seed,
        packet_frames=args.packet_frames,
        runaway_guard=True,
        tempo=args.tempo,
        **arguments,
    )
    rate = speech.sample_rate
    card = open_player(rate) if args.play else nullcontext()
    with bar(script.text, model) as shown, open_sink(args, rate) as sink, card as player:
        for packet in speech:
            sink.write(packet)
            if player is not None:
                player.write(packet)
            first = time.monotonic() - start if first is None else first
            shown.packet(speech.seconds, speech.share)
    return {
        "seconds": speech.seconds,
        "sample_rate": rate,
        **counts(model, speech.pieces),
        "seed": speech.seed,
        "pieces": [vars(piece) for piece in speech.pieces],
        "first_packet_seconds": None if first is None else round(first, 3),
    }


def counts(model: Qwen3TTSModel, pieces: list[Spoken]) -> dict[str, int]:
    """The numbers of frames and codes of the pieces."""
    frames = sum(piece.frames for piece in pieces)
    return {"frames": frames, "codes": frames * model.config.talker_config.num_code_groups}
