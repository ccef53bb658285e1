"""The runner of the graphs, ``golden/runners/speak_onnx.py``, chooses the codes that the package chooses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from bare_environment import bare_python
from programs import program

from qwen3tts_np import Qwen3TTSModel, VoiceClonePromptItem
from qwen3tts_np.checkpoint.json_file import read_json
from qwen3tts_np.export.onnx_export import export_onnx

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

RUNNER = Path(__file__).parents[1] / "golden" / "runners" / "speak_onnx.py"
ALONE = {"numpy", "onnxruntime", "tokenizers"}
DEFAULTS = {"speaker": "", "instruct": "", "language": "auto", "ref_audio": "", "ref_text": "", "streaming": False}
TEXT = "Please speak slowly: the river runs through the country."
GREEDY = {"do_sample": False, "subtalker_dosample": False}
PIECES = ("text", "talker", "code_predictor", "frame_embedding")


def test_it_is_short_and_needs_little() -> None:
    source = RUNNER.read_text(encoding="utf-8")
    assert len(source.splitlines()) < 150
    imported = set(re.findall(r"^(?:import|from) (\w+)", source, re.M))
    assert imported - set(sys.stdlib_module_names) == ALONE


@pytest.fixture(scope="module")
def exported(
    synthetic: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[Any, Path]]:
    @cache
    def made(like: str, kind: str) -> tuple[Any, Path]:
        source, target = synthetic(like, kind), tmp_path_factory.mktemp("graphs")
        list(export_onnx(source, target, only=PIECES))
        return Qwen3TTSModel.from_pretrained(source, backend="reference"), target

    return made


def spoken(folder: Path, request: dict[str, Any], reference: VoiceClonePromptItem | None = None) -> np.ndarray:
    """The codes that the runner chooses; the graphs of a reference clip are stood in for by what they would give."""
    import tokenizers

    module = program(RUNNER)
    graphs = {name: module.Graph(folder / name, 1) for name in PIECES}
    if reference is not None:
        graphs["speaker_encoder"] = lambda clip: [reference.ref_spk_embedding]
        graphs["codec_encoder"] = lambda clip: [reference.ref_code]
    encode = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    settings = {**DEFAULTS, "seed": 0, **read_json(folder / "generation_config.json"), **request}
    codes, _ = module.speak(
        graphs.__getitem__,
        read_json(folder / "config.json"),
        settings,
        lambda text: encode.encode(text, add_special_tokens=False).ids,
    )
    return codes


SAMPLING = [
    GREEDY,
    {"seed": 0},
    {"seed": 2**64 - 1},
    {"seed": 3, "top_p": 0.8, "subtalker_top_p": 0.7, "top_k": 0, "temperature": 1.3, "repetition_penalty": 1.4},
]


@pytest.mark.parametrize("sampling", SAMPLING, ids=["greedy", "seed 0", "seed 2^64 - 1", "other rules"])
@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streaming"])
def test_custom_voice(exported: Any, sampling: dict[str, Any], streaming: bool) -> None:
    model, folder = exported("tiny", "custom_voice")
    limits = {**sampling, "max_new_tokens": 9}
    expected = model.generate_custom_voice(
        TEXT, "vivian", language="english", non_streaming_mode=not streaming, return_codes=True, **limits
    )[2][0]
    request = {"text": TEXT, "speaker": "vivian", "language": "english", "streaming": streaming, **limits}
    assert len(expected) > 2
    np.testing.assert_array_equal(spoken(folder, request), expected)


@pytest.mark.parametrize("text", ["", "Hello"])
@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streaming"])
def test_designed_voice_of_a_projecting_model(exported: Any, text: str, streaming: bool) -> None:
    model, folder = exported("tiny-1.7b", "voice_design")
    limits = {**GREEDY, "max_new_tokens": 6}
    expected = model.generate_voice_design(
        text, "A low voice.", non_streaming_mode=not streaming, return_codes=True, **limits
    )[2][0]
    request = {"text": text, "instruct": "A low voice.", "streaming": streaming, **limits}
    np.testing.assert_array_equal(spoken(folder, request), expected)


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streaming"])
@pytest.mark.parametrize(("context", "text"), [(False, TEXT), (True, TEXT), (True, "Hi")])
def test_cloned_voice(exported: Any, tmp_path: Path, context: bool, text: str, streaming: bool) -> None:
    model, folder = exported("tiny", "base")
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 128, (20, 16)) if context else None
    vector = rng.standard_normal(model.config.talker_config.hidden_size).astype(np.float32) / 8
    voice = VoiceClonePromptItem(codes, vector, not context, context, "It is a good song" if context else None)
    limits = {"seed": 5, "max_new_tokens": 6}
    expected = model.generate_voice_clone(
        text, voice_clone_prompt=[voice], non_streaming_mode=not streaming, return_codes=True, **limits
    )[2][0]
    said = voice.ref_text or ""
    soundfile.write(tmp_path / "clip.wav", np.zeros(2400), 24000)
    request = {
        "text": text,
        "ref_audio": str(tmp_path / "clip.wav"),
        "ref_text": said,
        "streaming": streaming,
        **limits,
    }
    np.testing.assert_array_equal(spoken(folder, request, voice), expected)


def test_the_program_alone_clones_in_context(synthetic: Callable[..., Path], tmp_path: Path) -> None:
    """From a clip to samples, in an environment of three packages, as ``generate_voice_clone`` has it."""
    python = bare_python(tmp_path / "environment", sorted(ALONE))
    source = synthetic("tiny", "base")
    list(export_onnx(source, tmp_path / "graphs"))
    t = np.arange(36000) / 24000
    clip = 0.3 * np.sin(2 * np.pi * 150 * t) * np.sin(2 * np.pi * 2 * t) ** 2
    soundfile.write(tmp_path / "clip.wav", clip, 24000)
    request = {"text": TEXT, "ref_audio": str(tmp_path / "clip.wav"), "ref_text": "It is a good song", "seed": 3}
    request |= {"max_new_tokens": 7, "chunk": 2, "streaming": True}
    words = [str(RUNNER), str(tmp_path / "graphs"), str(tmp_path / "said.wav"), json.dumps(request)]
    done = subprocess.run([python, "-I", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    model = Qwen3TTSModel.from_pretrained(source, backend="reference")
    samples, rate = soundfile.read(tmp_path / "clip.wav", dtype="float32")
    waves, _, codes = model.generate_voice_clone(
        TEXT, ref_audio=(samples, rate), ref_text="It is a good song", seed=3, max_new_tokens=7, return_codes=True
    )
    np.testing.assert_array_equal(np.load(tmp_path / "said.npy"), codes[0])
    said = soundfile.read(tmp_path / "said.wav", dtype="int16")[0]
    assert len(codes[0]) > 2
    assert np.abs(said - np.rint(waves[0] * 32767)).max() <= 1
