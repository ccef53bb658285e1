"""Compilation ahead of time of all kernels, so that the first real call does not wait for the compiler."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..files.output import scratch_folder
from ..model import Qwen3TTSModel
from ..synthetic.weights import write_checkpoint

FRAMES = 4  # generated in each mode: enough for every kernel to be called


def compile_kernels(formats: Sequence[str], threads: int | None = None) -> Iterator[str]:
    """Clone, speak and stream with a tiny model in each weight format; yields each format when done.

    Kernels are compiled for types, not for sizes, so those of the tiny model serve every other model.
    """
    clip = np.random.default_rng(0).uniform(-0.3, 0.3, 4 * 24000).astype(np.float32), 24000
    with scratch_folder() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the clip is noise, not a voice
        write_checkpoint(folder / "tiny", "tiny", "base")
        for name in formats:
            model = Qwen3TTSModel.from_pretrained(folder / "tiny", weights_format=name, threads=threads)
            voice = model.create_voice_clone_prompt(clip, ref_text="Hello.")
            options: dict[str, Any] = {"voice_clone_prompt": voice, "max_new_tokens": FRAMES, "seed": 0}
            model.generate_voice_clone(["Hello.", "Hello there."], **options)
            for _ in model.stream_voice_clone("Hello.", **options):
                pass
            yield name
