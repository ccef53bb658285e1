"""Request files: which call, with which arguments, seed and given codes. One reader for all commands.

    {"method": "generate_custom_voice",
     "arguments": {"text": "Hello.", "speaker": "vivian", "do_sample": false, "max_new_tokens": 5},
     "seed": 1}

This is the written form: the ``call`` of a golden case, and a complete case.json, or its folder, is a request too.
Methods are the ``generate_*`` calls of ``Qwen3TTSModel``, ``encode`` and ``decode`` of the codec, and
``speaker_embedding``; without one it is the ``generate_*`` of the model's type. A short form is accepted as well: the
arguments at the top level, with "mode" custom_voice, voice_design or voice_clone in place of the method.

    {"mode": "custom_voice", "text": "Hello.", "speaker": "vivian", "language": "english", "seed": 1}

Among the arguments ``{"audio": "clip.wav"}`` is a clip and ``{"codes": "codes.npy"}`` are codes [frames, G], both by a
path relative to the request or, as in golden cases, by the name of a tensor of ``inputs.safetensors``; "codes" beside
the arguments names codes that the model is forced to follow. ``voice_clone_prompt`` is the file of a saved voice.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..audio.files import read_audio
from ..checkpoint.json_file import read_json
from ..errors import QwenTTSError, RequestError
from ..files.arrays import read_codes
from ..files.fields import NUMBER, SAMPLING_RULES, SEED, SWITCH, TEXT, WHOLE, Rule, are_codes
from .request import METHODS, SPEECH, WrittenRequest, is_reference, only
from .stored_tensors import TENSOR_FORMATS, is_stored, read_tensors

NOT_IN_A_FILE = ("self", "seed", "return_codes", "progress")  # arguments of a call that a request does not have
SHOWN = 60  # characters of a wrong value

CLIP: Rule = (
    lambda value: isinstance(value, str) or is_reference(value, "audio"),
    'text, or {"audio": FILE} with the sample_rate of a stored one',
)
CODES: Rule = (lambda value: is_reference(value, "codes"), '{"codes": FILE.npy}')
VOICE: Rule = (lambda value: isinstance(value, str | dict), "the file of a saved voice, or an object of lists")
SPEECH_RULES: dict[str, Rule] = {
    **dict.fromkeys(("text", "speaker", "language", "instruct", "ref_text"), TEXT),
    **SAMPLING_RULES,
    "x_vector_only_mode": SWITCH,
    "ref_audio": CLIP,
    "voice_clone_prompt": VOICE,
}
CODEC_RULES: dict[str, dict[str, Rule]] = {
    "encode": {"audios": CLIP, "sr": WHOLE},
    "decode": {"audio_codes": CODES},
    "speaker_embedding": {"audio": CLIP},
}


def read_request(path: Path, codes: Path | None = None) -> WrittenRequest:
    """Read a request file, or the case.json of a golden case by its folder; ``codes`` is a file of codes to follow.

    Raises RequestError, naming the file, the field, its value and the rule, if it is not a valid request.
    """
    file = path / "case.json" if os.path.isdir(path) else path
    content = read_json(file, "request")
    call = content.get("call", content)
    if not isinstance(call, dict):
        raise RequestError(f"{file}: 'call' is {shown(call)}, expected an object")
    if not call.keys() & {"method", "arguments"}:
        call = _written_form(file, call)
    method, arguments = call.get("method"), call.get("arguments")
    if method is not None and method not in METHODS:
        raise RequestError(f"{file}: method {shown(method)} is not one of {', '.join(METHODS)}")
    if not isinstance(arguments, dict):
        raise RequestError(f"{file}: 'arguments' must be an object of keyword arguments, not {shown(arguments)}")
    _check(file, method, arguments)
    seed = _number(call.get("seed"))
    _expect(file, "seed", seed, SEED)
    _expect(file, "codes", call.get("codes"), TEXT)
    inputs = _Inputs(file, content)
    follow = codes or (file.parent / call["codes"] if call.get("codes") else None)
    recorded = content.get("checkpoint")
    return WrittenRequest(
        {name: inputs.named(name, value) for name, value in arguments.items()},
        method,
        seed,
        inputs.found,
        None if follow is None else read_codes(follow),
        str(content.get("about", "")),
        recorded if isinstance(recorded, dict) else None,
    )


def _number(seed: Any) -> Any:
    """A seed written as text, which cases have because JavaScript reads a JSON number above 2**53 as another one."""
    return int(seed) if isinstance(seed, str) and re.fullmatch(r"-?[0-9]{1,20}", seed, re.ASCII) else seed


def shown(value: Any) -> str:
    """A wrong value for an error message, truncated if it is long."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _written_form(file: Path, short: dict[str, Any]) -> dict[str, Any]:
    """The written form of the short one."""
    arguments = dict(short)
    if arguments and not arguments.keys() & {*SPEECH_RULES, *NOT_IN_A_FILE, "mode", "codes"}:
        raise RequestError(f"{file} is no request: it has {shown(next(iter(arguments)))}, and no 'method' or 'text'")
    mode, seed, codes = (arguments.pop(name, None) for name in ("mode", "seed", "codes"))
    calls = {"voice_clone" if kind == "base" else kind: method for kind, method in SPEECH.items()}
    if mode is not None and mode not in tuple(calls):
        raise RequestError(f"{file}: mode {shown(mode)} is not one of {', '.join(calls)}")
    return {"method": None if mode is None else calls[mode], "arguments": arguments, "seed": seed, "codes": codes}


def _check(file: Path, method: str | None, arguments: dict[str, Any]) -> None:
    """Raises RequestError unless the method takes arguments of these names and types."""
    rules = CODEC_RULES.get(method or "", SPEECH_RULES)
    if reserved := [name for name in arguments if name in NOT_IN_A_FILE]:
        raise RequestError(f"{file}: {', '.join(reserved)} has no place among the arguments of a request")
    if method in ("decode", "speaker_embedding") and list(arguments) != list(rules):
        (wanted,) = rules
        raise RequestError(f"{file}: {method} takes the argument {wanted!r} alone, not {shown(sorted(arguments))}")
    for name, value in arguments.items():
        if name not in rules:
            where = f"{file}: {method}" if method else str(file)
            raise RequestError(f"{where}: there is no argument {shown(name)}; there are {', '.join(rules)}")
        if isinstance(value, list) and len(value) != 1:
            count = f"a request has one item, this one has {len(value)} in {name}"
            raise RequestError(f"{file}: {count}: send them one by one")
        _expect(file, name, only(value), rules[name])
    if method == "encode" and "audios" not in arguments:
        raise RequestError(f"{file}: encode: missing a required argument: 'audios'")


def _expect(file: Path, name: str, value: Any, rule: Rule) -> None:
    holds, words = rule
    if value is not None and not holds(value):
        raise RequestError(f"{file}: {name} is {shown(value)}, expected {words}")


class _Inputs:
    """Reads what a request refers to and gives every array a name."""

    def __init__(self, file: Path, content: dict[str, Any]) -> None:
        self._file, self._folder = file, file.parent
        self._stored = _stored_arrays(self._folder, content)
        self.found: dict[str, NDArray[Any]] = {}

    def named(self, argument: str, value: Any) -> Any:
        """``value`` with every file in it replaced by the name of a tensor."""
        if isinstance(value, list):
            return [self.named(argument, v) for v in value]
        if argument == "voice_clone_prompt":
            return self._voice(value)
        if argument == "ref_audio" and isinstance(value, str) and os.path.exists(self._folder / value):
            value = {"audio": value}
        if is_reference(value, "codes"):
            return self._codes(value)
        return self._clip(argument, value) if is_reference(value, "audio") else value

    def _clip(self, argument: str, value: dict[str, Any]) -> dict[str, Any]:
        wanted = value["audio"]
        if wanted in self._stored:
            rate = value.get("sample_rate")
            if not WHOLE[0](rate):
                raise RequestError(f"{self._file}: sample_rate of {argument} is {shown(rate)}, expected a whole number")
            self.found[wanted] = self._stored[wanted]
            return value
        name = f"audio.{len(self.found)}"
        samples, rate = read_audio(str(self._folder / wanted))
        self.found[name] = samples
        return {"audio": name, "sample_rate": rate}

    def _codes(self, value: dict[str, Any]) -> dict[str, Any]:
        wanted = value["codes"]
        name = wanted if wanted in self._stored else f"given_codes.{len(self.found)}"
        self.found[name] = self._stored[wanted] if wanted in self._stored else read_codes(self._folder / wanted)
        return {"codes": name}

    def _voice(self, value: Any) -> Any:
        """A saved voice by its path; the official object of lists unchanged."""
        if isinstance(value, str):
            return str(self._folder / value) if os.path.exists(self._folder / value) else value
        if isinstance(value, dict):
            for name, holds, rule in LISTS:
                column = value.get(name)
                if column is not None and not (isinstance(column, list) and all(map(holds, column))):
                    what = f"{name} of voice_clone_prompt is {shown(column)}"
                    raise RequestError(f"{self._file}: {what}, expected a list of {rule}")
        return value


def _stored_arrays(folder: Path, content: dict[str, Any]) -> Mapping[str, NDArray[Any]]:
    """The tensors beside a case; empty if there are none."""
    storage, table = content.get("storage", "safetensors"), content.get("inputs", {})
    if storage not in TENSOR_FORMATS or not is_stored(folder, "inputs"):
        return {}
    try:
        return read_tensors(folder, "inputs", storage, table)
    except QwenTTSError:
        raise
    except (OSError, ValueError, OverflowError, KeyError, TypeError, AttributeError) as e:  # a damaged table
        raise RequestError(f"the inputs beside {folder / 'case.json'} cannot be read: {e}") from None


def _embedding(value: Any) -> bool:
    return isinstance(value, list) and all(map(NUMBER[0], value))


LISTS: tuple[tuple[str, Callable[[Any], bool], str], ...] = (  # of an official voice_clone_prompt: what each entry is
    ("ref_spk_embedding", _embedding, "lists of finite numbers"),
    ("ref_code", lambda value: value is None or are_codes(value), "codes [frames][groups], or null"),
    ("x_vector_only_mode", SWITCH[0], "true or false"),
    ("icl_mode", SWITCH[0], "true or false"),
    ("ref_text", lambda value: value is None or isinstance(value, str), "texts, or null"),
)
