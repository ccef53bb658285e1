"""Every activation of the official model during one request, named and in the order of execution.

A module's output is named by the module's path. An input of a module that is not the output of another one (a sum, a
product) is ``MODULE.input``. README.md lists the other names defined here.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from official import codec_code, mimi_code, talker_code
from store import Json, Tensors
from torch import nn

# Arguments that control the computation rather than being its input.
SETTINGS = {"attention_mask", "position_ids", "cache_position", "past_key_values", "position_embeddings"}
# One round of a generation loop: given its whole state, gives logits. The modules inside say it all.
LOOPS = ("talker", "talker.code_predictor")
HEADS = ("talker.codec_head", "talker.code_predictor.lm_head")  # only their last position is read
LOOKED_UP = (
    "talker.model.text_embedding",
    "talker.text_projection",
    "talker.model.codec_embedding",
    "talker.code_predictor.model.codec_embedding",
)
REPEATED = "(repeated)"
PADDING = (codec_code.Qwen3TTSTokenizerV2CausalConvNet, mimi_code.MimiConv1d)
DECODERS = (
    codec_code.SplitResidualVectorQuantizer,
    codec_code.ResidualVectorQuantizer,
    codec_code.ResidualVectorQuantization,
)


class Activations:
    """A log of (name, array), and for every call the names of its inputs."""

    def __init__(self, model: Any, parts: tuple[str, ...]) -> None:
        """``parts``: prefixes of the names to keep."""
        self.log: list[tuple[str, NDArray[Any], bool]] = []  # name, value, whether to list it even if known
        self.calls: dict[str, list[int]] = {}  # module@n -> which entries of the log went in
        self._parts = parts
        self._count: Counter[str] = Counter()
        self._stack: list[tuple[str, int]] = []
        self._embedded: set[str] = set()  # code predictor groups that this frame has looked up
        codec = model.model.speech_tokenizer.model
        self._codec = codec
        self._modules = {
            **dict(model.model.named_modules()),
            **{f"speech_tokenizer.{path}": module for path, module in codec.named_modules() if path},
        }

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Record a request; if anything is kept, only a single item: the batch axis is dropped."""
        if not self._parts:
            yield
            return
        with contextlib.ExitStack() as stack:
            for path, module in self._modules.items():
                if self._computes(path, module):
                    for handle in self._hook(path, module):
                        stack.callback(handle.remove)
                for name, replacement in self._methods(path, module):
                    stack.enter_context(mock.patch.object(module, name, replacement))
            for code, name in (
                (talker_code, "apply_multimodal_rotary_pos_emb"),
                (talker_code, "apply_rotary_pos_emb"),
                (codec_code, "apply_rotary_pos_emb"),
                (mimi_code, "apply_rotary_pos_emb"),
            ):
                stack.enter_context(mock.patch.object(code, name, self._rotary(getattr(code, name))))
            mel = self._mel(talker_code.mel_spectrogram)
            stack.enter_context(mock.patch.object(talker_code, "mel_spectrogram", mel))
            yield

    # --- hooks ---

    def _computes(self, path: str, module: nn.Module) -> bool:
        """Not containers, not ``Identity``, and not the convolution inside a padding one, which has the same output."""
        inner = isinstance(self._modules.get(path.rpartition(".")[0]), PADDING)
        return bool(path) and not inner and not isinstance(module, nn.ModuleList | nn.Identity)

    def _hook(self, path: str, module: nn.Module) -> Iterator[Any]:
        parameters = list(inspect.signature(module.forward).parameters)

        def enter(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            name = self._name_of(path)
            call = self._call(name)
            self._stack.append((name, call))
            if not self._kept(name) or path in LOOPS or path.endswith("rotary_emb"):
                return
            given = dict(zip(parameters, args, strict=False)) | kwargs
            tensors = {k: v for k, v in given.items() if k not in SETTINGS and isinstance(v, torch.Tensor)}
            for parameter, tensor in tensors.items():
                # Where layers start, the input has a name even if it is equal to another tensor.
                entry = self._add(f"{input_name(name, parameter)}@{call}", plain(tensor), parameter == "inputs_embeds")
                self.calls.setdefault(f"{name}@{call}", []).append(entry)

        def leave(_module: Any, _args: Any, _kwargs: Any, output: Any) -> None:
            name, call = self._stack.pop()
            if path.endswith("rotary_emb"):
                for part, tensor in zip(("cos", "sin"), output, strict=True):
                    self._add(f"{name}.{part}@{call}", plain(tensor[0] if tensor.ndim == 4 else tensor))
            elif path not in LOOPS:
                value = plain(main_tensor(output))
                self._add(f"{name}@{call}", value[-1:] if path.startswith(HEADS) else value)

        yield module.register_forward_pre_hook(enter, with_kwargs=True)
        yield module.register_forward_hook(leave, with_kwargs=True)

    def _name_of(self, path: str) -> str:
        """The path, but for what is looked up: the prompt is put together piece by piece, and the pieces are counted
        by themselves, so that elsewhere ``@n`` is the frame. Of the codes of a frame only the first look-up is kept:
        the package repeats 14 of 15 for the sum.
        """
        if path == "talker":
            self._embedded.clear()
        if not path.startswith(LOOKED_UP):
            return path
        if all(name != "talker" for name, _ in self._stack):
            return f"{path}.prompt"
        if path in self._embedded:
            return REPEATED
        self._embedded.add(path)
        return path

    def _methods(self, path: str, module: nn.Module) -> Iterator[tuple[str, Callable[..., Any]]]:
        """The quantisers have no ``forward``."""
        if isinstance(module, DECODERS):
            yield "decode", self._method(path, "", module.decode)
        elif isinstance(module, codec_code.VectorQuantization):
            yield "decode", self._method(path, ".quantized", module.decode)
        elif isinstance(module, mimi_code.MimiVectorQuantization) and self._valid(path):
            yield "encode", self._method(path, ".codes", module.encode, ".residual")
            yield "decode", self._method(path, ".quantized", module.decode)

    def _valid(self, path: str) -> bool:
        """Of the codebooks of the encoder only the first ones count."""
        acoustic = self._codec.encoder_valid_num_quantizers - 1
        return "semantic" in path or int(path.rpartition(".")[2]) < acoustic

    def _method(self, path: str, suffix: str, original: Callable[..., Any], given: str = "") -> Callable[..., Any]:
        def method(x: torch.Tensor) -> Any:
            call = self._call(path + suffix)
            if given:
                self.calls[f"{path}{suffix}@{call}"] = [self._add(f"{path}{given}@{call}", plain(x), listed=False)]
            output = original(x)
            self._add(f"{path}{suffix}@{call}", plain(output))
            return output

        return method

    def _rotary(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def rotary(q: torch.Tensor, k: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            rotated = original(q, k, *args, **kwargs)
            name, call = self._stack[-1]
            for part, tensor in zip("qk", rotated, strict=True):
                self._add(f"{name}.{part}_rot@{call}", plain(tensor.transpose(1, 2)))  # [T, heads, D]
            return rotated

        return rotary

    def _mel(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def mel(*args: Any, **kwargs: Any) -> Any:
            spectrogram = original(*args, **kwargs)  # [1, mels, T]
            name = "speaker_encoder.mel"
            self._add(f"{name}@{self._call(name)}", plain(spectrogram.transpose(1, 2)))  # [T, mels]
            return spectrogram

        return mel

    # --- storage ---

    def _call(self, name: str) -> int:
        self._count[name] += 1
        return self._count[name] - 1

    def _kept(self, name: str) -> bool:
        return name.startswith(self._parts)

    def _add(self, name: str, value: NDArray[Any], listed: bool = True) -> int:
        if self._kept(name):
            self.log.append((name, value, listed))
        return len(self.log) - 1

    def values(self) -> Tensors:
        return {name: value for name, value, _ in self.log}

    def condensed(self) -> tuple[Tensors, dict[str, Json], dict[str, list[str]]]:
        """Each content once -> tensors, names of equal ones, and the inputs of each call.

        Equal means the same bytes, possibly in another shape; ``name.T`` is the transpose of ``name``.
        """
        tensors: Tensors = {}
        aliases: dict[str, Json] = {}
        first: dict[bytes, tuple[str, bool]] = {}
        origin: list[str] = []
        for name, value, listed in self.log:
            known = first.get(_content(value))
            if known is None:
                tensors[name] = value
                first[_content(value)] = (name, False)
                if value.ndim == 2:
                    first.setdefault(_content(value.T), (name, True))
                origin.append(name)
                continue
            other, transposed = known
            origin.append(f"{other}.T" if transposed else other)
            if listed:
                aliases[name] = {"same_as": origin[-1], "shape": list(value.shape)}
        flow = {call: [origin[entry] for entry in entries] for call, entries in self.calls.items()}
        return tensors, aliases, flow


def _content(value: NDArray[Any]) -> bytes:
    return hashlib.sha256(value.dtype.str.encode() + np.ascontiguousarray(value).tobytes()).digest()


def input_name(path: str, parameter: str) -> str:
    """``MODULE.input``, whatever the parameter is called. The result of attention is what goes into ``o_proj``."""
    owner, _, last = path.rpartition(".")
    if last == "o_proj":
        return f"{owner}.context"
    return f"{path}.{parameter if parameter == 'inputs_embeds' else 'input'}"


def main_tensor(output: Any) -> torch.Tensor:
    """The main tensor of a module's output, whatever its container."""
    for field in ("logits", "last_hidden_state"):
        if getattr(output, field, None) is not None:
            return main_tensor(getattr(output, field))
    while isinstance(output, tuple):
        output = output[0]
    return output


def plain(tensor: torch.Tensor) -> NDArray[Any]:
    """A copy without the batch axis (which comes second where the frames of a reference are looked up); int32 ids."""
    if tensor.dtype == torch.bfloat16:  # NumPy has none
        tensor = tensor.to(torch.float32)
    array = tensor.detach().numpy()
    if array.ndim > 1:
        array = array[:, 0] if array.shape[0] > 1 and array.shape[1] == 1 else array.squeeze(0)
    return np.array(array, dtype=None if array.dtype.kind == "f" else np.int32, order="C")
