"""The codec and the speaker encoder in ONNX Runtime against the network that they are made from, at tiny sizes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwen3tts_np import Qwen3TTSModel
from qwen3tts_np.codec.decoder import decode
from qwen3tts_np.codec.encoder import encode
from qwen3tts_np.export.onnx_target import OnnxTarget
from qwen3tts_np.export.pieces import codec_decoder, codec_encoder, speaker_encoder
from qwen3tts_np.speaker.encoder import shortest_clip, speaker_embedding

onnx = pytest.importorskip("onnx")
runtime: Any = pytest.importorskip("onnxruntime")


def saved(t, folder):
    t.save(folder, "x")
    onnx.checker.check_model(str(folder / "model.onnx"), full_check=True)
    return runtime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def model(synthetic):
    return Qwen3TTSModel.from_pretrained(synthetic("tiny", "base"), backend="reference")


def test_dec(model, tmp_path):
    tok = model.speech_tokenizer
    t = OnnxTarget(tok.checkpoint, "float32")
    codec_decoder.build(t, tok.config.decoder_config, tok.checkpoint)
    s = saved(t, tmp_path)
    codes = np.random.RandomState(0).randint(0, 128, (30, 16))
    want = decode(codes, tok.decoder)
    for n in (30, 1, 2, 7):
        state = {
            i.name: np.zeros([d if isinstance(d, int) else 0 for d in i.shape], np.float32)
            for i in s.get_inputs()
            if i.name.endswith(".past")
        }
        outs = [o.name for o in s.get_outputs()]
        parts = []
        for at in range(0, 30, n):
            r = dict(zip(outs, s.run(outs, {"codes": codes[at : at + n], **state})))
            state = {k: r[k[:-4] + "present"] for k in state}
            parts.append(r["decoder"])
        got = np.concatenate(parts)
        print(n, np.abs(got - want).max(), np.abs(want).max())
        assert np.abs(got - want).max() < 1e-5


def test_enc(model, tmp_path):
    tok = model.speech_tokenizer
    t = OnnxTarget(tok.checkpoint, "float32")
    codec_encoder.build(t, tok.config.encoder_config, 16, tok.checkpoint)
    s = saved(t, tmp_path)
    for n in (1, 1919, 1920, 1921, 9600, 20000, 50001):
        tt = np.arange(n) / 24000
        wave = (0.3 * np.sin(1500 * tt * (1 + tt))).astype(np.float32)
        got = s.run(None, {"waveform": wave})[0]
        assert (got == encode(wave, tok.encoder)).all(), n


def test_spk(model, tmp_path):
    c = model.config.speaker_encoder_config
    from qwen3tts_np.checkpoint.safetensors import Checkpoint

    t = OnnxTarget(model.frame_loop.weights.talker.text_embedding and Checkpoint.open(PATH[0]), "float32")
    speaker_encoder.build(t, c, t._tensors)
    s = saved(t, tmp_path)
    for n in (shortest_clip(c), 9600, 20000, 50001):
        tt = np.arange(n) / 24000
        wave = (0.3 * np.sin(1500 * tt * (1 + tt))).astype(np.float32)
        got = s.run(None, {"waveform": wave})[0]
        want = speaker_embedding(wave, model.speaker_encoder, c)
        print(n, np.abs(got - want).max(), np.abs(want).max())


PATH = []


@pytest.fixture(autouse=True)
def p(synthetic):
    PATH[:] = [synthetic("tiny", "base")]
