"""Codecs of other sample rates: every rate comes from the configuration, none from the code.

The decoder of a fine-tune for 48 kHz has one more waveform block, or a last one that makes more samples.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from qwen3tts_np import CustomVoice, Qwen3TTSModel, Qwen3TTSTokenizer, cli
from qwen3tts_np.checkpoint.config_file import read_codec_config
from qwen3tts_np.checkpoint.writer import write_safetensors
from qwen3tts_np.layout.specs import codec_specs
from qwen3tts_np.synthetic.weights import SyntheticValues

DECODERS = {"one more block": [8, 5, 4, 3, 2], "a longer last block": [8, 5, 4, 6]}
RATE, SAMPLES, FRAMES = 48000, 3840, 70  # of a frame; more frames than the compiled decoder takes at a time


@pytest.fixture(scope="module", params=DECODERS.values(), ids=DECODERS)
def checkpoint(request, synthetic: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny custom-voice model whose codec decodes to 48 kHz."""
    folder = tmp_path_factory.mktemp("rates") / "model"
    shutil.copytree(synthetic("tiny", "custom_voice"), folder)
    codec = folder / "speech_tokenizer"
    config = json.loads((codec / "config.json").read_text())
    config |= {"output_sample_rate": RATE, "decode_upsample_rate": SAMPLES}
    config["decoder_config"]["upsample_rates"] = request.param
    (codec / "config.json").write_text(json.dumps(config))
    (codec / "model.safetensors").unlink()
    values = SyntheticValues(0, 0)
    last = f"decoder.decoder.{len(request.param) + 2}.conv.weight"
    write_safetensors(
        codec / "model.safetensors",
        codec_specs(read_codec_config(codec)),
        lambda spec: [0.02 * v for v in values(spec)] if spec.key == last else values(spec),  # not beyond full scale
    )
    return folder


@pytest.fixture(scope="module")
def codes() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 128, (FRAMES, 16))


def test_both_decoders_have_the_samples_of_the_configuration(checkpoint, codes):
    compiled = Qwen3TTSTokenizer.from_pretrained(checkpoint / "speech_tokenizer", threads=1)
    plain = Qwen3TTSTokenizer.from_pretrained(checkpoint / "speech_tokenizer", backend="reference")
    assert compiled.get_decode_upsample_rate() == SAMPLES
    waves = []
    for tokenizer in (compiled, plain):
        (wave,), rate = tokenizer.decode(codes)
        assert (rate, wave.shape) == (RATE, (FRAMES * SAMPLES,))
        assert 0 < np.abs(wave).max() < 1
        waves.append(wave)
    np.testing.assert_allclose(waves[0], waves[1], rtol=0, atol=2e-5)


def test_a_stream_is_the_whole(checkpoint):
    model = Qwen3TTSModel.from_pretrained(checkpoint, threads=1)
    request = model.prepare("Good morning.", CustomVoice("ryan"), seed=1, max_new_tokens=12)
    ((whole, codes),) = model.generate([request], continuous=True)
    stream = model.stream(request, packet_frames=3)
    packets = list(stream)
    assert stream.sample_rate == RATE
    assert len(packets[0]) == 3 * SAMPLES
    np.testing.assert_array_equal(np.concatenate(packets), whole)
    assert len(whole) == len(codes) * SAMPLES


def test_the_command_line_writes_that_rate(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["--seed", "1", "--max-new-tokens", "12"]
    assert cli.main(["say", str(checkpoint), "Good morning.", *options, "-o", "a.wav"]) == 0
    assert cli.main(["say", str(checkpoint), "Good morning.", *options, "--stream", "-o", "b.wav"]) == 0
    found = soundfile.info("a.wav")
    assert (found.samplerate, found.frames % SAMPLES) == (RATE, 0)
    assert Path("a.wav").read_bytes() == Path("b.wav").read_bytes()
