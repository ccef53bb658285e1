"""A request as a file: which call, with which arguments, seed and given codes; and what the model makes of it.

    {"method": "generate_custom_voice",
     "arguments": {"text": "Hello.", "speaker": "vivian", "do_sample": false, "max_new_tokens": 5},
     "seed": 1}

This is the ``call`` of a golden case, and a whole case.json is a request file too. Methods are the calls of
``Qwen3TTSModel``, ``encode`` and ``decode`` of the codec, and ``speaker_embedding``. Among the arguments
``{"audio": "clip.wav"}`` stands for a clip and ``{"codes": "codes.npy"}`` for codes [frames, G], both by a path next to
the request or, as in golden cases, by the name of a tensor of ``inputs.safetensors``.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from ..audio.files import read_audio, resample
from ..checkpoint.json_file import read_json
from ..codec.encoder import NAME as ENCODER
from ..codec.encoder import split_rvq
from ..errors import RequestError
from ..model import Qwen3TTSModel
from ..ops import Ints
from ..speaker.encoder import speaker_embedding
from ..text.templates import instruct_ids, text_ids
from ..trace import trace
from .fixture import Array, Json
from .forced import HEADS, RESIDUALS, check_codes, code_ranks, codebook_ranks, forced

SPEECH = ("generate_custom_voice", "generate_voice_design", "generate_voice_clone")
METHODS = (*SPEECH, "encode", "decode", "speaker_embedding")
_QUANTISER = f"{ENCODER}.quantizer."


@dataclass(frozen=True)
class FixtureRequest:
    """One call. ``inputs`` holds the arrays that stand in ``call["arguments"]`` by name."""

    call: Json  # method, arguments, seed
    inputs: Mapping[str, Array]
    codes: Ints | None = None  # [frames, G] to be forced
    about: str = ""
    checkpoint: Json | None = None  # what a golden case was recorded with
    last: int | None = None  # the token after the forced codes, where it is not the end of speech

    @property
    def method(self) -> str:
        return str(self.call["method"])

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments, with arrays in their places."""
        return {name: self._filled(value) for name, value in self.call["arguments"].items()}

    def _filled(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._filled(v) for v in value]
        if isinstance(value, dict) and "audio" in value:
            samples = self.inputs[value["audio"]]
            wave = samples / np.float32(32768) if samples.dtype == np.int16 else samples
            return wave, value["sample_rate"]
        if isinstance(value, dict) and "codes" in value:
            return self.inputs[value["codes"]].astype(np.int64)
        return value


def read_request(path: Path, codes: Path | None = None) -> FixtureRequest:
    """Read a request file; ``codes`` is a .npy file [frames, G] that the model is made to follow.

    RequestError for a file that is no request; a request of a fixture has one item.
    """
    content = read_json(path)
    call = {"seed": None, **content.get("call", content)}
    if call.get("method") not in METHODS:
        raise RequestError(f"{path}: method {call.get('method')!r} is not one of {', '.join(METHODS)}")
    if not isinstance(call.get("arguments"), dict):
        raise RequestError(f"{path}: 'arguments' must be an object of keyword arguments")
    beside = path.parent / "inputs.safetensors"
    reader = _Inputs(path.parent, load_file(beside) if beside.exists() else {})
    arguments = {name: reader.named(value) for name, value in call["arguments"].items()}
    forced_codes = codes or (path.parent / call["codes"] if "codes" in call else None)
    return FixtureRequest(
        {"method": call["method"], "arguments": arguments, "seed": call["seed"]},
        reader.found,
        None if forced_codes is None else read_codes(forced_codes),
        str(content.get("about", "")),
        content.get("checkpoint"),
    )


def read_codes(path: Path) -> Ints:
    """Codes [frames, G] as ``qwen3tts-np encode`` writes them."""
    try:
        return np.asarray(np.load(path))
    except (OSError, ValueError) as e:
        raise RequestError(f"{path} cannot be read as codes (.npy [frames, codes]): {e}") from None


class _Inputs:
    """Reads what a request refers to and gives every array a name."""

    def __init__(self, folder: Path, stored: Mapping[str, Array]) -> None:
        self._folder, self._stored = folder, stored
        self.found: dict[str, Array] = {}

    def named(self, value: Any) -> Any:
        """``value`` with every path in it replaced by the name of a tensor."""
        if isinstance(value, list) and len(value) > 1:
            raise RequestError(f"a request of a fixture has one item, this one has {len(value)}: send them one by one")
        if isinstance(value, list):
            return [self.named(v) for v in value]
        if not isinstance(value, dict) or not value.keys() & {"audio", "codes"}:
            return value
        kind = "audio" if "audio" in value else "codes"
        wanted = str(value[kind])
        if wanted in self._stored:
            self.found[wanted] = self._stored[wanted]
            return value
        if kind == "codes":
            name = f"given_codes.{len(self.found)}"
            self.found[name] = read_codes(self._folder / wanted)
            return {"codes": name}
        name = f"audio.{len(self.found)}"
        self.found[name], rate = read_audio(str(self._folder / wanted))
        return {"audio": name, "sample_rate": rate}


def perform(model: Qwen3TTSModel, request: FixtureRequest, patterns: tuple[str, ...] = ()) -> dict[str, Array]:
    """Everything the request makes, in the order of execution: ids, activations that fit ``patterns``, results, ranks.

    Without patterns every activation is kept.
    """
    _check_arguments(model, request)
    wanted = (*patterns, *HEADS, *RESIDUALS) if patterns else ()
    with trace(*wanted) as activations:
        before: dict[str, Array] = {}
        if request.method == "encode":
            after = _encode(model, request, activations)
        elif request.method == "decode":
            before, after = _decode(model, request)
        elif request.method == "speaker_embedding":
            after = _embedding(model, request)
        else:
            before, after = _ids(model, request), _speak(model, request, activations)
    kept = {name: value for name, value in activations.items() if _fits(name.rpartition("@")[0], patterns)}
    return {name: _plain(value) for name, value in {**before, **kept, **after}.items()}


def _check_arguments(model: Qwen3TTSModel, request: FixtureRequest) -> None:
    """RequestError for arguments that the call does not take, or lacks."""
    needs = {"decode": "audio_codes", "speaker_embedding": "audio"}.get(request.method)
    given = request.call["arguments"]
    if needs is not None and list(given) != [needs]:
        raise RequestError(f"{request.method} takes the argument {needs!r} alone, not {sorted(given)}")
    if needs is None:
        call = getattr(model.speech_tokenizer if request.method == "encode" else model, request.method)
        try:
            inspect.signature(call).bind(**given)
        except TypeError as e:
            raise RequestError(f"{request.method}: {e}") from None


def _fits(name: str, patterns: tuple[str, ...]) -> bool:
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)


def _plain(value: Array) -> Array:
    """Integers as int32, like everywhere in golden/."""
    return value.astype(np.int32) if value.dtype.kind in "iu" else value


def _speak(model: Qwen3TTSModel, request: FixtureRequest, activations: Mapping[str, Array]) -> dict[str, Array]:
    if request.codes is not None:
        model = forced(model, request.codes, request.last)
    speak = getattr(model, request.method)
    waves, _, codes = speak(**request.arguments(), seed=request.call["seed"], return_codes=True)
    return {"codes.0": codes[0], "wav.0": waves[0], **code_ranks(activations, codes[0])}


def _ids(model: Qwen3TTSModel, request: FixtureRequest) -> dict[str, Array]:
    """The token ids that every activation starts from."""
    arguments = request.arguments()
    texts = text_ids(model.text_tokenizer, _single(arguments.get("text")))
    found = {"input_ids.0": np.array([*texts.role, *texts.text, *texts.tail])}
    instruct = instruct_ids(model.text_tokenizer, _single(arguments.get("instruct")) or "")
    return found | ({"instruct_ids.0": np.array(instruct)} if instruct else {})


def _single(value: Any) -> Any:
    return value[0] if isinstance(value, list) else value


def _encode(model: Qwen3TTSModel, request: FixtureRequest, activations: dict[str, Array]) -> dict[str, Array]:
    codec = model.speech_tokenizer
    codes: Ints
    (codes,) = codec.encode(**request.arguments()).audio_codes
    if request.codes is not None:
        c = codec.config.decoder_config
        check_codes(request.codes, c.num_quantizers, c.codebook_size)
        if len(request.codes) != len(codes):
            raise RequestError(f"the given codes have {len(request.codes)} frames, the clip has {len(codes)}")
        for name in [name for name in activations if name.startswith(_QUANTISER)]:
            del activations[name]
        with trace() as quantiser:
            codes = split_rvq(activations[f"{ENCODER}.downsample@0"], codec.encoder, request.codes)
        activations.update(quantiser)
    return {"codes.0": codes, **codebook_ranks(activations, codes, codec.encoder)}


def _decode(model: Qwen3TTSModel, request: FixtureRequest) -> tuple[dict[str, Array], dict[str, Array]]:
    arguments = request.arguments()
    (wave,), _ = model.speech_tokenizer.decode(arguments)
    return {"codes.0": _single(arguments["audio_codes"])}, {"wav.0": wave}


def _embedding(model: Qwen3TTSModel, request: FixtureRequest) -> dict[str, Array]:
    c = model.config.speaker_encoder_config
    if model.speaker_encoder is None or c is None:
        raise RequestError("speaker_embedding needs a base model: the others have no speaker encoder")
    wave, rate = request.arguments()["audio"]
    return {"speaker_embedding.0": speaker_embedding(resample(wave, rate, c.sample_rate), model.speaker_encoder, c)}
