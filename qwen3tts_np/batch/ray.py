"""A manifest spoken by the machines of a Ray cluster: ``Speaker`` as the actor of Ray Data's ``map_batches``.

    python -m qwen3tts_np.batch.ray MODEL MANIFEST OUT --workers 4

``pip install 'qwen3tts-np[ray]'``. The workers read MODEL and the files that MANIFEST names, and write OUT, under the
paths that they have here: on a file system that all share. Ray decides which worker speaks which rows; a row has the
bytes that ``qwen3tts-np batch`` gives it, and what is finished is kept. RAY_ADDRESS names a running cluster; without it
Ray starts one on this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import QwenTTSError
from ..extras import imported, install
from ..manifest import BadRow, Manifest, Row
from .apart import surveyed
from .folder import Folder
from .identity import Shard
from .run import Summary
from .settings import Settings
from .speaker import BATCH_SIZE, Result, Speaker

ROWS = 64  # that an actor gets at a time, at most: several batches, so that few places are empty at the end
SHARES = 4  # that an actor gets at least, where there are rows enough: so that all end at about the same time


def speak(
    model: str | Path,
    manifest: Manifest,
    out: str | Path,
    settings: Settings | None = None,
    *,
    workers: int,
    threads: int = 1,
    batch_size: int = BATCH_SIZE,
    **loading: Any,
) -> Summary:
    """Speak a manifest with ``workers`` actors of ``threads`` cores each; ``loading``: see :class:`Speaker`.

    RequestError where Ray is missing, and for what ``qwen3tts-np batch`` refuses before the work.
    """
    data = imported("ray.data", "speaking on a Ray cluster", install("ray"))
    manifest = Manifest(manifest.path.absolute())  # workers have other working directories
    surveyed(manifest, Shard(), Path(out), settings or Settings())
    folder, summary = Folder(Path(out).absolute()), Summary()
    folder.check(manifest)
    with folder.held(Shard()) as report:
        rows = [{"row": json.dumps(asdict(row))} for row in _readable(manifest, summary)]
        blocks = max(-(-len(rows) // ROWS), min(SHARES * workers, len(rows)), 1)
        spoken = data.from_items(rows, override_num_blocks=blocks).map_batches(
            Speaker,
            batch_size=None,  # a block
            compute=data.ActorPoolStrategy(size=workers),
            num_cpus=threads,
            fn_constructor_args=(os.path.abspath(model), folder.path, settings, batch_size),
            fn_constructor_kwargs={"threads": threads, **loading},
        )
        for found in spoken.iter_rows():
            summary.add(Result(*json.loads(found["result"])))
        report.update(shard=str(Shard()), **asdict(summary))
    folder.write_results(manifest)
    return summary


def _readable(manifest: Manifest, summary: Summary) -> Iterator[Row]:
    """The rows that can be read; the others are counted."""
    for row in manifest:
        if isinstance(row, BadRow):
            summary.add(row)
        else:
            yield row


def main() -> int:
    """The command of this module: the exit status of ``qwen3tts-np batch``."""
    parser = argparse.ArgumentParser(prog="python -m qwen3tts_np.batch.ray", description="Speak a manifest on Ray.")
    parser.add_argument("model", metavar="MODEL", help="checkpoint directory, the same on all machines")
    parser.add_argument("manifest", metavar="MANIFEST", help="JSON Lines or CSV, as for 'qwen3tts-np batch'")
    parser.add_argument("out", metavar="OUT", help="folder of the audio files, which all machines share")
    parser.add_argument("--workers", type=int, required=True, metavar="N", help="actors, each with a model of its own")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="cores of an actor (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE, metavar="N", help="rows at once (%(default)s)")
    parser.add_argument("--format", default="auto", help="of the weights: auto, int8, int4, ...")
    parser.add_argument("--audio-format", default="wav", metavar="SUFFIX", help="wav, flac, ogg, opus or mp3 (wav)")
    args = parser.parse_args()
    try:
        summary = speak(
            args.model,
            Manifest(args.manifest),
            args.out,
            Settings(args.audio_format),
            workers=args.workers,
            threads=args.threads,
            batch_size=args.batch_size,
            weights_format=args.format,
        )
    except QwenTTSError as e:
        print(f"{parser.prog}: {e}", file=sys.stderr)
        return 2
    print(json.dumps(asdict(summary)))
    return int(summary.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
