"""Levels that are learned from speech: a checkpoint whose matrices are rounded for the inputs that they get.

The model speaks some texts to itself and reads its own codes once more; the second moments of what every matrix is
multiplied by decide how its weights are rounded (``qwen3tts_np_kernels/feedback.py``). The file has the same layout and
the same speed as without; benchmarks/int4.md has what it gains. Reading and rounding are float64, so the codes, and
with them the file, do not depend on the CPU but for a weight whose two nearest levels are equal to twelve digits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qwen3tts_np_kernels.feedback import BLOCK, factors, quantise_with_feedback
from qwen3tts_np_kernels.pack import GROUP
from qwen3tts_np_kernels.system import in_threads

from .arguments import require_text
from .checkpoint.quantised import BITS, QuantisedTensor, is_quantised, pack_bits, stored_format
from .checkpoint.safetensors import Checkpoint
from .checkpoint.tensor import StoredTensor
from .compiled.engine import Engine
from .compiled.frame_loop import FrameLoop
from .config import ModelConfig
from .errors import RequestError
from .generate import collect
from .model import Qwen3TTSModel
from .ops import F64, Ints
from .parity.fidelity import any_voice
from .request import CustomVoice, Request, Voice
from .trace import collect_into

CALIBRATED = ("int6", "int5", "int4")  # int8 loses too little for it to matter
MOST_FRAMES = 100  # of a text: 8 s
TOGETHER = 8  # texts that are spoken at once
MATRIX = re.compile(r"(talker\.(?:code_predictor\.)?model\.layers\.\d+)\.(?:self_attn|mlp)\.(\w+)_proj\.weight")
INPUTS = {  # of a matrix, as traces name them
    **dict.fromkeys(("q", "k", "v"), "input_layernorm"),
    "o": "self_attn.context",
    **dict.fromkeys(("gate", "up"), "post_attention_layernorm"),
    "down": "mlp.down_proj.input",
}


def calibrated(source: Path, model_format: str, texts: Sequence[str]) -> Callable[[Checkpoint], Checkpoint]:
    """What ``layout.convert.convert`` writes in place of the checkpoint ``source``, learned from ``texts``.

    RequestError for a format or texts from which nothing can be learned, and for a checkpoint that is quantised.
    """
    if model_format not in CALIBRATED:
        raise RequestError(f"{model_format} is not calibrated; {', '.join(CALIBRATED)} are")
    if is_quantised(Checkpoint.open(source)):
        raise RequestError(f"{source} is quantised already: calibrate the original")
    moments = moments_of(source, texts)
    return lambda checkpoint: Calibrated(checkpoint, model_format, moments)


class Calibrated(Checkpoint):
    """A checkpoint whose matrices have the levels that suit their inputs."""

    def __init__(self, source: Checkpoint, model_format: str, moments: Moments) -> None:
        super().__init__(source.path, dict(source), source.metadata)
        self._format = model_format
        found = in_threads(lambda blocks: list(map(factors, blocks)), moments.sums.values())
        self._factors = dict(zip(moments.sums, found, strict=True))

    def __getitem__(self, name: str) -> StoredTensor:
        tensor, found = super().__getitem__(name), MATRIX.fullmatch(name)
        if found is None or stored_format(name, self._format) is None or tensor.shape[1] % GROUP:
            return tensor
        bits, of_inputs = BITS[self._format], self._factors[f"{found[1]}.{INPUTS[found[2]]}"]
        levels, scales = quantise_with_feedback(tensor.widen(np.dtype(np.float32)), of_inputs, bits)
        return QuantisedTensor(name, self._format.upper(), pack_bits(levels, bits), scales)


class Moments:
    """A collector of the second moments of all inputs: name -> blocks [b, b] along the diagonal of x xᵀ, summed."""

    def __init__(self) -> None:
        self.sums: dict[str, list[F64]] = {}

    def add(self, name: str, array: NDArray[Any]) -> None:
        """Of an activation [..., width] of the trace; those that are no input of a matrix are passed over."""
        if not name.endswith(tuple(INPUTS.values())):
            return
        x = array.reshape(-1, array.shape[-1])
        parts = [x[:, first : first + BLOCK] for first in range(0, x.shape[1], BLOCK)]
        sums = self.sums.setdefault(name, [np.zeros((part.shape[1],) * 2) for part in parts])
        for total, part in zip(sums, parts, strict=True):
            total += part.T @ part


def moments_of(source: Path, texts: Sequence[str]) -> Moments:
    """Those of a checkpoint that speaks ``texts``. RequestError where it says nothing."""
    moments, spoken = Moments(), list(_spoken(source, texts))
    if not any(len(codes) for _, _, codes in spoken):
        raise RequestError("there is nothing to learn from: give texts, one in a line")
    config = spoken[0][0]
    teacher = FrameLoop(Engine.choose("reference", np.dtype(np.float64)), config, Checkpoint.open(source)).teacher()
    with collect_into(moments):
        for _, request, codes in spoken:
            states, _ = teacher.read(request, codes)
            teacher.complete(states[:-1], codes)
    return moments


def _spoken(source: Path, texts: Sequence[str]) -> Iterator[tuple[ModelConfig, Request, Ints]]:
    """The requests for ``texts`` and the codes [frames, G] that the model writes for them."""
    model = Qwen3TTSModel.from_pretrained(source)
    voices: list[Voice] = [CustomVoice(name) for name in model.get_supported_speakers()] or [any_voice(model)]
    requests = []
    for number, text in enumerate(texts):
        require_text(text, "a text")
        voice = voices[number % len(voices)]
        requests.append(model.prepare(text, voice, seed=number, max_new_tokens=MOST_FRAMES + 1))
    for first in range(0, len(requests), TOGETHER):
        part = requests[first : first + TOGETHER]
        codes = collect(model.frames(part), len(part), model.config.talker_config.num_code_groups)
        yield from ((model.config, request, rows) for request, rows in zip(part, codes, strict=True))
