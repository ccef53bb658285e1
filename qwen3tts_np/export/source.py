"""What every export begins with: the checkpoint, the chosen pieces and lengths, and the files that go with a graph."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..checkpoint.config_file import read_codec_config, read_model_config
from ..checkpoint.keys import check
from ..checkpoint.safetensors import Checkpoint
from ..errors import OutputError, RequestError
from ..files.input import read_bytes
from ..files.name import shown_name
from ..files.output import write_bytes
from ..layout.specs import codec_specs, model_specs
from ..shown import shortened
from ..speaker.encoder import shortest_clip
from ..text.tokenizer import Tokenizer
from .pieces import PIECES, Network
from .target import LENGTHS

CODEC = "speech_tokenizer"
COMPANIONS = ("config.json", "generation_config.json", f"{CODEC}/config.json")


def network_of(source: Path) -> Network:
    """Open a checkpoint. Raises CheckpointError or ConfigError unless it is complete."""
    config, codec_config = read_model_config(source), read_codec_config(source / CODEC)
    model, codec = Checkpoint.open(source), Checkpoint.open(source / CODEC)
    check(model, model_specs(config))
    check(codec, codec_specs(codec_config))
    return Network(config, codec_config, model, codec)


def pieces_of(network: Network, only: Sequence[str]) -> list[str]:
    """The names of the chosen pieces, in their order; all that there are without a choice."""
    for name in only:
        if name not in PIECES:
            raise RequestError(f"piece {shortened(name)} is none of {', '.join(PIECES)}")
        if not PIECES[name].there(network):
            raise RequestError(f"a {network.config.tts_model_type} model has no {name}")
    return [name for name, piece in PIECES.items() if (name in only if only else piece.there(network))]


def fixed_lengths(given: Mapping[str, int] | None) -> dict[str, int] | None:
    """All lengths as numbers, and the one position of a step; None where they stay symbolic."""
    if given is None:
        return None
    for name, number in given.items():
        if name not in LENGTHS:
            raise RequestError(f"length {shortened(name)} is none of {', '.join(LENGTHS)}")
        if number < 1:
            raise RequestError(f"length {name}={number} must be at least 1")
    fixed = {**{name: number for name, (number, _) in LENGTHS.items()}, **given}
    if given.get("prompt", 1) > fixed["places"]:
        raise RequestError(f"length prompt={fixed['prompt']} must be at most places={fixed['places']}")
    return {**fixed, "prompt": min(fixed["prompt"], fixed["places"]), "positions": 1}


def check_lengths(given: Mapping[str, int] | None, network: Network, pieces: Sequence[str]) -> None:
    """RequestError for lengths that no call of these pieces can have."""
    most = network.config.talker_config.max_position_embeddings  # of a prompt and its frames together
    for name in ("places", "tokens", "frames"):
        if (number := (given or {}).get(name, 1)) > most:
            raise RequestError(f"length {name}={number} must be at most {most}, the positions of the model")
    least = shortest_clip(network.speaker) if network.speaker is not None and "speaker_encoder" in pieces else 1
    if (number := (given or {}).get("samples", least)) < least:
        raise RequestError(f"length samples={number} must be at least {least}, which the speaker encoder needs")


def companions(source: Path) -> dict[str, bytes]:
    """The files that go with the graphs of a checkpoint: the configurations, and the tokenizer as one file."""
    found = {name: read_bytes(source / name) for name in COMPANIONS}
    return {**found, "tokenizer.json": Tokenizer.from_directory(source).to_json().encode()}


def check_companions(files: Mapping[str, bytes], source: Path, target: Path) -> None:
    """OutputError where ``target`` is the checkpoint itself, or holds a file of one of these names with other content:
    it is somebody else's."""
    if os.path.isdir(target) and os.path.samefile(target, source):
        raise OutputError(f"{shown_name(target)} is the checkpoint itself; name another folder")
    for name, content in files.items():
        if os.path.lexists(target / name) and read_bytes(target / name) != content:
            raise OutputError(f"{shown_name(target / name)} exists and belongs to something else; name another folder")


def write_companions(files: Mapping[str, bytes], target: Path) -> None:
    """Write the files that are not there yet."""
    try:
        (target / CODEC).mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise OutputError(f"{shown_name(target)} cannot be made: {e.strerror or e}") from None
    for name, content in files.items():
        if not (target / name).exists():
            write_bytes(target / name, content)
