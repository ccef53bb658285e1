"""The port in plain JavaScript, ``golden/readers/read.mjs``: it reads fixtures, and its mistakes are named."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from qwen3tts_np import cli

READER = Path(__file__).parents[1] / "golden" / "readers" / "read.mjs"
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="needs node")


def read(fixture: Path, out: Path, settings: dict[str, float] | None = None) -> str:
    """What the port says of a fixture; its tensors are in ``out`` then."""
    words = [str(NODE), str(READER), str(fixture), str(out), json.dumps(settings or {})]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def mel(synthetic: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mel spectrogram of a tone that glides, in silence."""
    folder = tmp_path_factory.mktemp("mel")
    t = np.arange(6000) / 24000
    soundfile.write(folder / "clip.wav", 0.3 * np.sin(1500 * t * (1 + t)), 24000)
    wanted = {"method": "speaker_embedding", "arguments": {"audio": {"audio": "clip.wav"}}}
    (folder / "request.json").write_text(json.dumps(wanted))
    command = ["fixtures", "export", str(synthetic("tiny", "base")), str(folder / "request.json"), str(folder / "mel")]
    assert cli.main([*command, "--tensor-format", "raw", "--tensors", "speaker_encoder.mel"]) == 0
    return folder / "mel"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "1 tensors compared, all within their tolerances"),
        ({"exponent": 1}, "the power of the spectrum"),
        ({"htk": 1}, "the mel scale of HTK"),
        ({"symmetric": 1}, "a symmetric Hann window"),
        ({"area": 0}, "filters of height 1"),
        ({"samples": 32768}, "samples as 16-bit integers"),
        ({"pad": 512}, "frames begin 512 samples before the clip"),
        ({"rounded": 0}, "the window in float64"),
        ({"floor": 1e-10}, "a floor of 1e-10"),
        ({"htk": 1, "symmetric": 1}, "the mel scale of HTK; here Slaney's, linear up to 1000 Hz; and a symmetric"),
        ({"top": 8000}, "the cause is unknown"),
    ],
)
def test_a_mel_is_right_or_its_mistake_is_named(
    mel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], settings: dict[str, float], said: str
) -> None:
    read(mel, tmp_path / "theirs", settings)
    capsys.readouterr()
    assert cli.main(["fixtures", "compare", str(mel), str(tmp_path / "theirs")]) == bool(settings)
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("form", ["raw", "npy"])
@pytest.mark.parametrize("frame", [1, 3])
def test_padded_caches_and_the_seed(
    form: str, frame: int, synthetic: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is written into caches of 48 rows, attention behind the mask, and words for a seed above 2**53."""
    seed = 2**64 - 1
    arguments = {"text": "Hello.", "speaker": "vivian", "max_new_tokens": 5}
    wanted = {"method": "generate_custom_voice", "arguments": arguments, "seed": str(seed)}
    (tmp_path / "request.json").write_text(json.dumps(wanted))
    model = synthetic("tiny", "custom_voice")
    command = ["fixtures", "export", str(model), str(tmp_path / "request.json"), str(tmp_path / "step")]
    step = ["--step", "talker", "--frame", str(frame), "--positions", "48", "--tensor-format", form]
    assert cli.main([*command, *step]) == 0
    words = np.random.RandomState(seed & 0xFFFFFFFF).randint(0, 2**32, 4, dtype=np.uint32)
    assert (
        read(tmp_path / "step", tmp_path / "theirs")
        == f"bfloat16; 9 tensors; first words: {' '.join(map(str, words))}\n"
    )
    capsys.readouterr()
    assert cli.main(["fixtures", "compare", str(tmp_path / "step"), str(tmp_path / "theirs")]) == 0
    assert "9 tensors compared, all within their tolerances" in capsys.readouterr().out
