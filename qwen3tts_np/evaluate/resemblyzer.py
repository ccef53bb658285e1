"""An independent judge of voices: Resemblyzer's encoder, in NumPy, with the weights out of its wheel.

A model that clones with its own speaker encoder would be its own judge. This one is a three-layer LSTM, trained for
speaker verification with the loss of Wan et al. (2018), "Generalized End-to-End Loss for Speaker Verification". Its
embeddings [256] have no negative values and length 1, so similarities are between 0 and 1: two clips of one speaker
have about 0.8 to 0.95, two speakers 0.5 to 0.75.

The wheel is installed without what it asks for (PyTorch) and never imported. Official: ``resemblyzer`` 0.1.4,
``voice_encoder.py`` and ``audio.py``.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoint.torch_file import read_torch
from ..errors import CheckpointError
from ..extras import imported
from ..ops import Array, Wave
from .clip import Clip
from .power_mel import power_mel
from .wheels import INSTALL, INSTALL_ALONE, file_of_wheel

PURPOSE = "the independent speaker similarity"
HOW = f"{INSTALL} && {INSTALL_ALONE.format('resemblyzer')}"

RATE = 16000  # Hz
WINDOW, HOP, MELS = 400, 160, 40  # samples, samples, filters
PART = 160  # frames that are embedded at a time: 1.6 s
PARTS_PER_SECOND = 1.3
COVERED = 0.75  # of the last part must be sound, the rest is silence
LOUDNESS = -30.0  # dB of full scale: what is quieter is raised to it
FULL_SCALE = 2**15 - 1
LAYERS, WIDTH = 3, 256

VOICE_WINDOW = RATE * 30 // 1000  # samples, over which voice is detected
SMOOTHED = 8  # windows: a moving average
LONGEST_SILENCE = 6  # windows that stay
STRICT = 3  # of the detector's modes 0 to 3: least likely to take noise for voice


def embedding(clip: Clip) -> Array:
    """The voice of a clip, [256] of length 1: the mean of its parts, as by ``VoiceEncoder.embed_utterance``."""
    wave = voiced(louder(clip.at(RATE)))
    starts = part_starts(len(wave))
    missing = (starts[-1] + PART) * HOP - len(wave)
    mel = power_mel(np.pad(wave, (0, max(0, missing))), RATE, WINDOW, HOP, MELS)
    parts = embed_parts(np.stack([mel[start : start + PART] for start in starts]))
    mean: Array = parts.mean(axis=0)
    return mean / np.linalg.norm(mean)


def embed_parts(mels: Array) -> Array:
    """mels [parts, T, MELS] -> [parts, 256], each of length 1."""
    weights = load()
    hidden = mels
    for layer in range(LAYERS):
        hidden = lstm(hidden, *(weights[f"lstm.{name}_l{layer}"] for name in LSTM_WEIGHTS))
    found = np.maximum(hidden[:, -1] @ weights["linear.weight"].T + weights["linear.bias"], 0)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


LSTM_WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def lstm(inputs: Array, weight_ih: Array, weight_hh: Array, bias_ih: Array, bias_hh: Array) -> Array:
    """One layer: inputs [N, T, I] -> hidden states [N, T, H]. weight_ih [4H, I], weight_hh [4H, H], biases [4H].

    The rows of the weights are the input gate, the forget gate, the cell and the output gate, as in ``torch.nn.LSTM``.
    """
    items, steps, _ = inputs.shape
    width = weight_hh.shape[1]
    given = inputs @ weight_ih.T + (bias_ih + bias_hh)  # [N, T, 4H]
    hidden: Array = np.zeros((items, width), np.float32)
    cell: Array = np.zeros((items, width), np.float32)
    out = np.empty((items, steps, width), np.float32)
    for t in range(steps):
        gates = (given[:, t] + hidden @ weight_hh.T).reshape(items, 4, width)
        enter, keep, leave = (_sigmoid(gates[:, n]) for n in (0, 1, 3))
        cell = keep * cell + enter * np.tanh(gates[:, 2])
        out[:, t] = hidden = leave * np.tanh(cell)
    return out


def _sigmoid(x: Array) -> Array:
    return 0.5 * np.tanh(0.5 * x) + 0.5  # the same function, without an overflow


def part_starts(samples: int) -> list[int]:
    """First frames of the parts of a clip of so many samples; the last part may reach beyond its end."""
    frames = -(-(samples + 1) // HOP)
    step = round(RATE / PARTS_PER_SECOND / HOP)
    starts = list(range(0, max(1, frames - PART + step + 1), step))
    covered = (samples - starts[-1] * HOP) / (PART * HOP)
    return starts[:-1] if covered < COVERED and len(starts) > 1 else starts


def louder(wave: Wave) -> Wave:
    """``wave`` [samples], raised to ``LOUDNESS`` if it is quieter."""
    power = float(np.mean(wave.astype(np.float64) ** 2))
    change = LOUDNESS - 10 * np.log10(power) if power else 0.0
    return (wave * 10 ** (change / 20)).astype(np.float32) if change > 0 else wave


def voiced(wave: Wave) -> Wave:
    """``wave`` [samples] without its long silences, as ``trim_long_silences``; unchanged where no voice is found."""
    from scipy.ndimage import binary_dilation

    wave = wave[: len(wave) // VOICE_WINDOW * VOICE_WINDOW]
    pcm = np.round(wave * FULL_SCALE).astype("<i2").reshape(-1, VOICE_WINDOW)
    detector = _voice_detector()
    flags = np.array([detector.is_speech(window.tobytes(), RATE) for window in pcm], np.float64)
    padded = np.pad(flags, ((SMOOTHED - 1) // 2, SMOOTHED // 2))
    heard = np.round(np.convolve(padded, np.ones(SMOOTHED) / SMOOTHED, mode="valid")).astype(bool)
    kept = np.repeat(binary_dilation(heard, np.ones(LONGEST_SILENCE + 1)), VOICE_WINDOW)
    return wave[kept] if kept.any() else wave


def _voice_detector() -> Any:
    return imported("webrtcvad", PURPOSE, INSTALL).Vad(STRICT)


@cache
def load() -> dict[str, NDArray[np.float32]]:
    """The weights under their official names. RequestError without the wheel, CheckpointError if it is another."""
    path = file_of_wheel("resemblyzer", ("resemblyzer", "pretrained.pt"), PURPOSE, HOW)
    found = read_torch(path, "voice encoder")
    weights = found.get("model_state", {}) if isinstance(found, dict) else {}
    shapes = {
        **{f"lstm.weight_ih_l{n}": (4 * WIDTH, WIDTH if n else MELS) for n in range(LAYERS)},
        **{f"lstm.weight_hh_l{n}": (4 * WIDTH, WIDTH) for n in range(LAYERS)},
        **{f"lstm.bias_{kind}_l{n}": (4 * WIDTH,) for n in range(LAYERS) for kind in ("ih", "hh")},
        "linear.weight": (WIDTH, WIDTH),
        "linear.bias": (WIDTH,),
    }
    for name, shape in shapes.items():
        tensor = weights.get(name) if isinstance(weights, dict) else None
        if not isinstance(tensor, np.ndarray) or tensor.shape != shape:
            raise CheckpointError(f"{path} is no weights of Resemblyzer 0.1: {name} {list(shape)} is missing")
    return {name: weights[name].astype(np.float32) for name in shapes}


def check() -> None:
    """RequestError if something that it needs is not installed."""
    _voice_detector()
    load()
