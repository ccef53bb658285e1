"""The official package: loading it, running it in real float64, and observing its calls."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")
warnings.filterwarnings("ignore")

import torch  # noqa: E402

with contextlib.redirect_stdout(None):  # it advertises flash-attn
    from qwen_tts import Qwen3TTSModel
    from qwen_tts.core.models import modeling_qwen3_tts as talker_code
    from qwen_tts.core.tokenizer_12hz import modeling_qwen3_tts_tokenizer_v2 as codec_code
    from transformers.models.mimi import modeling_mimi as mimi_code

__all__ = ["Call", "Choices", "codec_code", "float64", "load", "mimi_code", "talker_code", "versions", "watched"]

torch.set_num_threads(1)  # the order of every summation, hence the bytes, depends on it


def versions() -> dict[str, str]:
    found = {name: version(name) for name in ("qwen-tts", "transformers", "torch", "numpy", "librosa", "soxr")}
    return found | {"cpu": torch.backends.cpu.get_cpu_capability()}


def load(directory: Path, dtype: torch.dtype | None = None) -> Any:
    """The model in float32 or, inside :func:`float64`, in float64; outside also in another ``dtype``."""
    model = Qwen3TTSModel.from_pretrained(str(directory), device_map="cpu", dtype=dtype or torch.get_default_dtype())
    if torch.get_default_dtype() == torch.float64:
        _recompute_rotary_frequencies(model)
    return model


def _recompute_rotary_frequencies(model: Any) -> None:
    """They are float32 buffers whatever the dtype of the model."""
    codec = model.model.speech_tokenizer.model
    for module in (*model.model.modules(), *codec.modules()):
        if hasattr(module, "rope_init_fn"):
            module.inv_freq, _ = module.rope_init_fn(module.config, None)


@contextlib.contextmanager
def float64() -> Iterator[None]:
    """A context in which everything is float64: the package's casts to float32 (RMSNorm, RoPE, the distances to the
    codebooks, logits, the mel spectrogram, the finished waveform) are disabled.
    """
    to, mel = torch.Tensor.to, talker_code.mel_spectrogram

    def stay_wide(x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        wide = {torch.float32: torch.float64}
        args = tuple(wide.get(a, a) if isinstance(a, torch.dtype) else a for a in args)
        return to(x, *args, **{k: wide.get(v, v) if k == "dtype" else v for k, v in kwargs.items()})

    with (
        mock.patch.object(torch.Tensor, "to", stay_wide),
        mock.patch.object(torch.Tensor, "float", torch.Tensor.double),
        mock.patch.object(talker_code, "mel_spectrogram", lambda y, **sizes: mel(y.double(), **sizes)),
    ):
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(torch.float32)


@dataclass(frozen=True)
class Call:
    arguments: dict[str, Any]
    result: Any


@contextlib.contextmanager
def watched(owner: Any, name: str) -> Iterator[list[Call]]:
    """The arguments (by keyword) and results of all calls of ``owner.name``."""
    calls: list[Call] = []
    original = getattr(owner, name)

    def watch(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        calls.append(Call(kwargs, result))
        return result

    with mock.patch.object(owner, name, watch):
        yield calls


class Choices:
    """The margin by which a run chose its codes.

    ``closest`` is the least lead of a chosen code over the next one, in logits; of a drawn one the race is between
    p / q, q the exponential numbers drawn (see TRAPS: multinomial). ``logits`` keeps the logits behind the choices.
    """

    def __init__(self, model: Any) -> None:
        self.closest = float("inf")
        self.logits: list[torch.Tensor] = []
        talker = model.model.talker
        self._heads = (talker.codec_head, *talker.code_predictor.lm_head)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        hooks = [head.register_forward_hook(self._keep) for head in self._heads]
        argmax, multinomial = torch.argmax, torch.multinomial
        with (
            mock.patch.object(torch, "argmax", self._wrap(argmax, self._lead)),
            mock.patch.object(torch, "multinomial", self._wrap(multinomial, self._race)),
        ):
            yield
        for hook in hooks:
            hook.remove()

    def _keep(self, _module: Any, _inputs: Any, logits: torch.Tensor) -> None:
        self.logits.append(logits[:, -1].double())

    def _wrap(self, original: Callable[..., Any], margin: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., Any]:
        def choose(scores: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            if scores.is_floating_point():
                best = margin(scores).topk(2).values  # [B, 2]
                self.closest = min(self.closest, float((best[:, 0] - best[:, 1]).min()))
            return original(scores, *args, **kwargs)

        return choose

    @staticmethod
    def _lead(scores: torch.Tensor) -> torch.Tensor:
        return scores

    @staticmethod
    def _race(p: torch.Tensor) -> torch.Tensor:
        state = torch.get_rng_state()
        race = p / torch.empty_like(p).exponential_()
        torch.set_rng_state(state)
        return race.log()
