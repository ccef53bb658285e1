"""Timing of the codec and the speaker encoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from machine import FRAME, noise
from qwen3tts_np_kernels.team import Team

from qwen3tts_np import Qwen3TTSModel
from qwen3tts_np.compiled.blas import limited_blas
from qwen3tts_np.compiled.codec.decoder import CompiledCodecDecoder
from qwen3tts_np.compiled.codec.encoder import CompiledCodecEncoder
from qwen3tts_np.compiled.speaker.encoder import CompiledSpeakerEncoder


def codec_runs(model: Qwen3TTSModel, threads: int, seconds: float) -> dict[str, Callable[[], Any]]:
    """The runs to time with this much audio, by name."""
    tokenizer, team, wave = model.speech_tokenizer, Team(threads), noise(seconds)
    c, groups = tokenizer.config, tokenizer.config.encoder_valid_num_quantizers
    minimal = CompiledCodecDecoder.load(tokenizer.checkpoint, c.decoder_config, team)
    exact = CompiledCodecDecoder.load(tokenizer.checkpoint, c.decoder_config, team, exact=True)
    encoder = CompiledCodecEncoder.load(tokenizer.checkpoint, c.encoder_config, groups, team)
    codes = random_codes(model, seconds)
    runs: dict[str, Callable[[], Any]] = {
        "decode": lambda: minimal.decode_chunked(codes),
        "decode, tap by tap": lambda: exact.decode_chunked(codes),
        "encode": lambda: encoder.encode(wave),
    }
    weights, config = model.speaker_encoder, model.config.speaker_encoder_config
    if weights is not None and config is not None:
        speaker = CompiledSpeakerEncoder.pack(weights, config, team)
        runs["speaker embedding"] = lambda: speaker.embedding(wave)
    return {name: _beside_kernels(run) for name, run in runs.items()}


def _beside_kernels(run: Callable[[], Any]) -> Callable[[], Any]:
    """Limit BLAS as the model does: idle BLAS threads would take a core from the team."""

    def limited() -> Any:
        with limited_blas(1):
            return run()

    return limited


def random_codes(model: Qwen3TTSModel, seconds: float) -> np.ndarray[Any, np.dtype[np.int64]]:
    c = model.speech_tokenizer.config.decoder_config
    return np.random.default_rng(0).integers(0, c.codebook_size, (round(seconds / FRAME), c.num_quantizers))


def decode_error(model: Qwen3TTSModel, threads: int) -> float:
    """The largest difference of a waveform in -1 to 1 between the decoder and one that sums tap by tap."""
    checkpoint, c = model.speech_tokenizer.checkpoint, model.speech_tokenizer.config.decoder_config
    codes, team = random_codes(model, 2), Team(threads)
    waves = [CompiledCodecDecoder.load(checkpoint, c, team, exact).decode(codes) for exact in (False, True)]
    return float(np.abs(waves[0] - waves[1]).max())
