"""What cloning keeps of a reference clip. Official: ``VoiceClonePromptItem`` and the dict form of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import RequestError
from .ops import Array, Ints


@dataclass(frozen=True)
class VoiceClonePromptItem:
    """One reference. Cloning in context (``icl_mode``) continues ``ref_code``; the x-vector alone does not need it."""

    ref_code: Ints | None  # [frames, G]
    ref_spk_embedding: Array  # [H]
    x_vector_only_mode: bool
    icl_mode: bool
    ref_text: str | None = None  # what the reference says, needed in context

    def __post_init__(self) -> None:
        if self.icl_mode and (self.ref_code is None or not self.ref_text):
            missing = "ref_code" if self.ref_code is None else "ref_text"
            raise RequestError(f"{missing} is missing, and cloning in context (icl_mode=True) needs it")


def voice_prompt_items(prompt: Any) -> list[VoiceClonePromptItem]:
    """The items of a ``voice_clone_prompt``: one item, a list of them, or the official dict of lists.

    The official package cannot use its own dict in context, since that lacks the transcripts; here the dict may
    bring them as ``ref_text``.
    """
    if isinstance(prompt, VoiceClonePromptItem):
        return [prompt]
    if isinstance(prompt, Mapping):
        return _items_of_dict(prompt)
    if isinstance(prompt, Sequence) and prompt and all(isinstance(item, VoiceClonePromptItem) for item in prompt):
        return list(prompt)
    raise RequestError(
        f"voice_clone_prompt is {type(prompt).__name__}; expected what create_voice_clone_prompt returns, "
        "or a dict of lists with ref_spk_embedding, ref_code, x_vector_only_mode, icl_mode and ref_text"
    )


def _items_of_dict(prompt: Mapping[str, Any]) -> list[VoiceClonePromptItem]:
    embeddings = prompt.get("ref_spk_embedding")
    if not isinstance(embeddings, Sequence) or not embeddings:
        raise RequestError("voice_clone_prompt needs 'ref_spk_embedding', a list with one embedding for each item")
    columns: dict[str, Sequence[Any]] = {}
    for key, absent in (("ref_code", None), ("x_vector_only_mode", False), ("icl_mode", False), ("ref_text", None)):
        column = prompt.get(key)
        columns[key] = [absent] * len(embeddings) if column is None else column
        if len(columns[key]) != len(embeddings):
            raise RequestError(f"voice_clone_prompt has {len(embeddings)} embeddings and {len(columns[key])} {key}")
    return [
        VoiceClonePromptItem(
            ref_code=None if columns["ref_code"][i] is None else np.asarray(columns["ref_code"][i], dtype=np.int64),
            ref_spk_embedding=np.asarray(embedding),
            x_vector_only_mode=bool(columns["x_vector_only_mode"][i]),
            icl_mode=bool(columns["icl_mode"][i]),
            ref_text=columns["ref_text"][i],
        )
        for i, embedding in enumerate(embeddings)
    ]
