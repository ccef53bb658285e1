"""The three configuration files of a checkpoint, read into the dataclasses of ``config.py``.

Keys that no dataclass declares are ignored; a missing or ill-typed one is named; a value that selects an architecture
that is not implemented here (an attention bias, say) is refused rather than ignored.
"""

from __future__ import annotations

import os
import reprlib
import sys
import types
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from ..config import CodecConfig, GenerationConfig, ModelConfig
from ..errors import CheckpointError, ConfigError, MissingFileError
from ..shown import shortened
from .foreign import files_of, layout_of, quantised_by
from .json_file import read_json
from .safetensors import Checkpoint

CODEC_DIR = "speech_tokenizer"  # in the folder of a model
_T = TypeVar("_T")
_QUANTISATION = ("quantization_config", "compression_config", "quantization")  # keys of transformers, and of MLX
_MAX_INT = 2**31 - 1

# The official class fills these in, and no released config.json states them.
SPEAKER_ENCODER_DEFAULTS: dict[str, Any] = {
    "mel_dim": 128,
    "enc_channels": [512, 512, 512, 512, 1536],
    "enc_kernel_sizes": [5, 3, 3, 3, 1],
    "enc_dilations": [1, 2, 3, 4, 1],
    "enc_attention_channels": 128,
    "enc_res2net_scale": 8,
    "enc_se_channels": 128,
}

# What the official wrapper falls back on, key by key (``Qwen3TTSModel._merge_generate_kwargs``).
GENERATION_DEFAULTS: dict[str, Any] = {
    "do_sample": True,
    "temperature": 0.9,
    "top_k": 50,
    "top_p": 1.0,
    "repetition_penalty": 1.05,
    "subtalker_dosample": True,
    "subtalker_temperature": 0.9,
    "subtalker_top_k": 50,
    "subtalker_top_p": 1.0,
    "max_new_tokens": 2048,
}


def read_model_config(
    model_dir: Path, changed: Callable[[dict[str, Any]], dict[str, Any]] = lambda raw: raw
) -> ModelConfig:
    """Read ``model_dir/config.json``, as ``changed`` makes it."""
    raw, where = changed(_read(model_dir)), str(model_dir / "config.json")
    try:
        return _model_config(raw, where)
    except ConfigError:
        with suppress(CheckpointError):  # the weights may say what it is
            weights = Checkpoint.open(model_dir)
            if other := layout_of(weights, weights.metadata):
                raise ConfigError(f"{weights.path} {other}") from None
        raise


def _model_config(raw: dict[str, Any], where: str) -> ModelConfig:
    if "talker_config" not in raw:
        raise ConfigError(
            f"{where} has no talker_config: model_type is {shortened(raw.get('model_type'))}, not 'qwen3_tts'"
        )
    # Only a base model has the encoder; fine-tuned custom-voice models keep its config without its weights.
    if raw.get("tts_model_type") == "base":
        encoder = raw.get("speaker_encoder_config")
        if not isinstance(encoder, dict):
            raise ConfigError(f"{where}: speaker_encoder_config is missing, and a base model needs it")
        raw["speaker_encoder_config"] = {**SPEAKER_ENCODER_DEFAULTS, **encoder}
    else:
        raw["speaker_encoder_config"] = None
    talker = raw["talker_config"]
    if isinstance(talker, dict):
        for part, name in ((talker, "talker_config"), (talker.get("code_predictor_config"), "code_predictor_config")):
            _rope_of_transformers_5(part, f"{where}: {name}")
            _refuse_sliding_layers(part, f"{where}: {name}")
        _small_names(talker)
    return _build(ModelConfig, raw, where)


def _small_names(talker: dict[str, Any]) -> None:
    """Speakers and languages in lower case, as callers may write them in any, except where two would be one then."""
    for table in ("codec_language_id", "spk_id"):
        entries = talker.get(table)
        if isinstance(entries, dict):
            ids: dict[str, list[Any]] = {}
            for name, value in entries.items():
                ids.setdefault(name.lower(), []).append(value)
            kept = {name for name in entries if any(value != entries[name] for value in ids[name.lower()])}
            for names in (table, "spk_is_dialect") if table == "spk_id" else (table,):
                if isinstance(talker.get(names), dict):
                    talker[names] = {name if name in kept else name.lower(): v for name, v in talker[names].items()}


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json`` of a folder as it stands. ConfigError says what the folder holds where there is none."""
    path = folder / "config.json"
    if not path.exists() and folder.is_dir() and (other := files_of(folder)):
        raise MissingFileError(f"{folder} holds no config.json but {other}")
    if not path.exists() and (snapshot := _snapshot_in(folder)):
        raise MissingFileError(f"{folder} is a folder of the hub's cache; give the model by name, or {snapshot}")
    return read_json(path)


def _read(folder: Path) -> dict[str, Any]:
    """The same of weights that this package can read."""
    raw = read_config(folder)
    _refuse_other_quantisation(raw, folder / "config.json")
    return raw


def _snapshot_in(folder: Path) -> Path | None:
    """A checkpoint in ``folder`` as huggingface_hub keeps it."""
    return next((path.parent for path in sorted(folder.glob("snapshots/*/config.json"))), None)


def read_codec_config(codec_dir: Path) -> CodecConfig:
    """Read ``config.json`` of a ``speech_tokenizer`` directory."""
    path = codec_dir / "config.json"
    if codec_dir.name == CODEC_DIR and not codec_dir.exists():
        raise MissingFileError(
            f"{codec_dir} is missing: the folder of the codec, which is the same for all models; copy it from another"
        )
    raw = _read(codec_dir)
    for part in ("encoder_config", "decoder_config"):
        _rope_of_transformers_5(raw.get(part), f"{path}: {part}")
        if isinstance(raw.get(part), dict) and "head_dim" not in raw[part]:  # both official classes derive it
            width, heads = raw[part].get("hidden_size"), raw[part].get("num_attention_heads")
            if isinstance(width, int) and isinstance(heads, int) and heads > 0:
                raw[part]["head_dim"] = width // heads
    return _build(CodecConfig, raw, str(path))


def read_generation_config(model_dir: Path) -> GenerationConfig:
    """Read ``model_dir/generation_config.json``; a missing key, or a missing file, has the official default."""
    path = model_dir / "generation_config.json"
    raw = read_json(path) if os.path.lexists(path) else {}  # a link to nothing is damage
    return _build(GenerationConfig, {**GENERATION_DEFAULTS, **raw}, str(path))


def _build(cls: type[_T], raw: Mapping[str, Any], where: str) -> _T:
    """Pick the fields that ``cls`` declares out of ``raw``; name the first that is absent, ill-typed or unsupported."""
    for key, only in getattr(cls, "FIXED", {}).items():
        if raw.get(key, only) != only:
            raise ConfigError(f"{where}: {key} = {reprlib.repr(raw[key])}, this implementation has {only!r} only")
    _check_rope_scaling(raw.get("rope_scaling"), where)
    hints = get_type_hints(cls)
    values: dict[str, Any] = {}
    for field in fields(cls):  # type: ignore[arg-type]
        if field.name not in raw:
            raise ConfigError(f"{where}: {field.name} is missing")
        values[field.name] = _typed(raw[field.name], hints[field.name], f"{where}: {field.name}")
    try:
        return cls(**values)
    except ConfigError as e:
        raise ConfigError(f"{where}: {e}") from None


def _typed(value: Any, hint: Any, where: str) -> Any:
    """``value`` as ``hint``, as JSON writes it: a float may be an integer, a tuple is a list."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is types.UnionType and type(None) in args:
        return None if value is None else _typed(value, args[0], where)
    if hasattr(hint, "__dataclass_fields__"):
        if isinstance(value, dict):
            return _build(hint, value, where)
    elif origin is tuple:
        if isinstance(value, list) and value and all(_is(v, args[0]) for v in value):
            return tuple(value)
    elif origin is dict:
        if isinstance(value, dict) and all(_is(v, args[1]) for v in value.values()):
            return value
    elif _is(value, hint):
        return float(value) if hint is float else value
    raise ConfigError(f"{where} = {reprlib.repr(value)}, expected {_named(hint)}")


def _is(value: Any, hint: Any) -> bool:
    """Whether a JSON scalar fits ``hint``. Every number in these files is positive or an id, so negatives never fit."""
    if get_origin(hint) is types.UnionType:
        return any(_is(value, part) for part in get_args(hint))
    if hint is int:
        return type(value) is int and 0 <= value <= _MAX_INT
    if hint is float:
        return type(value) in (int, float) and 0 <= value <= sys.float_info.max
    return isinstance(value, hint)


def _named(hint: Any) -> str:
    names = {int: f"an int from 0 to {_MAX_INT}", float: "a finite float, not negative", str: "a str", bool: "a bool"}
    args = get_args(hint)
    if get_origin(hint) is tuple:
        return f"a list, each {names[args[0]]}"
    if get_origin(hint) is dict:
        return f"an object, each value {' or '.join(names[part] for part in get_args(args[1]) or args[1:])}"
    return names.get(hint, "an object")


def _refuse_other_quantisation(raw: Mapping[str, Any], path: Path) -> None:
    """Raises ConfigError for a checkpoint quantised by another program, which says so at the top or in a part."""
    parts = [raw, *(part for part in raw.values() if isinstance(part, dict))]
    for part, key in ((part, key) for part in parts for key in _QUANTISATION):
        if found := part.get(key):
            method = found.get("quant_method") if isinstance(found, dict) else None
            by = method or ("MLX" if key == "quantization" else reprlib.repr(found))
            raise ConfigError(f"{path}: {quantised_by(f'{by} ({key})')}")


def _rope_of_transformers_5(part: Any, where: str) -> None:
    """Move ``rope_parameters``, as transformers 5 saves them, to where earlier versions have ``rope_theta``."""
    parameters = part.get("rope_parameters") if isinstance(part, dict) else None
    if not isinstance(parameters, dict):
        return
    kinds = [kind for kind in parameters.values() if isinstance(kind, dict)]  # one for each type of layer
    if kinds and len(kinds) == len(parameters):
        if any(kind != kinds[0] for kind in kinds):
            raise ConfigError(f"{where}: rope_parameters differ between {' and '.join(parameters)}")
        parameters = kinds[0]
    theta = parameters.get("rope_theta", part.get("rope_theta"))
    if part.get("rope_theta", theta) != theta:
        raise ConfigError(
            f"{where}: rope_theta is {shortened(part['rope_theta'])}, and {shortened(theta)} in rope_parameters"
        )
    if theta is not None:
        part["rope_theta"] = theta
    if "partial_rotary_factor" in parameters:
        part["partial_rotary_factor"] = parameters["partial_rotary_factor"]
    _check_rope_scaling(parameters, where)  # whatever rope_scaling, of earlier versions, says beside it


def _refuse_sliding_layers(part: Any, where: str) -> None:
    """Raises ConfigError where a layer of the talker or the code predictor does not look back on everything."""
    kinds = part.get("layer_types") if isinstance(part, dict) else None
    other = [kind for kind in kinds if kind != "full_attention"] if isinstance(kinds, list) else []
    if other:
        raise ConfigError(
            f"{where}: layer_types has {reprlib.repr(other[0])}, this implementation has 'full_attention' only"
        )


def _check_rope_scaling(scaling: Any, where: str) -> None:
    """The talker's ``mrope_section`` changes nothing for speech, its three position rows being equal; a type would."""
    kind: Any = "default"
    if isinstance(scaling, dict):
        kind = scaling.get("rope_type", scaling.get("type", kind))
    elif scaling is not None:
        kind = scaling
    if kind != "default":
        raise ConfigError(f"{where}: rope_scaling is {reprlib.repr(kind)}, this implementation has 'default' only")
