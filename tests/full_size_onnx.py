"""Full-size structures as ONNX graphs: exported in bounded time and memory, spoken with by the runner, code for code.

    pytest tests/full_size_onnx.py -s         20 GB of disk, 8 GB of memory; -k 0.6b without the large model
    FRAMES=60 pytest tests/full_size_onnx.py  the same with fewer frames

Not part of the suite: its name does not begin with ``test_``. Needs the extra ``onnx`` and onnxruntime.
The row of the end of speech is zeros in these checkpoints, so that no request ends before its frames are written.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from bare_environment import bare_python

from qwen3tts_np import Qwen3TTSModel
from qwen3tts_np.checkpoint.config_file import read_model_config
from qwen3tts_np.synthetic.weights import write_checkpoint

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

ROOT = Path(__file__).parents[1]
RUNNER = ROOT / "golden" / "runners" / "speak_onnx.py"
TEXT = "Please speak slowly: the mountain river runs through the country, and the light is often good before night."
FRAMES = int(os.environ.get("FRAMES", "300"))
MINUTES, SHARE = 2.0, 1.5  # most time, and most memory as a share of the largest graph's arrays
CLIP_SECONDS, CLIP_FRAMES = 3, 38
GREEDY = {"do_sample": False, "subtalker_dosample": False}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    @cache
    def made(like: Any, kind: Any) -> Path:
        folder = tmp_path_factory.mktemp("models") / f"{like}-{kind}"
        write_checkpoint(folder, like, kind)
        silence_the_end(folder)
        return folder

    return made


def silence_the_end(folder: Path) -> None:
    """Zeros in the row of ``codec_head`` that says that the speech ends."""
    file = folder / "model.safetensors"
    content = np.memmap(file, np.uint8, "r+")
    length = int.from_bytes(content[:8].tobytes(), "little")
    entry = json.loads(content[8 : 8 + length].tobytes())["talker.codec_head.weight"]
    rows, start = entry["shape"][0], 8 + length + entry["data_offsets"][0]
    row = (entry["data_offsets"][1] - entry["data_offsets"][0]) // rows
    first = start + row * read_model_config(folder).talker_config.codec_eos_token_id
    content[first : first + row] = 0
    content.flush()


# The command, and the most memory that it took. (What wait4 says includes the memory of this process, up to its exec.)
MEASURED = """
import sys
from qwen3tts_np import cli
from qwen3tts_np_kernels.system import peak_memory
status = cli.main(sys.argv[1:])
print(peak_memory())
sys.exit(status)
"""


def export(source: Path, target: Path, form: str = "float32") -> None:
    """All graphs of a model in one run, within the limits of time and memory."""
    start = time.monotonic()
    words = [sys.executable, "-c", MEASURED, "export", "onnx", str(source), str(target), "--format", form]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    peak = int(process.stdout.read().splitlines()[-1])
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0
    seconds = time.monotonic() - start
    largest = max(sum(f.stat().st_size for f in part.iterdir()) for part in target.iterdir() if part.is_dir())
    busy = used.ru_utime + used.ru_stime
    print(
        f"{source.name} {form}: {seconds:.0f} s, {busy:.0f} s of CPU, peak {peak / 1e6:.0f} MB, largest graph ", end=""
    )
    print(f"{largest / 1e6:.0f} MB")
    assert max(file.stat().st_size for file in target.rglob("*.data*")) < 2**31
    assert peak < SHARE * largest
    assert "0.6b" not in source.name or seconds < 60 * MINUTES


@pytest.fixture(scope="module")
def graphs(models: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """The exported graphs, once for each model."""

    @cache
    def made(like: str, kind: str) -> Path:
        target = tmp_path_factory.mktemp("graphs")
        export(models(like, kind), target)
        return target

    return made


@pytest.mark.parametrize("form", ["float16", "int8", "int4"])
def test_other_formats_of_0_6b(models: Any, tmp_path: Path, form: str) -> None:
    """With codec and speaker encoder, as of float32 before every test of codes."""
    export(models("0.6b", "base"), tmp_path, form)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has what the runner needs and nothing else."""
    return bare_python(tmp_path_factory.mktemp("environment"), ("numpy", "onnxruntime", "tokenizers"))


def run_alone(python: Path, folder: Path, output: Path, request: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Codes and samples of the runner."""
    words = [python, "-I", str(RUNNER), str(folder), str(output), json.dumps(request)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    print(done.stdout.strip())
    return np.load(output.with_suffix(".npy")), soundfile.read(output, dtype="int16")[0]


def speech(model: Qwen3TTSModel, request: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Codes and samples of this package for a request of the runner."""
    rest = {name: value for name, value in request.items() if name not in ("text", "streaming", "chunk", "threads")}
    layout = {"non_streaming_mode": not request.get("streaming", False), "return_codes": True}
    if "ref_audio" in rest:
        samples, rate = soundfile.read(rest.pop("ref_audio"), dtype="float32")
        waves, _, codes = model.generate_voice_clone(request["text"], ref_audio=(samples, rate), **rest, **layout)
    elif model.config.tts_model_type == "custom_voice":
        waves, _, codes = model.generate_custom_voice(request["text"], **rest, **layout)
    else:
        waves, _, codes = model.generate_voice_design(request["text"], **rest, **layout)
    return codes[0], waves[0]


REQUESTS: list[tuple[str, str, int, dict[str, Any]]] = [
    ("0.6b", "custom_voice", FRAMES, {"speaker": "vivian", "seed": 2**64 - 1, "streaming": True, "chunk": 7}),
    ("0.6b", "custom_voice", FRAMES, {"speaker": "ryan", "language": "english", "seed": 0, "chunk": 2}),
    ("0.6b", "custom_voice", FRAMES // 5, {"speaker": "serena", **GREEDY, "chunk": 1}),
    ("0.6b", "base", FRAMES, {"ref_text": "It is a very good song", "seed": 1, "streaming": True, "chunk": 2}),
    ("0.6b", "base", FRAMES // 5, {"ref_text": "It is a very good song", **GREEDY, "chunk": 7}),
    ("1.7b", "custom_voice", FRAMES // 5, {"speaker": "vivian", "instruct": "Calm.", "seed": 0, "chunk": 4}),
]


@pytest.mark.parametrize(("like", "kind", "frames", "request_"), REQUESTS)
def test_codes_are_equal(
    models: Any, graphs: Any, python: Path, tmp_path: Path, like: str, kind: str, frames: int, request_: dict[str, Any]
) -> None:
    request = {"text": TEXT, "max_new_tokens": frames + 1, **request_}
    if kind == "base":
        clip = tmp_path / "clip.wav"
        t = np.arange(CLIP_SECONDS * 24000) / 24000
        soundfile.write(clip, 0.3 * np.sin(2 * np.pi * 150 * t) * np.sin(2 * np.pi * 2 * t) ** 2, 24000)
        request["ref_audio"] = str(clip)
    codes, samples = run_alone(python, graphs(like, kind), tmp_path / "a.wav", request)
    model = Qwen3TTSModel.from_pretrained(models(like, kind), weights_format="float32")
    expected, wave = speech(model, request)
    assert len(expected) == frames
    np.testing.assert_array_equal(codes, expected)
    # Of more than 300 frames, the clip's included, ``generate_*`` decodes the rest in the official package's chunks.
    alike = 1920 * (300 - (CLIP_FRAMES if "ref_text" in request else 0))
    assert np.abs(samples - np.rint(np.clip(wave, -1, 1) * 32767))[:alike].max() <= 1
