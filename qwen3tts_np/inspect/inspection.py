"""Everything that ``qwen3tts-np inspect`` reports about a checkpoint, as data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..checkpoint.config_file import CODEC_DIR, read_codec_config, read_config, read_model_config
from ..checkpoint.keys import TensorSpec, problems
from ..checkpoint.safetensors import Checkpoint
from ..config import CodecConfig, ModelConfig
from ..errors import QwenTTSError
from ..layout.description import WeightsSummary, mismatches, packed_summaries
from ..layout.specs import codec_specs, model_specs
from .architecture import WHENS, Block, Cost, tree
from .caches import AttentionCost, attention_costs
from .components import Component, components
from .receptive import Field, decoder_fields, encoder_fields

_T = TypeVar("_T")
SPEECH_FRAME_RATE = 12.5  # Hz, for a checkpoint without a codec


@dataclass(frozen=True)
class KeyCheck:
    """One file checked against its key table."""

    file: str
    tensors: int  # in the table
    problems: list[str] | None  # None: the file is missing, and sizes are those of the table


@dataclass(frozen=True)
class Inspection:
    """A checkpoint directory, a ``speech_tokenizer`` alone (``config`` is None) or a model without one."""

    directory: str
    config: ModelConfig | None
    codec: CodecConfig | None
    checks: list[KeyCheck]
    packed: list[WeightsSummary]  # files that speech reads in place of official weights, in the order of the kernels
    problems: list[str]  # that do not concern a single file
    blocks: list[Block]  # one tree per network
    context: float  # seconds of speech for the cost of attention
    attention: list[AttentionCost]
    decoder_fields: list[Field]
    encoder_fields: list[Field]

    @property
    def frame_rate(self) -> float:
        """Frames of codes per second."""
        return frame_rate(self.codec)

    def total(self, when: str) -> Cost:
        """Total of all networks, per frame or per text token."""
        return sum((block.cost[when] for block in self.blocks if when in block.cost), Cost())

    def ok(self) -> bool:
        return not self.problems and not any(check.problems for check in self.checks)


def frame_rate(codec: CodecConfig | None) -> float:
    return SPEECH_FRAME_RATE if codec is None else codec.frame_rate


def inspect_checkpoint(directory: Path, context: float) -> Inspection:
    """Inspect ``directory``; of the weights only the headers are read, and they may be missing.

    ``context``: seconds of speech before the frame whose attention is counted. Raises ConfigError if no config.json can
    be read.
    """
    if read_config(directory).get("model_type") == CodecConfig.FIXED["model_type"]:
        config, codec_dir = None, directory
        codec: CodecConfig | None = read_codec_config(directory)
    else:
        config, codec_dir = read_model_config(directory), directory / CODEC_DIR
        codec = read_codec_config(codec_dir) if (codec_dir / "config.json").exists() else None
    found: list[str] = []
    checks: list[KeyCheck] = []
    stored: dict[str, Checkpoint | None] = {}
    if config is not None:
        stored["model"] = _check(directory, directory, model_specs(config), checks, found)
    if codec is not None:
        stored["codec"] = _check(directory, codec_dir, codec_specs(codec), checks, found)
    elif config is not None:
        found.append(f"{CODEC_DIR}/config.json is missing: what follows is without the codec")
    if config is not None and codec is not None:
        found += mismatches(config, codec)
    packed = packed_summaries(directory, found)
    return inspect_configs(config, codec, context, str(directory), checks, found, stored, packed)


def inspect_configs(
    config: ModelConfig | None,
    codec: CodecConfig | None,
    context: float,
    name: str,
    checks: Iterable[KeyCheck] = (),
    found: Iterable[str] = (),
    stored: dict[str, Checkpoint | None] | None = None,
    packed: Iterable[WeightsSummary] = (),
) -> Inspection:
    """The same from configurations alone."""

    def file_of(c: Component) -> Checkpoint | None:
        return (stored or {}).get("codec" if c.name.startswith("codec") else "model")

    rate = frame_rate(codec)
    return Inspection(
        directory=name,
        config=config,
        codec=codec,
        checks=list(checks),
        packed=list(packed),
        problems=list(found),
        blocks=[tree(c, file_of(c)) for c in components(config, codec)],
        context=context,
        attention=list(attention_costs(config, codec, max(round(context * rate), 1), rate)),
        decoder_fields=[] if codec is None else decoder_fields(codec),
        encoder_fields=[] if codec is None else encoder_fields(codec),
    )


def _check(
    root: Path, folder: Path, wanted: Iterable[TensorSpec], checks: list[KeyCheck], found: list[str]
) -> Checkpoint | None:
    """Check the file in ``folder`` against its table; also returns the opened file, if there is one."""
    table = list(wanted)
    inside = "" if folder == root else f"{folder.name}/"
    if not any(folder.glob("*.safetensors*")):
        checks.append(KeyCheck(f"{inside}model.safetensors", len(table), None))
        return None
    checkpoint = _attempt(lambda: Checkpoint.open(folder), found)
    if checkpoint is not None:
        checks.append(KeyCheck(inside + checkpoint.path.name, len(table), problems(checkpoint, table)))
    return checkpoint


def _attempt(read: Callable[[], _T], found: list[str]) -> _T | None:
    try:
        return read()
    except QwenTTSError as e:
        found.append(str(e))
        return None


def as_json(i: Inspection) -> dict[str, Any]:
    """As JSON, per second of speech as well as per frame."""
    per_frame = {when: i.total(when) for when in WHENS}
    return {
        "directory": i.directory,
        "frame_rate_hz": i.frame_rate,
        "key_tables": [dataclasses.asdict(check) for check in i.checks],
        "packed": [{"file": one.file, "dtypes": one.dtypes, "bytes": one.data_bytes} for one in i.packed],
        "problems": i.problems,
        "totals": {when: dataclasses.asdict(cost) for when, cost in per_frame.items()},
        "a_second_of_speech": {
            name: value * i.frame_rate for name, value in dataclasses.asdict(per_frame["frame"]).items()
        },
        "blocks": [_block_json(block, i) for block in i.blocks],
        "context_seconds": i.context,
        "attention": [dataclasses.asdict(cost) for cost in i.attention],
        "receptive_fields": {
            "decoder": [_field_json(f) for f in i.decoder_fields],
            "encoder": [_field_json(f) for f in i.encoder_fields],
        },
    }


def share_of_reads(block: Block, i: Inspection) -> float:
    """Share of the weight bytes read per frame of speech, from 0 to 1."""
    return block.cost.get("frame", Cost()).bytes_read / (i.total("frame").bytes_read or 1)


def _block_json(block: Block, i: Inspection) -> dict[str, Any]:
    return {
        "name": block.path,
        "official_class": block.official or None,
        "count": block.count,
        "shape": block.shape,
        "dtype": block.dtype or None,
        "parameters": block.parameters,
        "bytes": block.bytes,
        "share_of_reads": share_of_reads(block, i),
        "cost": {when: dataclasses.asdict(cost) for when, cost in block.cost.items()},
        "blocks": [_block_json(child, i) for child in block.children],
    }


def _field_json(f: Field) -> dict[str, Any]:
    return {**dataclasses.asdict(f.layer), "rate_hz": f.rate, "steps": f.steps, "seconds": f.seconds}
