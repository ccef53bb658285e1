"""DNSMOS P.835: the opinion of listeners, predicted without a reference (1 bad to 5 excellent).

Reddy, Gopal and Cutler (2022), "DNSMOS P.835: A Non-Intrusive Perceptual Objective Speech Quality Metric to Evaluate
Noise Suppressors". It was made for calls with noise: it hears noise, distortion and codec artefacts, and less whether
speech sounds natural. The networks are the ONNX files in the wheel of ``speechmos``, run by onnxruntime; its own code,
which would bring librosa and pandas, is not imported. Official: ``speechmos`` 0.0.1.1, ``dnsmos.py``.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ..extras import imported
from ..ops import Array, Wave
from .clip import Clip
from .power_mel import power_mel
from .wheels import INSTALL, file_of_wheel

PURPOSE = "DNSMOS"
RATE = 16000  # Hz
PART = int(9.01 * RATE)  # samples that are judged at a time; shorter clips are repeated
STEP = RATE  # samples from one part to the next
WINDOW, HOP, MELS = 321, 160, 120  # of P.808's spectrogram
# From the network's output to opinions: coefficients of the square, of the value, and a constant.
SCALES = {
    "dnsmos_signal": (-0.08397278, 1.22083953, 0.0052439),
    "dnsmos_background": (-0.13166888, 1.60915514, -0.39604546),
    "dnsmos": (-0.06766283, 1.11546468, 0.04602535),
}


def dnsmos(clip: Clip) -> dict[str, float]:
    """Means over the parts of a clip: of the speech signal, the background and overall (P.835), and of P.808."""
    found = [_judge(part) for part in parts(np.clip(clip.at(RATE), -1, 1))]
    return {name: float(np.mean([one[name] for one in found])) for name in found[0]}


def parts(wave: Wave) -> list[Wave]:
    """What is judged of ``wave`` [samples at 16 kHz]: parts of 9.01 s, a second apart."""
    while len(wave) < PART:
        wave = np.concatenate([wave, wave])
    # Trap: the official number of parts is floor(seconds) - 9.01 + 1, rounded towards 0.
    count = int(len(wave) // RATE - PART / RATE) + 1
    return [wave[n * STEP : n * STEP + PART] for n in range(count) if n * STEP + PART <= len(wave)]


def _judge(part: Wave) -> dict[str, float]:
    signal, p808 = sessions()
    ((raw,),) = (signal.run(None, {"input_1": part[np.newaxis].astype(np.float32)})[0],)
    found = {name: float(np.polyval(SCALES[name], value)) for name, value in zip(SCALES, raw, strict=True)}
    ((opinion,),) = p808.run(None, {"input_1": spectrogram(part[:-HOP])[np.newaxis]})[0]
    return {**found, "dnsmos_p808": float(opinion)}


def spectrogram(part: Wave) -> Array:
    """[T, MELS]: decibels below the loudest value, 80 at most, brought to -1 to 1."""
    decibels = 10 * np.log10(np.maximum(power_mel(part, RATE, WINDOW, HOP, MELS), 1e-10))
    decibels -= decibels.max()
    return ((np.maximum(decibels, -80) + 40) / 40).astype(np.float32)


@cache
def sessions() -> tuple[Any, Any]:
    """The networks of P.835 and of P.808, loaded."""
    runtime = imported("onnxruntime", PURPOSE, INSTALL)
    names = ("sig_bak_ovr.onnx", "model_v8.onnx")
    files = [file_of_wheel("speechmos", ("speechmos", "dnsmos_models", name), PURPOSE, INSTALL) for name in names]
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = 1  # more would wait in a loop for one another, and starve whatever else runs
    signal, p808 = (runtime.InferenceSession(str(file), options, ["CPUExecutionProvider"]) for file in files)
    return signal, p808
