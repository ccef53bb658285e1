"""The cloned voice of a reference clip, in memory and as a file. Official: ``VoiceClonePromptItem``, its dict form.

A voice file is a safetensors file: ``ref_spk_embedding`` [H] and, in context, ``ref_code`` [frames, G]; the other
fields of the item, the fingerprint of the model and a checksum are in its metadata. No path and no machine is named.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arguments import codes_of, path_of, require_text, require_type, switch, vector_of
from ..checkpoint.json_file import parse_json
from ..checkpoint.keys import TensorSpec
from ..checkpoint.safetensors import Checkpoint
from ..checkpoint.writer import write_safetensors
from ..errors import CheckpointError, RequestError, RequestTypeError
from ..notices import notify
from ..ops import Array, Ints
from ..shown import shortened
from .file_kind import TORCH, kind_of
from .spk import Parts, is_spk, read_spk, write_spk
from .torch_file import read_torch_items

FORMAT, VERSION = "qwen3tts-np voice", "1"
SIZES = {"0b6": "0.6B", "1b7": "1.7B"}
_STORED = {"float32": "F32", "float64": "F64", "int64": "I64"}  # NumPy type -> safetensors type


@dataclass(frozen=True)
class Fingerprint:
    """The parts of a model that give a voice its meaning. Sizes are those of the arrays."""

    model_size: str  # tts_model_size
    speaker_encoder: str  # digest of the weights that made the embedding
    codebooks: str  # digest of the codebooks that the codes point into


@dataclass(frozen=True)
class VoiceClonePromptItem:
    """One reference. Cloning in context (``icl_mode``) continues ``ref_code``; the x-vector alone does not need it.

    ``save`` and ``load`` keep it as a file, which ``generate_voice_clone(voice_clone_prompt=PATH)`` takes as well.
    """

    ref_code: Ints | None  # [frames, G]
    ref_spk_embedding: Array  # [H]
    x_vector_only_mode: bool
    icl_mode: bool
    ref_text: str | None = None  # what the reference says, needed in context
    fingerprint: Fingerprint | None = None  # None: not known
    description: str = ""  # of a designed voice, what was asked for

    def __post_init__(self) -> None:
        object.__setattr__(self, "ref_spk_embedding", vector_of(self.ref_spk_embedding, "ref_spk_embedding"))
        if self.ref_code is not None:
            object.__setattr__(self, "ref_code", codes_of(self.ref_code, "the codes (ref_code)"))
        for name in ("x_vector_only_mode", "icl_mode"):
            object.__setattr__(self, name, switch(getattr(self, name), name))
        if self.ref_text is not None:
            require_text(self.ref_text, "ref_text")
        if self.fingerprint is not None:
            require_type(self.fingerprint, Fingerprint, "fingerprint")
        require_text(self.description, "description")
        if self.icl_mode and (self.ref_code is None or not self.ref_text):
            missing = "ref_code" if self.ref_code is None else "ref_text"
            raise RequestError(f"{missing} is missing, and cloning in context (icl_mode=True) needs it")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the voice as one file, complete or not at all. RequestError where that cannot be done.

        With the suffix .spk it has the form of qwentts.cpp (``spk.py``), in up to three files.
        """
        if is_spk(file := path_of(path, "the file of the voice")):
            in_context = (self.ref_code, self.ref_text) if self.icl_mode else (None, None)
            write_spk(file, Parts(self.ref_spk_embedding, *in_context))
            return
        arrays = _arrays_of(self)
        specs = [TensorSpec(name, a.shape, "", _STORED[a.dtype.name]) for name, a in arrays.items()]
        metadata = _metadata_of(self)
        metadata["sha256"] = checksum(metadata, arrays)
        write_safetensors(file, specs, lambda spec: [arrays[spec.key]], metadata)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> VoiceClonePromptItem:
        """Read what :meth:`save` wrote, the official demo (.pt), or qwentts.cpp (.spk). CheckpointError for a file that
        is damaged, or is not a voice."""
        file = path_of(path, "the file of the voice")
        if is_spk(file):
            embedding, codes, text = read_spk(file)
            return cls(codes, embedding, codes is None, codes is not None, text)
        kind = kind_of(file)
        if kind == TORCH:
            (item,) = _items_of_torch(file, most=1)
            return item
        if kind is not None:
            raise CheckpointError(f"{file} is {kind}")
        stored = Checkpoint.open(file)
        metadata = dict(stored.metadata)
        if not is_voice(metadata):
            raise CheckpointError(f"{file} holds no voice; 'qwen3tts-np voice create' makes one of a clip")
        if metadata.get("version") != VERSION:
            version = shortened(metadata.get("version"))
            raise CheckpointError(
                f"{file} is a voice of format {version}, this program reads format {VERSION!r}; update qwen3tts-np"
            )
        arrays = {name: np.array(tensor.data) for name, tensor in stored.items()}  # copies: the file may go
        if metadata.pop("sha256", None) != checksum(metadata, arrays):
            raise CheckpointError(f"{file} is damaged: what it holds does not have the checksum written in it")
        try:
            return _item_of_file(metadata, arrays)
        except (KeyError, TypeError, ValueError, RequestError) as e:
            raise CheckpointError(f"{file} is not a complete voice: {e}") from None


def is_voice(metadata: Mapping[str, str]) -> bool:
    """Whether the metadata of a safetensors file says that it is a voice, of whatever version."""
    return metadata.get("format") == FORMAT


def check_fits(
    item: VoiceClonePromptItem, model: Callable[[], Fingerprint], width: int, groups: int, codebook_size: int
) -> None:
    """RequestError where a model of these sizes cannot use ``item``, a warning where it can but was not meant to.

    Sizes that differ are an error. Weights that differ are not: models fine-tuned from one base share the meaning of
    embeddings and codes well enough, and only listening can decide.
    """
    if item.ref_spk_embedding.shape != (width,):
        shape = list(item.ref_spk_embedding.shape)
        raise RequestError(f"the voice{_of(item)} has an embedding of shape {shape}, this model needs [{width}]{_CURE}")
    if item.fingerprint is not None and item.fingerprint.speaker_encoder != model().speaker_encoder:
        notify("the voice was made with other weights of the speaker encoder than this model's")
    if not item.icl_mode:
        return
    assert item.ref_code is not None
    if item.ref_code.ndim != 2 or item.ref_code.shape[1] != groups:
        shape = list(item.ref_code.shape)
        raise RequestError(f"the voice{_of(item)} has codes of shape {shape}, this model needs [frames, {groups}]")
    if item.ref_code.size and not 0 <= item.ref_code.min() <= item.ref_code.max() < codebook_size:
        raise RequestError(
            f"the voice{_of(item)} has codes from {item.ref_code.min()} to {item.ref_code.max()}, "
            f"this model knows those from 0 to {codebook_size - 1}"
        )
    if item.fingerprint is not None and item.fingerprint.codebooks != model().codebooks:
        notify("the voice was made with other codebooks than this model's: expect another voice")


def digest(part: Any, dtype: type[np.floating[Any]]) -> str:
    """SHA-256 of an array, of all arrays in a weights class, or in a tuple of them, each rounded to ``dtype``.

    Rounding makes the digest independent of the type in which the arrays are stored and computed.
    """
    total = hashlib.sha256()
    for array in _leaves(part):
        total.update(np.ascontiguousarray(array, dtype).tobytes())
    return total.hexdigest()


def voice_prompt_items(prompt: Any) -> list[VoiceClonePromptItem]:
    """The items of a ``voice_clone_prompt``: one item or the path of one, a list of them, the official dict of lists.

    The official package cannot use its own dict in context, since that lacks the transcripts; here the dict may
    bring them as ``ref_text``.
    """
    if isinstance(prompt, VoiceClonePromptItem):
        return [prompt]
    if isinstance(prompt, str | os.PathLike):
        if kind_of(path_of(prompt, "voice_clone_prompt")) == TORCH:
            return _items_of_torch(Path(prompt))
        return [VoiceClonePromptItem.load(prompt)]
    if isinstance(prompt, Mapping):
        return _items_of_dict(prompt)
    if isinstance(prompt, Sequence) and prompt and all(isinstance(item, _ITEM) for item in prompt):
        return [item for part in prompt for item in voice_prompt_items(part)]
    raise RequestTypeError(
        f"voice_clone_prompt is {type(prompt).__name__}; expected what create_voice_clone_prompt returns, "
        "the path of a saved voice, or a dict of lists with ref_spk_embedding, ref_code, x_vector_only_mode, icl_mode "
        "and ref_text"
    )


_ITEM = (VoiceClonePromptItem, str, os.PathLike)
_FIELDS = ("ref_code", "ref_spk_embedding", "x_vector_only_mode", "icl_mode", "ref_text")
_CURE = "; make the voice again from its clip, with this model"


def _items_of_dict(prompt: Mapping[str, Any]) -> list[VoiceClonePromptItem]:
    embeddings = prompt.get("ref_spk_embedding")
    if not isinstance(embeddings, list | tuple) or not embeddings:
        raise RequestError("voice_clone_prompt needs 'ref_spk_embedding', a list with one embedding for each item")
    columns: dict[str, Sequence[Any]] = {}
    for key, absent in (("ref_code", None), ("x_vector_only_mode", False), ("icl_mode", False), ("ref_text", None)):
        column = prompt.get(key)
        columns[key] = [absent] * len(embeddings) if column is None else column
        if not isinstance(columns[key], list | tuple):
            raise RequestTypeError(f"{key} of voice_clone_prompt is {type(column).__name__}, expected a list")
        if len(columns[key]) != len(embeddings):
            raise RequestError(f"voice_clone_prompt has {len(embeddings)} embeddings and {len(columns[key])} {key}")
    return [
        VoiceClonePromptItem(
            ref_code=columns["ref_code"][i],
            ref_spk_embedding=embedding,
            x_vector_only_mode=columns["x_vector_only_mode"][i],
            icl_mode=columns["icl_mode"][i],
            ref_text=columns["ref_text"][i],
        )
        for i, embedding in enumerate(embeddings)
    ]


def _items_of_torch(file: Path, most: int | None = None) -> list[VoiceClonePromptItem]:
    found = read_torch_items(file)
    if most is not None and len(found) > most:
        raise CheckpointError(f"{file} holds {len(found)} voices; load it in Python, and save() each on its own")
    try:
        return _items_of_dict({name: [item.get(name) for item in found] for name in _FIELDS})
    except (TypeError, ValueError) as e:
        raise CheckpointError(f"{file} is not a complete voice: {e}") from None


def _of(item: VoiceClonePromptItem) -> str:
    """ " of a SIZE model" where the model is known, for error messages."""
    if item.fingerprint is None:
        return ""
    return f" of a {SIZES.get(item.fingerprint.model_size, item.fingerprint.model_size)} model"


def _leaves(part: Any) -> Iterator[Array]:
    """The arrays below ``part``, in the order of its table."""
    if isinstance(part, np.ndarray):
        yield part
    elif isinstance(part, tuple):
        for member in part:
            yield from _leaves(member)
    elif is_dataclass(part):
        for f in fields(part):
            yield from _leaves(getattr(part, f.name))


# --- the file -------------------------------------------------------------------------------------


def _arrays_of(item: VoiceClonePromptItem) -> dict[str, NDArray[Any]]:
    """The tensors of the file, in types that it can hold without loss."""
    embedding = np.asarray(item.ref_spk_embedding)
    if embedding.dtype.name not in ("float32", "float64"):
        embedding = embedding.astype(np.float32)
    arrays: dict[str, NDArray[Any]] = {"ref_spk_embedding": embedding}
    if item.ref_code is not None:
        arrays["ref_code"] = np.asarray(item.ref_code, dtype=np.int64)
    return arrays


def _metadata_of(item: VoiceClonePromptItem) -> dict[str, str]:
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "icl_mode": json.dumps(item.icl_mode),
        "x_vector_only_mode": json.dumps(item.x_vector_only_mode),
        "ref_text": item.ref_text,
        "description": item.description or None,
    }
    if item.fingerprint is not None:
        metadata |= {f.name: getattr(item.fingerprint, f.name) for f in fields(Fingerprint)}
    return {name: value for name, value in metadata.items() if value is not None}


def checksum(metadata: Mapping[str, str], arrays: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 of everything in the file but itself: names, types, shapes and values."""
    shapes = {name: [array.dtype.name, *array.shape] for name, array in arrays.items()}
    total = hashlib.sha256(json.dumps([metadata, shapes], sort_keys=True).encode())
    for name in sorted(arrays):
        total.update(arrays[name].astype(arrays[name].dtype.newbyteorder("<")).tobytes())
    return total.hexdigest()


def _item_of_file(metadata: Mapping[str, str], arrays: Mapping[str, NDArray[Any]]) -> VoiceClonePromptItem:
    """The item in a file whose checksum is correct. KeyError, ValueError or RequestError if it is not a voice."""
    embedding, codes = arrays["ref_spk_embedding"], arrays.get("ref_code")
    if embedding.ndim != 1 or not np.isfinite(embedding).all():
        raise ValueError(f"ref_spk_embedding {list(embedding.shape)} is not one finite vector")
    if codes is not None and (codes.ndim != 2 or codes.dtype.kind != "i"):
        raise ValueError(f"ref_code is {codes.dtype} {list(codes.shape)}, expected integers [frames, codes]")
    names = [f.name for f in fields(Fingerprint)]
    known = all(name in metadata for name in names)
    return VoiceClonePromptItem(
        ref_code=codes,
        ref_spk_embedding=embedding,
        x_vector_only_mode=parse_json(metadata["x_vector_only_mode"]),
        icl_mode=parse_json(metadata["icl_mode"]),
        ref_text=metadata.get("ref_text"),
        fingerprint=Fingerprint(**{name: metadata[name] for name in names}) if known else None,
        description=metadata.get("description", ""),
    )
