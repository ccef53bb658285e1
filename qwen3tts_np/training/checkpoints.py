"""Complete checkpoints: a base model with other weights, layers, or voices, as a folder that every reader loads.

What was not trained is copied as it is stored, byte for byte; what was is rounded once, from float32 to the type that
the base has for it. The codec's files, which no training changes, are hard links where the disk has them. A model with
a voice of its own is a custom-voice model, and has no speaker encoder: so the official package loads it without a
missing or an unexpected key.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..checkpoint.adapter import CODEC_EMBEDDING, SPEAKERS, Adapter, added, as_stored, with_rows
from ..checkpoint.config_file import CODEC_DIR, read_model_config
from ..checkpoint.keys import TensorSpec, check
from ..checkpoint.published import CODEC_NAME
from ..checkpoint.quantised import is_quantised
from ..checkpoint.safetensors import Checkpoint
from ..checkpoint.tensor import StoredTensor
from ..checkpoint.writer import write_safetensors
from ..errors import OutputError, RequestError
from ..files.name import fault_of_name, shown_name
from ..files.output import output_folder, replaced_folder, write_text
from ..layout.specs import model_specs
from ..ops import Array
from ..shown import shortened
from .adapters import speaker_config, write_adapter, write_json

FIRST_ROW = 3000  # of the code embedding, where the official script puts the voice; free in every released model
CARD, ADAPTER = "README.md", "adapter"
_NOT_COPIED = ("config.json", CARD, SPEAKERS, "training_state.json", "model.safetensors.index.json")


@dataclass(frozen=True)
class NewCheckpoint:
    """What a checkpoint consists of."""

    base: Path
    config: Mapping[str, Any]  # config.json
    arrays: Mapping[str, Array] = field(default_factory=dict)  # float32, in place of the base's tensors
    adapter: Adapter | None = None  # merged into the others, and kept beside them
    rows: Mapping[int, Array] = field(default_factory=dict)  # of the code embedding
    speakers: Mapping[str, int] = field(default_factory=dict)  # name -> row, of voices that were learned
    card: str | None = None
    codec: Path | None = None  # another folder than the base's speech_tokenizer

    @cached_property
    def stored(self) -> Checkpoint:
        """The base's tensors."""
        return Checkpoint.open(self.base)

    def tensor(self, spec: TensorSpec) -> StoredTensor:
        """One tensor as it is to be stored."""
        found = self._unchanged(spec)
        module = spec.key.removesuffix(".weight")
        if self.adapter is not None and module in self.adapter.additions:
            found = added(found, *self.adapter.additions[module], self.adapter.scale)
        return with_rows(found, self.rows) if module == CODEC_EMBEDDING and self.rows else found

    def dtype(self, spec: TensorSpec) -> str:
        """The type in which a tensor is stored: the base's; that of its matrices where it has none of this name."""
        stored = self.stored.get(spec.key) or self.stored[f"{CODEC_EMBEDDING}.weight"]
        return stored.dtype

    def _unchanged(self, spec: TensorSpec) -> StoredTensor:
        values = self.arrays.get(spec.key)
        return self.stored[spec.key] if values is None else as_stored(spec.key, values, self.dtype(spec))


def write_checkpoint(target: Path, new: NewCheckpoint, *, over: bool = False) -> None:
    """Write ``new`` as the folder ``target``, which is complete or not there. ``over``: in place of one that is there.

    OutputError if it cannot be written, CheckpointError if the parts make no complete model.
    """
    with (replaced_folder if over else output_folder)(target) as folder:
        fill(folder, new)


def fill(folder: Path, new: NewCheckpoint) -> None:
    """The files of a checkpoint, in a folder that is being written."""
    copy_files(new.base, folder)
    copy_codec(new.codec or new.base / CODEC_DIR, folder / CODEC_DIR)
    write_json(folder / "config.json", new.config)
    config = read_model_config(folder)
    width = config.talker_config.hidden_size
    table = [replace(spec, dtype=new.dtype(spec)) for spec in model_specs(config)]

    def values(spec: TensorSpec) -> Iterator[NDArray[Any]]:
        yield new.tensor(spec).data

    write_safetensors(folder / "model.safetensors", table, values, {"format": "pt"})
    if new.speakers:
        write_json(folder / SPEAKERS, speaker_config(new.speakers, width))
    if new.card is not None:
        write_text(folder / CARD, new.card)
    if new.adapter is not None:
        (folder / ADAPTER).mkdir()
        write_adapter(folder / ADAPTER, new.adapter, new.base.name, width)


def is_the_published_codec(name: str) -> bool:
    """Whether ``name`` is that of the codec that every released model has in its folder: nothing is to be fetched."""
    return name.rpartition("/")[2] == CODEC_NAME and not os.path.isdir(name)


def copy_files(base: Path, folder: Path) -> None:
    """The small files of a checkpoint: everything but weights, and what describes them."""
    for path in sorted(base.iterdir()):
        if path.is_file() and path.suffix != ".safetensors" and path.name not in _NOT_COPIED:
            _copy(path, folder / path.name)


def copy_codec(codec: Path, folder: Path) -> None:
    """The codec's folder; its weights as hard links where that is possible."""
    folder.mkdir()
    for path in sorted(codec.iterdir()):
        if path.is_file() and not (path.suffix == ".safetensors" and linked(path, folder / path.name)):
            _copy(path, folder / path.name)


def linked(source: Path, target: Path) -> bool:
    """Make ``target`` a hard link to the file ``source``; False where that cannot be, or it would be write-protected.

    Trap: a link of the hub's cache leads to a file that is shared by everything, and is not to be written to.
    """
    if source.is_symlink() or not os.access(source, os.W_OK):
        return False
    try:
        os.link(source, target)
    except OSError:
        return False
    return True


def link_folder(source: Path, target: Path) -> None:
    """``target`` is what ``source`` is now, in place of what was there; files are hard links, or else copies."""
    with replaced_folder(target) as folder:
        for path in sorted(source.rglob("*")):
            place = folder / path.relative_to(source)
            if path.is_dir():
                place.mkdir()
            elif not linked(path, place):
                _copy(path, place)


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copyfile(source, target)  # without its permissions: a read-only cache is no read-only checkpoint
    except OSError as e:
        raise OutputError(f"{shown_name(source)} cannot be copied: {e.strerror or e}") from None


def check_base(base: Path) -> Checkpoint:
    """The weights that training can begin from. CheckpointError if incomplete, RequestError if they are quantised."""
    checkpoint = Checkpoint.open(base)
    check(checkpoint, model_specs(read_model_config(base)))
    if is_quantised(checkpoint):
        raise RequestError(f"{shown_name(base)} is quantised; training begins from the original checkpoint")
    return checkpoint


# --- voices ---------------------------------------------------------------------------------------


def speaker_rows(raw: Mapping[str, Any], names: Iterable[str]) -> dict[str, int]:
    """A row of the code embedding for every voice, by its name in lower case: its own, where the model has it already.

    The first gets row 3000, as the official script has it, others the highest that nothing uses. RequestError where
    there are not enough, and for names that no voice can have.
    """
    talker = raw["talker_config"]
    known = {name.lower(): row for name, row in (talker.get("spk_id") or {}).items()}
    free = iter(_free_rows(talker))
    found: dict[str, int] = {}
    for name in names:
        lower = speaker_key(name)
        if lower not in found:
            row = known.get(lower)
            found[lower] = next(free, -1) if row is None else row
    if -1 in found.values():
        raise RequestError(f"{len(found)} voices, and the code embedding has no row left for {list(found)[-1]}")
    return found


def speaker_key(name: str) -> str:
    """The name of a voice as it is stored. Trap: the official package lower-cases what it is asked for, and finds no
    other."""
    lower = name.strip().lower()
    if lower in ("", "__metadata__") or fault_of_name(lower):  # a safetensors file has no tensor of the second name
        raise RequestError(f"{shortened(name)} cannot be the name of a voice")
    return lower


def _free_rows(talker: Mapping[str, Any]) -> list[int]:
    """Rows behind the codes that no token of the configuration has: 3000, then from the last one down."""
    used = {value for name, value in talker.items() if name.startswith("codec_") and type(value) is int}
    used |= {*(talker.get("codec_language_id") or {}).values(), *(talker.get("spk_id") or {}).values()}
    codes, rows = talker["code_predictor_config"]["vocab_size"], talker["vocab_size"]
    return [i for i in dict.fromkeys([FIRST_ROW, *reversed(range(codes, rows))]) if codes <= i < rows and i not in used]
