"""The same request has the same samples, and the same weights are packed into the same bytes, whatever the CPU.

So what one machine has spoken, another does not speak again: the hash of the model is the same, too.

NumPy and OpenBLAS choose their code by the CPU. Here a process of its own does the work again with NumPy's special
instructions switched off, and another with the OpenBLAS of an old CPU; hashes must agree.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qwen3tts_np_kernels.activation_jit import snake_beta
from qwen3tts_np_kernels.conv_jit import pack_conv
from qwen3tts_np_kernels.cpu import compiled
from qwen3tts_np_kernels.pack import FORMATS, pack
from qwen3tts_np_kernels.rope import rope_angles_ref
from qwen3tts_np_kernels.toom_cook_jit import pack_minimal

from qwen3tts_np import Qwen3TTSModel
from qwen3tts_np.calibration import calibrated
from qwen3tts_np.layout.convert import STORED_FORMATS, convert
from qwen3tts_np.speech.store import fingerprint

needs_compiler = pytest.mark.skipif(not compiled(), reason="the NumPy path depends on the CPU")


def numpy_features() -> str:
    """What NumPy may choose on this CPU, beyond what it was built for."""
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

    return " ".join(name for name in __cpu_dispatch__ if __cpu_features__.get(name))


OTHERS = {
    "NumPy without its special instructions": {"NPY_DISABLE_CPU_FEATURES": numpy_features()},
    "the OpenBLAS of an old CPU": {"OPENBLAS_CORETYPE": "Prescott"},
}


def hashes(tiny: Path) -> dict[str, str]:
    """Of all that is made when a model is loaded, and of samples."""
    random = np.random.default_rng(0)  # 64 rows: kernels of some CPUs pad filters to 32 in memory, of others to 16
    weights, logarithms = (random.standard_normal(shape).astype(np.float32) for shape in ((64, 250, 7), (2, 4096)))
    found = {f"weights in {name}": _hash(*pack(weights[:, :, 0], name)[1:]) for name in FORMATS}
    found["int16 of a convolution"] = _hash(*pack_conv(weights, weights[:, 0, 0], "int16")[:2])
    found["minimal filter"] = _hash(pack_minimal(weights, weights[:, 0, 0]).weight)
    found["SnakeBeta"] = _hash(*snake_beta(*logarithms, 4096)[1:])
    found["rotary angles"] = _hash(*rope_angles_ref(np.arange(4000), 128, 1e6))
    with tempfile.TemporaryDirectory() as folder:
        for name in STORED_FORMATS:
            convert(tiny, Path(folder, name), name)
            found[f"converted to {name}"] = _hash(np.fromfile(Path(folder, name, "model.safetensors"), np.uint8))
        convert(tiny, Path(folder, "learned"), "int4", rounded=calibrated(tiny, "int4", ["Good morning."]))
        found["calibrated"] = _hash(np.fromfile(Path(folder, "learned", "model.safetensors"), np.uint8))
    for name, model in (("tiny", Qwen3TTSModel.from_pretrained(tiny)), ("demo", Qwen3TTSModel.from_pretrained(DEMO))):
        speaker = model.get_supported_speakers()[0]
        waves, _ = model.generate_custom_voice("Good morning, everyone.", speaker, seed=1, max_new_tokens=12)
        found[f"samples of {name}"] = _hash(waves[0])
        found[f"by which finished speech of {name} is found again"] = fingerprint(model)
    return found


DEMO = Path(__file__).parents[1] / "qwen3tts_np" / "demo_voice"


def _hash(*arrays: Any) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()


@pytest.fixture(scope="module")
def elsewhere(synthetic):
    """The hashes of each of the other processes, which run side by side."""
    tiny = synthetic("tiny", "custom_voice")
    here = hashes(tiny)  # first, so that the others find compiled kernels
    processes = {
        name: subprocess.Popen(
            [sys.executable, __file__, str(tiny)],
            env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for name, environment in OTHERS.items()
    }
    outputs = {name: process.communicate()[0] for name, process in processes.items()}
    assert all(process.returncode == 0 for process in processes.values())
    return here, {name: dict(line.split(": ") for line in output.splitlines()) for name, output in outputs.items()}


@needs_compiler
@pytest.mark.parametrize("name", OTHERS)
def test_the_same_bits_elsewhere(name, elsewhere):
    here, there = elsewhere
    assert there[name] == here


@needs_compiler
def test_these_processes_do_compute_differently():
    """Or the test above would test nothing: float32 functions of NumPy do depend on what is switched off."""
    features = OTHERS["NumPy without its special instructions"]
    if not features["NPY_DISABLE_CPU_FEATURES"]:
        pytest.skip("NumPy has nothing to choose on this CPU")
    code = "import numpy as np; print(np.exp(np.linspace(-3, 3, 4001, dtype=np.float32)).tobytes().hex())"
    outputs = {
        subprocess.run([sys.executable, "-c", code], env={**os.environ, **e}, capture_output=True, check=True).stdout
        for e in ({}, features)
    }
    assert len(outputs) == 2


if __name__ == "__main__":
    for what, value in hashes(Path(sys.argv[1])).items():
        print(f"{what}: {value}")
