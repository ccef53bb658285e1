"""Settings under the names that other training pipelines give them, in files of ``NAME=value`` lines (``.env``).

Every name is honoured, named once as without effect, or, where it speaks of GPUs alone, passed over in silence. Names
of data sets are those of ``train prepare``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ..errors import RequestError
from ..files.input import read_text
from ..files.name import shown_name
from ..notices import notify
from ..shown import shortened
from .settings import KINDS, MOST_CONFIG, TrainingSettings, read_toml

FIELD_OF = {name: spec.name for spec in fields(TrainingSettings) for name in spec.metadata["env"]}
"""``.env`` name -> setting."""

SWITCHES = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
SILENT = re.compile("CUDA_VISIBLE_DEVICES|NCCL_.*")
TOKEN = "HF_TOKEN"
PREPARED = {"DATASET_NAME": "dataset", "TRAIN_SPLIT": "split", "VALIDATION_SPLIT": "validation_split"}
"""Names that say what ``train prepare`` is to read."""

WITHOUT_EFFECT: dict[str, str] = {
    "NUM_WORKERS": "rows are read by the process that trains",
    "FREEZE_SPEAKER_ENCODER": "the speaker encoder is never trained, as in the official script",
}
_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)")
_VALUE = re.compile(r"""'([^']*)'\s*(?:\#.*)?|"([^"]*)"\s*(?:\#.*)?|(.*?)(?:\s+\#.*)?""")


@dataclass(frozen=True)
class Given:
    """What a file of settings says."""

    values: Mapping[str, Any]  # settings by the names of TrainingSettings
    preparation: Mapping[str, str] = field(default_factory=dict)  # of ``train prepare``: by the values of PREPARED
    token: str | None = field(default=None, repr=False)  # of the hub; kept apart, so that nothing ever writes it


def read_settings(path: Path) -> Given:
    """A file of settings: TOML by its suffix, any other as ``.env``. RequestError names what is wrong in it."""
    return Given(read_toml(path)) if path.suffix.lower() == ".toml" else from_environment(read_env(path), path)


def read_env(path: Path) -> dict[str, str]:
    """``NAME=value`` lines, with ``export``, quotes, blank lines and ``#`` comments as shells and dotenv have them."""
    found = {}
    for number, line in enumerate(read_text(path, MOST_CONFIG).splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        parts = _LINE.fullmatch(line.strip())
        if parts is None:
            raise RequestError(f"{shown_name(path)}:{number}: {shortened(line.strip())} is not NAME=value")
        value = _VALUE.fullmatch(parts[2])
        found[parts[1]] = "" if value is None else next(text for text in value.groups() if text is not None)
    return found


def from_environment(names: Mapping[str, str], source: Path) -> Given:
    """Settings under their ``.env`` names. An empty value is not given; an unknown name is ignored, and said once."""
    given = {name: value for name, value in names.items() if value}
    values: dict[str, Any] = {}
    by: dict[str, str] = {}
    for name, value in given.items():
        if name in FIELD_OF:
            setting = FIELD_OF[name]
            known = _typed(name, value, KINDS[setting])
            if setting in values and values[setting] != known:
                raise RequestError(f"{shown_name(source)}: {by[setting]} and {name} are one setting, and differ")
            values[setting], by[setting] = known, name
        elif name in SPECIAL:
            values |= SPECIAL[name](value)
        elif name in WITHOUT_EFFECT:
            notify(f"{name} has no effect here: {WITHOUT_EFFECT[name]}")
        elif name not in PREPARED and name != TOKEN and not SILENT.fullmatch(name):
            notify(f"{shown_name(source)}: {shortened(name)} is no setting of training, so it is ignored")
    preparation = {PREPARED[name]: value for name, value in given.items() if name in PREPARED}
    return Given(values, preparation, given.get(TOKEN))


def _typed(name: str, value: str, kind: type) -> Any:
    if kind is bool:
        if value.lower() not in SWITCHES:
            raise RequestError(f"{name}={shortened(value)} must be true or false")
        return SWITCHES[value.lower()]
    try:
        return kind(value)
    except ValueError:
        words = "a whole number" if kind is int else "a number"
        raise RequestError(f"{name}={shortened(value)} must be {words}") from None


def _device(value: str) -> dict[str, Any]:
    if value.lower() != "cpu":
        notify(f"DEVICE={shortened(value)}: training runs on the CPU here")
    return {}


def _precision(value: str) -> dict[str, Any]:
    known = {"bf16": {"frozen": "bfloat16"}, "no": {"frozen": "float32"}, "fp16": {"frozen": "bfloat16"}}
    if value.lower() not in known:
        raise RequestError(f"MIXED_PRECISION={shortened(value)} is none of {', '.join(known)}")
    if value.lower() == "fp16":
        notify("MIXED_PRECISION=fp16: frozen weights are held in bfloat16 here, and trained ones in float32")
    return known[value.lower()]


def _data_mode(value: str) -> dict[str, Any]:
    """jsonl and none: rows are prepared before, as all rows are here; direct: the hub's are streamed into training."""
    if value.lower() == "direct":
        notify("DATA_MODE='direct' has no effect here: codes are made once, by 'train prepare', and not in every epoch")
    elif value.lower() not in ("jsonl", "none"):
        raise RequestError(f"DATA_MODE={shortened(value)} is none of jsonl, direct, none")
    return {}


SPECIAL: dict[str, Callable[[str], dict[str, Any]]] = {
    "DATA_MODE": _data_mode,
    "DEVICE": _device,
    "MIXED_PRECISION": _precision,
}
"""Names whose values mean something else here."""
