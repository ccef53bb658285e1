"""Full-size streaming: the 0.6B structure with synthetic weights, packets against the whole.

    pytest tests/full_size_streaming.py         3 GB of disk for the checkpoint, 6 GB of memory

Not part of the suite: its name does not begin with ``test_``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from qwen3tts_np import Qwen3TTSModel, Qwen3TTSTokenizer
from qwen3tts_np.codec.decoder import decode

FRAME = 1920  # samples
TEXT = "The quick brown fox jumps over the lazy dog, and then it does so once more."


@pytest.fixture(scope="module")
def folder(synthetic: Callable[..., Path]) -> Path:
    return synthetic("0.6b", "custom_voice")


def random_codes(tokenizer: Qwen3TTSTokenizer, frames: int) -> np.ndarray:
    c = tokenizer.config.decoder_config
    return np.random.default_rng(0).integers(0, c.codebook_size, (frames, c.num_quantizers))


def streamed(tokenizer: Qwen3TTSTokenizer, codes: np.ndarray, packet: int) -> np.ndarray:
    stream = tokenizer.stream()
    return np.concatenate([stream(codes[i : i + packet]) for i in range(0, len(codes), packet)])


@pytest.mark.parametrize("weights", ["float32", "int16"])
@pytest.mark.parametrize("threads", [1, 2])
def test_compiled_packets_are_the_whole(folder: Path, threads: int, weights: Literal["float32", "int16"]) -> None:
    tokenizer = Qwen3TTSTokenizer.from_pretrained(folder, backend="compiled", threads=threads)
    tokenizer = replace(tokenizer, decoder_weights=weights)
    codes = random_codes(tokenizer, 320 if threads == 2 else 40)
    whole = tokenizer.decode(codes, continuous=True)[0][0]
    for packet in (1, 2, 4, 7, 300):
        np.testing.assert_array_equal(streamed(tokenizer, codes, packet), whole)


def test_numpy_packets_are_the_whole(folder: Path) -> None:
    tokenizer = Qwen3TTSTokenizer.from_pretrained(folder, backend="reference")
    codes = random_codes(tokenizer, 10)
    whole = tokenizer.decode(codes, continuous=True)[0][0]
    for packet in (1, 4, 7):
        np.testing.assert_array_equal(streamed(tokenizer, codes, packet), whole)
    np.testing.assert_allclose(whole, decode(codes, tokenizer.decoder), rtol=0, atol=1e-4)  # float32, another order


def test_speech_in_packets_and_text_in_pieces(folder: Path) -> None:
    model = Qwen3TTSModel.from_pretrained(folder, weights_format="bfloat16")
    options: dict[str, Any] = {"speaker": "ryan", "language": "english", "seed": 1, "max_new_tokens": 25}
    (wave,), _, (codes,) = model.generate_custom_voice(TEXT, **options, non_streaming_mode=False, return_codes=True)
    assert len(codes) == 24
    stream = model.stream_custom_voice(TEXT, **options, non_streaming_mode=False)
    packets = list(stream)
    np.testing.assert_array_equal(stream.codes, codes)
    with model.open_custom_voice(**options) as session:
        spoken = list(chain.from_iterable(session.feed(TEXT[i : i + 5]) for i in range(0, len(TEXT), 5)))
        assert len(session.codes) > 4  # spoken before the text had ended
        spoken += session.finish()
    np.testing.assert_array_equal(session.codes, codes)
    for found in (packets, spoken):
        assert [len(packet) for packet in found] == [4 * FRAME] * 6
        np.testing.assert_array_equal(np.concatenate(found), wave)  # below 300 frames nothing restarts
